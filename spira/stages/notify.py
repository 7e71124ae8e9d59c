"""The notify stage: the notice that a run has ended."""

from __future__ import annotations

import json
import logging
from typing import Any

from spira.stage_logging import stage

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10


@stage
def notify(run: str, state: str, message: str, url: str) -> dict[str, Any]:
    """Log how a run ended, and post it to a URL. A post that fails is logged and does not fail the run.

    Args:
        state: ``SUCCEEDED``, ``FAILED`` or ``CANCELLED``.
        message: reason of a failure, as far as it is known.
        url: receiver of a JSON object with run, state and message; empty for none.
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
            log.warning("notify: the notice was not delivered to %s: %s", url, error)
    return {}
