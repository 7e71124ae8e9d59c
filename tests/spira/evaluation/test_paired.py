"""The paired test: its numbers are the published ones, and it refuses models of different tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spira.evaluation.paired import NotPairedError, mcnemar, paired_difference, paired_tests

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


def test_the_interval_is_that_of_bonett_and_price() -> None:
    """Computed by hand for 100 pairs, 10 that only A and 20 that only B gets right."""
    difference = paired_difference(10, 20, 100, CONFIDENCE)
    assert difference.value == pytest.approx(0.1)
    centre, spread = 10 / 102, (32 / 102 - (10 / 102) ** 2) / 102
    assert difference.low == pytest.approx(centre - 1.959964 * spread**0.5)
    assert difference.high == pytest.approx(centre + 1.959964 * spread**0.5)


def test_models_that_agree_on_everything_have_an_interval_with_width() -> None:
    """Twenty recordings prove no equality."""
    difference = paired_difference(0, 0, 20, CONFIDENCE)
    assert difference.value == 0
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low < -0.05
    assert difference.high == pytest.approx(-difference.low)


@pytest.mark.integration
@pytest.mark.parametrize("count", [20, 48, 200])
def test_the_interval_covers_the_true_difference(count: int) -> None:
    """In 2000 simulated tests at least 94 percent do, also where the models hardly differ."""
    rng = np.random.default_rng(count)
    for share_a, share_b in ((0.02, 0.02), (0.05, 0.15), (0.2, 0.2)):
        draws = rng.multinomial(count, [share_a, share_b, 1 - share_a - share_b], 2000)
        intervals = [paired_difference(int(only_a), int(only_b), count, CONFIDENCE) for only_a, only_b, _ in draws]
        covered = np.mean([each.low <= share_b - share_a <= each.high for each in intervals])  # type: ignore[operator]
        assert covered >= 0.94
