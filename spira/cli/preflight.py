"""Checks before a run starts anything slow: the data set, the work folder and the device."""

from __future__ import annotations

import tempfile
from pathlib import Path

from spira.errors import SpiraError


def check_run(data: str, work: Path, device: str, require_gpu: bool) -> None:
    """Refuse a run that could only fail later.

    Args:
        data: Folder, ``gs://`` or ``s3://`` prefix; empty for the demo data set.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        SpiraError: the data folder does not exist, the work folder cannot be written, or the device does not exist.
    """
    if data and "://" not in data and not Path(data).is_dir():
        raise SpiraError(f"--data {data}: no such folder; give a folder or a gs:// or s3:// prefix in SPIRA's layout")
    check_writable(work)
    if device not in ("auto", "cpu") or require_gpu:  # importing torch takes seconds, so only where it can refuse
        from spira.training.device import choose_device

        choose_device(device, require_gpu)


def check_writable(work: Path) -> None:
    """Make the work folder, and refuse one that cannot be written.

    Raises:
        SpiraError: it is a file, lies under a file, or is read-only or full.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=work, prefix=".write-test-") as file:
            file.write(b"0")
    except OSError as error:
        cause = error.strerror or error
        raise SpiraError(f"--work {work}: cannot be written ({cause}); choose another folder with --work") from error
