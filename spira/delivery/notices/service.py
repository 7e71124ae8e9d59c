"""The process that talks to the services of notices: ``python -m spira.delivery.notices.service``.

It reads one request a line and answers with one line each. A process of its own can be ended whatever a service does: a
server that sends a byte now and then would hold a thread, and with it the end of a tick, for days.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Literal

Tone = Literal["success", "failure", "warning", "info"]


@dataclass(frozen=True)
class Request:
    """One notice for one address."""

    url: str
    """Secret: requests come through a pipe, and never as an argument, which every user of the machine can see."""
    title: str
    body: str
    tone: Tone
    timeout_seconds: float


@dataclass(frozen=True)
class Answer:
    """Result of a request."""

    accepted: bool
    cause: str = ""
    """What the library logged; it may hold parts of the URL."""


UNKNOWN = Answer(False, "this is no URL that apprise knows: see https://appriseit.com/services")


def send(request: Request) -> Answer:
    """Send a notice, and return whether the service has accepted it."""
    import apprise  # main imports it before the first request, as the import takes a second

    asset = apprise.AppriseAsset(app_id="SPIRA", app_desc="SPIRA", app_url="", allow_templates=False)
    service = apprise.Apprise.instantiate(request.url, asset=asset)
    if service is None:
        return UNKNOWN
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    result = sender.notify(
        request.body,
        title=request.title,
        notify_type=apprise.NotifyType(request.tone),
        body_format=apprise.NotifyFormat.TEXT,
    )
    return Answer(bool(result), " ".join(dict.fromkeys(entry.message for entry in result.logs())))


def main() -> None:
    """Answer requests until standard input ends."""
    import apprise  # noqa: F401

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a plug-in prints is no answer
    for line in sys.stdin:
        request = Request(**json.loads(line))
        signal.alarm(math.ceil(request.timeout_seconds))  # the system then ends this process
        answer = send(request)
        signal.alarm(0)
        answers.write(json.dumps(asdict(answer)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
