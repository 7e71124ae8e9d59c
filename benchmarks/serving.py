"""Start time, latency and memory of a package, measured in a process with only the package's own code.

PYTHONPATH=package/code python serving.py package/data recording.wav 50
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def measure_in_process(package: Path, recording: Path, times: int) -> dict[str, float]:
    """Run :func:`measure` in a new process with the package's code."""
    result = subprocess.run(
        [sys.executable, __file__, package / "data", recording, str(times)],
        env={**os.environ, "PYTHONPATH": str(package / "code")},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def measure(data: str, recording: str, times: int) -> dict[str, float]:
    """Return the start time (s), p50 and p95 of the latency (ms) and the peak memory (MB)."""
    start = time.monotonic()
    import numpy as np
    from spira_inference.model import Model  # type: ignore[import-not-found]  # the package's own code

    model, content = Model.load(data), Path(recording).read_bytes()
    model.probability(content)
    start_seconds, latencies_ms = time.monotonic() - start, []
    for _ in range(times):
        start = time.monotonic()
        model.probability(content)
        latencies_ms.append(1000 * (time.monotonic() - start))
    high_water = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    p50, p95 = np.percentile(latencies_ms, [50, 95])
    return {"start_s": start_seconds, "p50_ms": p50, "p95_ms": p95, "peak_mb": int(high_water.split()[1]) / 1024}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
