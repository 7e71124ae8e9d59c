"""Notices of ``spira deliver`` as commands send them, over real sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spira.delivery.history.events import Observed
from spira.delivery.notices.channels import URLS_VARIABLE
from spira.delivery.page import last_status
from tests.support.ledger_builder import LocalDelivery
from tests.support.receivers import SECRETS, Webhook, webhook

pytestmark = pytest.mark.integration


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


def settle(local_delivery: LocalDelivery) -> None:
    """Record the invalid settings of the fixture, so that a tick has no more to record."""
    local_delivery.ledger_builder.add(Observed(problem="settings: training.max_epochs: Input should be greater than 0"))


def test_a_rollback_is_announced_and_the_result_is_shown(
    deliver: Callable[..., Any], local_delivery: LocalDelivery, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command that carries it out, with the URL from a file beside the settings."""
    settle(local_delivery)
    settings = local_delivery.folder / "delivery.yaml"
    settings.write_text(settings.read_text() + "notices: {urls_file: urls}\nlinks: {mlflow: https://mlflow.example}\n")
    (local_delivery.folder / "urls").write_text(f"# the ward's chat\n{hook.url}\n")
    result = deliver("rollback", "--reason", "false alarms")
    assert (result.exit_code, local_delivery.served) == (0, "1")
    (notice,) = [one for one in hook.received if "rolled back" in one["title"]]
    assert notice["title"] == "SPIRA: rolled back from version 2 to version 1"
    assert "Report: https://mlflow.example/#/models/spira/versions/1" in notice["message"]
    stored = last_status.load(local_delivery.ledger_builder.ledger.store)
    assert stored is not None
    assert (stored.status.wanted, stored.status.pin is not None) == ("1", True)


def test_a_broken_url_is_reported_and_fails_nothing(
    deliver: Callable[..., Any], local_delivery: LocalDelivery, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick has its result and exit code 0; the status has the problem and exit code 1; neither has the URL."""
    settle(local_delivery)
    hook.status = 404
    monkeypatch.setenv(URLS_VARIABLE, hook.url)
    ticked = deliver("pin", "1", "--reason", "an audit")
    assert (ticked.exit_code, local_delivery.served) == (0, "1")
    assert "trouble: notices: address 1 (json) accepts none since" in ticked.stderr
    shown = deliver("status")
    assert shown.exit_code == 1
    assert "address 1 (json) accepts none" in shown.stdout
    as_json = deliver("status", "--json").stdout
    assert len(json.loads(as_json)["notice_problems"]) == 1
    assert json.loads(as_json)["troubles"] == []
    ledger = Path(local_delivery.ledger_builder.ledger.store.uri)
    stored = "".join(file.read_text() for file in ledger.rglob("*.json"))
    shown_texts = ticked.output + shown.output + as_json + stored
    assert [secret for secret in SECRETS if secret in shown_texts] == []


def test_without_addresses_no_library_of_notices_is_loaded(
    deliver: Callable[..., Any], local_delivery: LocalDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is stored for them."""
    monkeypatch.delenv(URLS_VARIABLE, raising=False)
    assert deliver("tick").exit_code == 0
    assert "apprise" not in sys.modules
    assert not (Path(local_delivery.ledger_builder.ledger.store.uri) / "notices.json").exists()
