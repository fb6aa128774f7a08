"""A gzip file read at any offset, without keeping what it expands to.

Owns the places from which it can be read on: at every `span` of expanded bytes the state of the
decompressor is kept (some 50 kB each), so that a read expands one span at most before it has what
it wants. Sequential reads of small files find their span expanded.

*Threading.* Any thread; one lock, held while a span is expanded.
"""

import os
import threading
import zlib
from collections import OrderedDict
from typing import Any, NamedTuple

from mlhubfs.errors import BadAnswer

_LEAST_SPAN = 1 << 20  # 3 ms to expand
_MOST_SPAN = 16 << 20
_SPANS_PER_FILE = 8  # a catalog expands to 30 times its size: so some 250 states, 12 MB
_KEPT = 4  # spans in memory: readers side by side, each in its own
_PIECE = 16 << 10  # what of it is not expanded yet is kept with the state


class _Place(NamedTuple):
    """Where a span begins, packed, and the state of the decompressor there."""

    offset: int
    state: Any


class Gunzip:
    """The expanded bytes of the gzip file `descriptor`, which must not change; it is not closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        packed = os.fstat(descriptor).st_size
        self._span = min(max(_LEAST_SPAN, packed // _SPANS_PER_FILE), _MOST_SPAN)
        self._places = [_Place(0, zlib.decompressobj(16 + zlib.MAX_WBITS))]
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes [offset, offset + size), fewer at the end; raises BadAnswer."""
        pieces = []
        while size > 0:
            number, within = divmod(offset, self._span)
            piece = self._get(number)[within : within + size]
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _get(self, number: int) -> bytes:
        with self._lock:
            data = self._kept.get(number)
            if data is None:
                # The places behind the last one that is known are found by going there.
                for known in range(min(number, len(self._places) - 1), number + 1):
                    data = self._expand(known)
                    if len(data) < self._span:
                        break  # the end
                self._kept[number] = data = data if data and known == number else b""
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return data

    def _expand(self, number: int) -> bytes:
        """Return the span with that number, and note where the next one begins."""
        offset, gunzip = self._places[number].offset, self._places[number].state.copy()
        expanded = bytearray()
        try:
            while len(expanded) < self._span:
                packed = os.pread(self._descriptor, _PIECE, offset)
                if gunzip.eof:  # pigz and bgzip write one gzip after the other
                    if not packed.strip(b"\0"):
                        break
                    gunzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
                elif not packed:
                    raise BadAnswer("the tarball breaks off in the middle of its gzip")
                expanded += gunzip.decompress(packed, self._span - len(expanded))
                rest = gunzip.unused_data if gunzip.eof else gunzip.unconsumed_tail
                offset += len(packed) - len(rest)
        except zlib.error as error:
            raise BadAnswer(f"the tarball is no gzip, or damaged: {error}") from None
        if number + 1 == len(self._places):
            self._places.append(_Place(offset, gunzip))
        return bytes(expanded)
