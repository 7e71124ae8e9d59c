"""``spira deliver`` on a failing machine: the process kills itself as soon as it has changed anything.

    python tests/support/kill_after_effects.py deliver tick --settings delivery.yaml

The environment variable ``KILLS`` names the file with one line per kill; no effect kills the process twice.
"""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

from pipelines.local_runner import LocalRunner
from spira.cli.main import app
from spira.delivery.history.ledger import Ledger
from spira.delivery.repository import MLflowRepository
from spira.deployment.local import Local

EFFECTS: tuple[tuple[type, str], ...] = (
    (Ledger, "save_axes"),
    (Ledger, "append"),
    (LocalRunner, "start"),
    (Local, "apply"),
    (MLflowRepository, "promote"),
    (MLflowRepository, "roll_back"),
)


def kill_after(owner: type, name: str, kills: Path) -> None:
    """Replace a method by one that kills the process after its first call with these arguments."""
    original = getattr(owner, name)

    def call_and_kill(self: Any, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        digest = hashlib.sha256(repr((arguments, options)).encode()).hexdigest()[:8]
        effect = f"{owner.__name__}.{name} {digest}"
        earlier = kills.read_text().splitlines() if kills.exists() else []
        if effect in earlier:
            return result
        kills.write_text("\n".join([*earlier, effect]))
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, call_and_kill)


if __name__ == "__main__":
    for effect in EFFECTS:
        kill_after(*effect, Path(os.environ["KILLS"]))
    app()
