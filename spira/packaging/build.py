"""A checkpoint -> a package: what is served, with the code that serves it and the proof that it does.

    package.json                  format, seed, lineage, proof, SHA-256 of every file
    data/config.json              features, windows, architecture, threshold, abstention band, limits
    data/weights.npz              the network's arrays, float32
    data/golden/*.wav             synthetic recordings (:mod:`spira.packaging.golden`), and in
    data/golden.json              torch's probability of each
    code/spira_inference/         a copy of :mod:`spira.inference`: numpy and scipy only

The same checkpoint, verdict and lineage give the same bytes on the same machine, so that a model repository knows a
package that it has; hence no time stands in it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile
from torch import nn

from spira import inference
from spira.config import SAMPLE_RATE_HZ, Config
from spira.data.corpus import Corpus
from spira.evaluation.predict import predict_files as predict_waveforms
from spira.inference.model import FORMAT
from spira.models import checkpoint
from spira.packaging import golden
from spira.packaging.verify import CODE, PackageError, check_golden, digests, is_identical

VOICES = 8
"""Recordings of the test split on which the proof is made too; they don't enter the package."""


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
        difference = (
            check_with_recordings(folder, trained.network, trained.config, corpus) if corpus else check_golden(folder)
        )
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


def check_with_recordings(package_dir: Path, network: nn.Module, config: Config, corpus: Corpus) -> float:
    """Check the golden recordings, and recordings of the test split from a temporary folder: no voice stays in it."""
    test = corpus.split("test")
    chosen = [int(i) for i in np.unique(np.linspace(0, len(test) - 1, VOICES).round())]
    probabilities = predict_waveforms(network, config, (test.waveform(i) for i in chosen))
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / f"test-{i}.wav" for i in chosen]
        for i, file in zip(chosen, files, strict=True):
            wavfile.write(file, SAMPLE_RATE_HZ, test.waveform(i))
        golden.write_listing(Path(temporary) / golden.LISTING, list(zip(files, probabilities.tolist(), strict=True)))
        return check_golden(package_dir, Path(temporary))


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
    elif not is_identical(folder, out):
        raise PackageError(f"{out} holds something else: choose another folder or delete it")
