"""Continuous delivery as a pipeline: its bytes, what a cluster must be told, and a tick by it on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import local

from pipelines.kubeflow.delivery import COMPILED, compile_delivery, pipeline
from spira.delivery import recurring_tick
from spira.errors import SpiraError

IMAGE = "registry.example/spira@sha256:0123"


def compiled(tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    """The pipeline, and what Kubernetes is told beside it."""
    compile_delivery(tmp_path / "delivery.yaml", IMAGE, **options)
    return list(yaml.safe_load_all((tmp_path / "delivery.yaml").read_text()))


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """Of a data set whose recordings are not there yet, so that a tick looks and trains nothing."""
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "metadata_train.csv").write_text("file_path,class\nnot_here_yet.wav,0\n")
    return f"data: {tmp_path}/voices\nwork: {tmp_path}/work\n"


def test_compiling_gives_the_golden_file_byte_for_byte(tmp_path: Path):
    """Else: python -c "from pipelines.kubeflow.delivery import *; compile_delivery(COMPILED)"."""
    compile_delivery(tmp_path / "delivery.yaml")
    assert (tmp_path / "delivery.yaml").read_bytes() == COMPILED.read_bytes()


def test_a_tick_is_never_answered_from_the_cache(tmp_path: Path):
    """It looks at what no input tells."""
    spec, platform = compiled(tmp_path)
    (only,) = spec["root"]["dag"]["tasks"].values()
    assert only["cachingOptions"] == {}
    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["image"] == IMAGE
    assert "pvcMount" not in str(platform)


def test_a_claim_is_mounted_where_the_settings_say(tmp_path: Path):
    """For a ledger in a folder; a bucket needs none."""
    _, platform = compiled(tmp_path, claim="spira-delivery")
    (executor,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    (mount,) = executor["pvcMount"]
    assert (mount["constant"], mount["mountPath"]) == ("spira-delivery", "/state")


def test_the_pipeline_ticks(settings: str, tmp_path: Path):
    """As kfp runs it: the ledger has the record, and the artifact tells what is going on."""
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "run"))
    pipeline()(settings=settings, cluster="")
    (status,) = (tmp_path / "run").rglob("tick/status")
    told = json.loads(status.read_text())
    assert (told["training"], told["records"], told["troubles"]) == ("nothing fit to train on", 1, [])
    assert [path.name for path in (tmp_path / "work" / "ledger" / "records").iterdir()] == ["000001.json"]


def test_what_cannot_be_reached_fails_the_task(settings: str, tmp_path: Path):
    """After all that could be done was done, and told."""
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


def test_kubeflow_is_found_by_its_file(demo: Path, tmp_path: Path):
    """Which comes as text too: that nobody answers there is what the tick says, and nothing is begun."""
    settings = f"data: {demo}\nwork: {tmp_path}/work\nkubeflow: cluster.yaml\n"
    with pytest.raises(SpiraError, match=r"Kubeflow at http://127\.0\.0\.1:9 can't be reached"):
        recurring_tick.tick(settings, "host: http://127.0.0.1:9\n", tmp_path / "status")
    assert json.loads((tmp_path / "status").read_text())["records"] == 0
