"""A command in a pseudo-terminal, as a person runs it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pyte

from tests.support import ROOT

CTRL_C = "\x03"


class Terminal:
    """``python -m spira`` in a pseudo-terminal of its own, where Ctrl-C reaches all processes as in a real one."""

    def __init__(self, *arguments: str, folder: Path, columns: int = 100, rows: int = 50, **environment: str) -> None:
        self.output, self.columns, self.rows = "", columns, rows
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.chdir(folder)
            variables = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(columns)} | environment
            os.execve(sys.executable, [sys.executable, "-m", "spira", *arguments], variables)

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Read the output until it has the text."""
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, f"no {text!r} in {self.output!r}"
            assert self._read(), f"the command ended without {text!r}: {self.output!r}"

    def wait_for_screen(self, pattern: str, seconds: float = 120) -> str:
        """Read the output until a line of the screen matches the regular expression; return the screen."""
        end = time.monotonic() + seconds
        while not re.search(pattern, screen := self.screen(), re.MULTILINE):
            assert time.monotonic() < end, f"no {pattern!r} in:\n{screen}"
            assert self._read(), f"the command ended without {pattern!r}:\n{screen}"
        return screen

    def screen(self) -> str:
        """Return the text that a person sees now."""
        return screen_of(self.output, self.columns, self.rows)

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


def screen_of(output: str, columns: int, rows: int) -> str:
    """Return the text on a terminal's screen after some output, without blanks at the ends of lines."""
    screen = pyte.Screen(columns, rows)
    pyte.Stream(screen).feed(output.replace("\n", "\r\n"))
    return "\n".join(line.rstrip() for line in screen.display).rstrip()
