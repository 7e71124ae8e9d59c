"""``spira predict``: any number of recordings, one row each, and outputs that are whole or absent."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from spira.cli import predict as command
from spira.cli.main import app
from spira.cli.predict import COLUMNS, find_recordings
from spira.config import SAMPLE_RATE_HZ
from spira.errors import SpiraError
from spira.packaging.verify import package_digest
from tests.support.packages import make_package, signal
from tests.support.terminal import Terminal

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("made"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with recordings of several formats, one that is damaged, and files that are no recordings."""
    folder = tmp_path / "my recordings"
    (folder / "ward 1").mkdir(parents=True)
    samples = (0.5 * signal(5.0) * 32767).astype(np.int16)
    for name in ("a.wav", "ward 1/b.flac", "ward 1/c.ogg"):
        soundfile.write(folder / name, samples, SAMPLE_RATE_HZ)
    (folder / "d.wav").write_bytes(b"RIFF")
    (folder / "._a.wav").write_bytes(b"\0\5\x16\7")
    (folder / "metadata.csv").write_text("file_path,class\n")
    return folder


def spira(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_becomes_a_csv_file(package: Path, folder: Path) -> None:
    """One row a recording, in the order of the folder; a bad one has its reason, and the exit code says so."""
    out = folder.parent / "my answers.csv"
    result = spira(folder, "--model", package, "--csv", out)
    assert (result.exit_code, result.stdout) == (2, "")
    rows = rows_of(out.read_text())
    assert tuple(rows[0]) == COLUMNS
    assert [Path(row["file"]).name for row in rows] == ["a.wav", "d.wav", "b.flac", "c.ogg"]
    bad, good = rows.pop(1), rows
    for row in good:
        assert 0 < float(row["probability"]) < 1
        assert row["diagnosis"] in ("positive", "negative", "inconclusive")
        assert row["abstained"] == str(row["diagnosis"] == "inconclusive").lower()
        assert (row["error"], float(row["seconds"]), row["sample_rate"]) == ("", 5.0, "16000")
        assert (row["model_version"], row["package_digest"]) == ("", package_digest(package))
    assert bad["error"]
    assert (bad["probability"], bad["diagnosis"], bad["abstained"], bad["seconds"]) == ("", "", "", "")
    assert "1 refused" in result.stderr
    assert sorted(path.name for path in folder.parent.iterdir()) == ["my answers.csv", "my recordings"]


def test_csv_goes_to_standard_output(package: Path, folder: Path) -> None:
    """Nothing else is there, so that another program can read it."""
    result = spira(folder / "a.wav", "--model", package, "--csv", "-")
    assert result.exit_code == 0
    (row,) = rows_of(result.stdout)
    assert row["file"] == str(folder / "a.wav")


def test_json_has_the_same_rows(package: Path, folder: Path) -> None:
    """Also beside a CSV file."""
    out = folder.parent / "out.csv"
    result = spira(folder, "--model", package, "--json", "--csv", out)
    assert result.exit_code == 2
    rows = json.loads(result.stdout)
    assert [row["file"] for row in rows] == [row["file"] for row in rows_of(out.read_text())]
    assert rows[0]["quality"]["encoding"] == "WAV PCM"
    assert rows[0]["package_digest"] == package_digest(package)
    assert "probability" not in rows[1]


def test_lines_have_the_flags_that_are_set(package: Path, tmp_path: Path) -> None:
    """A recording without any has file, probability and diagnosis, as before."""
    for name, seconds in (("good.wav", 5.0), ("short.wav", 2.0)):
        soundfile.write(tmp_path / name, 0.5 * signal(seconds), SAMPLE_RATE_HZ)
    good, short = spira(tmp_path, "--model", package).stdout.splitlines()
    assert good.split("  ")[0] == str(tmp_path / "good.wav")
    assert len(good.split("  ")) == 3
    assert short.endswith("  (short)")


def test_an_interrupted_command_leaves_the_old_file(
    package: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-written CSV file would look like a whole one."""
    out = folder.parent / "out.csv"
    out.write_text("old")
    row_count = 0

    def interrupt(value: Any) -> Any:
        nonlocal row_count
        row_count += 1
        if row_count > len(COLUMNS):
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(command, "_cell", interrupt)
    assert spira(folder, "--model", package, "--csv", out).exit_code == 130
    assert out.read_text() == "old"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["my recordings", "out.csv"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{folder}/a.wav", "--csv", "{folder}/a.wav"), "is one of the recordings"),
        (("{folder}", "--csv", "{folder}/none/out.csv"), "give the name of a file in an existing folder"),
        (("{folder}", "--csv", "{folder}"), "give the name of a file in an existing folder"),
        (("{folder}", "--csv", "-", "--json"), "both write to standard output"),
        (("{folder}/empty",), "holds no recording"),
    ],
)
def test_what_cannot_be_written_or_read_is_refused_at_once(
    package: Path, folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    """One line and exit code 2; no recording is overwritten."""
    (folder / "empty").mkdir()
    before = (folder / "a.wav").read_bytes()
    result = spira(*(part.format(folder=folder) for part in arguments), "--model", package)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (folder / "a.wav").read_bytes() == before


def test_files_are_found_by_their_endings_and_named_ones_always(folder: Path) -> None:
    """Hidden files and tables are left out, a file that is named twice is there once."""
    (folder / "NOTES.WAV").touch()
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "e.wav").touch()
    named = folder / "metadata.csv"
    found = find_recordings([named, folder, folder / "a.wav"])
    assert [path.name for path in found] == ["metadata.csv", "NOTES.WAV", "a.wav", "d.wav", "b.flac", "c.ogg"]
    (folder / "nothing").mkdir()
    with pytest.raises(SpiraError, match="nothing holds no recording"):
        find_recordings([folder / "nothing"])


def test_a_name_that_is_not_utf8_is_written(package: Path, tmp_path: Path) -> None:
    """The bytes that are no characters are shown as escapes."""
    name = os.fsdecode(b"jo\xe3o.wav")
    (tmp_path / name).write_bytes(b"RIFF")
    out = tmp_path / "out.csv"
    assert spira(tmp_path, "--model", package, "--csv", out).exit_code == 2
    (row,) = rows_of(out.read_text("utf-8"))
    assert row["file"] == f"{tmp_path}/jo\\udce3o.wav"


def test_a_terminal_sees_progress_and_a_pipe_no_control_characters(package: Path, folder: Path) -> None:
    """The bar disappears at the end; the last line says what was written."""
    terminal = Terminal("predict", str(folder), "--model", str(package), "--csv", "out.csv", folder=folder.parent)
    assert terminal.wait(200) == 2
    assert "100%" in terminal.output
    assert terminal.screen().splitlines()[-1].startswith("wrote out.csv: 4 rows, ")
    result = spira(folder, "--model", package, "--csv", folder.parent / "out.csv")
    assert [character for character in result.stderr if character < " " and character != "\n"] == []
