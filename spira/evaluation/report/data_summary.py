"""The data of a model in counts, without a name: what may go into MLflow, a model card and a dossier."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from spira.config import FrozenModel
from spira.data.metadata import SPLITS

if TYPE_CHECKING:
    from spira.data.corpus import Corpus

FILE = "data.json"
"""Name of the file in a run of MLflow, and in a dossier."""


class SplitCounts(FrozenModel):
    """Size of one split."""

    controls: int
    """Recordings of controls."""
    patients: int
    """Recordings of patients."""
    speakers: int | None
    """None where speakers are not known."""
    minutes: float
    sample_rates_hz: dict[str, int]
    """Number of recordings by sample rate as recorded."""


class DataSummary(FrozenModel):
    """Counts of a corpus, and what its data set says of itself."""

    name: str
    """Name of the data set: the last part of its address."""
    digest: str
    """SHA-256 over all recordings and tables."""
    splits: dict[str, SplitCounts]
    noises: int
    """Recordings of ward noise."""
    noise_minutes: float
    left_out: int
    """Recordings that were refused."""
    notice: str = ""
    """Words by which the data set calls itself synthetic; empty for recordings of patients."""
    warnings: tuple[str, ...] = ()
    """Properties that would mislead a network."""


def data_set_name(corpus: Corpus) -> str:
    """Return the last part of the data set's address."""
    return PurePosixPath(corpus.manifest.uri).name or corpus.manifest.uri


def summarize(corpus: Corpus, notice: str) -> DataSummary:
    """Return the counts of a corpus; ``notice`` are the words by which it calls itself synthetic."""
    quality = corpus.quality
    splits = {
        name: SplitCounts(
            controls=quality.splits[name].classes["0"],
            patients=quality.splits[name].classes["1"],
            speakers=quality.splits[name].speakers,
            minutes=round(quality.splits[name].seconds / 60, 1),
            sample_rates_hz=quality.splits[name].sample_rates,
        )
        for name in SPLITS
    }
    return DataSummary(
        name=data_set_name(corpus),
        digest=corpus.digest,
        splits=splits,
        noises=quality.noise.files,
        noise_minutes=round(quality.noise.seconds / 60, 1),
        left_out=len(quality.skipped),
        notice=notice,
        warnings=quality.warnings,
    )
