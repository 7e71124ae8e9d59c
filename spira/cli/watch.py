"""Ticking for ever: at an interval, and sooner when something wakes it. Wake-ups may be lost; the interval is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from spira import lineage
from spira.cli.compose import reconciler
from spira.delivery import settings as settings_file
from spira.delivery.kubernetes_status import published
from spira.errors import SpiraError

RUN_SECONDS = 5.0
"""Between two ticks while a run is on, and between two looks at what is broken."""
STARTS = "import spira.cli.main, spira.cli.watch, pipelines.local_runner"
"""What code must be able to do before it is begun."""


def watch(settings: Path, listen: str, say: Callable[[str], None]) -> None:
    """Tick until the process is ended (SIGTERM, Ctrl-C); each tick reads the settings anew.

    Args:
        listen: ``HOST:PORT`` to take wake-ups on; empty for none.
        say: gets what is done, waited for or in trouble, a line each, once.

    Raises:
        SpiraError: the settings can't be read at the beginning, or the address is taken.
    """
    settings_file.load(settings)  # refused here and now, if it must be
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    woken = threading.Event()
    if listen:
        from spira.delivery.webhooks import serve

        host, port = serve(listen, woken.set).server_address[:2]
        say(f"listens on {host!s}:{port} for wake-ups")
    code, told = lineage.code_digest(), ""
    while True:
        told, seconds = _tick(settings, say, told)
        woken.wait(seconds)
        woken.clear()
        while _code_now() != code:
            told = _begin_anew(say, told)
            woken.wait(RUN_SECONDS)


def _end(number: int, frame: FrameType | None) -> None:
    """At once, wherever a tick is: it may be killed anywhere, and a run goes on in a process of its own."""
    raise SystemExit(0)


def _begin_anew(say: Callable[[str], None], told: str) -> str:
    """Become the code that is on disk; returns only where that doesn't start, half-written say, and with the cause."""
    tried = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        say("the code has changed: begins anew")
        os.execv(sys.executable, [sys.executable, "-m", "spira", *sys.argv[1:]])
    cause = f"the code has changed, and doesn't start: {tried.stderr.strip().splitlines()[-1]}"
    if cause != told:
        say(f"trouble: {cause}")
    return cause


def _tick(settings: Path, say: Callable[[str], None], told: str) -> tuple[str, float]:
    """One tick; what it waits for, and how long to wait for the next."""
    try:
        chosen = settings_file.load(settings)
        report = published(chosen, reconciler(chosen).tick())
    except (SpiraError, OSError) as error:
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
    lineage.clear_caches()
    return lineage.code_digest()
