"""Just-in-time compilation of plain loops over arrays.

For computations in which many small array operations would spend their time on memory rather than on arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba

FAST_MATH = {"reassoc", "contract", "arcp", "nsz"}
"""Permitted simplifications of floating-point arithmetic; without ``nnan``: NaN stays NaN."""


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function to machine code that releases the GIL and propagates NaN.

    The machine code is cached beside the source or in the user's cache folder.
    """
    jitted = partial(numba.njit, nogil=True, error_model="numpy", fastmath=FAST_MATH)
    try:
        return jitted(cache=True)(function)
    except RuntimeError:  # neither folder is writable: compile in every process
        return jitted()(function)
