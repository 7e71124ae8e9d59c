"""When the work of a run was done: the training of each seed, and the evaluation.

A run is logged after its work. Its start and end in the model repository are those of the work, and not of the logging.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from spira.config import FrozenModel

MAX_GAP = timedelta(hours=1)
"""Longest wait between two parts of one run, such as for a node. A part that ended earlier belongs to an earlier run,
whose result was used again."""


class Span(FrozenModel):
    """A time of work."""

    start: datetime
    end: datetime


class WorkTimes(FrozenModel):
    """Times of the parts of a run; written by evaluate, read where the run is logged."""

    trainings: dict[int, Span]
    """Seed -> its training; without seeds whose checkpoint does not record a time."""
    evaluation: Span

    def whole(self) -> Span:
        """Return the time from the first training of this run to the end of its evaluation."""
        return Span(start=_start(self.evaluation.start, self.trainings.values()), end=self.evaluation.end)


def _start(start: datetime, parts: Iterable[Span]) -> datetime:
    """Return the earliest start of the parts that follow each other without a longer gap, up to ``start``."""
    for part in sorted(parts, key=lambda part: part.end, reverse=True):
        if part.end < start - MAX_GAP:
            break
        start = min(start, part.start)
    return start
