"""How the C library keeps the memory of blocks that are let go for those that come.

Owns three settings of glibc's allocator, which knows nothing of a budget: it gives each piece of
memory above 128 KiB back to the system when it is freed, and the next piece costs a page fault for
every 4 KiB: 150,000 of them per GiB that is read, a tenth of the daemon's time. And it keeps what
it keeps in an arena for each thread, of no use to the others.

*Threading.* To be called before there are threads.
"""

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST = 32 << 20  # what older releases of glibc take for a threshold at most; eight extents


def keep_freed(most: int) -> None:
    """Keep up to `most` bytes of freed memory for what comes next; no effect without glibc."""
    with contextlib.suppress(AttributeError, OSError):
        settle = ctypes.CDLL(None).mallopt
        settle(_MMAP_THRESHOLD, _LARGEST)
        settle(_TRIM_THRESHOLD, min(most, 1 << 30))
        settle(_ARENA_MAX, 1)
