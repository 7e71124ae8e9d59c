"""The model card: sections for readers outside the team, from a real training and evaluation."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import pytest
import yaml

from spira import config
from spira.data.corpus import Corpus
from spira.evaluation import evaluate, gate
from spira.evaluation.report import data_summary, model_card
from spira.evaluation.verdict import Verdict
from spira.language import Language
from spira.models import checkpoint
from spira.models.checkpoint import Checkpoint
from spira.packaging import attestation
from spira.packaging import card as cards
from spira.project import PAPER, UNKNOWN, Project
from spira.training import train
from tests.support import ROOT, catalogue
from tests.support.verdicts import make_verdict

pytestmark = pytest.mark.integration

ORDER = ["Numbers", "Intended use", "Not for", "Owner, contact and licence", "Data", "Limits", "Gate", "Model"]
ORDER += ["How to use", "How to cite", "Ethics"]


@dataclass(frozen=True)
class Case:
    verdict: Verdict
    trained: Checkpoint
    corpus: Corpus

    def card(self, project: Project = UNKNOWN) -> str:
        return model_card.markdown(self.verdict, self.trained, self.corpus, project)

    def approved(self) -> Case:
        return dataclasses.replace(self, verdict=self.verdict.model_copy(update={"approved": True}))

    def described(self, readme: str) -> Case:
        quality = self.corpus.quality.model_copy(update={"about": readme})
        return dataclasses.replace(self, corpus=dataclasses.replace(self.corpus, quality=quality))


@pytest.fixture(scope="module")
def case(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A network of one epoch, evaluated on 8 recordings."""
    folder = tmp_path_factory.mktemp("card")
    train.train(corpus, config.smoke(), 42, folder / "42", device="cpu")
    verdict = evaluate.evaluate(corpus, [folder / "42"], gate.load(), folder / "verdict", None)
    return Case(verdict, checkpoint.load(folder / "42"), corpus)


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n\n")[1].split("\n\n## ")[0]


def test_the_card_has_every_section_in_order(case: Case) -> None:
    """The description in MLflow is cut at the end, so the sections that matter most come first."""
    card = case.card()
    assert [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")] == ORDER
    counts = case.verdict.data.classes
    assert f"{counts['patient']['files']} of patients by {counts['patient']['speakers']} speakers" in card
    assert "| Accuracy |" in section(card, "Numbers")
    assert all(check.title.split(",")[0] in section(card, "Gate") for check in case.verdict.checks)
    assert "train: " in section(card, "Data")


def test_the_use_depends_on_the_verdict(case: Case) -> None:
    """A model that failed has no use; one that passed has its band; synthetic data allow only a demonstration."""
    assert "None: the model did not pass its gate" in case.card()
    card = case.approved().card()
    assert "Research on respiratory insufficiency" in card
    assert "Strictly between 0.4 and 0.6" in card
    card = case.approved().described("synthetic voices").card()
    assert "Research on" not in card
    assert "by its own description: synthetic voices" in card
    assert card.startswith("> **Synthetic data: the numbers say nothing about patients.** synthetic voices")


def test_owner_contact_and_licence_come_from_the_project(case: Case) -> None:
    """Without a project file the card says where to write them; what is on the card cannot be markup."""
    project = Project(owner="A <b>group</b>", contact="a@example.org", licence="CC BY-NC 4.0", ethics_approval="CAAE 1")
    lines = section(case.card(project), "Owner, contact and licence")
    assert "A &lt;b&gt;group&lt;/b&gt;" in lines
    assert "CC BY-NC 4.0" in lines
    assert "CAAE 1" in lines
    assert "project.yaml" in section(case.card(), "Owner, contact and licence")


def test_a_card_in_portuguese_has_no_english_text(case: Case) -> None:
    """Apart from commands, the citation, and what data set and project say of themselves; its numbers have commas."""
    own = Project(owner="SPIRA", contact="a@example.org", language=Language.PORTUGUESE)
    for one in (case, case.approved().described("synthetic voices")):
        english, card = one.card(own.model_copy(update={"language": Language.ENGLISH})), one.card(own)
        assert card.count("\n") == english.count("\n")
        assert len(catalogue.english_left(english)) > 20
        assert catalogue.english_left(card) == []
        same = {line for line in card.splitlines() if line in english.splitlines() and len(line.split()) > 1}
        assert {line for line in same if "Casanova" not in line and "spira " not in line and "---" not in line} == {
            "- Contato: a@example.org"
        } & same
        assert "| Acurácia |" in section(card, "Números")
        assert "não registrado (project.yaml)" in section(card, "Responsável, contato e licença")
        assert (
            re.search(r"\d\.\d{3}\b", section(card, "Números") + section(card, "Verificações para a aprovação")) is None
        )
    assert "de pacientes (" in card
    assert "> **Dados sintéticos: os números não dizem nada sobre pacientes.** synthetic voices" in card


def test_the_card_of_a_package_is_in_the_language_of_its_sections() -> None:
    """Title and provenance too; a program can tell the language."""
    content = attestation.statement("d" * 64, {"data_fingerprint": "a" * 64}, make_verdict(), "sha256:" + "e" * 64)
    english = cards.compose("", content, 7, ["k"])
    portuguese = cards.compose("", content, 7, ["k"], Language.PORTUGUESE)
    assert english.startswith("# Detector of respiratory insufficiency in speech, version 7\n\nIntended use: ")
    assert portuguese.startswith("# Detector de insuficiência respiratória na fala, versão 7\n\nUso pretendido: ")
    assert f"- dados: `{'a' * 64}`" in portuguese
    assert "- assinatura: chave `k`" in portuguese
    assert catalogue.english_left(portuguese) == []
    assert [cards.language_of(card) for card in (english, portuguese, "# mine")] == [*Language, Language.ENGLISH]


def test_the_card_cites_what_the_repository_cites(case: Case) -> None:
    """A project may have its own citation."""
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert paper["title"] in PAPER
    assert PAPER.endswith(paper["doi"])
    assert "Ours 2026" in section(
        case.card(Project(citation="Ours (2026)")).replace("(", "").replace(")", ""), "How to cite"
    )


def test_the_card_names_no_recording_and_no_speaker(case: Case) -> None:
    card = case.card()
    for split in ("train", "eval", "test"):
        table = case.corpus.split(split).table
        assert not [name for name in (*table["file_path"], *table["speaker"].astype(str)) if str(name) in card]


def test_the_data_are_summarized_in_counts(case: Case) -> None:
    """The counts are those of the corpus; nothing names a recording or a speaker."""
    summary = data_summary.summarize(case.corpus, "synthetic voices")
    assert summary.splits["test"].controls + summary.splits["test"].patients == len(case.corpus.split("test"))
    assert summary.splits["train"].speakers == case.corpus.split("train").table["speaker"].nunique()
    assert (summary.digest, summary.notice, summary.left_out) == (case.corpus.digest, "synthetic voices", 0)
    assert summary.noises == len(case.corpus.noises)
