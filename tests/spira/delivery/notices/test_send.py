"""Notices over real sockets: at least once, in order, without delay to a delivery, and without a word of an address."""

from __future__ import annotations

import io
import json
import logging
import socket
import string
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spira.delivery import operator_commands
from spira.delivery.background import BackgroundWork
from spira.delivery.kubernetes.conditions import resource_status
from spira.delivery.links import Links
from spira.delivery.notices import channels as channel_module
from spira.delivery.notices import outbox as outboxes
from spira.delivery.notices.channels import Channel, ChannelError, ServiceProcess, channels, redacted
from spira.delivery.notices.message import Message
from spira.delivery.notices.notice import derive
from spira.delivery.notices.send import Sender
from spira.delivery.reconcile import Report
from spira.delivery.status import delivery_status
from spira.language import Language
from tests.support.in_memory_world import InMemoryWorld, KilledError
from tests.support.receivers import SECRETS, Mailbox, Webhook, mail_server, webhook

ASCII = string.ascii_letters + string.digits + "_.-"
REFUSED = "json://127.0.0.1:1/T0KEN-in-path"


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with mail_server() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def services() -> Iterator[None]:
    """One process for all notices of these tests, because its start takes a second."""
    Team.services = ServiceProcess()
    yield
    Team.services.close()


class Team:
    """A delivery in memory, whose team gets its notices at some addresses."""

    services: ServiceProcess
    language = Language.ENGLISH

    def __init__(self, *urls: str) -> None:
        self.world = InMemoryWorld()
        self.urls = list(urls)

    @property
    def sender(self) -> Sender:
        return Sender(
            ledger=self.world.ledger,
            find_channels=lambda: [Channel(number, url) for number, url in enumerate(self.urls, start=1)],
            policy=self.world.policy,
            links=Links("https://mlflow.example"),
            lasting=timedelta(minutes=30),
            clock=lambda: self.world.now,
            services=self.services,
            language=self.language,
        )

    def tick(self, seconds: float = 0) -> Report:
        """Tick some time later, and send."""
        self.world.pass_time(seconds)
        report = self.world.reconciler().tick()
        self.sender.send(report)
        return report

    def deliver(self, verdict: str = "approved") -> None:
        self.tick()
        self.world.end_run(verdict)
        self.tick()


def test_a_webhook_gets_each_notice_once(hook: Webhook) -> None:
    """In the order of the ledger; a tick without news sends nothing."""
    team = Team(hook.url)
    team.deliver()
    for _ in range(3):
        team.tick(60)
    assert hook.titles == ["SPIRA: version 1 is approved", "SPIRA: version 1 serves"]
    assert [notice["type"] for notice in hook.received] == ["success", "success"]
    assert "Report: https://mlflow.example/#/experiments/1/runs/" in hook.received[1]["message"]


def test_notices_arrive_in_the_language_of_the_team(hook: Webhook) -> None:
    """The ledger and the problems of sending stay English, so that another language can follow."""
    team = Team(hook.url, REFUSED)
    team.language = Language.PORTUGUESE
    team.deliver("rejected")
    (notice,) = hook.received
    assert notice["title"] == "SPIRA: um novo modelo foi reprovado"
    assert "Motivo: nenhuma versão esteve em serviço antes." in notice["message"]
    assert team.world.ledger.read()[-1].event.reasons == ("accuracy is too low",)
    team.tick(3600)
    (problem,) = team.sender.send(team.tick(3600))
    assert problem.startswith("notices: address 2 (json) accepts none since")


def test_e_mail_arrives_as_text(mailbox: Mailbox) -> None:
    """Markup of an operator's reason stays text."""
    team = Team(mailbox.url)
    team.deliver()
    team.world.data = "1"
    team.deliver()
    operator_commands.roll_back(team.world.ledger, "<script>alert(1)</script> & more")
    team.tick()
    message = mailbox.messages[-1]
    assert message["Subject"] == "SPIRA: rolled back from version 2 to version 1"
    assert message.get_content_type() == "text/plain"
    assert "<script>alert(1)</script> & more" in message.get_content()
    assert message["To"] == "team@ward.example"


def test_a_kill_between_sending_and_recording_sends_again(hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have the same ledger record as their id."""
    team = Team(hook.url)
    with monkeypatch.context() as patch:
        original = team.world.store.write

        def killed(path: str, data: bytes) -> None:
            if hook.received and path == outboxes.PATH:
                raise KilledError
            original(path, data)

        patch.setattr(team.world.store, "write", killed)
        with pytest.raises(KilledError):
            team.deliver()
    assert len(hook.received) == 1
    team.tick()
    team.tick()
    assert hook.titles == ["SPIRA: version 1 is approved"] * 2 + ["SPIRA: version 1 serves"]
    assert hook.received[0]["message"] == hook.received[1]["message"]


def last_line(message: Message) -> str:
    """Return the line with the ledger record."""
    return message.body.splitlines()[-1]


@pytest.mark.integration
@settings(max_examples=12)
@given(kills=st.lists(st.integers(0, 8), max_size=3))
def test_notices_survive_kills_at_any_write(kills: list[int]) -> None:
    """Every notice is accepted at least once, and none is sent again after it was recorded."""
    team, accepted = Team("json://somewhere/x"), []
    store, original = team.world.store, team.world.store.write
    remaining: list[int] = []

    def write(path: str, data: bytes) -> None:
        if path == outboxes.PATH and remaining:
            if remaining[0] == 0:
                remaining.clear()
                raise KilledError
            remaining[0] -= 1
        original(path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "write", write)
        patch.setattr(ServiceProcess, "send", lambda self, channel, message: accepted.append(last_line(message)))
        for kill in [*kills, None]:
            remaining[:] = [] if kill is None else [kill]
            try:
                team.world.data = str(len(accepted))
                team.deliver()
                team.tick()
            except KilledError:
                continue
    expected = {int(notice.id) for notice in derive(team.world.ledger.read(), team.world.policy)}
    numbers = [int(line.split()[2].rstrip(",")) for line in accepted]
    assert set(numbers) == expected
    assert numbers == sorted(numbers)
    assert len(accepted) <= len(expected) + len(kills)


def test_a_new_address_gets_the_notices_of_the_last_day(hook: Webhook) -> None:
    team = Team()
    team.deliver()
    team.world.pass_time(2 * 24 * 3600)
    team.world.data = "1"
    team.deliver()
    team.urls = [hook.url]
    team.tick()
    assert hook.titles == ["SPIRA: version 2 is approved", "SPIRA: version 2 serves, in place of version 1"]


def test_a_corrected_address_gets_all_that_the_broken_one_did_not(hook: Webhook, mailbox: Mailbox) -> None:
    """However old it is; the other address gets nothing twice."""
    team = Team(REFUSED, mailbox.url)
    team.deliver()
    team.tick(5 * 24 * 3600)
    team.urls[0] = hook.url
    report = team.tick()
    assert len(hook.received) == 2
    assert len(mailbox.messages) == 2
    assert team.tick().notice_problems == ()
    assert report.troubles == ()


def test_a_person_without_addresses_leaves_those_of_the_watching_process(hook: Webhook) -> None:
    """Such as an operator whose shell has no secret."""
    team = Team(hook.url)
    hook.status = 503
    team.deliver()
    team.urls = []
    team.tick(30 * 24 * 3600)
    team.urls, hook.status = [hook.url], 200
    team.tick()
    assert len(hook.received) == 2


def test_a_broken_address_is_reported_and_tried_later_and_later(hook: Webhook) -> None:
    """The other one gets its notices, the delivery goes on, and its troubles and actions are the same."""
    team = Team(hook.url, REFUSED)
    team.deliver()
    assert len(hook.received) == 2
    report = team.tick()
    (problem,) = report.notice_problems
    assert problem.startswith("notices: address 2 (json) accepts none since 2026-11-24 00:00; next attempt at 00:01:00")
    assert report.troubles == ()
    status = delivery_status(report)
    assert status.has_problem
    assert not status.model_copy(update={"notice_problems": ()}).has_problem
    assert problem in status.model_copy(update={"notes": ()}).to_json()["notice_problems"]
    conditions = {one.type: one for one in resource_status(status, {}, 1, team.world.now).conditions}
    assert conditions["Healthy"].status == "False"
    attempts = []
    for _ in range(40):
        team.tick(300)
        state = next(one for one in outboxes.load(team.world.store).channels if one.failures)
        attempts.append(state.failures)
    assert attempts[0] == 2
    assert attempts[-1] == 2 + 1 + 1 + 2  # after 5, 9 (due at 4), 25 (16) and each hour
    assert team.world.reconciler().dry_run().notice_problems


def test_a_broken_address_recovers(hook: Webhook) -> None:
    team = Team(hook.url)
    hook.status = 500
    team.deliver()
    assert "500" in team.tick().notice_problems[0]
    hook.status = 200
    team.tick(120)
    assert len(hook.received) == 2
    assert team.tick().notice_problems == ()


def test_no_part_of_an_address_is_stored_logged_or_shown(
    hook: Webhook, mailbox: Mailbox, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither of one that works, nor of broken ones."""
    team = Team(hook.url, mailbox.url, REFUSED, f"nonsense-{SECRETS[1]}", f"{SECRETS[0]}://{SECRETS[1]}")
    logged, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(logged), root.level
    handler.addFilter(lambda record: record.name != "mail.log")  # the log of the test's own SMTP server
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        team.deliver()
        report = team.tick()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert len(report.notice_problems) == 3
    assert "claimed run" in logged.getvalue()
    stored = b"".join(team.world.store.files.values()).decode()
    shown = "".join([stored, *report.notice_problems, logged.getvalue(), *capfd.readouterr()])
    assert [secret for secret in (*SECRETS, "127.0.0.1", "team@ward.example") if secret in shown] == []
    assert repr(Channel(1, hook.url)) == "Channel(number=1)"
    assert team.world.store.files[outboxes.PATH].count(b'"sent"') == 5


def test_a_problem_that_lasts_is_announced_and_then_its_end(hook: Webhook) -> None:
    """Not at once, once, and not again when only its wording changes."""
    team = Team(hook.url)
    team.deliver()
    hook.received.clear()
    team.world.repository.reachable = False
    for _ in range(5):
        team.tick(300)
    assert hook.received == []
    team.tick(600)
    team.tick(600)
    (notice,) = hook.received
    assert notice["title"] == "SPIRA: a problem lasts since 2026-11-24 00:05 UTC"
    assert "the model repository is unreachable" in notice["message"]
    team.world.repository.reachable = True
    team.tick(60)
    team.tick(60)
    assert hook.titles[1:] == ["SPIRA: a problem is solved"]


def test_data_that_cannot_be_trained_on_is_a_problem_that_lasts(hook: Webhook) -> None:
    team = Team(hook.url)
    team.deliver()
    team.world.problem = "data: metadata_train.csv, row 3: no class"
    team.tick(60)
    team.tick(3600)
    assert "the data cannot be trained on: metadata_train.csv, row 3: no class" in hook.received[-1]["message"]


def test_a_problem_of_a_moment_is_no_notice(hook: Webhook) -> None:
    team = Team(hook.url)
    team.deliver()
    team.world.targets[0].reachable = False
    team.tick(60)
    team.world.targets[0].reachable = True
    team.tick(3600)
    team.world.targets[0].reachable = False
    team.tick(60)
    assert len(hook.received) == 2


def test_a_damaged_outbox_sends_the_last_day_again(hook: Webhook) -> None:
    team = Team(hook.url)
    team.deliver()
    team.world.store.files[outboxes.PATH] = team.world.store.files[outboxes.PATH].replace(b'"sent": ', b'"sent": 9')
    team.tick()
    assert hook.titles == 2 * ["SPIRA: version 1 is approved", "SPIRA: version 1 serves"]


@pytest.mark.integration
def test_two_processes_that_send_lose_nothing(hook: Webhook) -> None:
    """The later writer does not take back what the other one has marked as sent."""
    team = Team(hook.url)
    team.deliver()
    before = outboxes.load(team.world.store)
    team.world.data = "1"
    team.deliver()
    outboxes.save(team.world.store, before.model_copy(update={"trouble": "a late writer"}))
    team.tick()
    assert len(hook.received) == 4


@contextmanager
def dripping_server() -> Iterator[int]:
    """Run a server that sends one byte of its answer now and then, and never the last one; yield its port."""
    stopped = threading.Event()

    def drip(listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                while not stopped.wait(0.1):
                    connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        stopped.set()
        thread.join()


@pytest.mark.integration
def test_an_address_that_never_ends_its_answer_delays_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tick has ended before; the thread ends at its limit, and the problem is reported."""
    monkeypatch.setattr(channel_module, "TIMEOUT_SECONDS", 1.0)
    with dripping_server() as port:
        team = Team(f"json://127.0.0.1:{port}/x")
        team.tick()
        team.world.end_run("approved")
        work, began = BackgroundWork("notices", 60), time.monotonic()
        report = team.world.reconciler().tick()
        work.start(lambda: team.sender.send(report))
        assert time.monotonic() - began < 0.9
        assert team.world.serving_numbers == {"1"}
        (problem,) = work.finish()
    assert "no answer within 1 s" in problem


def test_addresses_come_from_the_environment_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "urls"
    file.write_text("# the ward's chat\njson://a/b\n\n  mailto://x@y?to=a,b  \n")
    monkeypatch.setenv(channel_module.URLS_VARIABLE, "json://c\njson://a/b  json://d")
    assert [one.url for one in channels(str(file))] == ["json://c", "json://a/b", "json://d", "mailto://x@y?to=a,b"]
    assert [one.name for one in channels(str(file))][-1] == "address 4 (mailto)"
    monkeypatch.delenv(channel_module.URLS_VARIABLE)
    assert channels() == []


def test_a_file_of_addresses_that_cannot_be_read_is_a_reported_problem(tmp_path: Path) -> None:
    team = Team()
    sender = replace(team.sender, find_channels=lambda: channels(str(tmp_path / "lost" / "urls")))
    report = team.world.reconciler().tick()
    expected = ("notices: the file of notices.urls_file cannot be read: No such file or directory",)
    assert sender.send(report) == expected
    assert team.world.reconciler().tick().notice_problems == expected
    team.urls = [REFUSED]
    team.tick()
    assert team.world.reconciler().tick().notice_problems == ()


@pytest.mark.parametrize("url", ["nonsense", "slack://T0KEN", "json://", "http://", ""])
def test_an_invalid_address_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ChannelError) as refusal:
        Team.services.send(Channel(1, url), Message("title", "body", "info"))
    assert "\n" not in str(refusal.value)
    assert "T0KEN" not in str(refusal.value)


@settings(max_examples=40)
@given(st.lists(st.text(ASCII, min_size=3, max_size=20), min_size=1, max_size=4))
def test_a_message_never_has_a_part_of_the_address(parts: list[str]) -> None:
    """Whatever a service writes into its error."""
    url = "json://" + "/".join(parts)
    text = " ".join(f"<{part}> {part.upper()} /{part}/" for part in parts)
    shown = redacted(f"POST {url} failed: {text}", url).lower()
    assert [part for part in parts if part.lower() in shown.replace("post", "").replace("failed", "")] == []


def test_the_name_of_an_address_in_the_store_does_not_reveal_it() -> None:
    """It is the same in every process, and another one with another salt."""
    one, two = Channel(1, "json://a"), Channel(2, "json://a")
    assert one.id("salt") == two.id("salt") != one.id("pepper")
    assert one.id("salt") != Channel(1, "json://b").id("salt")
    assert json.dumps(one.id("salt")).isascii()
