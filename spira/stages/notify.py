"""The notice that a run has ended."""

from __future__ import annotations

import json
import logging
from typing import Any

from spira.stage_logging import stage

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10


@stage
def notify(run: str, state: str, message: str, url: str) -> dict[str, Any]:
    """Say how a run ended: in the log, and to a URL if it isn't empty; what can't be told there fails no run.

    Args:
        state: ``SUCCEEDED``, ``FAILED`` or ``CANCELLED``.
        message: why it failed, as far as it is known.
    """
    import urllib.request
    from http.client import HTTPException

    log.info("notify: %s %s%s", run, state.lower(), f": {message}" if message else "")
    if url:
        notice = json.dumps({"run": run, "state": state, "message": message}).encode()
        try:
            request = urllib.request.Request(url, notice, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
        except (OSError, HTTPException, ValueError) as error:
            log.warning("notify: %s can't be told: %s", url, error)
    return {}
