"""Just-in-time compilation of plain loops over arrays.

For computations in which many small array operations would spend their time on memory rather than on arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function to machine code that releases the GIL and propagates NaN.

    The machine code is cached beside the source or in the user's cache folder.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "arcp", "nsz"},  # not "nnan": NaN stays NaN
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither folder is writable: compile in every process
        return numba.njit(**options)(function)
