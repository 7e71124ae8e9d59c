"""Work beside a tick: it delays and fails nobody, and the last piece of it is done."""

from __future__ import annotations

import threading

import pytest

from spira.data.storage import StorageError
from spira.delivery.background import BackgroundWork


def test_the_last_piece_of_work_that_waits_is_done() -> None:
    """A piece between is not needed: each is about everything up to its tick."""
    done: list[int] = []
    go_on, work = threading.Event(), BackgroundWork("notices", 10)

    def first() -> tuple[str, ...]:
        go_on.wait(10)
        done.append(1)
        return ("one",)

    work.start(first)
    for number in (2, 3):
        work.start(lambda number=number: (done.append(number), ())[1])
    assert done == []
    go_on.set()
    assert work.finish() == ()
    assert done == [1, 3]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StorageError("the bucket cannot be reached"), "notices: the bucket cannot be reached"),
        (ZeroDivisionError("secret"), "notices: internal error: ZeroDivisionError"),
    ],
)
def test_whatever_goes_wrong_is_one_line(error: Exception, line: str) -> None:
    """The text of an unexpected error could hold a part of an address."""

    def fail() -> tuple[str, ...]:
        raise error

    work = BackgroundWork("notices", 10)
    work.start(fail)
    assert work.finish() == (line,)
    work.start(lambda: ())
    assert work.finish() == work.problems == ()


def test_nobody_waits_longer_than_the_limit() -> None:
    stopped, work = threading.Event(), BackgroundWork("notices", 0.05)
    work.start(lambda: (stopped.wait(10), ())[1])
    assert work.finish() == ()
    stopped.set()
