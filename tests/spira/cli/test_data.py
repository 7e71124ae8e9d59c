"""``spira data check``: the same refusals as a run, one row a recording, and nothing trained or kept."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spira.cli.main import app
from spira.data.storage import open_store


def check(*arguments: object) -> Result:
    """Run ``spira data check``."""
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


@pytest.fixture
def voices(dataset: Path, tmp_path: Path) -> Path:
    """A copy of the small data set, to damage."""
    return shutil.copytree(dataset, tmp_path / "voices")


def test_a_data_set_in_order_is_accepted(voices: Path):
    """Counts of every split, exit code 0, and no file added to the data set."""
    before = sorted(voices.rglob("*"))
    result = check(voices)
    assert result.exit_code == 0
    assert "The data set is in order." in result.stdout
    assert [name for name in ("train", "eval", "test", "noise") if name not in result.stdout] == []
    assert sorted(voices.rglob("*")) == before


def test_every_bad_recording_is_named_as_a_run_names_it(voices: Path, tmp_path: Path):
    """A silent, a truncated and a missing recording: all three at once, in the words of preprocess."""
    bad = ["train_0_0.wav", "train_0_1.wav", "train_1_0.wav"]
    content = (voices / bad[0]).read_bytes()
    (voices / bad[0]).write_bytes(content[:44] + bytes(len(content) - 44))
    (voices / bad[1]).write_bytes(content[: len(content) // 2])
    (voices / bad[2]).unlink()
    result = check(voices)
    assert result.exit_code == 2
    assert [name for name in bad if f"{name} " not in result.stdout] == []
    assert "3 problems" in result.stdout
    run = CliRunner().invoke(
        app, ["preprocess", "--data", str(voices), "--out", str(tmp_path / "corpus"), "--skip-bad"]
    )
    assert run.exit_code == 0
    skipped = json.loads((tmp_path / "corpus" / "quality.json").read_text())["skipped"]
    assert [one["message"] for one in skipped if f"refused: {one['message']}" not in result.stdout] == []


def test_the_table_has_one_row_a_recording(voices: Path, tmp_path: Path):
    """A row has class, split, measures, and the rule that a refused recording breaks."""
    (voices / "train_0_0.wav").unlink()
    check(voices, "--csv", tmp_path / "check.csv")
    rows = list(csv.DictReader((tmp_path / "check.csv").open()))
    assert len(rows) == 24 + 3
    (refused,) = (row for row in rows if row["accepted"] == "False")
    assert refused["file_path"] == "train_0_0.wav"
    assert "not found" in refused["rule"]
    assert all(float(row["seconds"]) > 0 for row in rows if row["accepted"] == "True")


def test_a_broken_table_is_reported_with_its_row(voices: Path):
    """One message also has the problems of the recordings of the other rows."""
    table = voices / "metadata_train.csv"
    table.write_text(table.read_text().replace(",1,", ",7,", 1))
    (voices / "train_0_0.wav").write_bytes(b"")
    result = check(voices, "--json")
    assert result.exit_code == 2
    printed = json.loads(result.stdout)
    assert "metadata_train.csv, row" in printed["problems"][0]
    assert "train_0_0.wav is empty: 0 bytes" in printed["problems"][1]
    refused = {row["file_path"]: row["rule"] for row in printed["recordings"] if not row["accepted"]}
    assert len(printed["recordings"]) == 24 + 3
    assert sorted(refused.values()) == ["class must be 0 (control) or 1 (patient), found '7'", "is empty: 0 bytes"]


def test_a_header_without_the_columns_ends_the_check(voices: Path):
    """Nothing can be decoded; the problem is that of the table."""
    (voices / "metadata_train.csv").write_text("a;b\n1;2\n")
    result = check(voices, "--json")
    assert result.exit_code == 2
    printed = json.loads(result.stdout)
    assert "metadata_train.csv, row 1: column file_path is missing" in printed["problems"][0]
    assert (printed["quality"], printed["recordings"]) == (None, [])


def test_a_split_without_a_class_is_a_problem(voices: Path):
    """The bad recordings and what is left of the split."""
    for path in voices.glob("eval_1_*.wav"):
        path.unlink()
    result = check(voices, "--json")
    assert result.exit_code == 2
    assert any("eval" in problem and "after skipping" in problem for problem in json.loads(result.stdout)["problems"])


def test_bad_classes_are_the_only_problem(voices: Path):
    """A run does not add that a split lacks the class, nor does the check."""
    table = voices / "metadata_train.csv"
    table.write_text(table.read_text().replace(",1", ",patient"))
    problems = json.loads(check(voices, "--json").stdout)["problems"]
    assert problems
    assert [problem for problem in problems if "class must be 0 (control) or 1 (patient)" not in problem] == []


def test_an_upload_prints_what_it_did(voices: Path, bucket: str):
    """The output has the digest to which a run can be pinned."""
    result = CliRunner().invoke(app, ["data", "upload", str(voices), bucket])
    assert result.exit_code == 0, result.output
    assert f"{bucket}: " in result.stdout
    assert "files verified" in result.stdout
    again = CliRunner().invoke(app, ["data", "upload", str(voices), bucket, "--json"])
    summary = json.loads(again.stdout)
    assert summary["uploaded"] == 0
    assert f"data digest: {summary['digest']}" in result.stdout


def test_an_upload_refuses_what_a_check_refuses(voices: Path, gs_bucket: str):
    """In the same words, and before anything is uploaded."""
    (voices / "train_0_0.wav").write_bytes(b"RIFF")
    checked = check(voices)
    result = CliRunner().invoke(app, ["data", "upload", str(voices), gs_bucket])
    assert result.exit_code == 2
    assert [line for line in checked.stdout.splitlines() if line.startswith("refused: ")] == [
        line for line in result.stdout.splitlines() if line.startswith("refused: ")
    ]
    assert open_store(gs_bucket).list() == []
