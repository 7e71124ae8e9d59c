"""Building a package from a checkpoint: what is served, the code that serves it, and golden recordings.

Layout::

    package.json                  format, seed, lineage, largest difference from torch, SHA-256 of every other file
    MLmodel, conda.yaml, ...      what MLflow loads it by (:mod:`spira.packaging.mlflow_model`)
    data/config.json              features, windows, architecture, threshold, abstention band, limits,
                                  and the temperature of probabilities if the gate has temperature scaling
    data/weights.npz              the network's arrays, float32
    data/golden/*.wav             synthetic recordings (:mod:`spira.packaging.golden`)
    data/golden.json              torch's probability of each golden recording
    code/spira_inference/         a copy of :mod:`spira.inference`, for the Inference Service only

The same checkpoint, band and lineage give the same bytes on the same machine, so a package holds no time. By its
bytes the model repository recognises a package that it has already. The folder that is registered is the package, file
by file. Beside it stand signed provenance (:mod:`spira.packaging.attestation`) and a model card.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from torch import nn

from spira import inference, temporary
from spira.config import SAMPLE_RATE_HZ, Config
from spira.data.corpus import Corpus
from spira.evaluation.diagnosis import with_temperature
from spira.evaluation.predict import predict_waveforms
from spira.evaluation.verdict import DiagnosisRule
from spira.inference.model import FORMAT
from spira.models import checkpoint
from spira.packaging import golden, mlflow_model
from spira.packaging.mlflow_model import CODE
from spira.packaging.verify import PackageError, check_golden, digests, is_identical

TEST_RECORDINGS = 8
"""Test recordings on which a package is checked while it is built; they do not enter the package."""


def package(
    checkpoint_dir: Path,
    corpus: Corpus | None,
    band: tuple[float, float],
    out: Path,
    lineage: Mapping[str, str],
    diagnosis: DiagnosisRule | None = None,
) -> Path:
    """Build the package of a checkpoint in the folder ``out``, all or nothing.

    Args:
        checkpoint_dir: the checkpoint folder.
        corpus: its test recordings take part in the check; None if the corpus is not available.
        band: abstention band of the gate that approved the model; between its ends a prediction is 'inconclusive'.
        out: the package folder to create; if it holds the same package already, nothing changes.
        lineage: origin of the model, recorded in ``package.json``.
        diagnosis: threshold, band and temperature as chosen on the validation split, in place of those of the
            configuration and of ``band``.

    Raises:
        PackageError: the package's probabilities differ from torch's, or ``out`` holds something else.
    """
    trained = checkpoint.load(checkpoint_dir)
    with _building(out) as folder:
        write_data(folder / "data", trained, band, diagnosis)
        shutil.copytree(
            Path(inference.__file__).parent, folder / "code" / CODE, ignore=shutil.ignore_patterns("__pycache__")
        )
        mlflow_model.write(folder)
        difference = (
            check_with_recordings(folder, trained.network, trained.config, corpus, _temperature(diagnosis))
            if corpus
            else check_golden(folder)
        )
        info = trained.info
        description = {
            "format": FORMAT,
            "seed": info.seed,
            "lineage": dict(lineage),
            "training": {
                "corpus_digest": info.corpus_digest,
                "config_digest": info.config_digest,
                "best_epoch": info.best_epoch,
            },
            "largest_difference": difference,
            "files": digests(folder),
        }
        if diagnosis:
            description["diagnosis"] = diagnosis.model_dump(mode="json")
        (folder / "package.json").write_text(json.dumps(description, indent=1, sort_keys=True))
    return out


def write_data(
    data: Path, trained: checkpoint.Checkpoint, band: tuple[float, float], diagnosis: DiagnosisRule | None
) -> None:
    """Write the folder that the inference code loads, and the golden recordings."""
    data.mkdir(parents=True)
    config = trained.config
    settings = {
        "format": FORMAT,
        "architecture": config.model.architecture,
        "features": config.features.model_dump(mode="json"),
        "windows": config.windows.model_dump(mode="json"),
        "threshold": diagnosis.threshold if diagnosis else config.evaluation.threshold,
        "abstention": diagnosis.band if diagnosis else band,
        "limits": config.preprocess.model_dump(include={"min_seconds", "max_seconds", "silence_dbfs"}),
        "sample_rate_hz": SAMPLE_RATE_HZ,
    }
    if _temperature(diagnosis) != 1.0:  # left out otherwise: older code that reads this format computes the same
        settings["temperature"] = _temperature(diagnosis)
    (data / "config.json").write_text(json.dumps(settings, indent=1))
    arrays = {name: value.numpy() for name, value in trained.network.state_dict().items() if value.is_floating_point()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise PackageError(f"the weights {name} hold NaN or infinite values: this model must not be served")
    np.savez(data / "weights.npz", allow_pickle=False, **arrays)
    golden.write(data, trained.network, config, _temperature(diagnosis))


def _temperature(diagnosis: DiagnosisRule | None) -> float:
    return diagnosis.temperature if diagnosis else 1.0


def check_with_recordings(
    package_dir: Path, network: nn.Module, config: Config, corpus: Corpus, temperature: float = 1.0
) -> float:
    """Check the golden recordings and some test recordings; return the largest difference from torch.

    The test recordings are written to a temporary folder, so that no voice stays in the package.
    """
    test = corpus.split("test")
    chosen = [int(i) for i in np.unique(np.linspace(0, len(test) - 1, TEST_RECORDINGS).round())]
    uncalibrated = predict_waveforms(network, config, (test.waveform(i) for i in chosen))
    probabilities = with_temperature(uncalibrated, temperature)
    with temporary.folder() as folder:
        paths = [folder / f"test-{i}.wav" for i in chosen]
        for i, path in zip(chosen, paths, strict=True):
            wavfile.write(path, SAMPLE_RATE_HZ, test.waveform(i))
        golden.write_listing(folder / golden.LISTING, list(zip(paths, probabilities.tolist(), strict=True)))
        return check_golden(package_dir, folder)


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """Provide a folder that becomes ``out`` at the end, and is removed on an exception."""
    folder = out.with_name(f".{out.name}.building")
    shutil.rmtree(folder, ignore_errors=True)  # left by a kill
    folder.mkdir(parents=True)
    try:
        yield folder
        _rename(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rename(folder: Path, out: Path) -> None:
    """Rename ``folder`` to ``out``, unless the same package is there already."""
    if not out.exists() or not any(out.iterdir()):
        folder.rename(out)
    elif not is_identical(folder, out):
        raise PackageError(f"{out} holds something else: choose another folder or delete it")
