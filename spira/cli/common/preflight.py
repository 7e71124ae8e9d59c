"""Checks before a run starts anything slow: the data set, the folders, free space, the device and the repository."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from spira import temporary
from spira.errors import SpiraError

MEGABYTE = 1_000_000
RUN_BYTES = 200 * MEGABYTE
"""Space for a run without its corpus: checkpoints, package, report, MLflow's database and artifacts."""
TEMPORARY_BYTES = 50 * MEGABYTE
"""Space in the temporary folder, in which artifacts are staged."""
WAV_GROWTH, COMPRESSED_GROWTH = 2, 16
"""Decoded size, float32 at 16 kHz, of a 16-bit WAV file at that rate, and of a compressed file, by byte."""


def check_run(data: str, work: Path, device: str, require_gpu: bool, mlflow: str = "") -> None:
    """Refuse a run that could only fail later.

    Args:
        data: Folder, ``gs://`` or ``s3://`` prefix; empty for the demo data set.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        mlflow: MLflow URL; empty for SQLite in ``work``.

    Raises:
        SpiraError: the data folder does not exist, a folder cannot be used or is too full, the device does not exist,
            or the model repository cannot be used.
    """
    _check_data(data)
    from pipelines.parameters import check_path

    check_path("--work", work)
    check_path("--data", Path("" if "://" in data else data))
    check_machine(data, work, device, require_gpu)
    from spira.registry import open_at

    open_at(mlflow or str(work))  # seconds now, instead of an error after the training


def check_machine(data: str, work: Path, device: str, require_gpu: bool) -> None:
    """Refuse a folder or device that cannot be used; see :func:`check_run`, without the repository.

    Raises:
        SpiraError: the data folder does not exist, a folder cannot be used or is too full, or there is no such device.
    """
    _check_data(data)
    check_temporary()
    check_writable(work)
    check_space(data, work)
    if device not in ("auto", "cpu") or require_gpu:  # importing torch takes seconds, so only where it can refuse
        from spira.training.device import choose_device

        choose_device(device, require_gpu)


def _check_data(data: str) -> None:
    if data and "://" not in data and not Path(data).is_dir():
        raise SpiraError(f"--data {data}: no such folder; give a folder or a gs:// or s3:// prefix in SPIRA's layout")


def check_temporary() -> None:
    """Refuse a temporary folder that cannot be used.

    Raises:
        SpiraError: ``TMPDIR`` names no folder, it cannot be written, or it is almost full.
    """
    folder = os.environ.get("TMPDIR") or _default_temporary()
    remedy = "set TMPDIR to a folder that can be written"
    try:
        with temporary.file(Path(folder)) as file:
            file.write_bytes(b"0")
    except OSError as error:
        raise SpiraError(f"TMPDIR {folder}: cannot be written ({error.strerror or error}); {remedy}") from error
    _check_free(Path(folder), f"TMPDIR {folder}", TEMPORARY_BYTES, "set TMPDIR to another folder")


def check_writable(work: Path) -> None:
    """Make the work folder, and refuse one that cannot be written.

    Raises:
        SpiraError: it is a file, lies under a file, or is read-only or full.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        with temporary.file(work, "write-test") as file:
            file.write_bytes(b"0")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        cause = (error.strerror if isinstance(error, OSError) else None) or error
        raise SpiraError(f"--work {work}: cannot be written ({cause}); choose another folder with --work") from error


def check_space(data: str, work: Path) -> None:
    """Refuse a work folder without space for the decoded recordings and the results.

    Raises:
        SpiraError: less is free than the estimate.
    """
    has_corpus = any((work / "state").glob("corpus-*"))  # probably of this data set: it is decoded once
    corpus = 0 if has_corpus or not data or "://" in data else decoded_bytes(Path(data))
    _check_free(work, f"--work {work}", RUN_BYTES + corpus, "free space there, or choose another folder with --work")


def decoded_bytes(data: Path) -> int:
    """Return an estimate of the decoded size of a data set, from the sizes of its files."""
    return sum(
        path.stat().st_size * (WAV_GROWTH if path.suffix.lower() in (".wav", ".csv") else COMPRESSED_GROWTH)
        for path in data.rglob("*")
        if path.is_file()
    )


def _check_free(folder: Path, name: str, needed: int, remedy: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SpiraError(
            f"{name}: {free // MEGABYTE} MB are free, and a run needs about {needed // MEGABYTE} MB: {remedy}"
        )


def _default_temporary() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise SpiraError(f"{error.strerror}: set TMPDIR to a folder that can be written") from error
