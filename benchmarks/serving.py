"""What is served: its start, its answer to one recording, its memory; run with the package's own code alone.

PYTHONPATH=package/code python serving.py package/data recording.wav 50
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def of(package: Path, recording: Path, times: int) -> dict[str, float]:
    """Start (s), p50 and p95 of an answer (ms) and peak memory (MB), in a process of its own."""
    ran = subprocess.run(
        [sys.executable, __file__, package / "data", recording, str(times)],
        env={**os.environ, "PYTHONPATH": str(package / "code")},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


def measure(data: str, recording: str, times: int) -> dict[str, float]:
    """The same, in this process."""
    began = time.monotonic()
    import numpy as np
    from spira_inference.model import Model  # type: ignore[import-not-found]  # of the package

    model, content = Model.load(data), Path(recording).read_bytes()
    model.probability(content)
    start_seconds, took_ms = time.monotonic() - began, []
    for _ in range(times):
        began = time.monotonic()
        model.probability(content)
        took_ms.append(1000 * (time.monotonic() - began))
    high_water = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    p50, p95 = np.percentile(took_ms, [50, 95])
    return {"start_s": start_seconds, "p50_ms": p50, "p95_ms": p95, "peak_mb": int(high_water.split()[1]) / 1024}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
