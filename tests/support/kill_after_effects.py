"""``spira deliver`` as a machine that fails: the process is killed as soon as it has changed anything.

python mortal.py deliver tick --settings delivery.yaml
"""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

from pipelines.local_runner import LocalRunner
from spira.cli.main import app
from spira.delivery.ledger import Ledger
from spira.delivery.repository import MLflowRepository
from spira.deployment.local import Local

EFFECTS: tuple[tuple[type, str], ...] = (
    (Ledger, "keep"),
    (Ledger, "append"),
    (LocalRunner, "start"),
    (Local, "apply"),
    (MLflowRepository, "promote"),
    (MLflowRepository, "roll_back"),
)


def die_after(owner: type, name: str, deaths: Path) -> None:
    """Let the method do its work, and nothing come after it."""
    original = getattr(owner, name)

    def last(self: Any, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        what = f"{owner.__name__}.{name} {hashlib.sha256(repr((arguments, options)).encode()).hexdigest()[:8]}"
        died = deaths.read_text().splitlines() if deaths.exists() else []
        if what in died:
            return result
        deaths.write_text("\n".join([*died, what]))
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, last)


if __name__ == "__main__":
    for effect in EFFECTS:
        die_after(*effect, Path(os.environ["DEATHS"]))
    app()
