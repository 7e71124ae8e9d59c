"""Versions that were registered by hand or by another program: each use is refused in one line with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from spira.cli.main import app
from spira.registry import Registry, RegistryError, local_uri
from spira.stages.evaluate import open_champion
from tests.support.packages import LINEAGE, VERDICT, make_package

pytestmark = pytest.mark.integration

REMEDY = "was not registered by spira"


class OtherModel(mlflow.pyfunc.PythonModel):
    """A model that has nothing to do with SPIRA."""

    def predict(self, context: object, model_input: list[str]) -> list[str]:
        return model_input


def by_pyfunc(client: MlflowClient, folder: Path) -> None:
    """Log a model of Python code to a run, and register it."""
    run = client.create_run(client.get_experiment_by_name("spira").experiment_id)
    mlflow.pyfunc.save_model(folder / "other", python_model=OtherModel(), pip_requirements=[])
    client.log_artifacts(run.info.run_id, str(folder / "other"), "model")
    client.create_model_version("spira", f"{run.info.artifact_uri}/model", run.info.run_id)


def without_run(client: MlflowClient, folder: Path) -> None:
    """Register a folder without MLmodel and without a run."""
    (folder / "other").mkdir()
    (folder / "other" / "weights.bin").write_bytes(b"1")
    client.create_model_version("spira", (folder / "other").as_uri())


def with_deleted_run(client: MlflowClient, folder: Path) -> None:
    """Register a model, and delete its run."""
    by_pyfunc(client, folder)
    (newest,) = client.search_model_versions("name = 'spira' and version_number = 2") or [None]
    client.delete_run(newest.run_id)


def without_description(client: MlflowClient, folder: Path) -> None:
    """Register a copy of a version of spira with its tags, but with the MLmodel of another program."""
    first = client.get_model_version("spira", "1")
    copied = Path(shutil.copytree(first.source, folder / "other"))
    (copied / "MLmodel").write_text("- not a mapping\n")
    client.create_model_version("spira", copied.as_uri(), tags=dict(first.tags))


@pytest.fixture(params=[by_pyfunc, without_run, with_deleted_run], ids=lambda kind: kind.__name__)
def work(request: pytest.FixtureRequest, new_mlflow: Path, tmp_path: Path) -> Path:
    """A work folder with a version of spira, and a foreign version that is champion."""
    return with_foreign_champion(request.param, new_mlflow, tmp_path)


def with_foreign_champion(kind: Callable[[MlflowClient, Path], None], new_mlflow: Path, folder: Path) -> Path:
    work = folder / "work"
    work.mkdir()
    shutil.copy(new_mlflow, work)
    registry = Registry(local_uri(work))
    run_id = registry.log_run("run", {}, {}, VERDICT, {}, LINEAGE)
    registry.register(make_package(folder / "package"), run_id, VERDICT, LINEAGE)
    client = MlflowClient(local_uri(work), local_uri(work))
    kind(client, folder)
    client.set_registered_model_alias("spira", "champion", "2")
    return work


def test_a_foreign_version_cannot_be_fetched(work: Path, tmp_path: Path) -> None:
    registry = Registry(local_uri(work))
    with pytest.raises(RegistryError, match=f"version 2 {REMEDY}.*spira models push"):
        registry.fetch("champion", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_an_evaluation_refuses_a_foreign_champion(work: Path) -> None:
    """Its gate compares with the champion, so the run fails until the alias is moved; the message says so."""
    with (
        pytest.raises(RegistryError, match=f"version 2 {REMEDY}.*use another version"),
        open_champion(Registry(local_uri(work))),
    ):
        pass


def test_a_version_with_an_unreadable_description_cannot_be_fetched(new_mlflow: Path, tmp_path: Path) -> None:
    work = with_foreign_champion(without_description, new_mlflow, tmp_path)
    with pytest.raises(RegistryError, match="version 2 cannot be used: its artifacts differ"):
        Registry(local_uri(work)).fetch("champion", tmp_path / "fetched")


def test_a_version_without_a_run_is_not_compared(new_mlflow: Path, tmp_path: Path) -> None:
    """A run that was deleted still has its numbers."""
    for kind, exit_code, text in (
        (without_run, 2, "error: version 2 has no run: it was registered by hand"),
        (with_deleted_run, 0, "noisy/accuracy"),
    ):
        (tmp_path / kind.__name__).mkdir()
        work = with_foreign_champion(kind, new_mlflow, tmp_path / kind.__name__)
        result = CliRunner().invoke(app, ["models", "compare", "1", "champion", "--work", str(work)])
        assert (result.exit_code, text in result.output) == (exit_code, True), result.output


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (("models", "list"), 0, "2"),
        (("models", "show", "champion", "--json"), 0, '"version": 2'),
        (("models", "show", "champion"), 0, "version 2 (champion): NOT APPROVED"),
        (("models", "fetch", "champion", "--out", "{out}"), 2, REMEDY),
        (("predict", "{recording}", "--model", "champion"), 2, REMEDY),
        (("deploy", "plan", "champion"), 2, REMEDY),
        (("deploy", "apply", "champion"), 2, REMEDY),
        (("deploy", "apply", "champion", "--force", "a test"), 2, REMEDY),
    ],
)
def test_every_command_continues_or_refuses_in_one_line(
    work: Path, tmp_path: Path, arguments: tuple[str, ...], exit_code: int, text: str
) -> None:
    recording = next((tmp_path / "package").rglob("*.wav"))
    filled = [part.format(out=tmp_path / "out", recording=recording) for part in arguments]
    result = CliRunner().invoke(app, [*filled, "--work", str(work)])
    assert (result.exit_code, text in result.output) == (exit_code, True), result.output
    assert "Traceback" not in result.output
