"""The device of a training, and its precision."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.functional import conv1d

from spira.errors import SpiraError

log = logging.getLogger(__name__)


def choose_device(name: str = "auto", require_gpu: bool = False) -> torch.device:
    """Return the named device; ``auto`` is the first GPU, or the CPU if there is none that can be used.

    A GPU is tried once with a small computation. One that is seen may still be too old for this build of torch, full,
    or of another driver.

    Raises:
        SpiraError: the name is not that of a device, or a GPU is named or required and there is none that can be used.
    """
    is_automatic = name == "auto"
    has_gpu = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if has_gpu else "cpu") if is_automatic else name)
    except RuntimeError as error:
        raise SpiraError(f"device {name!r}: must be auto, cpu, cuda or cuda:N") from error
    if (require_gpu or device.type == "cuda") and not (has_gpu and device.type == "cuda"):
        raise SpiraError(
            "a GPU is required and torch finds none: check the node pool, the driver and nvidia.com/gpu in the "
            "pod's limits, or train with device=cpu and require_gpu=false"
        )
    problem = _gpu_problem(device if device.type == "cuda" else torch.device("cuda")) if has_gpu else ""
    if not problem:
        return device
    if device.type != "cuda" or (is_automatic and not require_gpu):
        if is_automatic:
            log.warning("the GPU is seen and cannot be used (%s): training goes on on the CPU", problem)
        _hide_gpu()
        return torch.device("cpu")
    raise SpiraError(
        f"device {device}: the GPU is seen and cannot be used ({problem}): check its driver, its free memory and "
        "torch's build, or train with device=cpu and require_gpu=false"
    )


def _gpu_problem(device: torch.device) -> str:
    """Return the first line of the error of a small computation on a GPU; empty if it succeeds."""
    try:
        conv1d(torch.ones(1, 1, 8, device=device), torch.ones(1, 1, 3, device=device)).sum().item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch is built without CUDA
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


def _hide_gpu() -> None:
    """Hide the GPU from torch in this process, whose optimisers call the driver of every GPU that is seen."""
    torch.cuda.is_available = lambda: False


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a context for the precision: bfloat16 if required, or if ``auto`` on a GPU that supports it."""
    automatic = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "bfloat16" or (precision == "auto" and automatic):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
