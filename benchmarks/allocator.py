"""glibc's allocator told to keep freed memory, in this process: for another one see `KEEP_MEMORY`."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt, from glibc's malloc.h, and what is asked of them: no block in a mapping of its own,
# nothing given back below the largest number that fits an int (2 GiB), growth in steps of 64 MiB.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_WANTED = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26}


def settle_allocator() -> str:
    """What a result file's settings say of the allocator, after freed memory is kept where that can be.

    For commands that compare kernels, which get their memory, with stock PyTorch, which allocates at every
    call maps as large as those that glibc gives back.
    """
    return "keeps freed memory" if keep_freed_memory() else "as it comes"


def keep_freed_memory() -> bool:
    """Keep what PyTorch frees for its next tensor, from here on; False where the allocator is not glibc's.

    Otherwise every large map is fetched from the system anew, zeroed page by page: half the time of an eager
    batch of 16, which is no kernel's merit to save.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in _WANTED.items())
