"""Threads of the numerical libraries: idle ones sleep, and a pod has as many as it has requested cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

COUNT = "import os, spira; print(os.environ.get('OMP_NUM_THREADS'), os.environ['OMP_WAIT_POLICY'])"
SPIN = """
import time
import spira
import torch
numbers = torch.randn(512, 512)
numbers.sum()
before = time.process_time()
for _ in range(100):
    numbers.sum()
    time.sleep(0.002)  # shorter than the time for which idle threads spin by default
print(time.process_time() - before)
"""


def output(code: str, **environment: str) -> str:
    """Return what a new process with these variables prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "SPIRA_CPU"))}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, env=inherited | environment, cwd=ROOT, capture_output=True, text=True, check=True)
    return process.stdout.strip()


@pytest.mark.parametrize(
    ("cores", "threads"), [("1", 1), ("500m", 1), ("2", 2), ("1500m", 2), ("2.5", 3), ("0.1", 1), ("3000m", 3)]
)
def test_a_pod_has_one_thread_for_each_requested_core(cores: str, threads: int) -> None:
    """Rounded up. Without a request the libraries use all cores."""
    assert output(COUNT, SPIRA_CPU_REQUEST=cores) == f"{threads} PASSIVE"
    assert output(COUNT) == "None PASSIVE"


def test_what_the_user_has_set_stays() -> None:
    """The local runner sets the number of threads in this way."""
    assert output(COUNT, SPIRA_CPU_REQUEST="1", OMP_NUM_THREADS="2", OMP_WAIT_POLICY="ACTIVE") == "2 ACTIVE"


@pytest.mark.integration
def test_idle_threads_do_not_spin() -> None:
    """They take no processor time between two operations."""
    spinning = float(output(SPIN, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="ACTIVE"))
    assert float(output(SPIN, OMP_NUM_THREADS="2")) < 0.5 * spinning
