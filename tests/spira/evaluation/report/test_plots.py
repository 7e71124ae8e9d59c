"""The report's pictures."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spira.config import SAMPLE_RATE_HZ
from spira.evaluation import metrics
from spira.evaluation.evaluate import roc
from spira.evaluation.metrics import METRICS, Scores
from spira.evaluation.report import plots
from spira.evaluation.verdict import Condition, Estimate
from tests.support.verdicts import condition as empty_condition

pytestmark = pytest.mark.integration

ONE, SPAN = np.array([0.7]), np.array([[0.0, 1.0]])
"""Probability and times of the only window of a recording of one second."""
TITLES = {"noisy": "Noisy test", "clean": "Clean test"}


def texts(svg: str) -> list[str]:
    """Return the words in a picture; fail if it is not well-formed SVG."""
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return [element.text for element in elements if element.text]


def condition(probabilities: list[float], labels: list[int]) -> Condition:
    """Return the measurements of a condition, as far as the pictures need them."""
    scores = Scores(np.array(labels), np.array(probabilities), np.arange(len(labels)))
    return empty_condition().model_copy(
        update={
            "by_file": {"auroc": Estimate(value=METRICS["auroc"].value(scores))},
            "roc": roc(scores),
            "calibration": metrics.calibration(scores, 0.95),
        }
    )


def epochs(*losses: float) -> list[dict[str, float]]:
    return [
        {"epoch": number, "train_loss": loss, "eval_loss": loss, "eval_accuracy": 1 - loss}
        for number, loss in enumerate(losses, start=1)
    ]


def test_colours_are_variables_of_the_page() -> None:
    """A picture has no fixed colours, so that light and dark pages can differ."""
    svg = plots.training_curves({"42": epochs(0.7, 0.5), "43": epochs(0.7, 0.4)}, "43")
    assert "var(--blue)" in svg
    assert [value for value in plots.LIGHT.values() if value in svg] == []
    assert plots.LIGHT.keys() == plots.DARK.keys()


def test_training_curves_show_every_seed_and_the_candidate_bold() -> None:
    """There is a line per seed; only the candidate's is thick."""
    svg = plots.training_curves({"42": epochs(0.7, 0.5), "43": epochs(0.7, 0.4)}, "43")
    assert {"seed 42", "seed 43"} <= set(texts(svg))
    bold = [style for style in re.findall(r'style="([^"]+)"', svg) if "stroke-width: 2.2" in style]
    assert bold
    assert all("var(--orange)" in style for style in bold)


def test_the_roc_legend_shows_each_area() -> None:
    """Each condition has its AUROC; an AUROC that is not defined is left out."""
    conditions = {
        "noisy": condition([0.1, 0.9, 0.8, 0.3], [0, 1, 0, 1]),
        "clean": condition([0.1, 0.9], [0, 1]),
    }
    assert {"Noisy test, AUROC 0.750", "Clean test, AUROC 1.000"} <= set(texts(plots.roc(conditions, TITLES)))
    conditions["clean"].by_file["auroc"] = Estimate(value=None)
    assert "Clean test" in texts(plots.roc(conditions, TITLES))


def test_calibration_shows_the_number_of_predictions() -> None:
    """The number in each bin is above its bar."""
    svg = plots.calibration({"noisy": condition([0.05] * 7 + [0.95] * 13, [0] * 7 + [1] * 13)}, TITLES)
    assert {"7", "13"} <= set(texts(svg))


def test_calibration_shows_intervals_and_few_speakers() -> None:
    """Each bin has a line for its interval; the marker of the bin with three speakers is hollow."""
    measured = condition([0.05] * 12 + [0.95] * 3, [0] * 12 + [1] * 3)
    earlier = measured.calibration.model_copy(update={"low": (), "high": (), "speakers": (), "method": None})
    svg, old = (
        plots.calibration({"noisy": measured.model_copy(update={"calibration": calibration})}, TITLES)
        for calibration in (measured.calibration, earlier)
    )
    assert [svg.count(f"stroke-width: {width}") for width in ("2.2", "1.2")] == [1, 1]
    assert [old.count(f"stroke-width: {width}") for width in ("2.2", "1.2")] == [0, 0]


@pytest.mark.filterwarnings("ignore:No (positive|negative) samples")
@settings(max_examples=8)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=2, max_size=30))
def test_any_probabilities_can_be_drawn(rows: list[tuple[float, int]]) -> None:
    """Every picture is well formed, also for 0 and 1, for one class only, and for equal probabilities."""
    probabilities, labels = [p for p, _ in rows], [label for _, label in rows]
    table = pd.DataFrame({"label": labels, "condition": "noisy", "probability": probabilities})
    assert texts(plots.distributions(table, {"noisy": "Noisy test"}, 0.5, (0.4, 0.6)))
    assert texts(plots.calibration({"noisy": condition(probabilities, labels)}, TITLES))


def test_background_levels_name_split_and_class() -> None:
    """Each split and class has a line with a name and a marker, not only a colour."""
    level = {"background_dbfs": {"p5": -80.0, "median": -75.0, "p95": -70.0}}
    svg = plots.background_levels({"train": {"by_class": {"0": level, "1": level}}})
    assert {"train, controls", "train, patients"} <= set(texts(svg))


@pytest.mark.parametrize("pitch_hz", [500, 1000, 4000])
def test_a_tone_is_drawn_at_its_frequency(pitch_hz: int) -> None:
    """The brightest row of a tone's spectrogram is the mel band of its frequency, low frequencies at the bottom."""
    time = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    svg = plots.windows(ONE, SPAN, 0.5, "tone", 0.3 * np.sin(2 * np.pi * pitch_hz * time))
    picture = np.asarray(image(svg).convert("L"), dtype=float)  # [mels, frames]
    assert re.search(r'<image [^>]*transform="matrix\(\S+ 0 0 -', svg), "drawn upwards from its first row"
    kilohertz = pitch_hz / 1000
    mel = 15 * kilohertz if kilohertz < 1 else 15 + 27 * np.log(kilohertz) / np.log(6.4)  # Slaney's scale
    assert picture.mean(axis=1).argmax() == pytest.approx(mel / 45.25 * 65 - 1, abs=1.5)


def test_silence_can_be_drawn() -> None:
    """A recording of zeros, which a damaged corpus may hold, has a spectrogram."""
    assert "time, s" in texts(plots.windows(ONE, SPAN, 0.5, "silence", np.zeros(SAMPLE_RATE_HZ, np.float32)))


def test_pictures_of_a_page_share_no_identifier() -> None:
    """Each spectrogram refers to its own parts; the same spectrogram drawn twice has the same bytes."""
    noise = np.random.default_rng(0).uniform(-1, 1, SAMPLE_RATE_HZ)
    first, second, again = (plots.windows(ONE, SPAN, 0.5, name, noise) for name in ("first", "second", "first"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert ids[0] & ids[1] == set()
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', first)) <= ids[0]
    assert first == again


def image(svg: str) -> Image.Image:
    """Return the bitmap inside a picture."""
    match = re.search(r"data:image/png;base64,([^\"]+)", svg)
    assert match
    return Image.open(io.BytesIO(base64.b64decode(match[1])))
