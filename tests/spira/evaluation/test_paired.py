"""The paired test: its numbers are the published ones, and it refuses models of different tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from spira import config
from spira.evaluation import gate
from spira.evaluation.evaluate import ChampionPredictor, TestSetEvaluator
from spira.evaluation.intervals import PAIRED_SCORE
from spira.evaluation.paired import NotPairedError, mcnemar, paired_tests
from tests.support.corpus_in_memory import make_corpus

CONFIDENCE = 0.95


def predictions(probabilities: list[float], labels: list[int], speakers: list[str] | None = None) -> pd.DataFrame:
    """Return predictions of one draw."""
    table = pd.DataFrame({"file_path": [f"rec-{i}" for i in range(len(labels))], "label": labels, "draw": 0})
    if speakers:
        table["speaker"] = speakers
    return table.assign(probability=probabilities)


def test_answers_are_counted_by_who_is_right() -> None:
    """The threshold of each model decides on its answers."""
    labels = [1, 1, 1, 0, 0, 0]
    a = predictions([0.9, 0.9, 0.1, 0.1, 0.9, 0.1], labels)
    b = predictions([0.9, 0.3, 0.3, 0.1, 0.1, 0.3], labels)
    (test,) = paired_tests(a, b, (0.5, 0.25), CONFIDENCE)
    assert (test.unit, test.count) == ("recordings", 6)
    assert (test.both, test.only_a, test.only_b, test.neither) == (3, 1, 2, 0)
    assert test.difference.value == pytest.approx(1 / 6)


def test_the_draws_of_a_recording_are_one_answer() -> None:
    """Its probability is the mean over them: with each draw for itself, the test would believe in more data."""
    a = pd.concat([predictions([0.9, 0.4], [1, 0]).assign(draw=draw) for draw in (0, 1, 2)])
    b = pd.concat([predictions([p, 0.4], [1, 0]).assign(draw=d) for d, p in enumerate((0.9, 0.3, 0.1))])
    (test,) = paired_tests(a, b, (0.5, 0.5), CONFIDENCE)
    assert (test.count, test.both, test.only_a) == (2, 1, 1)


def test_speakers_are_compared_where_one_has_several_recordings() -> None:
    """They are independent, recordings of one speaker are not."""
    speakers = ["spk-1", "spk-1", "spk-2", "spk-2"]
    a = predictions([0.9, 0.4, 0.1, 0.1], [1, 1, 0, 0], speakers)
    b = predictions([0.1, 0.1, 0.1, 0.1], [1, 1, 0, 0], speakers)
    recordings, by_speaker = paired_tests(a, b, (0.5, 0.5), CONFIDENCE)
    assert (recordings.count, recordings.only_a) == (4, 1)
    assert (by_speaker.unit, by_speaker.count, by_speaker.only_a) == ("speakers", 2, 1)
    one_each = predictions([0.9, 0.1], [1, 0], ["spk-1", "spk-2"])
    assert [test.unit for test in paired_tests(one_each, one_each, (0.5, 0.5), CONFIDENCE)] == ["recordings"]


def test_names_may_differ() -> None:
    """Pseudonyms under two keys are no hindrance: order and classes pair the rows."""
    a = predictions([0.9, 0.1], [1, 0])
    b = a.assign(file_path=["rec-x", "rec-y"])
    assert paired_tests(a, b, (0.5, 0.5), CONFIDENCE)[0].both == 2


@pytest.mark.parametrize(
    "other",
    [
        predictions([0.9], [1]),
        predictions([0.9, 0.1], [0, 1]),
        predictions([0.9, 0.1], [1, 0]).assign(draw=1),
    ],
)
def test_other_rows_are_refused(other: pd.DataFrame) -> None:
    """Fewer recordings, other classes or other draws."""
    with pytest.raises(NotPairedError):
        paired_tests(predictions([0.9, 0.1], [1, 0]), other, (0.5, 0.5), CONFIDENCE)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (0, 6, 0.03125), (1, 8, 0.0390625), (10, 2, 0.0385742188)],
)
def test_the_p_value_is_that_of_the_binomial_test(only_a: int, only_b: int, p_value: float) -> None:
    """Six answers that all favour one model are the fewest that differ clearly."""
    assert mcnemar(only_a, only_b) == pytest.approx(p_value)
    assert mcnemar(only_b, only_a) == pytest.approx(p_value)


@given(st.integers(0, 100), st.integers(0, 100))
def test_the_p_value_is_the_sum_of_both_tails(only_a: int, only_b: int) -> None:
    """Twice the smaller tail, at most 1."""
    tail = stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def test_models_that_agree_on_everything_have_an_interval_with_width() -> None:
    """Twenty recordings prove no equality."""
    same = predictions([0.9] * 10 + [0.1] * 10, [1] * 10 + [0] * 10)
    (test,) = paired_tests(same, same, (0.5, 0.5), CONFIDENCE)
    assert test.difference.value == 0
    assert test.difference.low is not None
    assert test.difference.high is not None
    assert test.difference.low < -0.05
    assert test.difference.high == pytest.approx(-test.difference.low)


def test_the_difference_is_tangos() -> None:
    """Tango's own example: of 44 pairs, 1 that only A and 9 that only B gets right."""
    a = predictions([0.9] * 35 + [0.1] * 9, [1] * 44)
    b = predictions([0.9] * 34 + [0.1] + [0.9] * 9, [1] * 44)
    (test,) = paired_tests(a, b, (0.5, 0.5), CONFIDENCE)
    assert (test.only_a, test.only_b) == (1, 9)
    assert test.difference.value == pytest.approx(8 / 44)
    assert (test.difference.low, test.difference.high) == pytest.approx(tango(9, 1, 44), abs=1e-6)
    assert (test.difference.method, test.difference.source) == (PAIRED_SCORE.name, PAIRED_SCORE.source)


def tango(ahead: int, behind: int, pairs: int) -> tuple[float, float]:
    """Return Tango's interval on independent pairs: where the score statistic is the quantile, by its definition."""

    def score(difference: float) -> float:
        linear = -ahead - behind + (2 * pairs - ahead + behind) * difference
        root = (linear**2 + 8 * pairs * behind * difference * (1 - difference)) ** 0.5
        only_second = (root - linear) / (4 * pairs)
        variance = pairs * (2 * only_second + difference * (1 - difference))
        return (ahead - behind - pairs * difference) / variance**0.5

    value, z = (ahead - behind) / pairs, stats.norm.ppf((1 + CONFIDENCE) / 2)
    ends = ((-0.99, value, z), (value, 0.99, -z))
    return tuple(brentq(lambda d, q=quantile: score(d) - q, low, high) for low, high, quantile in ends)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_difference_is_that_of_the_gate(seed: int) -> None:
    """On the same predictions: three draws of noise, speakers with two recordings, thresholds of their own."""
    corpus = make_corpus(seed=seed)
    gate_config = config.from_dict({"evaluation": {"confidence": CONFIDENCE, "noise_draws": 3}})
    evaluator = TestSetEvaluator(corpus, gate_config, gate.load())
    recordings = corpus.split("test").table[["file_path", "speaker", "label"]]
    draws = pd.concat([recordings.assign(draw=draw, condition="noisy") for draw in range(3)], ignore_index=True)
    rng = np.random.default_rng(seed)
    champion, candidate = (draws.assign(probability=rng.uniform(size=len(draws))) for _ in range(2))
    answers = iter(np.split(champion["probability"].to_numpy(), 3))
    of_gate = evaluator.compare(candidate, ChampionPredictor("version 1", lambda _: next(answers), threshold=0.4))
    by_recording, by_speaker = paired_tests(champion, candidate, (0.4, gate_config.evaluation.threshold), CONFIDENCE)
    assert by_recording.difference == of_gate.difference
    assert by_speaker.difference.method == of_gate.difference.method
