"""The blocks that are in memory, by the pieces of memory in which they lie.

Owns what goes first when memory is short. Knows nothing of budgets, disk or network.

*Why pieces.* The blocks of one answer are slices of one piece of memory, which is freed when the
last of them goes: dropping single blocks would free nothing, and counting them would count wrong.
So the blocks of a piece are used, counted and dropped together, and a read that lies in one is a
slice of it.

*What goes first.* What was read, least recently used first: the kernel keeps that too. Only then
what was read ahead and is still to be read, or each reader would push out what the next one wants.

*Threading.* None: the store that owns it holds a lock.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby

from mlhubfs.content.blocks import BLOCK

STALE_SECONDS = 10.0
"""What was read ahead so long ago and not read since is taken for abandoned."""

Blocks = dict[int, memoryview]


@dataclass(eq=False)
class _Piece:
    first: int
    memory: memoryview
    since: float
    is_unread: bool
    blocks: set[tuple[str, int]]
    """Those of which there is no later copy."""

    @property
    def size(self) -> int:
        return self.memory.nbytes


class Buffers:
    """Blocks by (key, number).

    `bytes` is what they take, `unread` what of that was read ahead and not used yet.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes = 0
        self.unread = 0
        self._clock = clock
        self._pieces: dict[tuple[str, int], _Piece] = {}
        self._used: OrderedDict[_Piece, None] = OrderedDict()
        self._ahead: OrderedDict[_Piece, None] = OrderedDict()

    def __contains__(self, block: tuple[str, int]) -> bool:
        return block in self._pieces

    def use(self, key: str, number: int) -> memoryview | None:
        """Return a block, if it is here, and let its piece go last."""
        piece = self._pieces.get((key, number))
        if piece is None:
            return None
        self._touch(piece)
        start = (number - piece.first) * BLOCK
        return piece.memory[start : start + BLOCK]

    def use_bytes(self, key: str, start: int, stop: int) -> memoryview | None:
        """Return the bytes [start, stop) without a copy, if one piece holds them."""
        piece = self._pieces.get((key, start // BLOCK))
        if piece is None or stop > piece.first * BLOCK + piece.size:
            return None
        self._touch(piece)
        return piece.memory[start - piece.first * BLOCK : stop - piece.first * BLOCK]

    def add(self, key: str, blocks: Blocks, *, is_ahead: bool = False) -> None:
        """Hold blocks; `is_ahead` says that nobody has asked for them yet."""
        for _, group in groupby(blocks.items(), lambda item: id(item[1].obj)):
            slices = dict(group)
            memory = memoryview(next(iter(slices.values())).obj)
            if memory.nbytes == sum(map(len, slices.values())):
                self._add(key, slices.keys(), memory, is_ahead=is_ahead)
            else:  # gaps, which must not be served: what is around them is taken out
                for number, block in slices.items():
                    self._add(key, [number], memoryview(bytes(block)), is_ahead=is_ahead)

    def _add(
        self, key: str, numbers: Collection[int], memory: memoryview, *, is_ahead: bool
    ) -> None:
        blocks = {(key, number) for number in numbers}
        piece = _Piece(min(numbers), memory, self._clock(), is_ahead, blocks)
        for block in blocks:
            self._forget(block)
        self._pieces |= dict.fromkeys(blocks, piece)
        (self._ahead if is_ahead else self._used)[piece] = None
        self.bytes += piece.size
        self.unread += piece.size * is_ahead

    def shrink(self, limit: int) -> None:
        """Drop pieces until at most `limit` bytes are held."""
        while self.bytes > max(limit, 0):
            self._drop(next(iter(self._used or self._ahead)))

    def drop_stale(self) -> None:
        """Drop what was read ahead for a reader that does not come any more."""
        before = self._clock() - STALE_SECONDS
        while self._ahead and (piece := next(iter(self._ahead))).since < before:
            self._drop(piece)

    def _touch(self, piece: _Piece) -> None:
        if piece.is_unread:
            piece.is_unread = False
            self.unread -= piece.size
            del self._ahead[piece]
            self._used[piece] = None
        else:
            self._used.move_to_end(piece)

    def _forget(self, block: tuple[str, int]) -> None:
        """Let go of an older copy of a block."""
        piece = self._pieces.pop(block, None)
        if piece:
            piece.blocks.remove(block)
            if not piece.blocks:
                self._drop(piece)

    def _drop(self, piece: _Piece) -> None:
        for block in piece.blocks:
            del self._pieces[block]
        del (self._ahead if piece.is_unread else self._used)[piece]
        self.bytes -= piece.size
        self.unread -= piece.size * piece.is_unread
