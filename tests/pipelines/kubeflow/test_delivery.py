"""Continuous delivery as a pipeline: the compiled file, its options for Kubernetes, and a tick on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import local

from pipelines.kubeflow import versions
from pipelines.kubeflow.delivery import COMPILED, compile_delivery, pipeline
from pipelines.kubeflow.server import connect
from pipelines.training import CompileOptions
from spira.data.storage import open_store
from spira.delivery import recurring_tick
from spira.errors import SpiraError
from spira.signature import VERIFY_KEY
from tests.support.kfp_server import ServerState

pytestmark = pytest.mark.integration

IMAGE = "registry.example/spira@sha256:0123"


def compiled(tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    """Compile the pipeline; return its two documents, the pipeline and the options for Kubernetes."""
    compile_delivery(tmp_path / "delivery.yaml", IMAGE, **options)
    return list(yaml.safe_load_all((tmp_path / "delivery.yaml").read_text()))


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """Settings with a data set whose recording is missing, so that a tick observes but does not train."""
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "metadata_train.csv").write_text("file_path,class\nnot_here_yet.wav,0\n")
    return f"data: {tmp_path}/voices\nwork: {tmp_path}/work\n"


def test_compiling_gives_the_golden_file_byte_for_byte(tmp_path: Path):
    """``spira pipeline compile --delivery`` renews the golden file."""
    compile_delivery(tmp_path / "delivery.yaml")
    assert (tmp_path / "delivery.yaml").read_bytes() == COMPILED.read_bytes()


def test_a_tick_is_never_answered_from_the_cache(tmp_path: Path):
    """A tick depends on data, ledger and targets, none of which is an input."""
    spec, platform = compiled(tmp_path)
    (task,) = spec["root"]["dag"]["tasks"].values()
    assert task["cachingOptions"] == {}
    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["image"] == IMAGE
    assert "pvcMount" not in str(platform)


def test_the_public_key_is_mounted(tmp_path: Path):
    """A tick checks signatures by it."""
    spec, platform = compiled(tmp_path, verify_config_map="spira-verify-key")
    (executor,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    (volume,) = executor["configMapAsVolume"]
    assert volume["configMapName"] == "spira-verify-key"
    (task,) = spec["deploymentSpec"]["executors"].values()
    assert {"name": VERIFY_KEY, "value": f"{volume['mountPath']}/verify.pem"} in task["container"]["env"]


def test_a_claim_is_mounted_at_state(tmp_path: Path):
    """A ledger in a folder needs it; a ledger in a bucket needs no claim."""
    _, platform = compiled(tmp_path, claim="spira-delivery")
    (executor,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    (mount,) = executor["pvcMount"]
    assert (mount["constant"], mount["mountPath"]) == ("spira-delivery", "/state")


def test_the_pipeline_does_a_tick(settings: str, tmp_path: Path):
    """kfp's local runner runs it: the ledger has a record, and the artifact has the status."""
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "run"))
    pipeline()(settings=settings, cluster="")
    (path,) = (tmp_path / "run").rglob("tick/status")
    status = json.loads(path.read_text())
    assert (status["training"], status["records"], status["troubles"]) == ("nothing fit to train on", 1, [])
    assert [path.name for path in (tmp_path / "work" / "ledger" / "records").iterdir()] == ["000001.json"]


def test_data_that_cannot_be_reached_fails_the_task(settings: str, tmp_path: Path):
    """The status is written first."""
    (tmp_path / "voices").rename(tmp_path / "elsewhere")
    with pytest.raises(SpiraError, match="no such folder"):
        recurring_tick.tick(settings, "", tmp_path / "status")
    assert json.loads((tmp_path / "status").read_text())["troubles"]


@pytest.mark.parametrize("name", recurring_tick.PERSISTENT_PATHS)
def test_a_place_that_goes_with_the_pod_is_refused(settings: str, name: str, tmp_path: Path):
    """A ledger that is forgotten would have everything trained anew for ever."""
    kept = {"ledger": f"{tmp_path}/ledger", "registry": f"{tmp_path}/mlflow", **yaml.safe_load(settings)}
    with pytest.raises(SpiraError, match=f"{name}: a relative path is lost with this pod"):
        recurring_tick.tick(yaml.safe_dump(kept | {name: "here"}), "", tmp_path / "status")
    assert not (tmp_path / "ledger").exists()


def upload_folder(folder: Path, uri: str) -> None:
    """Copy a folder into an emulated bucket."""
    store = open_store(uri)
    for file in folder.rglob("*"):
        if file.is_file():
            store.write(file.relative_to(folder).as_posix(), file.read_bytes())


def test_a_tick_in_a_task_trains_on_kubeflow(kfp: tuple[str, ServerState], bucket: str, demo: Path, tmp_path: Path):
    """kfp starts the task with ``_KFP_RUNTIME=true``; the tick's own process imports kfp's compiler all the same."""
    upload_folder(demo, bucket)
    versions.upload(connect(kfp[0]), IMAGE, CompileOptions())
    settings = {"data": bucket, "work": f"{tmp_path}/work", "kubeflow": "cluster.yaml", "quiet_seconds": 0}
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "run"))
    pipeline()(settings=yaml.safe_dump(settings), cluster=f"host: {kfp[0]}\nregistry_uri: http://127.0.0.1:9\n")
    (run,) = kfp[1].runs.values()
    assert run["display_name"].startswith("spira-")
    (path,) = (tmp_path / "run").rglob("tick/status")
    assert json.loads(path.read_text())["troubles"] == []


def test_a_kubeflow_that_cannot_be_reached_fails_the_task(demo: Path, tmp_path: Path):
    """The tick reads its address from the text of the cluster file, reports the error and records nothing."""
    settings = f"data: {demo}\nwork: {tmp_path}/work\nkubeflow: cluster.yaml\n"
    with pytest.raises(SpiraError, match=r"Kubeflow at http://127\.0\.0\.1:9 cannot be reached"):
        recurring_tick.tick(settings, "host: http://127.0.0.1:9\n", tmp_path / "status")
    assert json.loads((tmp_path / "status").read_text())["records"] == 0
