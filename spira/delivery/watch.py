"""Ticking for ever: at an interval, and sooner when something wakes it. Wake-ups may be lost; the interval is not."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from spira import lineage
from spira.delivery import settings as settings_file
from spira.delivery.assemble import reconciler
from spira.errors import SpiraError

RUN_SECONDS = 5.0
"""Between two ticks while a run is on."""


def watch(settings: Path, listen: str, say: Callable[[str], None]) -> None:
    """Tick until the process is ended; each tick reads the settings anew.

    Args:
        listen: ``HOST:PORT`` to take wake-ups on; empty for none.
        say: gets what is done, waited for or in trouble, a line each, once.

    Raises:
        SpiraError: the settings can't be read at the beginning, or the address is taken.
    """
    settings_file.load(settings)  # refused here and now, if it must be
    woken = threading.Event()
    if listen:
        from spira.delivery.wake import serve

        serve(listen, woken.set)
        say(f"listens on {listen} for wake-ups")
    code, told = lineage.code_digest(), ""
    while True:
        told, seconds = _tick(settings, say, told)
        woken.wait(seconds)
        woken.clear()
        if _code_now() != code:
            say("the code has changed: begins anew")
            os.execv(sys.executable, [sys.executable, "-m", "spira", *sys.argv[1:]])


def _tick(settings: Path, say: Callable[[str], None], told: str) -> tuple[str, float]:
    """One tick; what it waits for, and how long to wait for the next."""
    try:
        chosen = settings_file.load(settings)
        report = reconciler(chosen).tick()
    except SpiraError as error:
        if str(error) != told:
            say(f"trouble: {error}")
        return str(error), RUN_SECONDS
    for line in report.done:
        say(line)
    now = "\n".join([*report.decision.notes, *(f"trouble: {trouble}" for trouble in report.troubles)])
    if now and now != told:
        say(now)
    return now, min(RUN_SECONDS, chosen.every_seconds) if report.view.state.active else chosen.every_seconds


def _code_now() -> str:
    """The code's digest as it is on disk."""
    for kept in (lineage.sources, lineage.sources_digest, lineage.lock_digest):
        kept.cache_clear()
    return lineage.code_digest()
