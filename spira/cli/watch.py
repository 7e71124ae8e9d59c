"""Watch mode of ``spira deliver``: a tick at an interval, and sooner after a webhook.

A webhook may be lost; the interval is what guarantees the next tick.
"""

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
from spira.cli.common.after_tick import AfterTick
from spira.cli.common.compose import reconciler
from spira.cli.common.status_page import StatusShower
from spira.delivery import settings as settings_file
from spira.delivery.kubernetes.custom_resource import publish_report
from spira.delivery.reconcile import describe_error

SHORT_INTERVAL_SECONDS = 5.0
"""Interval while a run is active, after a failed tick, and while new code does not start."""
START_CHECK = "import spira.cli.main, spira.cli.watch, pipelines.local_runner"
"""Code that must run in a new process before this process is replaced."""


def watch(settings_path: Path, listen: str, say: Callable[[str], None]) -> None:
    """Tick until the process is ended (SIGTERM, Ctrl-C); every tick reads the settings again.

    Args:
        listen: ``HOST:PORT`` of the webhooks; empty for none.
        say: receives one line for each action, and for each note or trouble that is new.

    Raises:
        SpiraError: at the start, the settings are invalid or the address is in use.
    """
    settings_file.load(settings_path)  # invalid settings end the command here; later they are only reported
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    wake, shower = threading.Event(), StatusShower() if listen else None
    if shower:
        from spira.delivery.webhooks import serve

        host, port = serve(listen, wake.set, shower.page).server_address[:2]
        say(f"listening for webhooks on {host!s}:{port}, which also shows the status page")
    code, last_message, after = lineage.code_digest(), "", AfterTick(shower)
    while True:
        last_message, seconds = _tick(settings_path, say, last_message, after)
        wake.wait(seconds)
        wake.clear()
        while _present_code() != code:
            last_message = _restart(say, last_message)
            wake.wait(SHORT_INTERVAL_SECONDS)


def _exit(number: int, frame: FrameType | None) -> None:
    """End at once: a tick may be killed at any point, and a run is a process of its own."""
    raise SystemExit(0)


def _restart(say: Callable[[str], None], last_message: str) -> str:
    """Replace this process by the code on disk; return the cause if that code does not start, such as a half-saved
    file."""
    check = subprocess.run([sys.executable, "-c", START_CHECK], capture_output=True, text=True, check=False)
    if check.returncode == 0:
        say("the code has changed; restarting")
        os.execv(sys.executable, [sys.executable, "-m", "spira", *sys.argv[1:]])
    message = f"the code has changed and does not start: {check.stderr.strip().splitlines()[-1]}"
    if message != last_message:
        say(f"trouble: {message}")
    return message


def _tick(settings_path: Path, say: Callable[[str], None], last_message: str, after: AfterTick) -> tuple[str, float]:
    """Run one tick; return its notes and troubles, and the seconds until the next tick."""
    try:
        settings = settings_file.load(settings_path)
        report = publish_report(settings, reconciler(settings).tick())
        after.start(settings, report)
    except Exception as error:  # whatever it is: a controller goes on, and tries again
        message = describe_error(error)
        if message != last_message:
            say(f"trouble: {message}")
        return message, SHORT_INTERVAL_SECONDS
    for line in report.done:
        say(line)
    troubles = (*report.troubles, *report.notice_problems, *after.problems)
    message = "\n".join([*report.decision.notes, *(f"trouble: {trouble}" for trouble in troubles)])
    if message and message != last_message:
        say(message)
    is_active = report.snapshot.state.active is not None
    return message, min(SHORT_INTERVAL_SECONDS, settings.every_seconds) if is_active else settings.every_seconds


def _present_code() -> str:
    """Return the digest of the code on disk."""
    lineage.clear_caches()
    return lineage.code_digest()
