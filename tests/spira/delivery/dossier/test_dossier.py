"""The dossier of a version, from a real SQLite store and a real ledger: complete, without voices and names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from spira.cli.main import app
from spira.delivery.dossier import contents as dossier
from spira.delivery.history.events import Approved, Finished, Promoted, RolledBack
from spira.delivery.history.ledger import Record
from spira.errors import SpiraError
from spira.evaluation.gate import Gate
from spira.evaluation.report.data_summary import DataSummary, SplitCounts
from spira.evaluation.verdict import Check, CheckKind, Mistake, Slice, Verdict
from spira.language import Language
from spira.packaging import attestation, mlflow_model
from spira.packaging.verify import digests
from spira.registry import Registry, local_uri
from tests.support import catalogue
from tests.support.browser import WIDTHS_PX, opened
from tests.support.ledger_builder import START, LedgerBuilder
from tests.support.verdicts import condition, estimate, make_verdict

pytestmark = pytest.mark.integration

HOSTILE = "<script>alert(1)</script>"
SPLIT = SplitCounts(controls=10, patients=12, speakers=20, minutes=3.5, sample_rates_hz={"16000": 22})
SUMMARY = DataSummary(
    name="voices",
    digest="d" * 64,
    splits={"train": SPLIT, "eval": SPLIT, "test": SPLIT},
    noises=4,
    noise_minutes=1.0,
    left_out=3,
    notice=f"Made by a computer {HOSTILE}.",
    warnings=("train: patients are louder",),
)
EVERY_FILE = {
    "SHA256SUMS",
    "data.json",
    "dossier.json",
    "gate.yaml",
    "index.html",
    "model-card.md",
    "provenance.json",
    "report.html",
    "settings.yaml",
    "verdict.json",
}


def verdict(accuracy: float = 0.9, mistake: str = "rec-0123456789ab") -> Verdict:
    """Return a verdict with a mistake, a large and a small slice, and a check."""
    check = Check(name="noisy.accuracy", title="Accuracy", kind=CheckKind.AT_LEAST, passed=True, value=0.9, limit=0.8)
    return make_verdict(accuracy=accuracy).model_copy(
        update={
            "conditions": {"noisy": condition(accuracy=accuracy), "background": condition(balanced_accuracy=0.5)},
            "mistakes": (Mistake(file_path=mistake, label=1, probability=0.1),),
            "slices": (
                Slice(column="sex", value="F", files=500, metrics={"accuracy": estimate(0.9)}),
                Slice(column="age", value="97", files=1, metrics={"accuracy": estimate(0.1)}),
            ),
            "checks": (check,),
            "warnings": (f"no speakers {HOSTILE}",),
        }
    )


def write_package(folder: Path, content: str) -> Path:
    """Write the smallest package that can be registered."""
    for name in ("data/config.json", "code/spira_inference/pyfunc.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "data" / "config.json").write_text(json.dumps({"content": content}))
    mlflow_model.write(folder)
    (folder / "package.json").write_text(json.dumps({"format": 2, "files": digests(folder)}))
    return folder


def add_version(
    registry: Registry, folder: Path, seed: int, train_files: Sequence[str], judged: Verdict, report: str = "<p>report"
) -> int:
    """Register a version with the records of today's push."""
    package = write_package(folder / "package", f"{seed}")
    for name, content in (
        ("report.html", report),
        ("data.json", SUMMARY.model_dump_json()),
        ("checkpoint.json", json.dumps({"seed": seed, "train_files": train_files})),
    ):
        (folder / name).write_text(content)
    tags = {"data_fingerprint": f"{seed}" * 64, "model_fingerprint": "m", "code_fingerprint": "c", "git_commit": "abc"}
    artifacts = {
        "report.html": folder / "report.html",
        "data.json": folder / "data.json",
        "checkpoint/checkpoint.json": folder / "checkpoint.json",
    }
    params = {"training": {"max_epochs": seed + 1}}
    run_id = registry.log_run(f"run-{seed}", params, {}, judged, artifacts, {**tags, "pipeline_run": f"run-{seed}"})
    return registry.register(package, run_id, judged, tags, "## Numbers\n\n0.9")


@pytest.fixture(scope="module")
def work(new_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with two versions: a person approved the second, which replaced the first."""
    work = tmp_path_factory.mktemp("dossier") / "work"
    work.mkdir()
    shutil.copy(new_mlflow, work)
    registry = Registry(local_uri(work))
    for seed, train_files in enumerate((["a", "b"], ["b", "c", "d"])):
        number = add_version(registry, work / f"made-{seed}", seed, train_files, verdict(0.8 + seed / 10))
        registry.promote(number)
    ledger, digests = LedgerBuilder(work / "ledger"), registry.champion_status()[2]
    ledger.add(Finished(run="run-1", outcome="approved", version="2", digest=digests["2"]))
    ledger.add(Approved(version="2", digest=digests["2"], who="dr.silva"))
    ledger.add(Approved(version="1", digest=digests["1"], who="someone-else"))
    ledger.add(Promoted(version="2", digest=digests["2"], why="better than version 1"))
    ledger.add(
        RolledBack(
            bad="2", bad_digest=digests["2"], to="1", to_digest=digests["1"], reason="calls patients well", who="ana"
        )
    )
    return work


@pytest.fixture
def registry(work: Path) -> Registry:
    return Registry(local_uri(work))


@pytest.fixture
def ledger(work: Path) -> list[Record]:
    return LedgerBuilder(work / "ledger").ledger.read()


class Page(HTMLParser):
    """The first page: its text, links and tags."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed((folder / "index.html").read_text("utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_dossier_has_every_part(registry: Registry, ledger: list[Record], tmp_path: Path) -> None:
    """The list of digests is one that ``sha256sum`` checks, and every file is linked from the first page."""
    dossier.write(registry, 2, ledger, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == EVERY_FILE
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=True)
    sums = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    assert {line.split()[1] for line in sums} == EVERY_FILE - {"SHA256SUMS"}
    page = Page(tmp_path / "out")
    linked = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert linked == EVERY_FILE - {"SHA256SUMS", "index.html"}
    assert "Approved by dr.silva on 2026-11-24" in page.text
    assert "0.900 (0.850 to 0.950)" in page.text
    assert "someone-else" not in page.text


def test_the_history_is_that_of_the_version(registry: Registry, ledger: list[Record], tmp_path: Path) -> None:
    """Events of the ledger and of the model repository, by time; a rollback concerns both versions."""
    second, first = (dossier.write(registry, version, ledger, tmp_path / str(version)) for version in (2, 1))
    events = [(entry.what, entry.who, entry.why) for entry in second.history]
    assert ("approved by the gate", "", "run run-1") in events
    assert ("approved by a person", "dr.silva", "") in events
    assert ("made champion", "", "better than version 1") in events
    assert ("rolled back", "ana", "calls patients well") in events
    assert ("champion again, by a rollback", "ana", "calls patients well") in [
        (entry.what, entry.who, entry.why) for entry in first.history
    ]
    assert [entry.at for entry in second.history] == sorted(entry.at for entry in second.history)
    assert [entry.at for entry in second.approvals] == [START + timedelta(minutes=1)]


def test_changes_are_those_since_the_version_before(registry: Registry, tmp_path: Path) -> None:
    """Recordings are counted; settings and numbers are compared."""
    changes = dossier.write(registry, 2, [], tmp_path / "2").changes
    assert changes is not None
    assert (changes.since, changes.recordings_added, changes.recordings_removed) == (1, 2, 1)
    assert changes.axes == {"data": True, "settings": False, "code": False}
    assert [(row.name, row.before, row.after) for row in changes.settings] == [("training.max_epochs", "1", "2")]
    assert {row.name: row.after for row in changes.metrics}["noisy/accuracy"] == 0.9
    assert dossier.write(registry, 1, [], tmp_path / "1").changes is None
    assert "This is the first version." in Page(tmp_path / "1").text


def test_without_a_persons_approval_the_gate_alone_decided(registry: Registry, tmp_path: Path) -> None:
    written = dossier.write(registry, "champion", [], tmp_path / "out", ["The ledger could not be read."])
    assert written.approvals == ()
    text = Page(tmp_path / "out").text
    assert "No approval by a person is recorded: the gate alone decided." in text
    assert "The ledger could not be read." in text


def test_a_dossier_is_about_no_single_person(registry: Registry, ledger: list[Record], tmp_path: Path) -> None:
    """It has no list of mistakes, and no group that is too small to be judged."""
    dossier.write(registry, 2, ledger, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        if path.name != "report.html":
            text = path.read_text("utf-8")
            assert "rec-" not in text
            assert '"97"' not in text
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["slices"][0]["value"] == "F"


def test_words_from_outside_cannot_be_markup(registry: Registry, tmp_path: Path) -> None:
    dossier.write(registry, 2, [], tmp_path / "out")
    page = Page(tmp_path / "out")
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("Made by a computer <script>") == 1
    assert "no speakers <script>" in page.text


def test_a_dossier_in_portuguese_has_no_english_text(registry: Registry, ledger: list[Record], tmp_path: Path) -> None:
    """Its page: the files for programs are the same, and files in English are named as such."""
    notes = ["The ledger of continuous delivery could not be read, so approvals may be missing: away"]
    dossier.write(registry, 2, ledger, tmp_path / "en", notes)
    dossier.write(registry, 2, ledger, tmp_path / "pt", notes, Language.PORTUGUESE)
    english, page = Page(tmp_path / "en"), Page(tmp_path / "pt")
    assert ("html", {"lang": "pt-BR"}) in page.tags
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in english.tags]
    assert len(catalogue.english_left(english.text)) > 30
    assert catalogue.english_left(page.text) == []
    same = {text.strip() for text in page.words if text in english.words and re.search("[a-z]{3,} [a-z]{2,}", text)}
    own = ("Made by a computer", "better than version 1", "calls patients well", "sha256sum", "font", "no speakers")
    assert {text for text in same if not any(words in text for words in own)} == {"train: patients are louder"} & same
    for words in (
        "Aprovado por dr.silva em 24/11/2026",
        "0,900 (0,850 a 0,950)",
        "aprovado nas verificações",
        "execução run-1",
        "4 gravações de ruído de enfermaria (1,0 minutos).",
        "3 gravações foram recusadas e ficaram de fora.",
        "1 de 1 verificação aprovada.",
        "Gravações de treinamento: 2 a mais, 1 a menos.",
        "dados: mudança, configurações: sem mudança, código: sem mudança.",
        "o livro de registros da entrega contínua não pôde ser lido".capitalize(),
        "Sem vozes e sem nomes. (em inglês)",
    ):
        assert words in page.text
    assert "(em português)" not in page.text
    for name in EVERY_FILE - {"index.html", "SHA256SUMS"}:
        assert (tmp_path / "pt" / name).read_bytes() == (tmp_path / "en" / name).read_bytes()
    assert json.loads((tmp_path / "pt" / "dossier.json").read_text())["history"][0]["what"] == "approved by the gate"


@pytest.mark.slow
@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("width_px", WIDTHS_PX)
def test_the_page_fits_and_is_accessible(
    registry: Registry, ledger: list[Record], tmp_path: Path, width_px: int, language: Language
) -> None:
    """On a screen and on a phone: no sideways scrolling, no request, no serious finding of axe."""
    dossier.write(registry, 2, ledger, tmp_path / "out", language=language)
    address = (tmp_path / "out" / "index.html").as_uri()
    with opened(address, width_px) as page:
        page.picture(tmp_path / f"dossier-{width_px}-{language}.png")
        assert page.overflow_px == 0
        assert page.requests == [address]
        assert page.findings() == []


def test_the_language_is_that_of_the_project_or_of_the_option(work: Path, tmp_path: Path) -> None:
    """As that of the report."""
    shutil.copytree(work, tmp_path / "work")
    (tmp_path / "work" / "project.yaml").write_text("language: pt-BR")
    for name, options in (("pt-BR", []), ("en", ["--language", "en"])):
        command = ["models", "dossier", "1", "--work", str(tmp_path / "work"), "--out", str(tmp_path / name), *options]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        assert f'<html lang="{name}">' in (tmp_path / name / "index.html").read_text("utf-8")
        assert f"dossier of version 1: {tmp_path / name / 'index.html'}" in result.output


def test_a_portuguese_report_and_card_are_named_in_an_english_dossier(new_mlflow: Path, tmp_path: Path) -> None:
    shutil.copy(new_mlflow, tmp_path)
    registry = Registry(local_uri(tmp_path))
    add_version(registry, tmp_path / "made", 0, [], verdict(), '<!DOCTYPE html>\n<html lang="pt-BR">')
    package = tmp_path / "made" / "package"
    registry.register(package, registry.show(1).run_id, verdict(), {}, language=Language.PORTUGUESE)
    dossier.write(registry, 1, [], tmp_path / "en")
    dossier.write(registry, 1, [], tmp_path / "pt", language=Language.PORTUGUESE)
    assert Page(tmp_path / "en").text.count("(in Portuguese)") == 2
    assert [attrs["href"] for tag, attrs in Page(tmp_path / "en").tags if attrs.get("hreflang") == "pt-BR"] == [
        "model-card.md",
        "report.html",
    ]
    assert "(em inglês)" not in Page(tmp_path / "pt").text


def test_the_gate_file_is_the_one_that_was_applied(registry: Registry, tmp_path: Path) -> None:
    """It can be used again."""
    dossier.write(registry, 2, [], tmp_path / "out")
    text = (tmp_path / "out" / "gate.yaml").read_text()
    assert Gate.model_validate(yaml.safe_load(text)).digest() == verdict().gate.digest
    assert text.startswith(f"# digest {verdict().gate.digest}: these limits have this digest")


@pytest.mark.parametrize(
    ("report", "mistake"),
    [("<p><audio src='data:audio/flac;base64,AA'>", "rec-0123456789ab"), ("<p>report", "voices/patient-17.wav")],
    ids=["voices", "names"],
)
def test_a_report_with_voices_or_names_is_left_out(new_mlflow: Path, tmp_path: Path, report: str, mistake: str) -> None:
    """An earlier version of the program wrote such reports; the page gives the reason."""
    shutil.copy(new_mlflow, tmp_path)
    registry = Registry(local_uri(tmp_path))
    add_version(registry, tmp_path / "made", 0, [], verdict(mistake=mistake), report)
    written = dossier.write(registry, 1, [], tmp_path / "out")
    assert not (tmp_path / "out" / "report.html").exists()
    assert "names or voices" in written.missing["report.html"]
    assert "report.html is left out: an earlier version" in Page(tmp_path / "out").text


def test_the_signature_is_shown_with_its_state(
    new_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed and checked, signed and not checked, signed by another key, and not signed."""
    shutil.copy(new_mlflow, tmp_path)
    registry = Registry(local_uri(tmp_path))
    add_version(registry, tmp_path / "made", 0, [], verdict())
    assert dossier.write(registry, 1, [], tmp_path / "unsigned").signature.state == "none"
    for name in ("ours", "theirs"):
        attestation.make_keys(tmp_path / f"{name}.key", tmp_path / f"{name}.pub")
    version = registry.show(1)
    monkeypatch.setenv(attestation.SIGNING_KEY, str(tmp_path / "ours.key"))
    registry.register(tmp_path / "made" / "package", version.run_id, verdict(), version.tags)
    signed = dossier.write(registry, 1, [], tmp_path / "signed").signature
    assert (signed.state, len(signed.key_ids)) == ("not checked", 1)
    monkeypatch.setenv(attestation.VERIFY_KEY, str(tmp_path / "ours.pub"))
    assert dossier.write(registry, 1, [], tmp_path / "checked").signature.state == "valid"
    monkeypatch.setenv(attestation.VERIFY_KEY, str(tmp_path / "theirs.pub"))
    forged = dossier.write(registry, 1, [], tmp_path / "forged").signature
    assert forged.state == "invalid"
    assert "the package has no signature of the key" in forged.problem
    assert "The signature is NOT valid" in Page(tmp_path / "forged").text


def test_changed_artifacts_have_no_dossier(work: Path, tmp_path: Path) -> None:
    """Nothing is written."""
    shutil.copytree(work, tmp_path / "work")
    registry = Registry(local_uri(tmp_path / "work"))
    next(Path(registry.show(2).uri).rglob("config.json")).write_text("{}")
    with pytest.raises(SpiraError, match="artifacts differ from what was registered"):
        dossier.write(registry, 2, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_zip_file_from_a_work_folder(work: Path, tmp_path: Path) -> None:
    """The same dossier is the same file; an existing one is not replaced."""
    command = ["models", "dossier", "champion", "--work", str(work), "--out"]
    for name in ("a.zip", "b.zip"):
        result = CliRunner().invoke(app, [*command, str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {Path(name).name for name in archive.namelist()} == EVERY_FILE
        assert "dr.silva" in archive.read("a/index.html").decode()
    result = CliRunner().invoke(app, [*command, str(tmp_path / "a.zip")])
    assert (result.exit_code, "exists: choose another --out" in result.output) == (2, True)
    result = CliRunner().invoke(app, [*command, str(tmp_path / "nowhere" / "a.zip")])
    assert (result.exit_code, "does not exist: create it" in result.output) == (2, True)
    result = CliRunner().invoke(app, ["models", "dossier", "9", "--work", str(work)])
    assert (result.exit_code, "no version or alias '9'" in result.output) == (2, True)
