"""The data-quality report: measures of the recordings, and warnings about what would mislead a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from pydantic import Field

from spira import audio
from spira.config import FrozenModel
from spira.data.metadata import CLASS_NAMES, SPLITS, external_splits

DISTRIBUTIONS = ("seconds", "peak_dbfs", "rms_dbfs", "background_dbfs", "speech_fraction", "clipped_fraction")
SHORTCUTS = {
    "background_dbfs": (6.0, "dB", "background noise"),
    "rms_dbfs": (6.0, "dB", "loudness"),
    "seconds": (2.0, "s", "length"),
}
"""Measure -> (largest difference of the classes' medians without a warning, unit, name)."""
MAX_RATE_DIFFERENCE = 0.25
"""Largest difference of the classes' shares of recordings at one sample rate without a warning."""
MIN_CLASS_FILES = 20
"""Fewest recordings of a class without a warning."""
MIN_MINORITY_SHARE = 0.2
"""Smallest share of a split's recordings in its smaller class without a warning."""

REASONS = {
    r"was not found": "file is missing",
    r"lasts [^,]*, less than": "too short",
    r"lasts .*(more|longer) than": "too long",
    r"noise of .* shorter than": "noise is too short",
    r"is silent": "silent",
    r"is clipped": "clipped",
    r"is cut off": "cut off",
    r"is empty": "empty",
    r"has a sample rate": "sample rate is out of range",
    r"holds the same audio .* other class": "same audio under the other class",
    r"holds the same audio": "same audio in another split",
}
"""Beginning of a rule that a recording breaks (regular expression) -> reason in two or three words, without numbers."""
UNREADABLE = "cannot be read"
"""Reason for every other rule: they are about the content of a file."""


class Distribution(FrozenModel):
    """Quantiles of a measure over recordings."""

    p5: float
    median: float
    p95: float


class ClassQuality(FrozenModel):
    """Measures of the recordings of one class, or of the noise recordings."""

    files: int
    sample_rates: dict[str, int]
    """Number of recordings by sample rate as recorded, Hz."""
    seconds: Distribution
    peak_dbfs: Distribution
    rms_dbfs: Distribution
    background_dbfs: Distribution
    """Level of the quietest frames, see :func:`spira.data.decoding.measure`."""
    speech_fraction: Distribution
    clipped_fraction: Distribution


class SplitQuality(FrozenModel):
    """Measures of the recordings of one split, or of the noise recordings."""

    files: int
    seconds: float
    """Total length."""
    classes: dict[str, int]
    """Number of recordings by class: ``"0"`` control, ``"1"`` patient. Empty for noise."""
    speakers: int | None
    """Number of speakers, or None if they are not known."""
    sample_rates: dict[str, int]
    """Number of recordings by sample rate as recorded, Hz."""
    channels: dict[str, int]
    """Number of recordings by number of channels as recorded."""
    by_class: dict[str, ClassQuality]
    """Measures by class, with the keys of ``classes``; ``"noise"`` for noise."""


class SkippedRecording(FrozenModel):
    """A bad recording that was left out of the corpus."""

    file_path: str
    split: str
    label: int | None = Field(None, exclude_if=lambda label: label is None)
    """Class in the tables; None for noise, and in a corpus before format 5."""
    where: str
    """CSV and row that name the file."""
    rule: str
    """The rule that it breaks, to follow the file's name in a message."""
    message: str
    """CSV, row, file and rule."""

    @property
    def reason(self) -> str:
        """The rule in two or three words, without numbers and names: recordings can be counted by it."""
        return next((reason for rule, reason in REASONS.items() if re.match(rule, self.rule)), UNREADABLE)


class CorpusQuality(FrozenModel):
    """The data-quality report of a corpus, stored in its ``quality.json``."""

    splits: dict[str, SplitQuality]
    noise: SplitQuality
    skipped: tuple[SkippedRecording, ...]
    warnings: tuple[str, ...]
    about: str
    """README of the data set, or an empty string."""


def quality_report(
    measures: pd.DataFrame, repeats: Sequence[str], skipped: Sequence[SkippedRecording], about: str
) -> CorpusQuality:
    """Return the report of a corpus.

    Args:
        measures: one row per recording: split (``noise`` too), label, speaker (missing if not known), then
            the columns of :func:`spira.data.decoding.measure`.
        repeats: a warning for each recording that holds the same audio as another one of its split.
        skipped: recordings that were left out.
        about: README of the data set.
    """
    splits = {str(split): describe(rows) for split, rows in measures.groupby("split")}
    noise = splits.pop("noise")
    warnings = [warning for split in (*SPLITS, *external_splits(splits)) for warning in warn(split, splits[split])]
    if measures["speaker"].isna().all():
        warnings.append("no speaker column: whether a voice is in two splits is not known")
    warnings += repeats
    warnings += _unreadable(measures.loc[measures["split"] != "noise", "encoding"])
    if skipped:
        warnings.append(f"{len(skipped)} bad recordings were skipped: see 'skipped'")
    return CorpusQuality(splits=splits, noise=noise, skipped=tuple(skipped), warnings=tuple(warnings), about=about)


def _unreadable(encodings: pd.Series) -> Iterator[str]:
    """Yield a warning for the recordings in formats that a target of the model cannot read."""
    for_ffmpeg = encodings[encodings.map(audio.needs_pyav)]
    if len(for_ffmpeg):
        yield (
            f"{len(for_ffmpeg)} recordings are in formats that need PyAV ({_counts(for_ffmpeg)}): install spira[av] "
            "where spira predict runs; the KServe server's image has no PyAV and refuses them with status 422"
        )
    for_libraries = encodings[~encodings.map(audio.is_read_by_package)]
    if len(for_libraries):
        yield (
            f"{len(for_libraries)} recordings are in formats that the Inference Service cannot read "
            f"({_counts(for_libraries)}): it answers 'inconclusive' to such a recording and to every other that is no "
            "WAV with PCM, float, mu-law or A-law samples"
        )


def _counts(encodings: pd.Series) -> str:
    """Return how often each value occurs: "3 FLAC PCM_16, 1 OGG OPUS"."""
    return ", ".join(f"{count} {encoding}" for encoding, count in encodings.value_counts().sort_index().items())


def describe(rows: pd.DataFrame) -> SplitQuality:
    """Return the report of one split from the measures of its recordings."""
    labels = sorted(set(rows["label"]) & set(CLASS_NAMES))
    by_class = {str(label): _class_quality(rows[rows["label"] == label]) for label in labels}
    return SplitQuality(
        files=len(rows),
        seconds=round(float(rows["seconds"].sum()), 3),
        classes={label: quality.files for label, quality in by_class.items()},
        speakers=int(rows["speaker"].nunique()) or None,
        sample_rates=_histogram(rows["sample_rate"]),
        channels=_histogram(rows["channels"]),
        by_class=by_class or {"noise": _class_quality(rows)},
    )


def _class_quality(rows: pd.DataFrame) -> ClassQuality:
    quantiles = rows[list(DISTRIBUTIONS)].quantile([0.05, 0.5, 0.95]).round(3)
    distributions = {
        name: Distribution(**dict(zip(("p5", "median", "p95"), quantiles[name].tolist(), strict=True)))
        for name in DISTRIBUTIONS
    }
    return ClassQuality(files=len(rows), sample_rates=_histogram(rows["sample_rate"]), **distributions)


def _histogram(values: pd.Series) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().sort_index().items()}


def warn(split: str, quality: SplitQuality) -> list[str]:
    """Return the warnings that follow from a split's report."""
    control, patient = (quality.by_class[str(label)] for label in CLASS_NAMES)
    return [
        f"{split}: {warning}"
        for warning in (*_shortcuts(control, patient), *_bandwidths(control, patient), *_sizes(quality))
    ]


def _shortcuts(control: ClassQuality, patient: ClassQuality) -> Iterator[str]:
    for measure, (limit, unit, name) in SHORTCUTS.items():
        difference = _median(patient, measure) - _median(control, measure)
        if abs(difference) > limit:
            yield (
                f"{name} of patients differs by {difference:+.1f} {unit} from that of "
                "controls (medians): a network can separate the classes by it without any sign of illness"
            )


NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def fold(warnings: Sequence[str]) -> list[str]:
    """Return one line for all warnings of one kind: those of several splits that differ in their numbers alone.

    >>> fold(["train: length differs by +2.7 s", "eval: length differs by +2.6 s"])
    ['train, eval: length differs by +2.6 to +2.7 s']
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for warning in warnings:
        split, colon, text = warning.partition(": ")
        if not colon or split not in SPLITS:
            split, text = "", warning
        kinds.setdefault(f"{bool(split)} {NUMBER.sub('#', text)}", []).append((split, text))
    return [_folded(group) for group in kinds.values()]


def _folded(group: Sequence[tuple[str, str]]) -> str:
    """Return one line for warnings of one kind; a number that differs becomes a range."""
    splits = ", ".join(dict.fromkeys(split for split, _ in group if split))
    texts = [text for _, text in group]
    numbers = zip(*(NUMBER.findall(text) for text in texts), strict=True)
    ranges = iter([_range(values) for values in numbers])
    line = NUMBER.sub(lambda _: next(ranges), texts[0])
    return f"{splits}: {line}" if splits else line


def _range(numbers: Sequence[str]) -> str:
    """Return the smallest and the largest of some numbers, as they are written."""
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if low == high else f"{low} to {high}"


def _median(quality: ClassQuality, measure: str) -> float:
    distribution: Distribution = getattr(quality, measure)
    return distribution.median


def _bandwidths(control: ClassQuality, patient: ClassQuality) -> Iterator[str]:
    for rate in sorted({*control.sample_rates, *patient.sample_rates}, key=int):
        control_share, patient_share = (
            quality.sample_rates.get(rate, 0) / quality.files for quality in (control, patient)
        )
        if abs(control_share - patient_share) > MAX_RATE_DIFFERENCE:
            yield (
                f"{control_share:.0%} of controls but {patient_share:.0%} of patients were recorded "
                f"at {rate} Hz: the bandwidth gives the class away"
            )


def _sizes(quality: SplitQuality) -> Iterator[str]:
    classes: Mapping[str, int] = quality.classes
    smallest = min(classes.values())
    if smallest < MIN_CLASS_FILES:
        yield f"a class has only {smallest} recordings: figures from it are uncertain"
    if smallest < MIN_MINORITY_SHARE * quality.files:
        yield f"the classes are unbalanced, {classes}"
