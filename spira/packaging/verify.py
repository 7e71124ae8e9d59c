"""Verification of a package: its files are complete and unchanged, and its probabilities are torch's.

The package's own code computes the probabilities of its golden recordings, in a process of its own. This needs no
torch, so a package is verified the same way wherever it is promoted or served.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spira import audio
from spira.errors import SpiraError
from spira.inference.wav import AudioError

CODE = "spira_inference"
"""Name of the inference code inside a package."""

DESCRIPTION = "package.json"
"""Description of a package, with the SHA-256 of its other files."""

TOLERANCE = 1e-5
"""Largest accepted difference from torch's probability."""

START_SECONDS, FILE_SECONDS = 120, 30
"""Time limit of a package's process: for its start and its check of itself, and for each given recording."""


class PackageError(SpiraError):
    """A package that must not be served, or cannot be built."""


def verify(package_dir: Path) -> float:
    """Check a package's files and its golden recordings; return the largest difference from torch.

    Raises:
        PackageError: a file is missing, changed or unknown, or a probability differs by more than 1e-5.
    """
    check_files(package_dir)
    return check_golden(package_dir)


def check_golden(package_dir: Path, *more: Path) -> float:
    """Run a package's own code on its golden recordings; return the largest difference from torch.

    Args:
        package_dir: the package folder.
        more: other folders with a ``golden.json``.

    Raises:
        PackageError: a probability differs by more than 1e-5 or is not a number, or there is no golden recording.
    """
    predictions = run(package_dir, "golden", more)
    if not predictions:
        raise PackageError(f"{package_dir} has no golden recording to verify it with: package the checkpoint again")
    return largest_difference(predictions)


def largest_difference(predictions: Iterable[Mapping[str, Any]]) -> float:
    """Return the largest difference between the probabilities of a package and those expected.

    Args:
        predictions: ``file``, ``expected``, and ``probability`` or ``error``.

    Raises:
        PackageError: a probability differs by more than 1e-5, or is not a number.
    """
    differences = []
    for prediction in predictions:
        difference = abs(prediction.get("probability", math.nan) - prediction["expected"])
        if not difference <= TOLERANCE:  # so written, because NaN must fail too
            result = prediction.get("error") or f"{prediction['probability']:.7f}"
            raise PackageError(
                f"{prediction['file']}: the package gives {result}, torch {prediction['expected']:.7f} "
                f"(limit of the difference {TOLERANCE:g}): this model must not be served"
            )
        differences.append(difference)
    return max(differences)


def predict_with_package(package_dir: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Run a package's own code on recordings; return file, and probability and diagnosis or error, of each.

    Recordings are decoded as in training and in the server, and handed on as WAV files that every package reads.

    Raises:
        PackageError: the package cannot be used at all.
    """
    max_seconds = _max_seconds(package_dir)
    errors: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        wavs = {number: Path(temporary) / f"{number}.wav" for number in range(len(files))}
        for number, file in enumerate(files):
            try:
                with audio.open_recording(file) as recording:
                    wavs[number].write_bytes(audio.as_wav(recording, max_seconds))
            except OSError as error:
                errors[number] = f"cannot be read: {error.strerror}"
            except AudioError as error:
                errors[number] = str(error)
        readable = [number for number in wavs if number not in errors]
        predictions = dict(
            zip(readable, run(package_dir, "predict", [wavs[number] for number in readable]), strict=True)
        )
    refused = {number: {"error": error} for number, error in errors.items()}
    return [(predictions | refused)[number] | {"file": str(file)} for number, file in enumerate(files)]


def _max_seconds(package_dir: Path) -> float:
    """Return the length of a recording above which a package refuses it."""
    try:
        config = json.loads((package_dir / "data" / "config.json").read_text())
        return float(config["limits"]["max_seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{package_dir} is no package: data/config.json: {error}") from error


def run(package_dir: Path, verb: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Run the package's own code (``python -m spira_inference``) in a new process, with its folder on the path.

    Raises:
        PackageError: the process fails or exceeds its time limit.
    """
    command = [sys.executable, "-P", "-s", "-B", "-m", CODE, verb, str((package_dir / "data").resolve())]
    environment = os.environ | {"PYTHONPATH": str((package_dir / "code").resolve()), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, *(str(path.resolve()) for path in paths)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS + FILE_SECONDS * len(paths),
            check=True,
        )
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip().splitlines() or ["no error message"])[-1]
        raise PackageError(f"{package_dir}: the package's code failed: {last_line}") from error
    except subprocess.TimeoutExpired as error:
        raise PackageError(f"{package_dir}: the package's code did not end within {error.timeout:g} s") from error
    predictions: list[dict[str, Any]] = json.loads(done.stdout)
    return predictions


def digests(package_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but ``package.json`` and byte code, by relative path."""
    return {
        path.relative_to(package_dir).as_posix(): _sha256(path)
        for path in sorted(package_dir.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path != package_dir / DESCRIPTION
    }


def package_digest(package_dir: Path) -> str:
    """Return one SHA-256 for a package: over the sorted paths and hashes of its data, code and description.

    By this digest the model repository recognises a package.
    """
    hashes = {path: sha256 for path, sha256 in digests(package_dir).items() if path.startswith(("data/", "code/"))}
    if (package_dir / DESCRIPTION).is_file():
        hashes[DESCRIPTION] = _sha256(package_dir / DESCRIPTION)
    lines = "".join(f"{path}\0{hashes[path]}\n" for path in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_complete(package_dir: Path) -> None:
    """Check that a package has the files without which it cannot be registered.

    Raises:
        PackageError: one of them is missing.
    """
    if missing := _missing(package_dir):
        raise PackageError(f"{package_dir} is incomplete: {missing} is missing; package the checkpoint again")


def _missing(package_dir: Path) -> str:
    """Return the first file that every package has and this one lacks; empty if there is none."""
    parts = (DESCRIPTION, "data/config.json", f"code/{CODE}/pyfunc.py")
    return next((part for part in parts if not (package_dir / part).is_file()), "")


def check_files(package_dir: Path) -> None:
    """Compare a package's files with those listed in ``package.json``.

    Raises:
        PackageError: a file is missing, changed or not listed; the message names the first one.
    """
    if damage := find_damage(package_dir):
        raise PackageError(f"{package_dir}: {damage}; package the checkpoint again, or fetch it again")


def find_damage(package_dir: Path) -> str:
    """Return the first file of a package that is missing, changed or not listed, and why; empty if it is intact."""
    if missing := _missing(package_dir):
        return f"{missing} is missing" + ("; this is no package" if missing == DESCRIPTION else "")
    try:
        listed: dict[str, str] = dict(json.loads((package_dir / DESCRIPTION).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{DESCRIPTION} cannot be read ({type(error).__name__}: {error}); this is no package"
    present = digests(package_dir)
    for name in sorted(listed.keys() | present.keys()):
        if listed.get(name) != present.get(name):
            return f"{name} " + (
                "is missing" if name not in present else "was changed" if name in listed else "is not listed"
            )
    return ""


def is_identical(a: Path, b: Path) -> bool:
    """Return whether two folders hold the same package, byte for byte."""
    try:
        return (a / DESCRIPTION).read_bytes() == (b / DESCRIPTION).read_bytes() and digests(a) == digests(b)
    except OSError:
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
