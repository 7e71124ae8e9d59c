"""Choice of the device, with and without a GPU."""

from __future__ import annotations

import pytest
import torch

from spira.errors import SpiraError
from spira.training.device import autocast, choose_device

GPU = torch.cuda.is_available()
without_gpu = pytest.mark.skipif(GPU, reason="this machine has a GPU")


def test_auto_chooses_a_gpu_if_there_is_one() -> None:
    """The same command works on machines with and without one."""
    assert choose_device().type == ("cuda" if GPU else "cpu")


@without_gpu
@pytest.mark.parametrize(("name", "require_gpu"), [("auto", True), ("cuda", False), ("cuda:1", False)])
def test_a_missing_gpu_is_an_error_if_one_is_required(name: str, require_gpu: bool) -> None:
    """There is no silent fall-back to the CPU; the message lists what to check."""
    with pytest.raises(SpiraError, match=r"torch finds none.*nvidia.com/gpu"):
        choose_device(name, require_gpu)


def test_the_cpu_does_not_satisfy_require_gpu() -> None:
    """``cpu`` and ``require_gpu`` contradict each other."""
    with pytest.raises(SpiraError):
        choose_device("cpu", require_gpu=True)


@pytest.fixture
def unusable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that torch sees and cannot compute with: here, there is none behind it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@without_gpu
@pytest.mark.usefixtures("unusable_gpu")
def test_auto_falls_back_from_a_gpu_that_cannot_be_used(caplog: pytest.LogCaptureFixture) -> None:
    """With one warning that gives torch's reason; the GPU is not tried again."""
    assert [choose_device("auto").type for _ in range(3)] == ["cpu"] * 3
    assert caplog.text.count("the GPU is seen and cannot be used (") == 1


@pytest.mark.integration
@without_gpu
@pytest.mark.usefixtures("unusable_gpu")
@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_an_optimiser_works_beside_a_gpu_that_cannot_be_used(name: str) -> None:
    """torch's optimisers call the driver of every GPU that is seen, whatever device the weights are on."""
    weights = torch.nn.Linear(2, 1).to(choose_device(name))
    optimizer = torch.optim.Adam(weights.parameters())
    weights(torch.ones(1, 2)).sum().backward()
    optimizer.step()


@without_gpu
@pytest.mark.usefixtures("unusable_gpu")
@pytest.mark.parametrize(("name", "require_gpu"), [("cuda", False), ("cuda:1", False), ("auto", True)])
def test_a_named_gpu_that_cannot_be_used_is_refused_in_one_line(name: str, require_gpu: bool) -> None:
    """Before anything is trained; never by a traceback."""
    with pytest.raises(SpiraError, match=r"cuda.*seen and cannot be used \(.+\).*device=cpu") as error:
        choose_device(name, require_gpu)
    assert len(str(error.value).splitlines()) == 1


def test_an_unknown_device_is_refused_by_name() -> None:
    """The message lists the valid names."""
    with pytest.raises(SpiraError, match="'gpu': must be auto, cpu, cuda or cuda:N"):
        choose_device("gpu")


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_the_cpu_computes_in_float32_by_default(precision: str, expected: torch.dtype) -> None:
    """bfloat16 must be configured there."""
    with autocast(torch.device("cpu"), precision):
        assert torch.nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == expected
