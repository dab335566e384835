"""Memory that the allocator kept, back to the system."""

from __future__ import annotations

import ctypes


def trim_heap() -> bool:
    """Give the pages of freed memory back to the system; whether there were any.

    glibc has a heap for every few threads and keeps what is freed in the middle of one. A model leaves hundreds of such holes, and the
    next one, loaded by another thread, does not fit into them: the process would grow with every cycle though nothing is held. Other
    allocators (musl, macOS) give pages back by themselves, and have no such call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim is not None and trim(ctypes.c_size_t(0)))
