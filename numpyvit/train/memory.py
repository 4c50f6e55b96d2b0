"""What the C library does with memory that arrays free."""

from __future__ import annotations

import ctypes

# Numbers of options, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Ask glibc to keep what arrays free, for the next arrays; elsewhere nothing is done.

    By default it gives large pieces back to the system, which hands them out again page by page,
    cleared: a fifth of a training step at batch 64. Holds for the whole process from then on.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    # Some versions take no more than 32 MB for the threshold. Without it the others do harm.
    if set_option(_MMAP_THRESHOLD, 1 << 28) or set_option(_MMAP_THRESHOLD, 1 << 25):
        set_option(_TRIM_THRESHOLD, 1 << 30)
        set_option(_TOP_PAD, 1 << 26)
