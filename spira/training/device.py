"""The device of a training, and its precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from spira.errors import SpiraError


def choose_device(name: str = "auto", require_gpu: bool = False) -> torch.device:
    """Return the named device; ``auto`` is the first GPU, or the CPU if there is none.

    Raises:
        SpiraError: the name is not that of a device, or a GPU is named or required and torch finds none.
    """
    has_gpu = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if has_gpu else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise SpiraError(f"device {name!r}: must be auto, cpu, cuda or cuda:N") from error
    if (require_gpu or device.type == "cuda") and not (has_gpu and device.type == "cuda"):
        raise SpiraError(
            "a GPU is required and torch finds none: check the node pool, the driver and nvidia.com/gpu in the "
            "pod's limits, or train with device=cpu and require_gpu=false"
        )
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a context for the precision: bfloat16 if required, or if ``auto`` on a GPU that supports it."""
    automatic = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "bfloat16" or (precision == "auto" and automatic):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
