"""The summary: the verdict first, every reason or how many more, and what to type next."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from pipelines.summary import RunSummary
from spira import config
from spira.cli.common import summary
from tests.support.terminal import screen_of


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The tables of a corpus, and one of its recordings in a data set whose name has a space."""
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data" / "b.wav").touch()
    table = pd.DataFrame({"file_path": ["a.wav", "gone.wav", "b.wav"], "split": ["train", "test", "test"]})
    table.to_parquet(tmp_path / "index.parquet")
    (tmp_path / "manifest.json").write_text(json.dumps({"uri": str(tmp_path / "my data")}))
    return tmp_path


@pytest.fixture
def finished(corpus: Path) -> RunSummary:
    """A summary as a run leaves it: approved, version 3, one seed."""
    paths = dict.fromkeys(("verdict", "predictions", "checkpoint", "log", "serving"), "/w/other")
    return RunSummary.model_validate(
        {
            "approved": True,
            "reasons": [],
            "model_version": 3,
            "metrics": {name: {"value": 0.91, "low": 0.8, "high": 0.97} for name in summary.METRICS_SHOWN},
            "candidate": {"seed": 42, "best_eval_loss": 0.2},
            "training": {seed: {"epochs": 9, "best_epoch": 7, "best_eval_loss": 0.2} for seed in ("42", "43")},
            "seeds": {},
            "spread": {"noisy": {"accuracy": {"mean": 0.9, "std": 0.02}}},
            "data": {"files": 60, "classes": {"control": {"files": 30}, "patient": {"files": 30}}},
            "config": config.Config(),
            "lineage": {},
            "stages": {"train": 12.0},
            "paths": {**paths, "report": "/w/report.html", "package": "/w/package", "corpus": str(corpus)},
            "mlflow": "sqlite:////w/mlflow.db",
        }
    )


def changed(finished: RunSummary, **values: Any) -> RunSummary:
    """Return a summary with other values."""
    return RunSummary.model_validate({**finished.model_dump(), **values})


def shown(finished: RunSummary) -> str:
    """The screen is wide."""
    console = Console(width=300, record=True, file=io.StringIO())
    summary.show(finished, "my work", console)
    return console.export_text()


def test_an_approved_model_serves_and_can_be_asked(finished: RunSummary, corpus: Path):
    """Version, interval, spread over seeds, and a command that can be pasted."""
    text = shown(finished)
    for said in ("APPROVED: version 3", "0.910", "0.800 to 0.970", "0.900 ± 0.020", "/w/report.html"):
        assert said in text
    assert f"predict {shlex.quote(str(corpus / 'my data' / 'b.wav'))} --work 'my work'" in text


def test_one_seed_has_no_deviation(finished: RunSummary):
    """It would be "± 0.000"."""
    assert "±" not in shown(changed(finished, training={"42": finished.training["42"]}))


def test_the_next_commands_can_be_pasted(finished: RunSummary, corpus: Path):
    """Each begins with a program that this shell finds, and names files that are there."""
    for command in summary.next_commands(finished, "my work"):
        program, *arguments = shlex.split(command)
        assert shutil.which(program)
        assert [path for path in arguments if path.endswith(".wav") and not Path(path).is_file()] == []


def test_without_the_recordings_nothing_is_suggested_for_them(finished: RunSummary, corpus: Path):
    """The data set is in a bucket, or was moved."""
    (corpus / "manifest.json").write_text('{"uri": "gs://bucket/data"}')
    assert not any(" predict " in command for command in summary.next_commands(finished, "work"))


def test_a_rejected_model_comes_with_its_reasons(finished: RunSummary):
    """The summary shows as many as fit and the number of the others."""
    reasons = [f"reason {number}" for number in range(summary.MAX_REASONS + 2)]
    text = shown(changed(finished, approved=False, reasons=reasons, model_version=None))
    assert "NOT APPROVED" in text
    assert "reason 9" in text
    assert "and 2 more" in text
    assert " predict " not in text


def test_a_verdict_without_measurements_is_shown(finished: RunSummary):
    """A candidate with NaN weights isn't measured: there are reasons and no table."""
    text = shown(changed(finished, approved=False, reasons=["the weights hold NaN"], metrics={}, spread={}))
    assert "the weights hold NaN" in text
    assert "accuracy" not in text


def test_a_number_that_is_none_is_a_dash(finished: RunSummary):
    """A metric that isn't defined on the data, such as AUROC of one class."""
    undefined = {"value": None, "low": None, "high": None}
    assert " - " in shown(changed(finished, metrics={**finished.model_dump()["metrics"], "ece": undefined}))


def test_a_finding_on_confounders_stands_before_the_decision(finished: RunSummary):
    """It is said once, and other warnings follow the decision."""
    finding = "the network is not shown to be better than age alone"
    text = shown(changed(finished, finding=finding, warnings=[finding, "the training data are not known"]))
    assert text.count(finding) == 1
    assert text.index(f"Finding: {finding}") < text.index("APPROVED") < text.index("warning: the training data")
    assert "Finding" not in shown(finished)


def test_external_sets_and_the_number_of_evaluations_are_shown(finished: RunSummary):
    """Each set has a column with intervals; nothing is shown where nothing is known."""
    metrics = finished.model_dump()["metrics"] | {"auroc": {"value": 0.61, "low": 0.4, "high": 0.8}}
    text = shown(changed(finished, external={"north": metrics}, test_evaluations=3))
    assert "not used for the decision" in text
    assert "0.610 (0.400 to 0.800)" in text
    assert "evaluations of this test set so far: 3" in text
    assert "External" not in shown(finished)
    assert "so far" not in shown(finished)


def test_a_reason_stands_there_once(finished: RunSummary):
    """Its further lines are aligned below the first, on a screen of 80 columns too."""
    reason = "the accuracy on the noisy test is 0.61, and its lower end must reach 0.70 before a version is registered"
    console = Console(width=80, record=True, file=io.StringIO())
    summary.show(changed(finished, approved=False, reasons=[reason, reason], model_version=None), "work", console)
    lines = [line.strip("│").rstrip() for line in console.export_text().splitlines()]
    first = next(index for index, line in enumerate(lines) if "the accuracy on" in line)
    assert " ".join(f"{lines[first]} {lines[first + 1]}".split()) == f"- {reason}"
    assert lines[first].index("the accuracy") == len(lines[first + 1]) - len(lines[first + 1].lstrip())


def test_every_metric_is_explained_on_eighty_columns(finished: RunSummary):
    """No row of the table is wrapped."""
    console = Console(width=80, record=True, file=io.StringIO())
    summary.show(finished, "work", console)
    text = console.export_text()
    for name, meaning in summary.METRICS_SHOWN.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"│ {name} ")]
        assert meaning in row


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({"value": 0.05, "low": 0.01, "high": 0.09}, "version 2: +0.050 (+0.010 to +0.090), better"),
        ({"value": -0.05, "low": -0.09, "high": -0.01}, "version 2: -0.050 (-0.090 to -0.010), worse"),
        ({"value": 0.05, "low": -0.01, "high": 0.09}, "version 2: +0.050 (-0.010 to +0.090), no clear difference"),
        ({"value": None}, "version 2; the difference in accuracy is not defined"),
    ],
)
def test_the_difference_to_the_champion_is_judged(finished: RunSummary, difference: dict[str, Any], words: str):
    """It is clear if its interval leaves zero out."""
    assert words in shown(changed(finished, champion={"name": "version 2", "by_file": {}, "difference": difference}))


def test_without_a_champion_there_is_no_difference(finished: RunSummary):
    """The first version has nothing to be compared with."""
    assert "Champion: none to compare with" in shown(finished)


def test_stages_are_in_their_order_with_their_times(finished: RunSummary):
    """The seeds of a training are one stage."""
    stages = {"preprocess": 3.2, "train seed 1": 40, "train seed 2": 50, "evaluate": 12, "push": 4, "pipeline": 80}
    expected = "Stages: preprocess 3 s, train (seed 1 40 s, seed 2 50 s), evaluate 12 s, push 4 s; in all 80 s"
    assert expected in shown(changed(finished, stages=stages))


def test_paths_are_links_and_can_be_read_without_them(finished: RunSummary):
    """A terminal gets the path with a link (OSC 8); a pipe gets the path and no control character."""
    paths = {**finished.model_dump()["paths"], "report": "/my work/report.html"}
    terminal = Console(width=80, force_terminal=True, color_system="standard", file=io.StringIO())
    summary.show(changed(finished, paths=paths), "work", terminal)
    output = terminal.file.getvalue()
    assert ";file:///my%20work/report.html\x1b\\" in output
    assert screen_of(output, 200, 60).count("/my work/report.html") == 1
    pipe = Console(width=80, file=io.StringIO())
    summary.show(changed(finished, paths=paths), "work", pipe)
    text = pipe.file.getvalue()
    assert "Report   /my work/report.html\n" in text
    assert [character for character in text if character < " " and character != "\n"] == []
