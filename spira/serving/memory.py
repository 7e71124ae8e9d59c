"""Freed memory stays with the process, for the next recording to use.

By default glibc gives an array's memory back to the system when it is freed and fetches it anew for the next one, page
by page: half of the time of a small network. What is kept is bounded, and no more than one recording needs.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's ``mallopt``."""

KEPT_BYTES = 64 * 2**20
"""Of free memory, a thread."""

MAPPED_BYTES = 32 * 2**20
"""A larger array has its own pages, and gives them back; glibc takes no larger bound."""


def keep() -> None:
    """Set it up for this process; nothing where the C library is another."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
