"""The report's pictures, each a function from numbers to inline SVG.

Colours are CSS variables (``var(--blue)``), so one picture fits light and dark pages; the page defines them from
:data:`LIGHT` and :data:`DARK`. Text stays text. No meaning depends on colour alone: lines differ in style, classes
in position or marker. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import librosa
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from spira.config import SAMPLE_RATE_HZ
from spira.data.metadata import CLASS_NAMES
from spira.evaluation.numbers import number
from spira.evaluation.verdict import CalibrationBin, Condition

LIGHT = {
    "ink": "#1f2a37",
    "faint": "#c9d1da",
    "blue": "#0072b2",
    "orange": "#c2500a",
    "green": "#007f5f",
    "purple": "#a23b72",
}
"""Colours on a light page: Okabe and Ito's colour-blind-safe hues, some darkened for contrast."""
DARK = {
    "ink": "#e6eaf0",
    "faint": "#46505c",
    "blue": "#56b4e9",
    "orange": "#f0883e",
    "green": "#2fc79a",
    "purple": "#e08fbf",
}
"""Colours on a dark page."""
CLASS_STYLES = {0: ("blue", "o"), 1: ("orange", "s")}
"""Label -> (colour, marker)."""
LINES = (("blue", "-"), ("orange", "--"), ("green", "-."), ("purple", ":"))
"""(colour, style) of the first, second, ... line; further lines start again."""
BINS = np.linspace(0, 1, 21)
"""Edges of the bins of a histogram of probabilities."""
SPECTROGRAM_FRAME, SPECTROGRAM_HOP, SPECTROGRAM_MELS = 512, 256, 64
"""Samples at 16 kHz, and bands: finer in time and coarser in frequency than the features, to be readable."""
DYNAMIC_RANGE_DB = 70.0
UNUSED_SVG = re.compile(
    r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->"
    r'| id="(?:figure|axes|patch|text|line2d|legend|xtick|ytick|matplotlib\.axis)_\d+"',
    re.DOTALL,
)
"""Parts of matplotlib's SVG that a page does not need, or identifiers that would occur twice in it."""


def training_curves(histories: Mapping[str, list[dict[str, float]]], candidate: str) -> str:
    """Draw loss of training and validation, and validation accuracy, by epoch and seed; the candidate in bold.

    Args:
        histories: seed -> epoch, train_loss, eval_loss and eval_accuracy of each epoch.
        candidate: seed of the candidate.
    """
    figure, (loss, accuracy) = _panels(1, 2, 10.4, 3.3)
    for position, (seed, history) in enumerate(histories.items()):
        table = pd.DataFrame(history)
        best = table["eval_loss"].argmin()
        colour, style = LINES[position % len(LINES)]
        width = 2.2 if seed == candidate else 1.0
        loss.plot(table["epoch"], table["train_loss"], color=LIGHT[colour], ls=style, lw=0.8, alpha=0.55)
        for axes, metric in ((loss, "eval_loss"), (accuracy, "eval_accuracy")):
            (line,) = axes.plot(table["epoch"], table[metric], color=LIGHT[colour], ls=style, lw=width)
            line.set(marker="D", markersize=5, markevery=[best], label=f"seed {seed}")
    _label(loss, "Loss: validation, and training (thin)", "epoch", "cross-entropy")
    _label(accuracy, "Validation accuracy", "epoch", "share of files")
    loss.set_ylim(bottom=0)
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, accuracy, columns=8)
    return _svg(figure, "training")


def roc(conditions: Mapping[str, Condition], titles: Mapping[str, str]) -> str:
    """Draw the ROC curve of every condition, with its AUROC by file."""
    figure, (axes,) = _panels(1, 1, 3.9, 4.9)
    axes.plot([0, 1], [0, 1], color=LIGHT["faint"], linewidth=1)
    for position, (name, measured) in enumerate(conditions.items()):
        colour, style = LINES[position % len(LINES)]
        area = measured.by_file["auroc"].value
        label = titles[name] + (f", AUROC {number(area)}" if area is not None else "")
        curve = measured.roc
        rates = np.array(curve.fpr, dtype=float), np.array(curve.tpr, dtype=float)  # None becomes NaN: not drawn
        axes.plot(*rates, color=LIGHT[colour], linestyle=style, linewidth=2, label=label)
    _label(axes, "ROC", "controls called patient", "patients called patient")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    _legend(figure, axes, columns=1)
    return _svg(figure, "roc")


def calibration(conditions: Mapping[str, Condition], titles: Mapping[str, str]) -> str:
    """Draw the reliability diagram of each condition, with intervals, above the number of predictions in each bin."""
    figure, grid = _panels(2, len(conditions), 3.1 * len(conditions), 4.5, heights=(3, 1))
    for column, (name, measured) in enumerate(conditions.items()):
        reliability, counts = grid[column], grid[len(conditions) + column]
        bins, count = measured.calibration.bins, measured.calibration.count
        reliability.plot([0, 1], [0, 1], color=LIGHT["faint"], linewidth=1)
        _draw_reliability(reliability, bins)
        bars = counts.bar([(of_bin.low + of_bin.high) / 2 for of_bin in bins], count, 0.085, color=LIGHT["blue"])
        counts.bar_label(bars, fontsize=7, color=LIGHT["ink"], padding=1)
        _label(reliability, titles[name], "", "observed share of patients")
        _label(counts, "", "predicted probability", "predictions")
        reliability.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        counts.set(xlim=(-0.02, 1.02), ylim=(0, 1.35 * max(count, default=1)))
    return _svg(figure, "calibration")


def _draw_reliability(axes: Axes, bins: Sequence[CalibrationBin]) -> None:
    """Draw the share of patients in each bin with its interval, if there is one; hollow where speakers are few."""
    observed = np.array([of_bin.observed.value for of_bin in bins], dtype=float)
    axes.plot([of_bin.predicted for of_bin in bins], observed, color=LIGHT["blue"], linewidth=0.8, alpha=0.4)
    for of_bin, share in zip(bins, observed, strict=True):
        x, measured = of_bin.predicted, of_bin.observed
        if measured.low is not None and measured.high is not None:
            width = 1.2 if of_bin.has_few_speakers else 2.2
            axes.plot([x, x], [measured.low, measured.high], color=LIGHT["blue"], linewidth=width, alpha=0.45)
        face = "none" if of_bin.has_few_speakers else LIGHT["blue"]
        axes.plot(x, share, color=LIGHT["blue"], marker="o", markerfacecolor=face, markersize=5.5)


def distributions(
    predictions: pd.DataFrame, titles: Mapping[str, str], threshold: float, band: tuple[float, float]
) -> str:
    """Draw probabilities by class and condition: controls grow downwards, patients upwards; the band is shaded.

    Args:
        predictions: columns label, condition, probability.
        titles: condition -> title, for each condition to draw.
        threshold: smallest probability that is called patient.
        band: ends of the abstention band.
    """
    figure, row = _panels(1, len(titles), 3.4 * len(titles), 2.9, sharey=True)
    for axes, (name, title) in zip(row, titles.items(), strict=True):
        axes.axvspan(*band, color=LIGHT["faint"], alpha=0.5, linewidth=0)
        axes.axvline(threshold, color=LIGHT["ink"], linewidth=1, linestyle="--")
        for label, (colour, _) in CLASS_STYLES.items():
            rows = predictions[(predictions["condition"] == name) & (predictions["label"] == label)]
            share = np.histogram(rows["probability"], BINS)[0] / max(len(rows), 1)
            axes.bar(BINS[:-1] + 0.025, share if label else -share, 0.045, color=LIGHT[colour])
        axes.axhline(0, color=LIGHT["ink"], linewidth=0.8)
        _label(axes, title, "probability of being a patient", "")
        axes.set(xlim=(0, 1), ylim=(-1.05, 1.05), xticks=[0.25, 0.5, 0.75])
        axes.set_yticks([-1, -0.5, 0, 0.5, 1], ["100 %", "50 %", "0", "50 %", "100 %"])
    row[0].set_ylabel("← controls    patients →", color=LIGHT["ink"])
    return _svg(figure, "distributions")


def background_levels(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw the background level by split and class: median, and the range from the 5th to the 95th percentile."""
    rows = [(split, int(label)) for split, quality in splits.items() for label in quality["by_class"]]
    figure, (axes,) = _panels(1, 1, 6.4, 0.75 + 0.27 * len(rows))
    for height, (split, label) in enumerate(rows):
        level = splits[split]["by_class"][str(label)]["background_dbfs"]
        colour, marker = CLASS_STYLES[label]
        axes.plot([level["p5"], level["p95"]], [height, height], color=LIGHT[colour], linewidth=4, alpha=0.45)
        axes.plot(level["median"], height, color=LIGHT[colour], marker=marker, markersize=8)
    axes.set_yticks(range(len(rows)), [f"{split}, {CLASS_NAMES[label]}s" for split, label in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(rect=(0.09, 0, 0.91, 1))  # the labels are drawn in English; those of other languages are longer
    _label(axes, "", "background level, dBFS", "")
    return _svg(figure, "background")


def windows(
    probabilities: np.ndarray, spans: np.ndarray, threshold: float, name: str, waveform: np.ndarray | None = None
) -> str:
    """Draw the probability of each window of a recording as a bar over the window's time.

    Args:
        probabilities: ``[windows]``.
        spans: ``[windows, 2]``: start and end of each window, s.
        threshold: smallest probability that is called patient.
        name: unique on a page; see :func:`_svg`.
        waveform: ``[samples]`` at 16 kHz, the start of the recording; its mel spectrogram is drawn above.
    """
    rows, height = (1, 1.5) if waveform is None else (2, 3.2)
    heights = None if waveform is None else (3, 2)
    figure, panels = _panels(rows, 1, 5.4, height, heights, sharex=True)
    seconds = spans.max() if waveform is None else len(waveform) / SAMPLE_RATE_HZ
    if waveform is not None:
        _draw_spectrogram(panels[0], waveform)
        _label(panels[0], "", "", "frequency, Hz")
        panels[0].grid(visible=False)
    axes = panels[-1]
    axes.axhline(threshold, color=LIGHT["ink"], linewidth=1, linestyle="--")
    for probability, (start, end) in zip(probabilities, spans, strict=True):
        if start < seconds:
            colour, _ = CLASS_STYLES[int(probability >= threshold)]
            axes.plot([start, min(end, seconds)], [probability, probability], color=LIGHT[colour], linewidth=2.5)
    axes.set(ylim=(-0.04, 1.04), yticks=[0, 0.5, 1], xlim=(0, seconds))
    _label(axes, "", "time, s", "probability")
    return _svg(figure, name)


def _draw_spectrogram(axes: Axes, waveform: np.ndarray) -> None:
    """Draw the mel spectrogram of ``waveform [samples]`` at 16 kHz, from its peak down to -70 dB."""
    power = librosa.feature.melspectrogram(
        y=np.asarray(waveform, np.float32),
        sr=SAMPLE_RATE_HZ,
        n_fft=SPECTROGRAM_FRAME,
        hop_length=SPECTROGRAM_HOP,
        n_mels=SPECTROGRAM_MELS,
    )
    levels = librosa.power_to_db(power, ref=np.max, top_db=DYNAMIC_RANGE_DB)  # [mels, frames]
    extent = (0, len(waveform) / SAMPLE_RATE_HZ, 0, len(levels))
    axes.imshow(levels, origin="lower", aspect="auto", cmap="magma", interpolation="none", extent=extent)
    centres = librosa.mel_frequencies(len(levels) + 2, fmax=SAMPLE_RATE_HZ / 2)[1:-1]
    ticks = np.array([500, 1000, 2000, 4000])
    axes.set_yticks(np.interp(ticks, centres, np.arange(len(levels)) + 0.5), [str(hertz) for hertz in ticks])


def _panels(
    rows: int,
    columns: int,
    width: float,
    height: float,
    heights: tuple[int, ...] | None = None,
    sharey: bool = False,
    sharex: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``width`` by ``height`` inches, and its axes row by row."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1), facecolor="none")
    grid = figure.subplots(
        rows, columns, squeeze=False, sharex=sharex, sharey=sharey, gridspec_kw={"height_ratios": heights}
    )
    return figure, list(grid.flat)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    """Label the axes, and remove lines that are not data."""
    axes.set_title(title, loc="left", color=LIGHT["ink"], fontsize=10, fontweight="bold")
    axes.set_xlabel(x, color=LIGHT["ink"], fontsize=9)
    axes.set_ylabel(y, color=LIGHT["ink"], fontsize=9)
    axes.set_facecolor("none")
    axes.grid(color=LIGHT["faint"], linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(color=LIGHT["faint"], labelcolor=LIGHT["ink"], labelsize=8.5)


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Put the legend of ``axes`` below the figure, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8.5, handlelength=3)
    legend.set_frame_on(False)
    for text in legend.get_texts():
        text.set_color(LIGHT["ink"])


def _svg(figure: Figure, name: str) -> str:
    """Return an ``<svg>`` element. A ``name`` of its own keeps its identifiers apart from those of other pictures."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})  # type: ignore[no-untyped-call]
    text = target.getvalue()
    text = UNUSED_SVG.sub("", text[text.index("<svg") :])
    for colour, value in LIGHT.items():
        text = text.replace(value, f"var(--{colour})")
    return text
