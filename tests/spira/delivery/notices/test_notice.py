"""Notices from ledger records, and their words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spira.delivery import explain, operator_commands
from spira.delivery.decide import Policy
from spira.delivery.links import Links
from spira.delivery.notices.message import TONES, compose
from spira.delivery.notices.notice import Kind, Notice, derive
from spira.delivery.runner import Run
from spira.delivery.wording import without_paths
from spira.evaluation.numbers import number
from spira.language import ENGLISH, Language, translator
from tests.support import catalogue
from tests.support.in_memory_world import InMemoryWorld
from tests.support.ledger_builder import LedgerBuilder, observed

AT = datetime(2026, 11, 30, 17, 31, tzinfo=UTC)
PORTUGUESE = translator(Language.PORTUGUESE)
LINKS = Links("https://mlflow.example/", "https://status.example")


def kinds(world: InMemoryWorld) -> list[Kind]:
    """Return the kinds of all notices of a ledger."""
    return [notice.kind for notice in derive(world.ledger.read(), world.policy)]


def last(world: InMemoryWorld) -> Notice:
    return list(derive(world.ledger.read(), world.policy))[-1]


def test_an_approved_version_is_announced_and_then_that_it_serves() -> None:
    """With the verdict's numbers and the page of its run, by the number of the ledger record."""
    world = InMemoryWorld()
    world.reconciler().tick()
    world.repository.versions = 1
    (run,) = world.runner.runs
    world.runner.runs[run] = Run("succeeded", approved=True, model_version=1, metrics={"accuracy": 0.91})
    world.reconciler().tick()
    approved, deployed = derive(world.ledger.read(), world.policy)
    assert (approved.kind, approved.version, approved.run, approved.metrics) == (
        "approved",
        "1",
        run,
        {"accuracy": 0.91},
    )
    assert (deployed.kind, deployed.version, deployed.run, deployed.before) == ("deployed", "1", run, "")
    assert deployed.metrics == approved.metrics
    assert approved.page == deployed.page == f"experiments/1/runs/{run}"
    kind_by_number = {record.number: record.kind for record in world.ledger.read()}
    assert [kind_by_number[int(notice.id)] for notice in (approved, deployed)] == ["finished", "promoted"]


def test_a_rejection_has_its_reasons() -> None:
    world = InMemoryWorld()
    world.deliver("rejected")
    assert (last(world).kind, last(world).causes) == ("rejected", ("accuracy is too low",))


def test_a_verdict_is_announced_when_mlflow_has_no_page_of_its_run() -> None:
    """The link is missing, and nothing else."""
    world = InMemoryWorld()
    world.reconciler().tick()
    world.end_run("rejected")
    world.repository.reachable = False
    world.reconciler().tick()
    assert (last(world).kind, last(world).page) == ("rejected", "")


def test_a_version_waits_for_approval_where_the_settings_say_so() -> None:
    world = InMemoryWorld(Policy(approval=True))
    world.deliver()
    assert kinds(world) == ["waiting"]
    operator_commands.approve(world.ledger, "1")
    world.reconciler().tick()
    assert kinds(world) == ["waiting", "deployed"]


def test_a_failure_is_announced_when_the_run_is_given_up() -> None:
    """A failure that is tried again is none; after a retry there is one more attempt."""
    world = InMemoryWorld(Policy(attempts=2, backoff_seconds=1))
    world.deliver("failed")
    assert kinds(world) == []
    world.pass_time(60)
    world.deliver("failed")
    assert (last(world).kind, last(world).causes) == ("given_up", ("out of memory",))
    operator_commands.retry(world.ledger)
    world.deliver("failed")
    assert kinds(world) == ["given_up"]


def test_a_cancelled_run_is_announced_with_who_cancelled_it() -> None:
    world = InMemoryWorld()
    world.reconciler().tick()
    operator_commands.cancel(world.ledger, "wrong data")
    world.reconciler().tick()
    world.reconciler().tick()
    notice = last(world)
    assert notice.kind == "cancelled"
    assert notice.causes[0].endswith(": wrong data")


@pytest.fixture
def two_versions() -> InMemoryWorld:
    """Version 2 serves, version 1 served before."""
    world = InMemoryWorld()
    world.deliver()
    world.data = "1"
    world.deliver()
    return world


def test_a_rollback_is_announced_once(two_versions: InMemoryWorld) -> None:
    """The repairs that carry it out are no drift; a later one is."""
    before = len(kinds(two_versions))
    operator_commands.roll_back(two_versions.ledger, "false alarms")
    two_versions.reconciler().tick()
    assert two_versions.serving_numbers == {"1"}
    assert kinds(two_versions)[before:] == ["rolled_back"]
    assert (last(two_versions).version, last(two_versions).before, last(two_versions).causes) == (
        "1",
        "2",
        ("false alarms",),
    )
    two_versions.targets[0].version = "2"
    two_versions.targets[0].digest = two_versions.repository.id_of("2").digest
    two_versions.reconciler().tick()
    assert kinds(two_versions)[before:] == ["rolled_back", "repaired"]
    assert (last(two_versions).target, last(two_versions).version, last(two_versions).before) == ("local", "1", "2")


def test_a_repair_after_a_pin_that_changes_nothing_is_drift(two_versions: InMemoryWorld) -> None:
    operator_commands.pin(two_versions.ledger, "2", "an audit")
    two_versions.reconciler().tick()
    two_versions.repository.champion = "1"
    two_versions.reconciler().tick()
    assert kinds(two_versions)[-2:] == ["pinned", "repaired"]
    assert last(two_versions).target == "champion"


def test_a_version_that_waits_for_a_pinned_one_says_so(two_versions: InMemoryWorld) -> None:
    operator_commands.pin(two_versions.ledger, "1", "an audit")
    two_versions.data = "2"
    two_versions.deliver()
    assert (last(two_versions).kind, last(two_versions).before) == ("approved", "1")
    operator_commands.unpin(two_versions.ledger)
    two_versions.reconciler().tick()
    assert kinds(two_versions)[-2:] == ["unpinned", "deployed"]
    assert (last(two_versions).version, last(two_versions).before) == ("3", "2")


def test_a_version_that_a_target_refuses_is_announced_once(two_versions: InMemoryWorld) -> None:
    """It is tried again every hour, which nobody wants to read."""
    two_versions.targets[1].refuses.add("3")
    two_versions.data = "2"
    two_versions.deliver()
    for _ in range(3):
        two_versions.pass_time(7200)
        two_versions.reconciler().tick()
    assert two_versions.targets[0].served[-2:] == ["3", "2"]  # it was served, and given back
    assert kinds(two_versions)[-2:] == ["approved", "refused"]
    assert [record.kind for record in two_versions.ledger.read()].count("refused") > 1


def test_a_message_says_version_why_numbers_and_report(ledger_builder: LedgerBuilder) -> None:
    ledger_builder.deliver(observed(), "1")
    parts = {"c.wav": "7" * 64 + " 30", "d.wav": "6" * 64 + " 30"}
    settings = {"training.learning_rate": "0.001"}
    ledger_builder.deliver(observed(data=parts, model=settings), "2")
    notice = list(derive(ledger_builder.ledger.read(), Policy()))[-1]
    notice = replace(notice, metrics={"auroc": 0.9996, "accuracy": 0.91, "brier": 0.1}, page="experiments/1/runs/3f")
    message = compose(notice, explain.why(ledger_builder.ledger, notice.run), LINKS, ENGLISH)
    assert message.title == "SPIRA: version 2 serves, in place of version 1"
    assert message.body.splitlines() == [
        "approved by its gate",
        "Why: since version 1, changed: data (2 files added); configuration (training.learning_rate 0.002 → 0.001)",
        "accuracy 0.910, AUROC 0.999",
        "Report: https://mlflow.example/#/experiments/1/runs/3f/artifactPath/report.html",
        "Status: https://status.example",
        "Ledger record 10, 2026-11-24 06:09 UTC",
    ]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_words(kind: Kind) -> None:
    """Also where everything optional is missing."""
    full = Notice("17", kind, AT, 17, "5", "4", "local", "run-1", "maria", ("a reason",))
    message = compose(full, None, Links(), ENGLISH)
    assert message.title.startswith("SPIRA: ")
    assert "a reason" in message.body
    assert message.body.endswith("Ledger record 17, 2026-11-30 17:31 UTC")
    assert "{" not in message.title + message.body
    assert message.tone == TONES[kind]
    assert compose(Notice("p-1", kind, AT), None, Links(), ENGLISH).body.endswith("Notice p-1")


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("before", ["", "4"])
def test_every_kind_has_portuguese_words(kind: Kind, before: str) -> None:
    """No English word of the program is left; names of commands and accounts stay."""
    metrics = {"accuracy": 0.91, "auroc": 0.9996, "balanced_accuracy": 0.5}
    full = Notice(
        "17", kind, AT, 17, "5", before, "local", "run-1", "maria", ("motivo",), metrics, "experiments/1/runs/3"
    )
    for notice in (full, replace(full, target="champion"), Notice("p-1", kind, AT)):
        message, english = compose(notice, None, LINKS, PORTUGUESE), compose(notice, None, LINKS, ENGLISH)
        assert catalogue.english_left(f"{message.title}\n{message.body}") == []
        assert message.tone == english.tone
        lines = [set(text.splitlines()) for text in (message.body, english.body)]
        assert lines[0] & lines[1] <= {"motivo"}
        assert message.title != english.title
    body = compose(full, None, LINKS, PORTUGUESE).body
    assert "acurácia 0,910, AUROC 0,999, acurácia balanceada 0,500" in body
    assert body.endswith("Registro 17 do livro, 30/11/2026 17:31 UTC")


def test_a_message_in_portuguese_translates_the_reasons_of_the_gate(ledger_builder: LedgerBuilder) -> None:
    """With what changed, in the right plural forms; the reason of an operator stays as it was written."""
    ledger_builder.deliver(observed(), "1")
    parts = {"c.wav": "7" * 64 + " 30"}
    code = {"spira/training/train.py": "5" * 64, "spira/config.py": "6" * 64}
    ledger_builder.deliver(observed(data=parts, code=code), "2")
    notice = list(derive(ledger_builder.ledger.read(), Policy()))[-1]
    why = explain.why(ledger_builder.ledger, notice.run)
    assert compose(notice, why, Links(), PORTUGUESE).body.splitlines()[:2] == [
        "aprovado nas verificações",
        "Motivo: desde a versão 1, mudou: dados (1 arquivo novo); código (2 fontes alteradas)",
    ]
    reasons = ("noise test: accuracy is too low: 0.531 [0.500, 0.562], at least 0.80 is required", "a library's words")
    body = compose(Notice("3", "rejected", AT, 3, causes=reasons), None, Links(), PORTUGUESE).body
    assert "- teste com ruído: acurácia é baixa demais: 0,531 [0,500, 0,562], o mínimo é 0,80" in body
    assert "- a library's words" in body
    for kind in ("pinned", "rolled_back"):
        written = replace(notice, kind=kind, causes=("test 0.5 of /srv/x.wav",))
        assert compose(written, None, Links(), PORTUGUESE).body.startswith("test 0.5 of …")


def test_a_long_rejection_is_cut() -> None:
    notice = Notice("1", "rejected", AT, 1, causes=tuple(f"{'x' * 900} {n}" for n in range(40)))
    body = compose(notice, None, Links(), ENGLISH).body
    assert len(body) < 3000
    assert "and 32 more" in body


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see /srv/ward 7/voices/souza.wav", "see … …"),
        ("'/data/maria/log.txt' is full", "'…' is full"),
        ("gs://bucket/Souza/x: not found", "… not found"),
        ("record-7000001.wav is silent", "… is silent"),
        ("metadata_train.csv, row 3: no class", "metadata_train.csv, row 3: no class"),
        ("noisy/accuracy 0.4, at least 0.8 is required", "noisy/accuracy 0.4, at least 0.8 is required"),
        ("~/voices and ./x/y", "… and …"),
    ],
)
def test_paths_and_recordings_are_left_out(text: str, shown: str) -> None:
    assert without_paths(text) == shown


@given(st.floats(0, 1))
def test_a_number_that_is_not_one_never_reads_one(value: float) -> None:
    assert (number(value) == "1.000") == (value == 1)
    assert abs(float(number(value)) - value) <= 0.001


def test_without_an_address_of_mlflow_there_is_no_link() -> None:
    assert Links().report("experiments/1/runs/a", "3") == ""
    assert Links("http://m").report("", "3") == "http://m/#/models/spira/versions/3"
    assert Links("http://m").report("") == ""
