"""Memory allocation: keep freed memory in the process for the next recording.

By default glibc returns the memory of a freed array to the system and requests it again, page by page, for the next
one. For a small network this takes half of the time. The memory kept is bounded by what one recording needs.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameter numbers of glibc's ``mallopt``."""

TRIM_THRESHOLD_BYTES = 64 * 2**20
"""Free memory that a thread keeps; glibc returns only more than this."""

MMAP_THRESHOLD_BYTES = 32 * 2**20
"""Larger arrays are mapped separately and returned when freed. This is the largest threshold that glibc accepts."""


def retain_freed_memory() -> None:
    """Set the thresholds for this process; do nothing if the C library is not glibc."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
