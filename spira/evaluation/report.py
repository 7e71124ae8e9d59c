"""A verdict as one HTML page that needs nothing else: no script, no request; pictures and audio are inside.

The same inputs give the same bytes. File names and metadata come from users: the template escapes them.
"""

from __future__ import annotations

import base64
import io
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from spira import files
from spira.config import SAMPLE_RATE_HZ, Config
from spira.data.corpus import Corpus
from spira.data.metadata import SPLITS
from spira.evaluation import plots
from spira.models import checkpoint as checkpoints
from spira.models.checkpoint import Checkpoint

PLAYABLE = 6
"""Worst mistakes that can be heard and seen; the rest are listed."""
CLIP_SECONDS = 12.0
"""Of a longer recording only the beginning is heard, so that a page stays below 4 MB."""
MADE_UP = re.compile(r"\b(synthetic|stand-in|simulated|artificial)\b", re.IGNORECASE)
"""Words by which a data set says that it is not of patients."""

CONDITIONS = {
    "noisy": "Noisy test",
    "clean": "Clean test",
    "background": "Background probe",
    "scrambled": "Scrambled probe",
}
PROBES = ("background", "scrambled")
"""Conditions in which a good model knows nothing: there 0.5 is right."""


def write(verdict_dir: Path, checkpoint: Path, corpus: Corpus, out: Path, lineage: dict[str, str]) -> Path:
    """Write the report of a verdict.

    Args:
        verdict_dir: with ``verdict.json`` and ``predictions.parquet`` (:func:`spira.evaluation.evaluate.evaluate`), and
            perhaps ``histories.json`` (seed -> history) for the curves of all seeds.
        checkpoint: folder of the candidate.
        corpus: the one that it was evaluated on.
        out: the HTML file; it appears when it is complete.
        lineage: tags of :func:`spira.lineage.tags`, or any others.

    Raises:
        SpiraError: the checkpoint can't be read.
    """
    verdict = json.loads((verdict_dir / "verdict.json").read_text())
    predictions = pd.read_parquet(verdict_dir / "predictions.parquet")
    trained = checkpoints.load(checkpoint)
    histories = {str(verdict["candidate"]["seed"]): trained.history}
    if (verdict_dir / "histories.json").is_file():
        histories = json.loads((verdict_dir / "histories.json").read_text())
    html = render(verdict, predictions, trained, histories, corpus, lineage)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(out, html)
    return out


def render(
    verdict: dict[str, Any],
    predictions: pd.DataFrame,
    trained: Checkpoint,
    histories: dict[str, list[dict[str, float]]],
    corpus: Corpus,
    lineage: dict[str, str],
) -> str:
    """The page; see :func:`write`."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["number"] = number
    return page.from_string((resources.files("spira.evaluation") / "report.html").read_text("utf-8")).render(
        verdict=verdict,
        status=status(verdict),
        card=card(verdict, trained, corpus),
        notice=notice(corpus),
        description=corpus.quality.about,
        pictures=pictures(verdict, predictions, histories, corpus),
        mistakes=mistakes(verdict, predictions, corpus),
        settings=settings(trained.config),
        config=trained.config,
        info=trained.info,
        corpus=corpus,
        lineage=lineage,
        titles={name: CONDITIONS.get(name, name) for name in verdict["conditions"]},
        probes=PROBES,
        classes={str(label): name for label, (name, *_) in plots.CLASSES.items()},
        light=plots.LIGHT,
        dark=plots.DARK,
    )


def status(verdict: dict[str, Any]) -> str:
    """``approved``, ``refused`` (too little data, whatever else failed) or ``rejected``."""
    if verdict["approved"]:
        return "approved"
    short = any(check["name"].startswith("data.") and not check["passed"] for check in verdict["checks"])
    return "refused" if short and verdict["conditions"] else "rejected"


def number(value: float | None, digits: int = 3) -> str:
    """A number as the page shows it; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"


def notice(corpus: Corpus) -> str:
    """The paragraph in which a data set says that it is synthetic or a stand-in; empty where it doesn't."""
    paragraphs = (" ".join(part.replace("**", "").split()) for part in corpus.quality.about.split("\n\n"))
    return next((part for part in paragraphs if MADE_UP.search(part)), "")


def settings(config: Config) -> dict[str, list[dict[str, Any]]]:
    """Section -> its settings: name, value, default, and whether the two differ."""
    defaults = Config().model_dump(mode="json")
    return {
        section: [
            {"name": name, "value": value, "default": defaults[section][name]}
            | {"changed": value != defaults[section][name]}
            for name, value in values.items()
        ]
        for section, values in config.model_dump(mode="json").items()
    }


def pictures(
    verdict: dict[str, Any], predictions: pd.DataFrame, histories: dict[str, Any], corpus: Corpus
) -> dict[str, Markup]:
    """Every picture of the page but the spectrograms; without measurements only what doesn't need them."""
    seed, measured = str(verdict["candidate"]["seed"]), verdict["conditions"]
    drawn = {"background": plots.background_levels({name: corpus.quality.splits[name].model_dump() for name in SPLITS})}
    if any(histories.values()):
        drawn["training"] = plots.training_curves(histories, seed)
    if measured:
        titles = {name: CONDITIONS.get(name, name) for name in measured}
        tests = {name: found for name, found in measured.items() if name not in PROBES}
        threshold, band = verdict["config"]["evaluation"]["threshold"], verdict["gate"]["abstention"]["band"]
        drawn["roc"] = plots.roc(measured, titles)
        drawn["calibration"] = plots.calibration(tests, titles)
        drawn["distributions"] = plots.distributions(predictions, titles, threshold, band)
    return {name: Markup(svg) for name, svg in drawn.items()}


def mistakes(verdict: dict[str, Any], predictions: pd.DataFrame, corpus: Corpus) -> list[dict[str, Any]]:
    """The worst mistakes with what is known of them; the first few with spectrogram and audio."""
    shown = []
    for place, mistake in enumerate(verdict["mistakes"]):
        recordings = corpus.split(mistake["split"])
        row = int(recordings.table.index[recordings.table["file_path"] == mistake["file_path"]][0])
        answers = predictions[predictions["file_path"] == mistake["file_path"]]
        entry = mistake | {
            "known": recordings.table.iloc[row].dropna().to_dict(),
            "answers": answers.groupby("condition", sort=False)["probability"].mean().to_dict(),
        }
        if place < PLAYABLE:
            clip = recordings.waveform(row)[: round(CLIP_SECONDS * SAMPLE_RATE_HZ)]
            entry["spectrogram"] = Markup(plots.spectrogram(clip, f"mistake-{place}"))
            entry["audio"] = audio(clip)
        shown.append(entry)
    return shown


def audio(waveform: np.ndarray) -> str:
    """``waveform [samples]`` at 16 kHz as a data URI: 16-bit FLAC, which browsers play."""
    target = io.BytesIO()
    soundfile.write(target, waveform, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(target.getvalue()).decode()


def model_card(verdict: dict[str, Any], trained: Checkpoint, corpus: Corpus) -> str:
    """What the model is, is for, and is not for, in Markdown."""
    sections = card(verdict, trained, corpus).items()
    parts = [f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) for title, lines in sections]
    return "# Model card\n\n" + "\n\n".join(parts) + "\n"


def card(verdict: dict[str, Any], trained: Checkpoint, corpus: Corpus) -> dict[str, list[str]]:
    """The model card (Mitchell and others, 2019): heading -> sentences."""
    return {
        "Intended use": intended_use(verdict, made_up=bool(notice(corpus))),
        "Not for": [
            "Diagnosis, triage or treatment of a person: it is no medical device and replaces no clinician.",
            "Other languages, sentences, microphones or rooms than those of its data, until tested on them.",
            "Concluding that somebody is well: patients are missed, and other illness is not looked for.",
        ],
        "Model": about_model(trained),
        "Data": about_data(corpus),
        "Training": about_training(verdict, trained),
        "Limits": limits(verdict, corpus),
        "Ethics": [
            "A voice is personal data: recordings need consent for this use, and a report that holds some needs "
            "the same care as they do.",
            "Where slices differ, some people get worse answers; a group without a column was not looked at.",
            "Classes recorded in different places give shortcuts; the probe looks for one of them, not for all.",
        ],
    }


def intended_use(verdict: dict[str, Any], made_up: bool) -> list[str]:
    """What a model is for, by whether it passed, and on what data."""
    if not verdict["approved"]:
        return ["None: it did not pass its gate and must not answer anybody. This page says why."]
    low, high = verdict["gate"]["abstention"]["band"]
    use = "Research on respiratory insufficiency in read speech; support of staff who examine the patient."
    if made_up:
        use = "Showing that the system works: its data are not of patients, whatever the figures."
    return [
        use,
        f"Its answer is a probability; strictly between {low:g} and {high:g} the answer is 'inconclusive', "
        "and the person is to be examined as if there were no model.",
    ]


def about_model(trained: Checkpoint) -> list[str]:
    """The network, its input and its output."""
    windows, features = trained.config.windows, trained.config.features
    weights = sum(parameter.numel() for parameter in trained.network.parameters())
    cut = "whole files" if windows.mode == "whole" else f"windows of {windows.window_seconds:g} s"
    return [
        f"{trained.config.model.architecture}, {weights:,} weights.",
        f"Input: speech at {SAMPLE_RATE_HZ // 1000} kHz mono, {cut}, {features.n_mfcc} MFCC.",
        "Output: mean probability of a recording's windows, called patient from "
        f"{trained.config.evaluation.threshold:g} on.",
    ]


def about_data(corpus: Corpus) -> list[str]:
    """How much data, and what it says of itself."""
    lines = []
    for split in SPLITS:
        found = corpus.quality.splits[split]
        speakers = f"{found.speakers} speakers" if found.speakers else "speakers not known"
        lines.append(
            f"{split}: {found.classes['0']} recordings of controls and {found.classes['1']} of patients, "
            f"{found.seconds / 60:.0f} min, {speakers}."
        )
    told = notice(corpus)
    return [*lines, f"Synthetic or a stand-in, by its own description: {told}"] if told else lines


def about_training(verdict: dict[str, Any], trained: Checkpoint) -> list[str]:
    """How it was trained and chosen."""
    noise, info = trained.config.noise, trained.info
    inserted = f"noises inserted: {noise.train_controls} in each control, {noise.train_patients} in each patient"
    if not noise.train_controls + noise.train_patients:
        inserted = "no noise inserted: the ward may have been learnt instead of the voice"
    seeds = ", ".join(verdict["training"])
    return [
        f"Seed {info['seed']}, of {seeds}; chosen by {verdict['chosen_by']}, without a look at the test.",
        f"{info['epochs']} epochs, best at {info['best_epoch']}, on {info['device']}; {inserted}.",
    ]


def limits(verdict: dict[str, Any], corpus: Corpus) -> list[str]:
    """What the numbers can't show, as far as the verdict knows."""
    least = verdict["gate"]["slices"]["minimum_files"]
    small = sum(part["files"] < least for part in verdict["slices"])
    found = [
        f"Tested on {verdict['data']['files']} recordings of one data set: the intervals cover chance in these, "
        "not another hospital, microphone or season."
    ]
    if any("speakers" not in counts for counts in verdict["data"]["classes"].values()):
        found.append("Speakers are not known: a voice may be in two splits, and intervals are too narrow.")
    if small:
        found.append(f"Slices not judged, as they hold fewer than {least} recordings: {small}.")
    if not verdict["slices"]:
        found.append("Sex, age and the like are not known or not measured.")
    return [*found, *corpus.quality.warnings]
