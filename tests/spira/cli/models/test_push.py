"""``spira models push``: a checkpoint of the paper's code is judged, registered and served like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spira.cli.main import app
from spira.evaluation import verdict as verdicts
from spira.evaluation.verdict import VERDICT, Verdict
from tests.spira.paper.test_checkpoint import save
from tests.support import catalogue
from tests.support.gatefiles import LENIENT
from tests.support.paper_network import trained_looking

pytestmark = pytest.mark.integration

FAST = ["--set", "evaluation.bootstrap_samples=200", "--set", "evaluation.noise_draws=1"]
UNKNOWN = "the training data of best_checkpoint.pt are not known"


def spira(*arguments: object) -> str:
    """Run a command in this process; return its standard output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the paper's program saves it."""
    return save(tmp_path_factory.mktemp("paper") / "best_checkpoint.pt", trained_looking())


@pytest.fixture(scope="module")
def pushed(checkpoint: Path, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A work folder with the checkpoint's version, and what the command printed."""
    work = tmp_path_factory.mktemp("push") / "work"
    return work, spira("models", "push", checkpoint, "--data", demo, "--work", work, "--gate", LENIENT, *FAST)


def verdict_of(work: Path) -> Verdict:
    """Return the verdict of the only push."""
    (path,) = (work / "pushed").glob(f"*/verdict/{VERDICT}")
    return verdicts.read(path)


def test_a_pushed_checkpoint_is_registered_and_served(pushed: tuple[Path, str], tmp_path: Path) -> None:
    """`deploy apply` makes it champion, after its golden recordings."""
    work, output = pushed
    assert "APPROVED: version 1 is challenger" in output
    shown = json.loads(spira("models", "show", "challenger", "--work", work, "--json"))
    assert shown["tags"]["warnings"].startswith(UNKNOWN)
    spira("deploy", "apply", "1", "--work", work)
    (row,) = json.loads(spira("deploy", "status", "--work", work, "--json"))
    assert (row["version"], row["ready"]) == ("1", True)


def test_the_verdict_says_that_leakage_was_not_checked(pushed: tuple[Path, str]) -> None:
    """In place of two checks that would pass whatever the training data; also in the output and the report."""
    work, output = pushed
    verdict = verdict_of(work)
    assert verdict.approved
    assert [warning.startswith(UNKNOWN) for warning in verdict.warnings] == [True]
    names = [check.name for check in verdict.checks]
    assert "training_data_known" in names
    assert not {"test_files_unseen", "test_speakers_unseen"} & set(names)
    assert f"warning: {UNKNOWN}" in output
    (report,) = (work / "pushed").glob("*/report.html")
    page = report.read_text("utf-8")
    assert '! <span class="word">not known</span>' in page
    assert page.count(UNKNOWN[1:]) >= 2  # beside the check, and as a sentence in the model card


def test_card_report_and_dossier_are_in_the_language_of_the_project(
    checkpoint: Path, demo: Path, tmp_path: Path
) -> None:
    """Every page for people; what the command prints, and tags in MLflow, stay English."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "project.yaml").write_text("owner: Projeto SPIRA\nlanguage: pt-BR\n")
    output = spira("models", "push", checkpoint, "--data", demo, "--work", work, "--gate", LENIENT, *FAST)
    assert f"warning: {UNKNOWN}" in output
    (local,) = (work / "pushed").glob("*/report.html")
    spira("models", "dossier", "1", "--work", work, "--out", tmp_path / "dossier")
    for page in (local, tmp_path / "dossier" / "report.html", tmp_path / "dossier" / "index.html"):
        assert '<html lang="pt-BR">' in page.read_text("utf-8")
    card = (tmp_path / "dossier" / "model-card.md").read_text("utf-8")
    assert card.startswith("# Detector de insuficiência respiratória na fala, versão 1\n")
    assert "- Responsável: Projeto SPIRA" in card
    assert catalogue.english_left(card) == []
    assert "os dados de treinamento de" in card
    tags = json.loads(spira("models", "show", "1", "--work", work, "--json"))["tags"]
    assert tags["warnings"].startswith(UNKNOWN)


def test_a_gate_can_ask_for_known_training_data(
    pushed: tuple[Path, str], checkpoint: Path, demo: Path, tmp_path: Path
) -> None:
    """The checkpoint is then rejected, with the reason, and nothing is registered."""
    work = pushed[0]
    gate = tmp_path / "gate.yaml"
    gate.write_text(LENIENT.read_text() + "\nrequire_known_training_data: true\n")
    output = spira("models", "push", checkpoint, "--data", demo, "--work", work, "--gate", gate, *FAST)
    assert "NOT APPROVED, no version registered" in output
    assert f"  - {UNKNOWN}" in output
    assert [version["version"] for version in json.loads(spira("models", "list", "--work", work, "--json"))] == [1]
