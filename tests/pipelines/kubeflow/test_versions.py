"""Versions on Kubeflow in their two forms, and what a version's compiled file tells of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.kubeflow import versions
from pipelines.kubeflow.server import Server
from pipelines.kubeflow.settings import KubeflowSettings
from pipelines.kubeflow.versions import Sizes
from spira import config
from spira.delivery.runner import RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.evaluation import gate
from spira.project import Project
from tests.support.kfp_server import ServerState

pytestmark = pytest.mark.integration

DIGEST = f"sha256:{'0' * 64}"
IMAGE, NEWER = (f"registry.example/spira-train@sha256:{digit * 64}" for digit in "01")
CLUSTER = KubeflowSettings(claim="spira-state", cpu="500m", memory="8Gi", gpu_count=2, notify_url="http://chat/hook")
REQUEST = TrainingRequest(data="gs://voices", data_digest="d" * 64, config=config.smoke(), gate=gate.load())


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no clock: the stand-in lists versions in the order of their upload."""
    monkeypatch.setattr(versions, "CLOCK_SECONDS", 0.0)


def test_both_forms_are_uploaded_and_the_latest_has_no_cache(server: Server, state: ServerState):
    """The dashboard's form and schedules follow the latest. A repeated upload changes nothing."""
    cached = versions.upload_both(server, IMAGE, CLUSTER.compile_options(cached=True))
    uncached = versions.upload_both(server, IMAGE, CLUSTER.compile_options())
    assert (cached.cached, uncached.cached) == (True, False)
    assert uncached.name == f"{cached.name}-uncached"
    assert [version["display_name"] for version in state.versions.values()] == [cached.name, uncached.name]
    assert versions.latest(server) == versions.latest(server, cached=False) == uncached
    assert versions.latest(server, cached=True) == cached


def test_the_second_form_is_uploaded_later_than_the_first(server: Server, monkeypatch: pytest.MonkeyPatch):
    """Kubeflow's times are whole seconds, so of two versions of one second either could be the latest."""
    waits: list[float] = []
    monkeypatch.setattr(versions, "CLOCK_SECONDS", 1.0)
    monkeypatch.setattr("pipelines.kubeflow.versions.time.sleep", waits.append)
    for _ in range(2):
        versions.upload_both(server, IMAGE, CLUSTER.compile_options())
    assert waits == [1.0]


def test_the_forms_of_an_earlier_version_are_not_mixed_with_those_of_the_latest(server: Server):
    """The latest was uploaded by hand in one form: it runs without the cache, and not the code of an earlier one."""
    versions.upload_both(server, IMAGE, CLUSTER.compile_options())
    newer = versions.upload(server, NEWER, CLUSTER.compile_options())
    assert versions.latest(server, cached=True) == newer


def test_a_version_tells_sizes_code_and_optional_parameters(server: Server, state: ServerState):
    """They are read from the compiled file on the server."""
    version = versions.upload(server, IMAGE, CLUSTER.compile_options())
    assert version.sizes == Sizes("spira-state", "500m", "8Gi", 2)
    assert version.code_digest == DIGEST
    assert version.parameters == {"notify_url", "project"}
    assert CLUSTER.arguments(REQUEST, version)["notify_url"] == "http://chat/hook"
    (uploaded,) = state.versions.values()
    assert f"Image {IMAGE}; " in uploaded["description"]
    assert "cpu 500m, memory 8Gi, 2 GPUs" in uploaded["description"]
    server.get_or_create_experiment_id()
    (experiment,) = state.experiments.values()
    assert experiment["description"].startswith("Trainings of SPIRA's detector")
    (pipeline,) = state.pipelines.values()
    assert pipeline["description"].startswith("Train SPIRA's detector")


def test_other_sizes_make_another_version_of_the_same_code(server: Server):
    """Continuous delivery compares the digest of the code, so that a larger pod causes no training."""
    first, second = (
        versions.upload(server, IMAGE, replace(CLUSTER.compile_options(), memory=memory)) for memory in ("8Gi", "16Gi")
    )
    assert first.name != second.name
    assert first.code_digest == second.code_digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpu": "1"}, "compiled for cpu 500m, and the cluster's is 1: upload"),
        ({"memory": "4Gi"}, "compiled for memory 8Gi, and the cluster's is 4Gi: upload"),
        ({"gpu_count": 0}, "compiled for gpu_count 2, and the cluster's is none: upload"),
        ({"claim": ""}, "compiled for claim spira-state, and the cluster's is none: upload"),
    ],
)
def test_a_version_for_other_sizes_is_refused(server: Server, change: dict, message: str):
    """The run would start with sizes that nobody asked for."""
    version = versions.upload(server, IMAGE, CLUSTER.compile_options())
    with pytest.raises(RunnerError, match=message):
        CLUSTER.model_copy(update=change).arguments(REQUEST, version)


def test_a_version_without_the_parameter_of_a_project_is_refused(server: Server):
    """A version of an earlier program has none. A request without a project needs none."""
    version = replace(versions.upload(server, IMAGE, CLUSTER.compile_options()), parameters=frozenset({"notify_url"}))
    owned = REQUEST.model_copy(update={"project": Project(owner="A")})
    with pytest.raises(RunnerError, match="compiled without project, and the project file has one: upload a version"):
        CLUSTER.arguments(owned, version)
    assert "project" not in CLUSTER.arguments(REQUEST, version)


def test_a_pipeline_of_another_tool_is_refused(server: Server, state: ServerState):
    """It was uploaded under the same name, and has nothing of what a version is read for."""
    versions.upload(server, IMAGE, CLUSTER.compile_options())
    (version,) = state.versions.values()
    version["pipeline_spec"] = {"root": {"dag": {"tasks": {"hello": {}}}}, "components": {}}
    foreign = versions.latest(server)
    assert (foreign.sizes, foreign.code_digest, foreign.parameters, foreign.cached) == (None, "", frozenset(), False)
    with pytest.raises(RunnerError, match="is no pipeline of this project"):
        CLUSTER.arguments(REQUEST, foreign)
