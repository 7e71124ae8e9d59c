"""Voices and names stay in the work folder's own places, the data store and the pipeline's artifact store.

Everything that a full run and a delivery write elsewhere is searched for the names and the audio of the data set: the
ledger, MLflow, status, custom resource, notices, status page and logs of stages.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from typer.testing import CliRunner

from spira.cli.main import app
from spira.data.corpus import Corpus
from spira.delivery.kubernetes.conditions import resource_status
from spira.delivery.status import DeliveryStatus
from spira.packaging.golden import LISTING
from tests.support.delivery_fixtures import SMOKE
from tests.support.gatefiles import LENIENT
from tests.support.ledger_builder import code_at
from tests.support.receivers import webhook

pytestmark = pytest.mark.integration


class Secrets:
    """Names of a data set's recordings and speakers, and the beginnings of its recordings as other files hold them."""

    def __init__(self, voices: Path) -> None:
        tables = [pd.read_csv(table, dtype=str) for table in sorted(voices.rglob("metadata_*.csv"))]
        rows = pd.concat(tables)
        self.names = {Path(path).stem.encode() for path in rows["file_path"]} | {
            name.encode() for name in rows.get("speaker", pd.Series(dtype=str))
        }
        assert len(self.names) > 20
        self.audio = set()
        for path in rows["file_path"]:
            samples, _ = soundfile.read(next(voices.rglob(Path(path).name)), dtype="int16")
            self.audio |= {samples[1000:1040].tobytes(), (samples[1000:1040] / np.float32(32768)).tobytes()}

    def found_in(self, content: bytes) -> set[bytes]:
        """Return the names and kinds of voices in a content."""
        found = {name for name in self.names if name in content}
        found |= {b"audio" for part in self.audio if part in content}
        return found | {mark for mark in (b"data:audio", b"Mel spectrogram") if mark in content}


@pytest.fixture(scope="module")
def identifying(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    """A data set whose recordings and speakers have names that occur nowhere else."""
    voices = tmp_path_factory.mktemp("identifying") / "voices"
    shutil.copytree(demo, voices)
    for table in voices.rglob("metadata_*.csv"):
        rows = pd.read_csv(table, dtype=str)
        for index, path in enumerate(rows["file_path"]):
            file = next(file for file in (voices / path, table.parent / path) if file.is_file())
            renamed = f"record-{7_000_000 + index}-{table.stem}.wav"
            file.rename(file.with_name(renamed))
            rows.loc[index, "file_path"] = str(Path(path).with_name(renamed))
        if "speaker" in rows:
            rows["speaker"] = [f"Souza-{name}" for name in rows["speaker"]]
        rows["record"] = [f"prontuario-{index % 7}" for index in range(len(rows))]
        rows.to_csv(table, index=False)
    return voices


@pytest.fixture(scope="module")
def delivery(identifying: Path, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A delivery of that data set: one version, then a data set that a tick refuses."""
    folder = tmp_path_factory.mktemp("private")
    shutil.copytree(identifying, folder / "voices")
    (folder / "model.yaml").write_text(SMOKE)
    (folder / "delivery.yaml").write_text(
        f"data: voices\nconfig: model.yaml\ngate: {LENIENT}\nquiet_seconds: 1\n"
        "notices: {urls_file: urls, lasting_minutes: 0}\n"
    )
    with code_at(sources), webhook() as hook:
        (folder / "urls").write_text(hook.url)
        done = invoke("tick", "--wait", folder=folder)
        assert done.exit_code == 0, done.output
        (folder / "log.txt").write_text(done.output)
        table = next((folder / "voices").rglob("metadata_train.csv"))
        content = table.read_text()
        table.write_text(content + content.splitlines()[1] + "\n" + content.splitlines()[1].replace("record-", "lost-"))
        refused = invoke("tick", folder=folder)
        (folder / "notices.json").write_text(json.dumps(hook.received, ensure_ascii=False))
        (folder / "urls").write_text("")  # nobody receives what the verbs below would send
    (folder / "log.txt").write_text(done.output + refused.output)
    return folder


def invoke(verb: str, *arguments: str, folder: Path):
    return CliRunner().invoke(app, ["deliver", verb, *arguments, f"--settings={folder / 'delivery.yaml'}"])


def outputs(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of everything that leaves the pipeline."""
    work = folder / "work"
    for place in ("ledger", "mlartifacts", "serving", "models", "runs"):
        for file in (work / place).rglob("*"):
            if file.is_file():
                yield str(file.relative_to(folder)), file.read_bytes()
                if file.suffix == ".parquet":
                    yield f"{file.name} as text", pd.read_parquet(file).to_csv().encode()
    yield "mlflow.db", (work / "mlflow.db").read_bytes()
    for log in (*work.glob("pipeline/*/log.txt"), folder / "log.txt"):
        yield str(log), log.read_bytes()
    for verb in ("status", "why", "history"):
        yield verb, invoke(verb, folder=folder).output.encode()
    status = invoke("status", "--json", folder=folder).stdout
    yield "status --json", status.encode()
    seen = DeliveryStatus.model_validate_json(status)
    yield "notices", (folder / "notices.json").read_bytes()
    assert invoke("page", "--out", str(folder / "site"), folder=folder).exit_code == 0
    yield "page", (folder / "site" / "index.html").read_bytes()
    resource = resource_status(seen, {}, 1, datetime.now(UTC)).to_json()
    yield "custom resource", json.dumps(resource, ensure_ascii=False).encode()


def test_nothing_that_leaves_the_pipeline_names_a_person_or_holds_a_voice(delivery: Path, identifying: Path):
    """Each file is searched for every name, and for audio."""
    secrets = Secrets(identifying)
    contents = dict(outputs(delivery))
    assert any(name.endswith("report.html") for name in contents)
    assert any(LISTING in name for name in contents)
    assert "cannot be trained on" in contents["history"].decode()
    for words in ("version 1 serves", "cannot be trained on", "a problem lasts"):
        assert words in contents["notices"].decode()
    assert "cannot be trained on" in contents["page"].decode()
    assert str(delivery).encode() not in contents["notices"] + contents["page"]
    leaks = {name: sorted(found)[:3] for name, content in contents.items() if (found := secrets.found_in(content))}
    assert leaks == {}


def test_the_search_finds_what_is_there(delivery: Path, identifying: Path):
    """The local report, the corpus and a page with voices have them."""
    secrets = Secrets(identifying)
    (corpus,) = (delivery / "work" / "state").glob("corpus-*/")
    assert b"audio" in secrets.found_in((corpus / "audio.npy").read_bytes())
    assert secrets.found_in(pd.read_parquet(corpus / "index.parquet").to_csv().encode()) == secrets.names
    clip = io.BytesIO()
    soundfile.write(clip, Corpus.open(corpus).split("test").waveform(0), 16_000, format="FLAC")
    assert secrets.found_in(b"data:audio/flac;base64," + base64.b64encode(clip.getvalue()))
    assert secrets.found_in((delivery / "work" / "summary.json").read_bytes()) == set()
