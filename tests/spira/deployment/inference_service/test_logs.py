"""Logs of the service: nothing of an inference is quoted, and their size and rights are bounded."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.deployment.inference_service import logs, processes
from spira.deployment.inference_service.supervisor import supervise

RECORD_NUMBERS = st.text(st.sampled_from("0123456789-./"), min_size=6, max_size=20)
PERSONS = st.text(st.sampled_from("ABCDEFGHIJ ÁÇã'\"\\{}:,\t"), min_size=6, max_size=40).map(
    lambda name: f"Sra. {name}"
)
LINES = (
    "INFO:root:inference {'id': 'ab', 'rgh': '%s', 'age': 70}",
    "ValueError: %s",
    "KeyError: '%s'",
    "builtins.ValueError: could not convert string to float: '%s'",
    "MemoryError({'rgh': '%s'})",
    "mlflow.exceptions.MlflowException: RESOURCE_DOES_NOT_EXIST: %s",
    "ModuleNotFoundError: No module named '%s!'",
    "FileNotFoundError: [Errno 2] No such file or directory: '/audio/%s.wav'",
    '  File "/audio/%s.wav", line 12, in load',
    '  File "/audio/%s.py", line 12, in load',
    '  File "/srv/service.py", line 12, in %s',
    "INFO:root:waiting for inference on channel %s",
    "Message: 'result = ' Arguments: (Inference(rgh='%s'),)",
    "docker: Error response from daemon: %s",
    "Killed %s",
    "INFO:%s:waiting",
    "%s",
    "%sError: x",
)
EXAMPLES = {
    "INFO:root:waiting for inference on channel spira-topic.": "waiting for inference on channel",
    "Traceback (most recent call last):": "Traceback (most recent call last)",
    '  File "/srv/core/service.py", line 12, in load_model': "service.py line 12",
    '  File "main.py", line 3, in <module>': "main.py line 3",
    "ModuleNotFoundError: No module named 'numpy'": "ModuleNotFoundError: No module named 'numpy'",
    "mlflow.exceptions.MlflowException: RESOURCE_DOES_NOT_EXIST: no version 7": "MlflowException RESOURCE_DOES",
    "sh: 1: exec: docker: not found": "exec not found",
    "MemoryError": "MemoryError",
}


@given(line=st.sampled_from(LINES), secret=RECORD_NUMBERS | PERSONS)
def test_no_text_of_an_inference_is_quoted(line: str, secret: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A record number or a name is not quoted, wherever it stands in a line of the log."""
    log = tmp_path_factory.getbasetemp() / "quoted.log"
    log.write_text(line % secret, encoding="utf-8")
    quotation = logs.quote(log).partition("\n")[2].replace(str(log), "")
    assert secret.strip() not in quotation


@pytest.mark.parametrize("line", EXAMPLES)
def test_known_lines_are_quoted(line: str, tmp_path: Path) -> None:
    """They say why the service ended, and where the log is."""
    log = tmp_path / "log"
    log.write_text(f"INFO:root:other\n{line}\n")
    quotation = logs.quote(log)
    assert EXAMPLES[line] in quotation
    assert str(log) in quotation
    assert "other" not in quotation


@pytest.mark.integration
def test_a_log_is_bounded_while_the_service_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older logs are kept up to a number; only the owner can read them; the service goes on and stays locked."""
    monkeypatch.setattr(logs, "MAX_BYTES", 20_000)
    writer = "import time, sys\nwhile True: print('x' * 99, flush=True); time.sleep(0.0005)"
    process = processes.start(tmp_path, (sys.executable, "-c", writer), {})
    thread = threading.Thread(target=supervise, args=[process], daemon=True)
    thread.start()
    try:
        oldest = process.folder / f"log.{logs.MAX_OLD}"
        deadline = time.monotonic() + 60
        while not oldest.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pid = process.pid
        time.sleep(1)
        assert process.is_alive
        assert process.pid == pid
        os.kill(pid, signal.SIGSTOP)  # nothing is renamed while the files are looked at
        time.sleep(1)
        written = sorted(process.folder.glob("log*"))
        assert [path.name for path in written] == ["log", "log.1", "log.2", "log.3"]
        assert all(path.stat().st_size <= 20_000 for path in written[1:])
        private = [
            path.stat().st_mode & 0o077 for path in (process.folder, *process.folder.iterdir()) if path.name != "pid"
        ]
        assert not any(private)
        os.kill(pid, signal.SIGCONT)
    finally:
        end = time.monotonic() + 60
        while thread.is_alive() and time.monotonic() < end:
            if process.folder.exists():  # again, if the supervisor has just started the service again
                process.service.stop(5)
                process.folder.rename(tmp_path / f"removed-{time.monotonic_ns()}")
            thread.join(1)
    assert not thread.is_alive()
