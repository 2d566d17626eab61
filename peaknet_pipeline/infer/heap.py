"""Freed memory that stays with the process while batch after batch needs the same again.

Each batch takes a few megabytes and frees them. The C library's allocator hands such blocks back to the system, which
maps and clears them anew for the next batch: up to a third of the time of a small frame, depending on what the process did
before.
"""

import ctypes
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_BLOCK_BYTES = 32 * 2**20
"""Larger blocks are always mapped by themselves; the allocator's own limit."""

NEVER_BYTES = 2**31 - 1
_lock = threading.Lock()
_n_open = 0


@contextmanager
def kept_heap() -> Iterator[None]:
    """Keep freed memory within the block, for all threads, and hand it back at the end; does nothing without glibc."""
    library = _allocator()
    _enter(library)
    try:
        yield
    finally:
        _leave(library)


def _enter(library: Any) -> None:
    global _n_open
    with _lock:
        _n_open += 1
        if library is not None and _n_open == 1:
            library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK_BYTES)
            library.mallopt(M_TRIM_THRESHOLD, NEVER_BYTES)


def _leave(library: Any) -> None:
    global _n_open
    with _lock:
        _n_open -= 1
        if library is not None and _n_open == 0:
            # What the allocator comes to by itself in a process that handles large blocks.
            library.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_BLOCK_BYTES)
            library.malloc_trim(0)


@functools.cache
def _allocator() -> Any:
    """Return the C library if its allocator can be told, else None."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
