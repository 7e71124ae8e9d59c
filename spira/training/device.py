"""The device that torch works on, and its precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from spira.errors import SpiraError


def choose_device(name: str = "auto", require_gpu: bool = False) -> torch.device:
    """``auto`` is the first GPU, or the CPU where there is none.

    Raises:
        SpiraError: the name is no device's, or a GPU is named or required and torch sees none.
    """
    there = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if there else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise SpiraError(f"device {name!r}: must be auto, cpu, cuda or cuda:N") from error
    if (require_gpu or device.type == "cuda") and not (there and device.type == "cuda"):
        raise SpiraError(
            "a GPU is asked for and torch sees none: check the node pool, the driver and nvidia.com/gpu in the "
            "pod's limits, or train with device=cpu and require_gpu=false"
        )
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bfloat16 where it helps: on a GPU that has it when ``precision`` is auto, or where it is asked for."""
    automatic = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "bfloat16" or (precision == "auto" and automatic):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
