"""Verification of a package: its files are complete and unchanged, and its probabilities are torch's.

The project's own inference code computes the probabilities, and reads only data from a package: weights, settings and
golden recordings. The code inside a package is for the Inference Service and never runs here. This needs no torch, so
a package is verified the same way wherever it is promoted or served.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from spira.errors import SpiraError
from spira.inference.golden import golden
from spira.inference.model import FORMATS, Model
from spira.packaging.mlflow_model import CODE, ENVIRONMENT, MLMODEL
from spira.packaging.prediction import Prediction, predict_recording

DESCRIPTION = "package.json"
"""Description of a package, with the SHA-256 of its other files."""

REQUIRED = (DESCRIPTION, "data/config.json", f"code/{CODE}/pyfunc.py")
"""Files without which a package of any format cannot be registered."""

TOLERANCE = 1e-5
"""Largest accepted difference from torch's probability."""

MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError)
"""Exceptions that settings or golden recordings of a wrong form can cause."""


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
    """Compute a package's golden recordings; return the largest difference from torch.

    Args:
        package_dir: the package folder.
        more: other folders with a ``golden.json``.

    Raises:
        PackageError: a probability differs by more than 1e-5 or is not a number, or there is no golden recording.
    """
    with _computing(package_dir):
        model = Model.load(package_dir / "data")
        predictions = [entry for folder in (package_dir / "data", *more) for entry in golden(model, str(folder))]
    if not predictions:
        raise PackageError(f"{package_dir} has no golden recording to verify it with: package the checkpoint again")
    return largest_difference(predictions)


@contextmanager
def _computing(package_dir: Path) -> Iterator[None]:
    """Compute with one thread, as the server does, and turn an error in the package's data into a PackageError.

    The number of threads of a matrix product decides the last bits of a probability.
    """
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    except MALFORMED as error:
        problem = str(error) or type(error).__name__
        raise PackageError(f"{package_dir} cannot be computed: {problem}; package the checkpoint again") from error


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
    """Return file, and probability and diagnosis or error, of each recording.

    Recordings are decoded as in training and in the server.

    Raises:
        PackageError: the package cannot be used at all: a file of it was changed or added, or its data is malformed.
    """
    return [prediction.answer() for prediction in iterate_predictions(package_dir, files)]


def iterate_predictions(package_dir: Path, files: Iterable[Path]) -> Iterator[Prediction]:
    """Yield the answer to each recording, in their order; recordings are decoded as in training and in the server.

    Raises:
        PackageError: the package cannot be used at all, see :func:`predict_with_package`.
    """
    check_files(package_dir)
    with _computing(package_dir):
        model = Model.load(package_dir / "data")
        for file in files:
            yield predict_recording(model, file)


def digests(package_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but ``package.json``, by relative path.

    Raises:
        PackageError: the folder holds something that is neither a file nor a folder, such as a link.
    """
    return {
        path.relative_to(package_dir).as_posix(): _sha256(path)
        for path in regular_files(package_dir)
        if path != package_dir / DESCRIPTION
    }


def regular_files(folder: Path) -> list[Path]:
    """Return all files of a folder, sorted.

    Raises:
        PackageError: the folder holds something that is neither a file nor a folder. A link is refused, because what
            it leads to can change after the check.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found.append(path)
            elif not stat.S_ISDIR(mode):
                raise PackageError(f"{folder}: {_printable(path.relative_to(folder))} is no plain file: remove it")
    return sorted(found)


def package_digest(package_dir: Path) -> str:
    """Return one SHA-256 for a package: over the sorted paths and hashes of all its files.

    By this digest the model repository recognises a package.

    Raises:
        PackageError: the folder holds a link.
    """
    hashes = digests(package_dir)
    if (package_dir / DESCRIPTION).is_file():
        hashes[DESCRIPTION] = _sha256(package_dir / DESCRIPTION)
    lines = "".join(f"{path}\0{hashes[path]}\n" for path in sorted(hashes))
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def check_complete(package_dir: Path) -> None:
    """Check that a package has the files without which it cannot be registered.

    Raises:
        PackageError: one of them is missing, or its format is unknown.
    """
    parts = REQUIRED if _read_format(package_dir) == 1 else (*REQUIRED, MLMODEL, *ENVIRONMENT)
    for part in parts:
        if not (package_dir / part).is_file():
            raise PackageError(f"{package_dir} is incomplete: {part} is missing; package the checkpoint again")


def _read_format(package_dir: Path) -> int:
    written = _description(package_dir).get("format")
    if written not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise PackageError(f"{package_dir} has format {written}, and this release reads the formats {known}")
    return int(written)


def _description(package_dir: Path) -> dict[str, Any]:
    """Return the content of ``package.json``."""
    try:
        content = json.loads((package_dir / DESCRIPTION).read_text("utf-8"))
        if isinstance(content, dict) and isinstance(content.get("files"), dict):
            return content
        problem: object = "it lists no files"
    except FileNotFoundError:
        raise PackageError(f"{package_dir} is no package: {DESCRIPTION} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        problem = error
    raise PackageError(f"{package_dir} is no package: {DESCRIPTION}: {problem}")


def check_files(package_dir: Path) -> None:
    """Compare a package's files with those listed in ``package.json``.

    Raises:
        PackageError: a file is missing, changed or not listed; the message names the first one.
    """
    if difference := _difference(package_dir):
        raise PackageError(f"{package_dir}: {difference}; package the checkpoint again, or fetch it again")
    check_complete(package_dir)


def find_damage(package_dir: Path) -> str:
    """Return why a package is not complete and unchanged; empty if it is."""
    try:
        if difference := _difference(package_dir):
            return difference
        check_complete(package_dir)
    except (PackageError, OSError) as error:
        return str(error).removeprefix(str(package_dir)).lstrip(": ")
    return ""


def _difference(package_dir: Path) -> str:
    """Return the first file that is missing, changed or not listed, and why; empty if there is none."""
    listed, present = _description(package_dir)["files"], digests(package_dir)
    for name in sorted(listed.keys() | present.keys()):
        if listed.get(name) != present.get(name):
            problem = "is missing" if name not in present else "was changed" if name in listed else "is not listed"
            return f"{_printable(name)} {problem}"
    return ""


def is_identical(a: Path, b: Path) -> bool:
    """Return whether two folders hold the same package, byte for byte."""
    try:
        return (a / DESCRIPTION).read_bytes() == (b / DESCRIPTION).read_bytes() and digests(a) == digests(b)
    except (OSError, PackageError):
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _printable(name: str | Path) -> str:
    """Return a file name with escapes for bytes that are not UTF-8 and for control characters."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)
