"""Machine code for plain loops over arrays, where many small operations would move memory rather than compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code that holds no GIL; NaN stays NaN. Kept beside the source or in the user's cache folder."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither can be written: compile in every process
        return numba.njit(**options)(function)
