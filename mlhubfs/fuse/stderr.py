"""What libfuse and fusermount write to the process's standard error, for an error message.

Owns file descriptor 2 for the moment of a mount: neither returns its reason to the caller.

*Threading.* `release` may be called from any thread, and more than once.
"""

import os
import threading
from types import TracebackType
from typing import Self


class CapturedStderr:
    """A context in which descriptor 2 is a file in memory, until `release` or its end.

    What was written before `release` then goes where it was meant to go; what is there at the end
    without one is in `text` instead.
    """

    def __init__(self) -> None:
        self.text = ""
        self._lock = threading.Lock()
        self._original: int | None = None
        self._file = -1

    def __enter__(self) -> Self:
        try:
            self._original = os.dup(2)
        except OSError:  # a daemon may have closed it: then nothing is captured
            return self
        self._file = os.memfd_create("stderr")
        os.dup2(self._file, 2)
        return self

    def release(self) -> None:
        """Give descriptor 2 back, with what was written to it in between."""
        said = self._end()
        if said:
            os.write(2, said)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.text = self._end().decode(errors="replace")

    def _end(self) -> bytes:
        with self._lock:
            if self._original is None:
                return b""
            os.dup2(self._original, 2)
            os.close(self._original)
            self._original = None
            size = os.lseek(self._file, 0, os.SEEK_END)
            said = os.pread(self._file, size, 0)
            os.close(self._file)
        return said
