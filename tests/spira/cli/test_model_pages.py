"""``spira models show`` and ``compare``: pages for a person, JSON for a program, and the paired test."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from spira.cli.main import app
from spira.config import from_dict
from spira.delivery.history.events import Approved, Finished
from spira.evaluation.verdict import PREDICTIONS, Verdict
from spira.registry import FROZEN_TEST_TAG, Registry, local_uri
from tests.support.ledger_builder import LedgerBuilder
from tests.support.packages import LINEAGE, make_package
from tests.support.terminal import Terminal
from tests.support.verdicts import condition, make_verdict

pytestmark = pytest.mark.integration

LABELS = [1] * 6 + [0] * 6
RIGHT = [0.9] * 6 + [0.1] * 6
WRONG = [0.1] * 6 + [0.9] * 6


def spira(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["models", *map(str, arguments)])


def predictions(probabilities: list[float]) -> pd.DataFrame:
    """Return predictions of two conditions; in the clean one the first model of a test is always right."""
    table = pd.DataFrame({"file_path": [f"rec-{i}" for i in range(len(LABELS))], "label": LABELS, "draw": 0})
    noisy = table.assign(condition="noisy", probability=probabilities)
    return pd.concat([noisy, table.assign(condition="clean", probability=RIGHT)])


def verdict_of(**settings: Any) -> Verdict:
    """Return a verdict with every condition, under the given settings."""
    conditions = {
        name: condition(accuracy=0.9, sensitivity=0.8, specificity=0.7, auroc=0.85, brier=0.1, ece=0.05, coverage=0.95)
        for name in ("noisy", "clean", "background")
    }
    return make_verdict().model_copy(update={"conditions": conditions, "config": from_dict(settings)})


def add_version(work: Path, seed: int, probabilities: list[float], tags: dict[str, str], verdict: Verdict) -> None:
    """Log a run with predictions and register its package."""
    registry, folder, package = Registry(local_uri(work)), work.parent / str(seed), work.parent / "package"
    folder.mkdir()
    predictions(probabilities).to_parquet(folder / PREDICTIONS)
    (folder / "report.html").write_text("<html></html>")
    artifacts = {PREDICTIONS: folder / PREDICTIONS, "report.html": folder / "report.html"}
    run_id = registry.log_run(f"run {seed}", {}, {}, verdict, artifacts, {**LINEAGE, **tags}, "/data/my set")
    registry.register(copy_of(package, folder, seed), run_id, verdict, {**LINEAGE, **tags})


def copy_of(package: Path, folder: Path, seed: int) -> Path:
    """Copy a package so that it is another one."""
    copied = Path(shutil.copytree(package, folder / "package"))
    description = json.loads((copied / "package.json").read_text()) | {"seed": seed}
    (copied / "package.json").write_text(json.dumps(description))
    return copied


@pytest.fixture(scope="module")
def work(new_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five versions: 1, 2 and 3 of one test (3 with other noise), 4 of another test, 5 of an older program."""
    work = tmp_path_factory.mktemp("pages") / "my work"
    work.mkdir()
    shutil.copy(new_mlflow, work / "mlflow.db")
    make_package(work.parent)
    test, new_data = {FROZEN_TEST_TAG: "a" * 64}, {"data_fingerprint": "e" * 64}
    add_version(work, 1, RIGHT, test, verdict_of())
    add_version(work, 2, WRONG[:6] + RIGHT[6:], test | new_data, verdict_of(training={"max_epochs": 9}))
    add_version(work, 3, WRONG, test, verdict_of(noise={"test_controls": 2}))
    add_version(work, 4, RIGHT, new_data | {FROZEN_TEST_TAG: "b" * 64}, verdict_of())
    add_version(work, 5, RIGHT, {"data_fingerprint": "f" * 64}, verdict_of())
    Registry(local_uri(work)).promote(1)
    return work


def test_a_version_is_a_page(work: Path) -> None:
    """Verdict, numbers with intervals and meanings, test, origin and files."""
    result = spira("show", "champion", "--work", work)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert text.startswith("version 1 (champion): APPROVED")
    for words in (
        "accuracy 0.900 [0.850, 0.950] 0.900 [0.850, 0.950] right answers",
        "tested 8 recordings: 4 of controls, 4 of patients",
        "conv1d, seed 42 of 42, epoch 2 of 3",
        "data from /data/my set",
        f"data set {LINEAGE['data_fingerprint'][:12]}",
        "commit abc123",
        "frozen test aaaaaaaaaaaa",
        "promoted 20",
    ):
        assert words in text, words
    report = re.search(r"^report  (/.*report\.html)$", result.stdout, re.MULTILINE)
    assert report
    assert Path(report[1]).is_file()


def test_a_page_fits_a_terminal_and_its_files_are_links(work: Path) -> None:
    """No line of the page is longer than 80 columns; a path is one line, and a link."""
    terminal = Terminal("models", "show", "1", "--work", str(work), folder=work.parent, columns=80)
    assert terminal.wait(200) == 0
    assert "]8;id=" in terminal.output
    assert f"file://{work.as_posix().replace(' ', '%20')}" in terminal.output
    assert "accuracy     0.900 [0.850, 0.950]" in terminal.screen()


def test_json_is_as_before(work: Path) -> None:
    """Programs get every tag and metric."""
    shown = json.loads(spira("show", "1", "--work", work, "--json").stdout)
    assert (shown["version"], shown["aliases"], shown["approved"]) == (1, ["champion"], True)
    assert shown["tags"][FROZEN_TEST_TAG] == "a" * 64


def test_two_versions_of_one_test_are_compared_by_it(work: Path) -> None:
    """Six recordings that only the first gets right are a clear difference, though their data sets differ."""
    result = spira("compare", "1", "2", "--work", work)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "12 recordings, noisy test: both right 6, only the first 6, only the second 0, neither 0" in text
    assert "McNemar's exact test: p = 0.0312, the first is better" in text
    assert "Test: McNemar's exact test (McNemar 1947, Psychometrika 12:153)." in text
    assert (
        "with the interval paired score (Tango) on the effective number of speakers, as in the gate (Tango 1998; "
        in text
    )
    assert "minus that of the first: -0.500 [" in text
    assert "noisy accuracy 0.900 [0.850, 0.950] 0.900 [0.850, 0.950] right answers" in text
    assert re.search(r"training.max_epochs \d+ 9", text)
    assert f"data set {LINEAGE['data_fingerprint'][:12]} eeeeeeeeeeee" in text
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_other_noise_leaves_the_clean_test(work: Path) -> None:
    """The noisy recordings were not the same."""
    text = " ".join(spira("compare", "1", "3", "--work", work).stdout.split())
    assert "12 recordings, clean test: both right 12" in text
    assert "p = 1, no clear difference" in text


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("4", "No paired test: they were tested on different recordings: the test of version 1 (champion) has"),
        ("5", "No paired test: they come from different data sets, and version 5 (challenger) was registered by an"),
    ],
)
def test_why_there_is_no_paired_test(work: Path, other: str, words: str) -> None:
    """The numbers are shown nevertheless."""
    text = " ".join(spira("compare", "1", other, "--work", work).stdout.split())
    assert words in text
    assert "noisy accuracy" in text


def test_a_comparison_is_json_for_a_program(work: Path) -> None:
    """Numbers, settings and the paired test."""
    compared = json.loads(spira("compare", "1", "2", "--work", work, "--json").stdout)
    assert (compared["a"], compared["b"], compared["condition"]) == (1, 2, "noisy")
    (test,) = compared["tests"]
    assert (test["only_a"], test["p_value"]) == (6, 0.03125)
    assert len(compared["numbers"]) == 20


def test_everything_that_was_logged_can_be_compared(work: Path) -> None:
    """As the command did before it chose numbers."""
    result = spira("compare", "1", "2", "--work", work, "--all")
    assert result.exit_code == 0
    assert "noisy accuracy" not in result.stdout


def test_what_serves_a_version_and_who_approved_it_stand_on_its_page(work: Path, tmp_path: Path) -> None:
    """From the local target and the ledger of the work folder."""
    copied = Path(shutil.copytree(work, tmp_path / "my work"))
    digest = Registry(local_uri(copied)).show(2).digest
    ledger = LedgerBuilder(copied / "ledger")
    ledger.add(Finished(run="spira-abc-1", outcome="approved", version="2", digest=digest))
    ledger.add(Finished(run="spira-abc-2", outcome="failed", message="no space"))
    ledger.add(Approved(version="2", digest=digest, who="Dr. Silva"))
    assert CliRunner().invoke(app, ["deploy", "apply", "2", "--work", str(copied)]).exit_code == 0
    second, first = (" ".join(spira("show", version, "--work", copied).stdout.split()) for version in ("2", "1"))
    assert "on local this version" in second
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.search(f"history {time} run spira-abc-1 was approved as version 2 {time} version 2 was", second)
    assert "version 2 was approved by Dr. Silva" in second
    assert "no space" not in second
    assert "on local version 2" in first
    assert "Dr. Silva" not in first
