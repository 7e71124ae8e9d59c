"""Logging of a stage: marked lines on standard error, with its errors and its duration."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from spira import progress
from spira.errors import SpiraError
from spira.files import disk_problem

log = logging.getLogger(__name__)

MARKS = {logging.INFO: "spira: ", logging.WARNING: "spira warning: ", logging.ERROR: "spira error: "}
"""Prefix of each line by level, by which a runner tells the lines of ``spira`` from those of libraries."""
DETAIL = {"is_detail": True}
"""The ``extra`` of a log line that a runner keeps in its log and does not show: a summary at the end shows it."""
DETAIL_MARK = "spira detail: "
PROGRESS_SECONDS = 5.0
"""Shortest time between two lines of progress."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Base of the results of stages."""

    seconds: float = 0.0
    """Duration of the stage; :func:`stage` sets it."""


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result", bound=StageResult)


class StageLogHandler(logging.StreamHandler):
    """Handler that marks every line by its level, and stops the stage if the lines can no longer be written."""

    def format(self, record: logging.LogRecord) -> str:
        mark = DETAIL_MARK if hasattr(record, "is_detail") else MARKS[record.levelno]
        return "\n".join(mark + line for line in super().format(record).splitlines())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        raise  # the runner was killed: without it the stage would compete with the next run


@contextmanager
def stage_logging() -> Iterator[None]:
    """Write what ``spira`` logs to standard error, each line once."""
    logger, handler = logging.getLogger("spira"), StageLogHandler(sys.stderr)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def stage(work: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a stage: log its lines and its errors, and add its duration to the result."""

    @wraps(work)
    def logged(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        start = time.monotonic()
        with stage_logging():
            try:
                with progress.stage(work.__name__):
                    result = work(*args, **kwargs)
            except SpiraError as error:
                _log_error(error)
                raise
            except Exception as error:
                paths = [value for value in (*args, *kwargs.values()) if isinstance(value, Path)]
                if problem := disk_problem(error, *paths):
                    refusal = SpiraError(problem)
                    _log_error(refusal)
                    raise refusal from error
                raise
            seconds = round(time.monotonic() - start, 3)
            log.info("%s: done in %.1f s", work.__name__, seconds)
        return replace(result, seconds=seconds)

    return logged


def _log_error(error: SpiraError) -> None:
    log.error("%s", error)
    error.logged = True


def progress_log(name: str, unit: str, every: float = PROGRESS_SECONDS) -> Callable[[int, int], None]:
    """Return a function of (done, total) that logs progress, at most once in ``every`` seconds.

    A display gets it more often: see :mod:`spira.progress`.
    """
    last, throttle = time.monotonic(), progress.Throttle()

    def report(done: int, total: int) -> None:
        nonlocal last
        if done == total or throttle.is_due():
            progress.emit(progress.Steps(stage=name, done=done, total=total, unit=unit))
        if time.monotonic() - last > every:
            last = time.monotonic()
            log.info("%s: %d of %d %s", name, done, total, unit)

    return report
