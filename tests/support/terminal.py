"""A command in a pseudo-terminal, as a person runs it."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

from tests.support import ROOT

CTRL_C = "\x03"


class Terminal:
    """``python -m spira`` in a pseudo-terminal of its own, where Ctrl-C reaches all processes as in a real one."""

    def __init__(self, *arguments: str, folder: Path, **environment: str) -> None:
        self.output = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            variables = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"} | environment
            os.execve(sys.executable, [sys.executable, "-m", "spira", *arguments], variables)

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Read the output until it has the text."""
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, f"no {text!r} in {self.output!r}"
            assert self._read(), f"the command ended without {text!r}: {self.output!r}"

    def press(self, keys: str) -> None:
        """Type keys."""
        os.write(self.descriptor, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command alone."""
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Read the output to its end and return the exit code; fail if that takes longer."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"the command has not ended: {self.output!r}"
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> bool:
        """Read what there is; return False at the end of the output."""
        if not select.select([self.descriptor], [], [], 0.5)[0]:
            return True
        try:
            content = os.read(self.descriptor, 65536)
        except OSError:  # the last process with this terminal has ended
            return False
        self.output += content.decode(errors="replace").replace("\r\n", "\n")
        return bool(content)
