"""Ctrl-C and SIGTERM: what ends, and what the person can do next."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

TERMINATION_SECONDS = 2.0
"""Time that child processes have to end before they are killed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def ending_everything(advice: str, restore: Callable[[], None] | None = None) -> Iterator[None]:
    """End this process and all processes that it has started, on Ctrl-C or SIGTERM in the block.

    kfp would otherwise take the death of one training for a failure and start the next one.

    Args:
        advice: how to go on; printed at the end.
        restore: function that ends a display in the terminal; it must return soon.
    """
    with _ending(advice, end_children, restore):
        yield


@contextmanager
def ending_only_this(advice: str) -> Iterator[None]:
    """End this process alone, on Ctrl-C or SIGTERM in the block; what runs elsewhere goes on.

    Args:
        advice: how to follow or end what goes on; printed at the end.
    """
    with _ending(advice, lambda: None):
        yield


@contextmanager
def _ending(advice: str, end_others: Callable[[], None], restore: Callable[[], None] | None = None) -> Iterator[None]:
    """End this process on a signal in the block, with exit code 130 or 143.

    No exception is raised, which a library could swallow, and no clean-up runs: everything can be killed and run again.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        if restore:
            with suppress(Exception):  # whatever happens to the display, the run ends
                restore()
            os.write(2, SHOW_CURSOR)
        os.write(2, f"\ninterrupted; {advice}\n".encode())  # not print: kfp has replaced it
        end_others()
        os._exit(128 + number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_children() -> None:
    """End all processes that this one has started, and theirs."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                ask(child)
        _, children = psutil.wait_procs(children, TERMINATION_SECONDS)
