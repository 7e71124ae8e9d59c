"""Flipped bits in the files of the state: each is reported, or changes nothing that a command prints."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.models import checkpoint
from spira.registry import local_uri
from spira.stages.push import reject
from tests.support.ledger_builder import LocalDelivery
from tests.support.pipeline_fixtures import Runs

pytestmark = pytest.mark.slow

FLIPS = 12
"""Flipped bits in the files of each kind."""

KINDS = {
    "ledger": "work/ledger/**/*",
    "serving pointer": "work/serving/serving.json",
    "served package": "work/serving/versions/**/*",
    "fetched package": "work/models/*/**/*",
    "settings": "delivery.yaml",
}
"""Files by kind, relative to the folder of the settings."""


def flip(file: Path, rng: random.Random) -> bytes:
    """Flip one bit of a file, and return its old content."""
    before = file.read_bytes()
    content = bytearray(before)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return before


def shown(result: Result) -> Any:
    """Return what a command printed for programs, without times; None if it printed nothing of the kind."""
    try:
        return json.loads(result.stdout)
    except ValueError:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_reported_or_changes_nothing(
    local_delivery: LocalDelivery, deliver: Callable[..., Result], deploy: Callable[..., Result], kind: str
) -> None:
    """The status of delivery and of the target end with a code and a message, never with a traceback."""
    verbs = {"delivery": lambda: deliver("status", "--json"), "target": lambda: deploy("status", "--json")}
    expected = {name: (shown(result := verb()), result.exit_code) for name, verb in verbs.items()}
    files = sorted(path for path in local_delivery.folder.glob(KINDS[kind]) if path.is_file() and path.stat().st_size)
    assert files
    rng = random.Random(kind)
    for number in range(FLIPS):
        file = files[number % len(files)]
        before = flip(file, rng)
        for name, verb in verbs.items():
            result = verb()
            assert result.exception is None or isinstance(result.exception, SystemExit), (file, result.exception)
            is_same = (shown(result), result.exit_code) == expected[name]
            reported = result.exit_code != 0 or (result.stderr or "").strip() or problems(shown(result))
            assert is_same or reported or kind == "settings", (file, name, result.output)
        file.write_bytes(before)
    for name, verb in verbs.items():
        result = verb()
        assert (shown(result), result.exit_code) == expected[name]


def problems(status: Any) -> list[Any]:
    """Return the problems in a status."""
    if isinstance(status, dict):
        return [*status.get("troubles", []), *status.get("problems", [])]
    return [entry for entry in status or [] if entry.get("drifted") or entry.get("error")]


@dataclass(frozen=True)
class RunFolder:
    """Copies of what a rejected run left, and its registry."""

    corpus: Path
    candidate: Path
    verdict: Path
    report: Path
    registry_uri: str

    def open_corpus(self) -> None:
        Corpus.open(self.corpus)

    def load_candidate(self) -> None:
        checkpoint.load(self.candidate)

    def log_rejection(self) -> None:
        """Do the stage that reads most of a verdict folder."""
        reject(self.corpus, self.candidate, self.verdict, self.report, registry_uri=self.registry_uri)


@pytest.fixture
def run_folder(runs: Runs, tmp_path: Path) -> RunFolder:
    """The rejected run, in copies: the pipeline's own files are links to one another."""
    paths = runs.rejected.paths
    sources = {"corpus": paths.corpus, "candidate": paths.checkpoint, "verdict": str(Path(paths.verdict).parent)}
    for name, source in sources.items():
        shutil.copytree(source, tmp_path / name, copy_function=shutil.copyfile)
    report = Path(shutil.copyfile(paths.report, tmp_path / "report.html"))
    folders = (tmp_path / name for name in sources)
    return RunFolder(*folders, report, local_uri(tmp_path / "work"))


READERS = {
    "corpus": (RunFolder.open_corpus, "run preprocess again"),
    "candidate": (RunFolder.load_candidate, "train again"),
    "verdict": (RunFolder.log_rejection, "evaluate the checkpoint again"),
}
"""Folder of a run -> what reads it, and the remedy for damage."""
UNREAD = ("diagnosis.json",)
"""Files of a run that are for people."""


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_in_a_run_is_refused_by_name(run_folder: RunFolder, tmp_path: Path, name: str) -> None:
    """Files that one program wrote and another reads: the message names the file, or the list, and the remedy."""
    read, remedy = READERS[name]
    files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file() and path.name not in UNREAD)
    assert len(files) >= 5
    rng = random.Random(name)
    for file in files:
        for _ in range(FLIPS // 4):
            before = flip(file, rng)
            with pytest.raises(SpiraError, match=remedy) as refusal:
                read(run_folder)
            assert str(file.parent) in str(refusal.value)
            file.write_bytes(before)
    read(run_folder)
