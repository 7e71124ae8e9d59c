"""What is installed is compared with hashes, and ``make audit`` reports it; no tool of the audit is needed here."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests.support import ROOT

LOCKS = ("requirements.lock", "requirements-serve.lock", "requirements-uv.lock", "audit/requirements.lock")


def pins(lock: str) -> dict[str, list[str]]:
    """Return the hashes of every pinned package in a lock, by ``name==version``."""
    text = re.sub(r"\\\n", " ", (ROOT / lock).read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.split()[0].split(";")[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})(?!\w)", line) for line in lines}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock: str) -> None:
    """Every line pins one version, and the first comment has the command that makes the lock."""
    assert pins(lock)
    for pin, hashes in pins(lock).items():
        assert re.fullmatch(r"[\w.-]+==[\w.+!-]+", pin), pin
        assert hashes, pin
    comments = "".join(line for line in (ROOT / lock).read_text().splitlines() if line.startswith("#"))
    assert "--generate-hashes" in comments


def test_the_server_installs_what_the_tests_run_with() -> None:
    """Its lock is a part of the other one, with the same files."""
    everything = pins("requirements.lock")
    assert {
        pin: hashes for pin, hashes in pins("requirements-serve.lock").items() if everything.get(pin) != hashes
    } == {}


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile.base", "Dockerfile.train", "Dockerfile.serve"])
def test_every_installation_compares_hashes(file: str) -> None:
    """Except for this project itself, and for torch from an index of PyTorch, whose files the lock does not have."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / file).read_text())
    installs = [
        command.strip()
        for line in text.splitlines()
        if not line.startswith("#")
        for command in re.split(r"&&|;", line)
        if re.search(r"\bpip install (?!.*\bexport\b)|^\s*(then |grep .*)?\$install|\$install ", command)
        and "install=" not in command
    ]
    assert installs
    without = [command for command in installs if "--require-hashes" not in command]
    allowed = ("--no-deps --editable .", "--torch-backend")
    assert [command for command in without if not any(part in command for part in allowed)] == []


@pytest.mark.parametrize("file", ["Dockerfile.base", "Dockerfile.serve"])
def test_the_base_image_is_a_build_argument(file: str) -> None:
    """So that it can be named by its digest. The workflow does so for every image."""
    text = (ROOT / file).read_text()
    assert "ARG PYTHON_IMAGE=python:3.11-slim\n" in text
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert set(bases) - {"$PYTHON_IMAGE"} <= {"dependencies", "scratch"}
    assert "PYTHON_IMAGE=python:3.11-slim@$digest" in (ROOT / ".github/workflows/ci.yaml").read_text()
    builds = re.findall(r"^\t(.*Dockerfile\.(?:base|serve).*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert builds
    assert all(build.startswith("$(BUILD) ") for build in builds)


TOOLS = {
    "cyclonedx-py": """out[out.index("-o") + 1].write_text('{"components": [{}, {}]}')""",
    "pip-licenses": """
if "--output-file" in sys.argv: out[out.index("--output-file") + 1].write_text("| a |")
else: print('[{"Name": "a", "License": "MIT"}, {"Name": "b", "License": "UNKNOWN"}]')""",
    "pip-audit": """print(os.environ["ADVISORIES"])""",
}
"""Programs that write what the tools write. The real ones need minutes and a network."""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with the programs."""
    folder = tmp_path / "tools"
    folder.mkdir()
    head = f"#!{sys.executable}\nimport os, sys\nfrom pathlib import Path\n"
    head += "class Arguments(list):\n    def __getitem__(self, i): return Path(super().__getitem__(i))\n"
    for name, body in TOOLS.items():
        (folder / name).write_text(f"{head}out = Arguments(sys.argv)\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """A service that answers every request."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def audit(tools: Path, service: str, advisories: str = "") -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "audit",
        f"--tools={tools}",
        f"--out={tools.parent / 'out'}",
        f"--service={service}",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ADVISORIES": advisories}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.integration
@pytest.mark.parametrize(("vulns", "code", "words"), [([], 0, "vulnerable: none"), ([{"id": "X"}], 1, "vulnerable: a")])
def test_known_vulnerabilities_decide_the_exit_code(
    tools: Path, service: str, vulns: list[object], code: int, words: str
) -> None:
    """Every report is written, and has one line."""
    result = audit(tools, service, json.dumps({"dependencies": [{"name": "a", "vulns": vulns}]}))
    assert (result.returncode, result.stderr) == (code, "")
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["SBOM", "SBOM", "licences", "advisories"]
    assert "without a licence: b" in lines[2]
    assert words in lines[3]
    reports = {path.name for path in (tools.parent / "out").iterdir()}
    assert reports == {"environment.cdx.json", "serve.cdx.json", "licences.md", "advisories.json"}


@pytest.mark.integration
def test_a_service_out_of_reach_is_one_line(tools: Path, service: str) -> None:
    """An older report is removed, so that it does not look like the present state."""
    audit(tools, service, '{"dependencies": []}')
    result = audit(tools, "http://127.0.0.1:9/")
    assert (result.returncode, result.stderr) == (0, "")
    assert "advisories: NOT CHECKED: http://127.0.0.1:9/ cannot be reached" in result.stdout.splitlines()[-1]
    assert not (tools.parent / "out" / "advisories.json").exists()


@pytest.mark.integration
def test_a_tool_that_fails_is_one_line(tools: Path, service: str) -> None:
    """The message has its name and its last line."""
    result = audit(tools, service, "no JSON")
    assert (result.returncode, result.stderr) == (2, "audit: pip-audit failed: no message\n")
    (tools / "pip-licenses").write_text("#!/bin/sh\necho wrong >&2\nexit 3\n")
    result = audit(tools, service)
    assert (result.returncode, result.stderr) == (2, "audit: pip-licenses failed: wrong\n")
    (tools / "cyclonedx-py").unlink()
    assert audit(tools, service).stderr.startswith("audit: cyclonedx-py: ")
