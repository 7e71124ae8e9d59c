"""Checking a package: its files are its own, and its code gives torch's probabilities of its golden recordings.

The package's own code answers, in a process of its own. No torch is needed: what is promoted and served is checked
so wherever that happens.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy.io import wavfile

from spira.config import SAMPLE_RATE_HZ, Preprocess
from spira.data.decoding import decode
from spira.errors import SpiraError
from spira.inference.wav import AudioError

CODE = "spira_inference"
"""Name of the inference code inside a package."""

TOLERANCE = 1e-5
"""Largest difference from torch's probability."""

START_SECONDS, FILE_SECONDS = 120, 30
"""The longest that a package's process may take to start and check itself, and more for a recording given."""


class PackageError(SpiraError):
    """A package that must not be served, or can't be made."""


def verify(package_dir: Path) -> float:
    """Check a package's files, and its golden recordings in a process of its own; gives the largest difference.

    Raises:
        PackageError: a file is missing, changed or not its own, or a probability is off by more than 1e-5.
    """
    check_files(package_dir)
    return check_golden(package_dir)


def check_golden(package_dir: Path, *more: Path) -> float:
    """Largest difference from torch over the package's golden recordings, computed in a process of its own.

    Args:
        more: other folders with a ``golden.json``.

    Raises:
        PackageError: one is off by more than 1e-5, is no number, or there is none to compare.
    """
    answers = run(package_dir, "golden", more)
    if not answers:
        raise PackageError(f"{package_dir}: there is no golden recording to check it with: package it again")
    return largest_difference(answers)


def largest_difference(answers: Iterable[dict[str, Any]]) -> float:
    """Between the probabilities that a package gives and those expected.

    Raises:
        PackageError: one is off by more than 1e-5, or is no number.
    """
    differences = []
    for answer in answers:
        difference = abs(answer.get("probability", math.nan) - answer["expected"])
        if not difference <= TOLERANCE:  # NaN is no proof
            found = answer.get("error") or f"{answer['probability']:.7f}"
            raise PackageError(
                f"{answer['file']}: the package says {found}, torch {answer['expected']:.7f}; "
                f"they may differ by {TOLERANCE:g}, so this model must not be served"
            )
        differences.append(difference)
    return max(differences)


def predict_with_package(package_dir: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    """What a package's own code says of recordings: file, and probability and diagnosis, or error.

    A WAV is given to it as it is, as the Inference Service does; other formats are decoded by libsndfile before.

    Raises:
        PackageError: the package can't be used at all.
    """
    with tempfile.TemporaryDirectory() as temporary:
        wavs = [_as_wav(Path(file), Path(temporary) / f"{i}.wav") for i, file in enumerate(files)]
        answers = run(package_dir, "predict", wavs)
    return [answer | {"file": str(file)} for answer, file in zip(answers, files, strict=True)]


def _as_wav(file: Path, converted: Path) -> Path:
    """A WAV file of the recording; what can't be converted is left as it is, for the package to refuse."""
    try:
        with file.open("rb") as opened:
            if opened.read(4) == b"RIFF":
                return file
        limits = Preprocess()
        wavfile.write(converted, SAMPLE_RATE_HZ, decode(file, limits, limits.max_seconds).samples)
    except (OSError, AudioError):
        return file
    return converted


def run(package_dir: Path, verb: str, places: Sequence[Path]) -> list[dict[str, Any]]:
    """Run the package's own code (``python -m spira_inference``) in a fresh process, with its folder on the path.

    Raises:
        PackageError: it fails or hangs.
    """
    command = [sys.executable, "-P", "-s", "-B", "-m", CODE, verb, str((package_dir / "data").resolve())]
    environment = os.environ | {"PYTHONPATH": str((package_dir / "code").resolve()), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, *(str(place.resolve()) for place in places)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS + FILE_SECONDS * len(places),
            check=True,
        )
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise PackageError(f"{package_dir}: the package's code failed: {last_line}") from error
    except subprocess.TimeoutExpired as error:
        raise PackageError(f"{package_dir}: the package's code gave no answer in {error.timeout:g} s") from error
    return json.loads(done.stdout)


def digests(package_dir: Path) -> dict[str, str]:
    """SHA-256 of every file of a package but ``package.json``, by relative path; byte code is no part of it."""
    return {
        file.relative_to(package_dir).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(package_dir.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts and file != package_dir / "package.json"
    }


def check_files(package_dir: Path) -> None:
    """Compare a package's files with those that ``package.json`` lists.

    Raises:
        PackageError: the first that is missing, changed or not listed.
    """
    try:
        listed = json.loads((package_dir / "package.json").read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise PackageError(f"{package_dir} is no package: package.json: {error}") from error
    found = digests(package_dir)
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            trouble = "is missing" if name not in found else "was changed" if name in listed else "is not its own"
            raise PackageError(f"{package_dir}: {name} {trouble}; package the checkpoint again, or fetch it again")


def is_identical(a: Path, b: Path) -> bool:
    """Whether two folders are the same package, byte for byte."""
    try:
        return (a / "package.json").read_bytes() == (b / "package.json").read_bytes() and digests(a) == digests(b)
    except OSError:
        return False
