"""``spira deliver page``: a file of the present status, and a server of the last tick's."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from spira.cli.common.compose import reconciler
from spira.cli.common.status_page import StatusShower
from spira.delivery.page import last_status
from spira.delivery.settings import load
from spira.delivery.status import delivery_status
from spira.language import Language
from tests.support.ledger_builder import LocalDelivery

pytestmark = pytest.mark.integration

TIMEOUT_SECONDS = 90


def test_the_page_is_one_file(deliver: Callable[..., Any], local_delivery: LocalDelivery, tmp_path: Path) -> None:
    """It changes nothing, and replaces an older page."""
    before = local_delivery.kinds
    for _ in range(2):
        result = deliver("page", "--out", str(tmp_path / "site"))
        assert (result.exit_code, result.stdout) == (0, "")
    assert "wrote" in result.stderr
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.html"]
    assert "Version 2 serves" in (tmp_path / "site" / "index.html").read_text("utf-8")
    assert local_delivery.kinds == before


def test_the_language_is_that_of_the_project_or_of_the_option(
    deliver: Callable[..., Any], local_delivery: LocalDelivery, tmp_path: Path
) -> None:
    """A server of the page reads the project file again each time; a file that is damaged makes an English page."""
    settings_path, project = local_delivery.folder / "delivery.yaml", local_delivery.folder / "project.yaml"
    page = tmp_path / "site" / "index.html"
    project.write_text("language: pt-BR")
    assert deliver("page", "--out", str(page.parent)).exit_code == 0
    assert '<html lang="pt-BR">' in page.read_text("utf-8")
    assert "A versão 2 está em serviço" in page.read_text("utf-8")
    assert deliver("page", "--out", str(page.parent), "--language", "en").exit_code == 0
    assert "Version 2 serves" in page.read_text("utf-8")
    status = delivery_status(reconciler(load(settings_path)).dry_run())
    last_status.save(local_delivery.ledger_builder.ledger.store, status, datetime.now(UTC))
    shower, overridden = StatusShower(), StatusShower(Language.PORTUGUESE)
    for text, language in (("language: pt-BR", b"pt-BR"), ("language: [", b"en"), ("", b"en")):
        project.write_text(text)
        for shown, expected in ((shower, language), (overridden, b"pt-BR")):
            shown.show_stored(load(settings_path))
            assert shown.page.content is not None
            assert b'<html lang="%s">' % expected in shown.page.content
    refused = deliver("page", "--out", str(page.parent), "--language", "fr")
    assert refused.exit_code == 2


@pytest.mark.parametrize(("minutes", "is_old"), [(14, False), (16, True)])
def test_a_status_that_no_tick_renews_is_shown_as_old(
    local_delivery: LocalDelivery, minutes: int, is_old: bool
) -> None:
    """So that a page of yesterday does not pass for one of now."""
    store, settings = local_delivery.ledger_builder.ledger.store, load(local_delivery.folder / "delivery.yaml")
    status = delivery_status(reconciler(settings).dry_run())
    last_status.save(store, status, datetime.now(UTC) - timedelta(minutes=minutes))
    shower = StatusShower()
    shower.show_stored(settings)
    assert shower.page.content is not None
    assert (b"No tick has stored its status since then" in shower.page.content) == is_old


@pytest.mark.parametrize("arguments", [(), ("--out", "x", "--listen", "127.0.0.1:0")])
def test_either_a_file_or_a_server_is_asked_for(
    deliver: Callable[..., Any], local_delivery: LocalDelivery, arguments: tuple[str, ...]
) -> None:
    refused = deliver("page", *arguments)
    assert refused.exit_code == 2
    assert "give either --out DIR, for a file, or --listen HOST:PORT, for a server" in refused.stderr


def test_a_folder_that_cannot_be_written_is_refused(
    deliver: Callable[..., Any], local_delivery: LocalDelivery, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    refused = deliver("page", "--out", str(tmp_path / "file"))
    assert refused.exit_code == 2
    assert "cannot be written" in refused.stderr


def test_a_server_shows_the_last_tick_and_writes_nothing(
    deliver: Callable[..., Any], local_delivery: LocalDelivery
) -> None:
    """Its ledger may be one that it has no right to write; SIGTERM ends it with exit code 0."""
    assert deliver("tick").exit_code == 0
    ledger = Path(local_delivery.ledger_builder.ledger.store.uri)
    assert last_status.load(local_delivery.ledger_builder.ledger.store) is not None
    content = {path: path.read_bytes() for path in ledger.rglob("*.json")}
    for path in (*ledger.rglob("*"), ledger):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    settings = local_delivery.folder / "delivery.yaml"
    command = [sys.executable, "-m", "spira", "deliver", "page", "--listen=127.0.0.1:0", f"--settings={settings}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert process.stderr is not None
        address = re.search(r"http://\S+", process.stderr.readline())
        assert address is not None
        html, deadline = "", time.monotonic() + TIMEOUT_SECONDS
        while not html and time.monotonic() < deadline:
            with closing(HTTPConnection(address[0].split("/")[2], timeout=30)) as connection:
                connection.request("GET", "/")
                response = connection.getresponse()
                assert response.status in (200, 503)  # 503: the first page is not made yet
                html = response.read().decode()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=TIMEOUT_SECONDS) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        for path in (ledger, *ledger.rglob("*")):
            path.chmod(stat.S_IRWXU)
    assert "version 2 should serve" in html  # the fixture's settings cannot be trained on
    assert '<meta http-equiv="refresh"' in html
    assert {path: path.read_bytes() for path in ledger.rglob("*.json")} == content
