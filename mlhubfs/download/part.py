"""A file that is not complete yet, and the note beside it that says what is missing.

Owns the two files on disk: `NAME.mlhubfs-part` with the bytes, each at its place, and
`NAME.mlhubfs-part.json`. The target itself appears in one step, complete and checked, or not at
all: whoever sees the name may trust the bytes.

*What is trusted of an earlier try.* The note names the version (size and validator), and is
written behind the bytes that it speaks of. After a process was killed that is enough: the system
has its bytes. After the machine itself went down they may be lost, so the note also keeps what was
missing when the bytes were last synced, and another boot believes that alone. What is complete is
not synced: for that a GiB took 1.6 s instead of 0.9 over a fast line. A machine that goes down in
the seconds after may have lost bytes of it.

*Threading.* `write` from any thread. The descriptor lives until the last one who uses it is gone,
so that a late writer cannot hit another file that was given its number.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from mlhubfs.download.gaps import Claim, Gaps, Range
from mlhubfs.errors import InUse, NotWritten

_SUFFIX = ".mlhubfs-part"
_NOTE_SECONDS = 0.5  # what a killed process fetches again at most
_SYNC_SECONDS = 30.0  # the same for a machine that went down
_NOTE_BYTES = 64 << 10  # more than a note takes, on a disk with large blocks too
_LONGEST = 255 - len(_SUFFIX + ".json.new")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Version(NamedTuple):
    """Which bytes the file has."""

    size: int
    validator: str


class PartFile:
    """The beginnings of `target`, which is to hold what `identity` names; to be released.

    Raises NotWritten where the disk does not do what it should, and InUse where another process is
    at it.
    """

    def __init__(self, target: Path, identity: str) -> None:
        self._target = target
        self._identity = identity
        self._path = _part_path(target)
        self._note_path = self._path.with_name(self._path.name + ".json")
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        # The kernel lets one write to a file at a time, and whoever waits for it there spins.
        self._writing = threading.Lock()
        self._users = 1
        self._is_finished = False
        self._noted = self._synced_at = time.monotonic()
        self._synced: list[Range] | None = None
        self.version: Version | None = None
        """What is being fetched; None before storage has told."""
        self.gaps = Gaps(())
        with self._told():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._open()
        self._resume()

    @property
    def done(self) -> int:
        """Bytes that are there."""
        if self.version is None:
            return 0
        return self.version.size - sum(stop - start for start, stop in self.gaps.missing())

    def begin(self, version: Version) -> None:
        """Start with nothing; the file is of this version from now on."""
        with self._told():
            self._note_path.unlink(missing_ok=True)  # first: it speaks of bytes that go
            # ext4 takes even an empty file that is cut for one to be written out when it is closed.
            if os.fstat(self._descriptor).st_size:
                os.ftruncate(self._descriptor, 0)
        self._synced = None
        self.version = version
        self.gaps = Gaps([(0, version.size)])

    def forget(self) -> None:
        """Drop what is there, for it belongs to no version that could be completed."""
        self.begin(Version(0, ""))
        self.version = None

    def reopen(self) -> None:
        """Give out again what is missing, after an end."""
        self.gaps = Gaps(self.gaps.missing())

    def settle(self) -> None:
        """Say that the file is as long as what is there: its size was not known before."""
        if self.version:
            self.version = self.version._replace(size=self.done)
            self.gaps = Gaps(())

    def write(self, claim: Claim, piece: bytes) -> int:
        """Write the next bytes of a claim; return how many of them are news."""
        view = memoryview(piece)[: self.gaps.room(claim)]
        at, size = claim.at, len(view)
        with self._told():
            while view:
                with self._writing:
                    written = os.pwrite(self._descriptor, view, at)
                at, view = at + written, view[written:]
        return self.gaps.advance(claim, size)

    def note(self) -> None:
        """Note what is missing, if the last note is old."""
        if time.monotonic() - self._noted > _NOTE_SECONDS and self._saving.acquire(blocking=False):
            try:
                # Not behind `finish`, when a connection is late that others have done without.
                if not self._is_finished:
                    self._save(sync=time.monotonic() - self._synced_at > _SYNC_SECONDS)
            finally:
                self._saving.release()

    def keep(self) -> None:
        """Make what is there outlast this process and this boot; leave nothing where it cannot."""
        if self._is_worth_keeping():
            with self._saving, contextlib.suppress(NotWritten):
                try:
                    self._save(sync=True)
                except NotWritten:  # the disk is full: the last bytes make room for the note
                    self._shorten()
                    self._save(sync=True)
            return
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._note_path.unlink(missing_ok=True)

    def digest(self, kind: str) -> str:
        """Return the digest of what is there, in hexadecimal digits; `kind` is hashlib's name."""
        with self._told(), open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return _digest(file, kind)

    def finish(self, modified: float | None) -> None:
        """Make it the target, with that time."""
        with self._saving, self._told():
            self._is_finished = True
            if modified is not None:
                os.utime(self._descriptor, (modified, modified))
            self._path.replace(self._target)
            self._note_path.unlink(missing_ok=True)

    def hold(self) -> None:
        """Keep the descriptor open until one more `release`."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Do without it from now on."""
        with self._lock:
            self._users -= 1
            if not self._users:
                os.close(self._descriptor)

    def _open(self) -> int:
        """Return the part's descriptor, locked against other processes."""
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = os.path.samestat(os.fstat(descriptor), self._path.stat())
            except BlockingIOError:
                os.close(descriptor)
                raise InUse(f"another process is downloading {self._target.name}") from None
            except FileNotFoundError:
                is_ours = False
            if is_ours:
                return descriptor
            # Between the two calls another process has finished: what was opened is the target.
            os.close(descriptor)

    def _save(self, *, sync: bool) -> None:
        if self.version is None or not self.version.validator:
            return
        missing = self.gaps.missing()  # before the sync: what comes meanwhile may not be in it
        with self._told():
            if sync:
                os.fdatasync(self._descriptor)
                self._synced, self._synced_at = missing, time.monotonic()
            note = {
                "identity": self._identity,
                "version": self.version,
                "missing": missing,
                "boot": _boot(),
                "missing_when_synced": self._synced,
            }
            new = self._note_path.with_name(self._note_path.name + ".new")
            new.write_text(json.dumps(note), encoding="utf-8")
            new.replace(self._note_path)
        self._noted = time.monotonic()

    def _shorten(self) -> None:
        if self.version:
            end = max(0, os.fstat(self._descriptor).st_size - _NOTE_BYTES)
            before = [(start, min(stop, end)) for start, stop in self.gaps.missing() if start < end]
            self.gaps = Gaps([*before, (end, self.version.size)])
            os.ftruncate(self._descriptor, end)

    def _resume(self) -> None:
        """Take up what an earlier try has left, if it can be trusted."""
        try:
            note = json.loads(self._note_path.read_bytes())
            if note["identity"] != self._identity:
                return
            version = Version(*note["version"])
            is_same_boot = note["boot"] == _boot()
            missing = _ranges(note["missing" if is_same_boot else "missing_when_synced"], version)
            if os.fstat(self._descriptor).st_size < _end_of_present(missing, version):
                return  # the note outlived its part
        except (OSError, ValueError, TypeError, KeyError):
            return
        self.version, self.gaps = version, Gaps(missing)
        self._synced = None if is_same_boot else missing

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = "; what has come so far is kept, and the same command goes on from there"
            raise NotWritten(
                f"{self._target} cannot be written: {os.strerror(error.errno or 0)}"
                f"{kept if self._is_worth_keeping() else ''}"
            ) from error

    def _is_worth_keeping(self) -> bool:
        return bool(self.version and self.version.validator and self.done)


def digest_of(path: Path, kind: str) -> str:
    """Return the digest of a file that is complete, as `PartFile.digest` does; raises OSError."""
    with path.open("rb") as file:
        return _digest(file, kind)


def _digest(file: BufferedReader, kind: str) -> str:
    made = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    return made.hexdigest()


def _ranges(value: Any, version: Version) -> list[Range]:
    """Return the ranges of a note, checked; raises ValueError or TypeError."""
    ranges = [(int(start), int(stop)) for start, stop in value]
    ends = [0, *(offset for one in ranges for offset in one), version.size]
    if ends != sorted(ends):
        raise ValueError("ranges that overlap or leave the file")
    return ranges


def _end_of_present(missing: list[Range], version: Version) -> int:
    is_open = missing and missing[-1][1] == version.size
    return missing[-1][0] if is_open else version.size


def _part_path(target: Path) -> Path:
    name = target.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    return target.with_name(name + _SUFFIX)


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
