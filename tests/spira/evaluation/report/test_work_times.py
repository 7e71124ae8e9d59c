"""The time of a run: trainings that were reused do not count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from spira.evaluation.report.work_times import Span, WorkTimes


def at(hours: float) -> datetime:
    return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("trainings", "start"),
    [
        ([], 100),
        ([(95, 99.9)], 95),
        ([(90, 95), (95, 99.9)], 90),
        ([(90, 91), (90, 99.9)], 90),
        ([(10, 11), (95, 99.9)], 95),
        ([(10, 11)], 100),
        ([(101, 102)], 100),
    ],
    ids=["none", "one", "in turn", "side by side", "one was reused", "all were reused", "clocks differ"],
)
def test_a_run_starts_with_its_first_training(trainings: list[tuple[float, float]], start: float) -> None:
    spans = {seed: Span(start=at(first), end=at(last)) for seed, (first, last) in enumerate(trainings)}
    times = WorkTimes(trainings=spans, evaluation=Span(start=at(100), end=at(101)))
    assert times.whole() == Span(start=at(start), end=at(101))


def test_times_are_read_back() -> None:
    times = WorkTimes(trainings={42: Span(start=at(0), end=at(1))}, evaluation=Span(start=at(1), end=at(2)))
    assert WorkTimes.model_validate_json(times.model_dump_json()) == times
