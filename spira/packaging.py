"""A checkpoint -> a package: what is served, with the code that serves it and the proof that it does.

    package.json                  format, seed, lineage, proof, SHA-256 of every file
    data/config.json              features, windows, architecture, threshold, abstention band, limits
    data/weights.npz              the network's arrays, float32
    data/golden/*.wav             synthetic recordings (:mod:`spira.golden`), and in
    data/golden.json              torch's probability of each
    code/spira_inference/         a copy of :mod:`spira.inference`: numpy and scipy only

The same checkpoint, verdict and lineage give the same bytes on the same machine, so that a model repository knows a
package that it has; hence no time stands in it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile
from torch import nn

from spira import checkpoint, golden, inference
from spira.audio import decode
from spira.config import SAMPLE_RATE_HZ, Config, Preprocess
from spira.corpus import Corpus
from spira.errors import SpiraError
from spira.inference.model import FORMAT
from spira.inference.wav import AudioError
from spira.prediction import predict_files as predict_waveforms

CODE = "spira_inference"
"""Name of the inference code inside a package."""

TOLERANCE = 1e-5
"""Largest difference from torch's probability."""

VOICES = 8
"""Recordings of the test split on which the proof is made too; they don't enter the package."""

START_SECONDS, FILE_SECONDS = 120, 30
"""The longest that a package's process may take to start and check itself, and more for a recording given."""


class PackageError(SpiraError):
    """A package that must not be served, or can't be made."""


def package(
    checkpoint_dir: Path, corpus: Corpus | None, verdict: dict[str, Any], out: Path, lineage: dict[str, Any]
) -> Path:
    """Make the package of a checkpoint in the folder ``out``, all or nothing.

    Args:
        corpus: whose test recordings take part in the proof; None where they are not at hand.
        verdict: its gate gives the abstention band.
        lineage: where the model comes from, as it shall stand in ``package.json``.

    Raises:
        PackageError: the package's probabilities are not torch's, or ``out`` holds something else.
    """
    trained = checkpoint.load(checkpoint_dir)
    with _building(out) as folder:
        write_data(folder / "data", trained, band(verdict))
        shutil.copytree(
            Path(inference.__file__).parent, folder / "code" / CODE, ignore=shutil.ignore_patterns("__pycache__")
        )
        difference = prove_with_voices(folder, trained.network, trained.config, corpus) if corpus else prove(folder)
        described = {
            "format": FORMAT,
            "seed": trained.info["seed"],
            "lineage": lineage,
            "training": {key: trained.info.get(key) for key in ("corpus_digest", "config_digest", "best_epoch")},
            "largest_difference": difference,
            "files": digests(folder),
        }
        (folder / "package.json").write_text(json.dumps(described, indent=1, sort_keys=True))
    return out


def band(verdict: dict[str, Any]) -> tuple[float, float]:
    """The abstention band of a verdict's gate."""
    try:
        low, high = verdict["gate"]["abstention"]["band"]
    except (KeyError, TypeError) as error:
        raise PackageError("the verdict names no gate.abstention.band: evaluate the checkpoint again") from error
    return low, high


def write_data(data: Path, trained: checkpoint.Checkpoint, abstention: tuple[float, float]) -> None:
    """Write what the inference code loads, and the golden recordings."""
    data.mkdir(parents=True)
    config = trained.config
    settings = {
        "format": FORMAT,
        "architecture": config.model.architecture,
        "features": config.features.model_dump(mode="json"),
        "windows": config.windows.model_dump(mode="json"),
        "threshold": config.evaluation.threshold,
        "abstention": abstention,
        "limits": config.preprocess.model_dump(include={"min_seconds", "max_seconds", "silence_dbfs"}),
        "sample_rate_hz": SAMPLE_RATE_HZ,
    }
    (data / "config.json").write_text(json.dumps(settings, indent=1))
    arrays = {name: value.numpy() for name, value in trained.network.state_dict().items() if value.is_floating_point()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise PackageError(f"the weights {name} hold NaN or infinity, so this model must not be served")
    np.savez(data / "weights.npz", allow_pickle=False, **arrays)
    golden.write(data, trained.network, config)


def verify(package_dir: Path) -> float:
    """Check a package's files, and its golden recordings in a process of its own; gives the largest difference.

    Raises:
        PackageError: a file is missing, changed or not its own, or a probability is off by more than 1e-5.
    """
    check_files(package_dir)
    return prove(package_dir)


def prove(package_dir: Path, *more: Path) -> float:
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


def prove_with_voices(package_dir: Path, network: nn.Module, config: Config, corpus: Corpus) -> float:
    """:func:`prove`, also on recordings of the test split in a temporary folder: no voice stays in the package."""
    test = corpus.split("test")
    chosen = [int(i) for i in np.unique(np.linspace(0, len(test) - 1, VOICES).round())]
    probabilities = predict_waveforms(network, config, (test.waveform(i) for i in chosen))
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / f"test-{i}.wav" for i in chosen]
        for i, file in zip(chosen, files, strict=True):
            wavfile.write(file, SAMPLE_RATE_HZ, test.waveform(i))
        golden.write_listing(Path(temporary) / golden.LISTING, list(zip(files, probabilities.tolist(), strict=True)))
        return prove(package_dir, Path(temporary))


def predict_files(package_dir: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
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


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A folder that becomes ``out`` when all went well, and is gone when not."""
    folder = out.with_name(f".{out.name}.building")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        _settle(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settle(folder: Path, out: Path) -> None:
    """Rename, unless the very same package is there already."""
    if not out.exists() or not any(out.iterdir()):
        folder.rename(out)
    elif not same(folder, out):
        raise PackageError(f"{out} holds something else: choose another folder or delete it")


def same(a: Path, b: Path) -> bool:
    """Whether two folders are the same package, byte for byte."""
    try:
        return (a / "package.json").read_bytes() == (b / "package.json").read_bytes() and digests(a) == digests(b)
    except OSError:
        return False
