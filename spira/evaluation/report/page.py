"""The report: a verdict as one HTML page without scripts and requests; pictures and audio are inside the file.

The same inputs give the same bytes. File names and metadata come from users: the template escapes them.

Two kinds of page
    The page for other places, such as MLflow and a dashboard, has pseudonyms instead of names, and neither audio nor
    spectrograms. The page for the work folder has names, and voices if they are requested.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from markupsafe import Markup, escape

from spira import digests, files
from spira.config import SAMPLE_RATE_HZ, Config
from spira.data import quality
from spira.data.corpus import Corpus
from spira.data.metadata import CLASS_NAMES, MISSING, SPLITS
from spira.data.pseudonyms import Pseudonyms
from spira.data.quality import SkippedRecording
from spira.evaluation import confounders
from spira.evaluation import verdict as verdicts
from spira.evaluation.diagnosis import with_temperature
from spira.evaluation.metrics import METRICS
from spira.evaluation.numbers import number, percent
from spira.evaluation.predict import predict_windows
from spira.evaluation.report import plots, sharing, tables
from spira.evaluation.report.head import NOTHING_KNOWN, Origin, head
from spira.evaluation.verdict import (
    CONDITIONS,
    HISTORIES,
    MIN_BIN_SPEAKERS,
    PREDICTIONS,
    PROBES,
    VERDICT,
    CalibrationBin,
    Check,
    CheckGroup,
    CheckKind,
    Verdict,
)
from spira.features import windows
from spira.language import Language, Translator, page_environment, translator
from spira.models import checkpoint as checkpoints
from spira.models.checkpoint import Checkpoint

MAX_DETAILED = 6
"""Number of mistakes with details, audio and spectrogram; the others are listed."""
MAX_CLIP_SECONDS = 12.0
"""Length of the audio of a mistake: a longer recording is cut, so that a page stays below 4 MB."""
NOT_SHOWN = {"file_path", "label", "split", "offset", "samples", "seconds", "sha256"}
"""Columns of the corpus index that the details of a mistake leave out."""
SYNTHETIC = re.compile(r"\b(synthetic|stand-in|simulated|artificial)\b", re.IGNORECASE)
"""Words in a data set's description that show that its recordings are not of patients."""
LIMIT_SIGNS = {
    CheckKind.DATA: "≥",
    CheckKind.AT_LEAST: "≥",
    CheckKind.LOW_AT_LEAST: "lower end ≥",
    CheckKind.AT_MOST: "≤",
}
"""Sign before the limit of a check."""

SVG_TEXT = re.compile(r"(?<=>)[^<>]+(?=</text>)")
"""A text of a picture."""

Histories = Mapping[str, list[dict[str, float]]]
"""Seed -> metrics of each epoch."""


@dataclass(frozen=True)
class Setting:
    """One setting of the configuration, with its default."""

    name: str
    value: Any
    default: Any

    @property
    def is_changed(self) -> bool:
        return bool(self.value != self.default)


@dataclass(frozen=True)
class ShownMistake:
    """A mistake with everything that the page shows of it."""

    name: str
    """File, or its pseudonym."""
    label: int
    probability: float
    seconds: float
    metadata: dict[str, object]
    """Speaker and optional columns of the corpus index; none on a page for other places."""
    is_detailed: bool
    """Whether it is one of the first :data:`MAX_DETAILED`."""
    probabilities: dict[str, float]
    """Condition -> mean probability."""
    draws: tuple[float, ...]
    """Probability in each draw of noise."""
    windows: Markup
    """Probability by window, of the recording without inserted noise; on a page with voices with its spectrogram.
    Empty beyond the first mistakes."""
    audio: str
    """Data URI; empty beyond the first mistakes, and on a page without voices."""


@dataclass(frozen=True)
class Content:
    """What a page may show of people."""

    pseudonyms: Pseudonyms | None = None
    """In place of names; None to show the names."""
    has_voices: bool = False
    """Whether it has audio and spectrograms of mistakes."""
    language: Language = Language.ENGLISH


def write(
    verdict_dir: Path,
    checkpoint: Path,
    corpus: Corpus,
    out: Path,
    lineage: Mapping[str, str],
    content: Content,
    origin: Origin = NOTHING_KNOWN,
) -> Path:
    """Write the report of a verdict.

    Args:
        verdict_dir: verdict folder (:func:`spira.evaluation.evaluate.evaluate`); its ``histories.json``
            (seed -> history), if any, gives the training curves of all seeds.
        checkpoint: checkpoint folder of the candidate.
        corpus: the corpus of the evaluation.
        out: the HTML file; it appears when it is complete.
        lineage: tags of :func:`spira.lineage.tags`, or any others.
        content: what the page may show of people.
        origin: what is known beside these, for the head.

    Raises:
        SpiraError: the verdict or the checkpoint cannot be read.
    """
    digests.check(verdict_dir, (VERDICT, PREDICTIONS, HISTORIES), verdicts.REMEDY)
    verdict = verdicts.read(verdict_dir / VERDICT)
    predictions = pd.read_parquet(verdict_dir / PREDICTIONS)
    trained = checkpoints.load(checkpoint)
    histories = {str(verdict.candidate.seed): trained.history}
    if (verdict_dir / HISTORIES).is_file():
        histories = files.read_json(verdict_dir / HISTORIES)
    html = render(verdict, predictions, trained, histories, corpus, lineage, content, origin)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(out, html)
    return out


def render(
    verdict: Verdict,
    predictions: pd.DataFrame,
    trained: Checkpoint,
    histories: Histories,
    corpus: Corpus,
    lineage: Mapping[str, str],
    content: Content,
    origin: Origin = NOTHING_KNOWN,
) -> str:
    """Return the page; see :func:`write`."""
    words = translator(content.language)
    environment = page_environment(words)
    environment.filters["number"] = lambda value, digits=3: words.number(number(value, digits))
    environment.filters["percent"] = percent
    environment.filters["t"] = words.message
    template = (resources.files("spira.evaluation.report") / "page.html").read_text("utf-8")
    shown = sharing.shared_verdict(verdict, content.pseudonyms) if content.pseudonyms else verdict
    return environment.from_string(template).render(
        verdict=shown,
        head=head(origin, corpus, trained.info, lineage),
        checks=grouped_checks(verdict),
        status=status(verdict),
        card=card(verdict, trained, corpus),
        notice=notice(corpus),
        description=corpus.quality.about,
        pictures={
            name: translated(picture, words)
            for name, picture in pictures(verdict, predictions, histories, corpus).items()
        },
        mistakes=[
            dataclasses.replace(mistake, windows=translated(mistake.windows, words))
            for mistake in mistakes(verdict, predictions, trained, corpus, content)
        ],
        has_voices=content.has_voices,
        tables={name: tables.link(rows) for name, rows in downloads(shown, corpus).items()},
        skipped=skipped(corpus, content.pseudonyms),
        settings=settings(trained.config),
        config=trained.config,
        info=trained.info,
        gate=verdict.gate.model_dump(mode="json"),
        corpus=corpus,
        lineage=lineage,
        listed=confounders.listed,
        fold=quality.fold,
        threshold=verdict.threshold,
        language=content.language.value,
        titles={name: words.message(title) for name, title in titles(verdict).items()},
        plurals=[f"{name}s" for name in CLASS_NAMES.values()],
        probes=PROBES,
        metrics=METRICS,
        methods=interval_methods(verdict),
        calibration_rows=calibration_rows(verdict),
        min_bin_speakers=MIN_BIN_SPEAKERS,
        limit_signs=LIMIT_SIGNS,
        classes={str(label): name for label, name in CLASS_NAMES.items()},
        light=plots.LIGHT,
        dark=plots.DARK,
    )


def downloads(verdict: Verdict, corpus: Corpus) -> dict[str, list[tables.Row]]:
    """Return the tables that have rows, by name."""
    all_tables = {
        "checks": tables.checks(verdict),
        "metrics": tables.metrics(verdict),
        "seeds": tables.seeds(verdict),
        "slices": tables.slices(verdict),
        "calibration": tables.calibration(verdict),
        "quality": tables.quality(corpus.quality),
    }
    return {name: rows for name, rows in all_tables.items() if rows}


def translated(picture: Markup, words: Translator) -> Markup:
    """Return a picture with its texts in the language of ``words``."""
    if words.language == Language.ENGLISH:
        return picture
    return Markup(SVG_TEXT.sub(lambda match: escape(words.message(unescape(match[0]))), picture))


def titles(verdict: Verdict) -> dict[str, str]:
    """Return the title of each measured condition; its name if an older version measured it."""
    return {name: CONDITIONS.get(name, name) for name in verdict.conditions}


def interval_methods(verdict: Verdict) -> dict[str, tuple[str, list[str]]]:
    """Return method -> (source, names of the metrics whose intervals it gives); none for earlier verdicts."""
    methods: dict[str, tuple[str, list[str]]] = {}
    noisy = verdict.conditions.get("noisy")
    estimates = dict(noisy.by_file) if noisy else {}
    names = {name: METRICS[name].name if name in METRICS else name for name in estimates}
    if noisy and noisy.calibration.bins:
        estimates["bins"], names["bins"] = noisy.calibration.bins[0].observed, "observed share of patients"
    if verdict.champion:
        estimates["difference"], names["difference"] = verdict.champion.difference, "difference to the champion"
    for name, estimate in estimates.items():
        if estimate.method:
            methods.setdefault(estimate.method, (estimate.source or "", []))[1].append(names[name])
    return methods


def grouped_checks(verdict: Verdict) -> dict[CheckGroup, list[Check]]:
    """Return the checks of every group, in the order of the groups; of a group that was not checked, none."""
    return {group: [check for check in verdict.checks if check.group == group] for group in CheckGroup}


def calibration_rows(verdict: Verdict) -> list[dict[str, CalibrationBin]]:
    """Return the bins that have predictions under any condition but the probes: condition -> bin, by probability."""
    rows: dict[float, dict[str, CalibrationBin]] = {}
    for name, condition in verdict.conditions.items():
        for of_bin in () if name in PROBES else condition.calibration.bins:
            rows.setdefault(of_bin.low, {})[name] = of_bin
    return [rows[low] for low in sorted(rows)]


def status(verdict: Verdict) -> str:
    """Return ``approved``, ``refused`` (too little data, whatever else failed) or ``rejected``."""
    if verdict.approved:
        return "approved"
    has_too_little_data = any(check.kind == CheckKind.DATA and not check.passed for check in verdict.checks)
    return "refused" if has_too_little_data and verdict.conditions else "rejected"


def notice(corpus: Corpus) -> str:
    """Return the paragraph of the data set's description that calls it synthetic or a stand-in, or ""."""
    paragraphs = (" ".join(part.replace("**", "").split()) for part in corpus.quality.about.split("\n\n"))
    return next((part for part in paragraphs if SYNTHETIC.search(part)), "")


def settings(config: Config) -> dict[str, list[Setting]]:
    """Return the settings of each section of the configuration."""
    defaults = Config().model_dump(mode="json")
    return {
        section: [Setting(name, value, defaults[section][name]) for name, value in values.items()]
        for section, values in config.model_dump(mode="json").items()
    }


def pictures(verdict: Verdict, predictions: pd.DataFrame, histories: Histories, corpus: Corpus) -> dict[str, Markup]:
    """Draw the pictures of the page, apart from the spectrograms; without measurements only those of the training."""
    measured = verdict.conditions
    drawn = {"background": plots.background_levels({name: corpus.quality.splits[name].model_dump() for name in SPLITS})}
    if any(histories.values()):
        drawn["training"] = plots.training_curves(histories, str(verdict.candidate.seed))
    if measured:
        tests = {name: condition for name, condition in measured.items() if name not in PROBES}
        threshold, band = verdict.threshold, verdict.band
        drawn["roc"] = plots.roc(measured, titles(verdict))
        drawn["calibration"] = plots.calibration(tests, titles(verdict))
        drawn["distributions"] = plots.distributions(predictions, titles(verdict), threshold, band)
    return {name: Markup(svg) for name, svg in drawn.items()}


def skipped(corpus: Corpus, pseudonyms: Pseudonyms | None) -> list[SkippedRecording]:
    """Return the recordings that were left out, as the page shows them."""
    if not pseudonyms:
        return list(corpus.quality.skipped)
    return [
        # the rule of a missing file names the file that was probably meant
        recording.model_copy(
            update={
                "file_path": pseudonyms.recording(recording.file_path),
                "rule": "was not found" if recording.rule.startswith(MISSING) else recording.rule,
            }
        )
        for recording in corpus.quality.skipped
    ]


def mistakes(
    verdict: Verdict, predictions: pd.DataFrame, trained: Checkpoint, corpus: Corpus, content: Content
) -> list[ShownMistake]:
    """Return the worst mistakes with their metadata; the first few with what explains them."""
    shown = []
    for position, mistake in enumerate(verdict.mistakes):
        recordings = corpus.split(mistake.split)
        row = int(recordings.table.index[recordings.table["file_path"] == mistake.file_path][0])
        of_file = predictions[predictions["file_path"] == mistake.file_path]
        means = of_file.groupby("condition", sort=False)["probability"].mean()
        is_detailed = position < MAX_DETAILED
        waveform = recordings.waveform(row)
        clip = waveform[: round(MAX_CLIP_SECONDS * SAMPLE_RATE_HZ)]
        has_voice = is_detailed and content.has_voices
        shown.append(
            ShownMistake(
                name=content.pseudonyms.recording(mistake.file_path) if content.pseudonyms else mistake.file_path,
                label=mistake.label,
                probability=mistake.probability,
                seconds=float(recordings.table["seconds"].iloc[row]),
                metadata={} if content.pseudonyms else metadata(recordings.table.iloc[row]),
                is_detailed=is_detailed,
                probabilities={str(name): mean for name, mean in means.items()},
                draws=tuple(of_file[of_file["condition"] == "noisy"]["probability"]),
                windows=by_window(verdict, trained, waveform, f"mistake-{position}", clip if has_voice else None)
                if is_detailed
                else Markup(""),
                audio=audio(clip) if has_voice else "",
            )
        )
    return shown


def by_window(
    verdict: Verdict, trained: Checkpoint, waveform: np.ndarray, name: str, clip: np.ndarray | None
) -> Markup:
    """Draw the probability of each window of ``waveform [samples]``, below the spectrogram of ``clip`` if given."""
    temperature = verdict.diagnosis.temperature if verdict.diagnosis else 1.0
    probabilities = with_temperature(predict_windows(trained.network, trained.config, waveform), temperature)
    spans = np.array(windows.spans(len(waveform), trained.config.windows))
    return Markup(plots.windows(probabilities, spans, verdict.threshold, name, clip))


def metadata(row: pd.Series[Any]) -> dict[str, object]:
    """Return speaker and optional columns of a row of the corpus index."""
    shown = {str(column): value for column, value in row.dropna().items() if column not in NOT_SHOWN}
    return {column: f"{value:g}" if isinstance(value, float) else value for column, value in shown.items()}


def audio(waveform: np.ndarray) -> str:
    """Return ``waveform [samples]`` at 16 kHz as a data URI: 16-bit FLAC, which browsers play."""
    target = io.BytesIO()
    soundfile.write(target, waveform, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(target.getvalue()).decode()


def card(verdict: Verdict, trained: Checkpoint, corpus: Corpus) -> dict[str, list[str]]:
    """Return the model card (Mitchell and others, 2019): heading -> sentences."""
    return {
        "Intended use": intended_use(verdict, is_synthetic=bool(notice(corpus))),
        "Not for": [
            "Diagnosis, triage or treatment of a person: the model is not a medical device and does not replace a "
            "clinician.",
            "Other languages, sentences, microphones or rooms than those of its data, until it is tested on them.",
            "The conclusion that a person is well: the model misses patients, and does not look for other illnesses.",
        ],
        "Model": about_model(verdict, trained),
        "Data": about_data(corpus),
        "Training": about_training(verdict, trained),
        "Limits": limits(verdict, corpus),
        "Ethics": [
            "A voice is personal data: recordings need consent for this use, and a report that contains recordings "
            "needs the same care as the recordings.",
            "If slices differ, the model is less accurate for some people. Groups without a column were not measured.",
            "Classes recorded in different places allow shortcuts; the probe looks for one of them, not for all.",
        ],
    }


def intended_use(verdict: Verdict, is_synthetic: bool) -> list[str]:
    """Return the intended use of a model: none if it failed its gate, a demonstration if its data are synthetic."""
    if not verdict.approved:
        return ["None: the model did not pass its gate and must not be used. This page gives the reasons."]
    low, high = (float(f"{end:.3g}") for end in verdict.band)
    use = "Research on respiratory insufficiency in read speech; support of staff who examine the patient."
    if is_synthetic:
        use = "A demonstration of the system: its data are not of patients, whatever the figures."
    return [
        use,
        f"The output is a probability. Strictly between {low:g} and {high:g} it is 'inconclusive', "
        "and the person must be examined as if there were no model.",
    ]


def about_model(verdict: Verdict, trained: Checkpoint) -> list[str]:
    """Describe the network, its input and its output."""
    windows, features = trained.config.windows, trained.config.features
    weights = sum(parameter.numel() for parameter in trained.network.parameters())
    grouped = f"{weights:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")  # a comma is a decimal sign in Portuguese
    segments = "whole files" if windows.mode == "whole" else f"windows of {windows.window_seconds:g} s"
    return [
        f"{trained.config.model.architecture}, {grouped} weights.",
        f"Input: speech at {SAMPLE_RATE_HZ // 1000} kHz mono, {segments}, {features.n_mfcc} MFCC.",
        "Output: mean probability over the windows of a recording, called patient from "
        f"{float(f'{verdict.threshold:.3g}'):g} on.",
        *about_diagnosis(verdict),
    ]


def about_diagnosis(verdict: Verdict) -> list[str]:
    """Describe how threshold and calibration were chosen; nothing if they are those of the configuration."""
    rule = verdict.diagnosis
    if rule is None:
        return []
    sensitivity, specificity = (
        f"{number(rule.validation[name].value)} ({number(rule.validation[name].low)} to "
        f"{number(rule.validation[name].high)})"
        for name in ("sensitivity", "specificity")
    )
    calibration = f"logits divided by {rule.temperature:.3g}; " if rule.temperature != 1.0 else ""
    return [
        f"Chosen on {rule.recordings} validation recordings: {rule.chosen_by}; {calibration}there, sensitivity "
        f"{sensitivity} and specificity {specificity}."
    ]


def about_data(corpus: Corpus) -> list[str]:
    """Describe the size of the data, and quote their description if they are synthetic."""
    lines = []
    for split in (*SPLITS, *corpus.external):
        quality = corpus.quality.splits[split]
        speakers = f"{quality.speakers} speakers" if quality.speakers else "speakers not known"
        lines.append(
            f"{split}: {quality.classes['0']} recordings of controls and {quality.classes['1']} of patients, "
            f"{quality.seconds / 60:.0f} min, {speakers}."
        )
    paragraph = notice(corpus)
    return [*lines, f"Synthetic or a stand-in, by its own description: {paragraph}"] if paragraph else lines


def about_training(verdict: Verdict, trained: Checkpoint) -> list[str]:
    """Describe the training and the choice of the candidate."""
    noise, info = trained.config.noise, trained.info
    inserted = f"noises inserted: {noise.train_controls} in each control, {noise.train_patients} in each patient"
    if not noise.train_controls + noise.train_patients:
        inserted = "no noise inserted: the network may have learnt the ward instead of the voice"
    seeds = ", ".join(verdict.training)
    if info.imported_from:
        return [
            f"Imported from {info.imported_from} (SHA-256 {info.imported_sha256}), {info.step or 0} optimiser steps.",
            "Its training data are not recorded.",
        ]
    return [
        f"Seed {info.seed}, one of {seeds}; chosen by {verdict.chosen_by}, without using the test split.",
        f"{info.epochs} epochs, best at {info.best_epoch}, on {info.device}; {inserted}.",
    ]


def limits(verdict: Verdict, corpus: Corpus) -> list[str]:
    """Describe what the numbers cannot show, as far as the verdict reveals it."""
    min_files = verdict.gate.slices.minimum_files
    small = sum(part.files < min_files for part in verdict.slices)
    lines = [
        f"Tested on {verdict.data.files} recordings of one data set: the intervals cover chance in these, "
        "not another hospital, microphone or season."
    ]
    if any("speakers" not in counts for counts in verdict.data.classes.values()):
        lines.append("Speakers are not known: a voice may be in two splits, and the intervals are too narrow.")
    if verdict.test_evaluations and verdict.test_evaluations > 1:
        lines.append(
            f"This test set was evaluated {verdict.test_evaluations} times so far. Each evaluation that led to a "
            "change makes the figures better than they would be on new recordings."
        )
    if small:
        lines.append(f"Slices not checked, because they hold fewer than {min_files} recordings: {small}.")
    if not verdict.slices:
        lines.append("Sex, age and similar properties are not known or were not measured.")
    return [*lines, *verdict.warnings, *quality.fold(corpus.quality.warnings)]
