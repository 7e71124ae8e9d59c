"""The KServe target against an API server that keeps objects as the real one does; ``tests/e2e`` has the real one."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from spira.deployment import golden_check, version_stack
from spira.deployment.kserve import manifests, pods
from spira.deployment.kserve import target as kserve
from spira.deployment.kserve.cluster import KubernetesNamespace
from spira.deployment.kserve.target import KServe
from spira.deployment.target import DeploymentError, Plan, Release
from spira.deployment.version_stack import change
from spira.packaging.verify import PackageError
from tests.support import ROOT
from tests.support.kubernetes_api import NAMESPACE, ApiServer, ServerState
from tests.support.packages import make_package


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """Two versions of different weights; to read only."""
    folder = tmp_path_factory.mktemp("packages")
    return {
        version: Release(version, make_package(folder / version, seed=int(version)), f"pvc://models/{version}")
        for version in ("1", "2")
    }


@pytest.fixture
def server(releases: dict[str, Release], tmp_path: Path) -> Iterator[ApiServer]:
    """A cluster that holds both versions' artifacts."""
    with ApiServer({one.uri: one.package for one in releases.values()}, tmp_path / "kubeconfig") as started:
        yield started


@pytest.fixture
def state(server: ApiServer) -> ServerState:
    return server.state


@pytest.fixture
def target(server: ApiServer, releases: dict[str, Release], monkeypatch: pytest.MonkeyPatch) -> KServe:
    """A target that waits for nothing long."""
    monkeypatch.setattr(kserve, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(golden_check, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(golden_check, "SETTLE_SECONDS", 0.1)
    cluster = KubernetesNamespace(NAMESPACE, kubeconfig=server.kubeconfig)
    return KServe(cluster, lambda version: releases[version].package, timeout_seconds=5)


@pytest.fixture
def serving(target: KServe, releases: dict[str, Release], state: ServerState) -> KServe:
    """It serves version 2, and served 1 before."""
    target.apply(releases["1"])
    target.apply(releases["2"])
    state.writes.clear()
    return target


def test_nothing_serves_before_the_first_apply(target: KServe) -> None:
    """Status says so, verify and rollback refuse."""
    status = target.status()
    assert (status.version, status.ready) == (None, False)
    assert "no version was applied" in status.message
    with pytest.raises(DeploymentError, match="apply one first"):
        target.verify()
    with pytest.raises(DeploymentError, match="nothing served before"):
        target.rollback("bad")


def test_a_version_is_tried_before_users_meet_it(
    target: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """The candidate comes and goes before the object that users ask is written, once."""
    status = target.apply(releases["1"])
    assert (status.version, status.previous, status.ready, status.message) == ("1", None, True, "")
    assert state.writes == ["spira-candidate 1", "spira-candidate gone", "spira 1"]
    assert target.verify() <= 1e-5


def test_the_history_goes_with_the_object(serving: KServe, state: ServerState) -> None:
    """It says what served when and from where; nothing else keeps it."""
    written = json.loads(state.objects["spira"]["metadata"]["annotations"]["spira/history"])
    assert [(one["version"], one["action"], one["uri"]) for one in written] == [
        ("1", "apply", "pvc://models/1"),
        ("2", "apply", "pvc://models/2"),
    ]
    assert serving.status().history == tuple(written)
    assert serving.status().previous == "1"


def test_apply_again_changes_nothing(serving: KServe, releases: dict[str, Release], state: ServerState) -> None:
    """It is asked for its golden recordings, that is all."""
    before = serving.status()
    assert serving.apply(releases["2"]) == before
    assert state.writes == []


def test_rollback_goes_back_once(serving: KServe, state: ServerState) -> None:
    """Tried as a new version is; the call may be repeated for the same bad version."""
    status = serving.rollback("too many alarms", bad="2")
    assert (status.version, status.previous, status.ready) == ("1", None, True)
    assert (status.history[-1]["reason"], status.history[-1]["left"]) == ("too many alarms", "2")
    assert state.writes == ["spira-candidate 1", "spira-candidate gone", "spira 1"]
    assert serving.rollback("too many alarms", bad="2") == status
    with pytest.raises(DeploymentError, match="nothing served before"):
        serving.rollback("again")


def test_plan_tells_and_changes_nothing(target: KServe, releases: dict[str, Release], state: ServerState) -> None:
    """What comes up from where, and what it replaces."""
    first = target.plan(releases["1"])
    assert [step.split()[0] for step in first.steps] == ["bring", "ask", "delete", "serve", "ask"]
    assert "pvc://models/1" in first.steps[0]
    assert state.writes == []
    target.apply(releases["1"])
    assert target.plan(releases["1"]) == Plan("1", "1", ("ask it for the golden recordings",))
    assert "version 2 instead of 1" in target.plan(releases["2"]).steps[3]


def test_a_version_that_doesnt_start_never_serves(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """Its last words are told; the object that users ask isn't touched."""
    state.broken["spira-candidate", "1"] = "this model must not be served"
    with pytest.raises(DeploymentError, match="ended with code 1: this model must not be served"):
        serving.apply(releases["1"])
    assert state.writes == ["spira-candidate 1", "spira-candidate gone"]
    assert serving.status().version == "2"


def test_other_weights_than_registered_never_serve(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """What lies in the cluster answers its own golden recordings, but not those of the package that was approved."""
    state.locations["pvc://models/3"] = releases["1"].package
    with pytest.raises(PackageError, match="must not be served"):
        serving.apply(Release("3", releases["2"].package, "pvc://models/3"))
    assert state.writes == ["spira-candidate 3", "spira-candidate gone"]


def test_pods_that_dont_start_are_put_back(serving: KServe, releases: dict[str, Release], state: ServerState) -> None:
    """Tried well, yet not to be brought up where users ask: the old object comes back, history and all."""
    before = serving.status()
    state.broken["spira", "1"] = "no node is left"
    with pytest.raises(DeploymentError, match="no node is left"):
        serving.rollback("too many alarms")
    assert state.writes[-2:] == ["spira 1", "spira 2"]
    assert serving.status() == before


def test_a_first_version_that_doesnt_start_leaves_nothing(
    target: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """There is no object to go back to."""
    state.broken["spira", "1"] = "no node is left"
    with pytest.raises(DeploymentError, match="no node is left"):
        target.apply(releases["1"])
    assert state.objects == {}


DRIFT: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "another location": (("spec", "predictor", "model", "storageUri"), "pvc://models/1", "storageUri"),
    "a field that was added": (
        ("spec", "predictor", "canaryTrafficPercent"),
        10,
        "canaryTrafficPercent is 10, not null",
    ),
    "a field that was removed": (("spec", "predictor", "deploymentStrategy"), None, "deploymentStrategy is null"),
    "another mode": (("metadata", "annotations", "serving.kserve.io/deploymentMode"), "Serverless", "deploymentMode"),
}


@pytest.mark.parametrize("what", DRIFT)
def test_drift_is_told_and_repaired(
    serving: KServe, releases: dict[str, Release], state: ServerState, what: str
) -> None:
    """What anybody changes in the object; the version before stays the version before."""
    path, value, words = DRIFT[what]
    place = state.objects["spira"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert serving.status().drifted
    assert words in serving.status().message
    assert words in serving.plan(releases["2"]).steps[3]
    status = serving.apply(releases["2"])
    assert (status.version, status.previous, status.message, status.drifted) == ("2", "1", "", False)
    assert status.history[-1]["action"] == "repair"


RUNTIMES: dict[str, tuple[dict[str, Any], str]] = {
    "another image": ({"image": "spira/serve:2"}, 'image is "spira/serve:1", not "spira/serve:2"'),
    "another argument": ({"args": ["--threads=2"]}, "args is ["),
    "more memory": ({"resources": {"limits": {"memory": "1Gi"}}}, 'resources.limits.memory is null, not "1Gi"'),
    "another quantity": ({"resources": {"limits": {"cpu": "2"}}}, 'resources.limits.cpu is "1", not "2"'),
    "another probe": ({"readinessProbe": {"periodSeconds": 9}}, "readinessProbe.periodSeconds is 2, not 9"),
    "a probe more": ({"livenessProbe": {"periodSeconds": 9}}, "livenessProbe is null"),
}


@pytest.mark.parametrize("what", RUNTIMES)
def test_a_runtime_that_changed_is_rolled_out(
    serving: KServe, releases: dict[str, Release], state: ServerState, what: str
) -> None:
    """Drift is told and planned; the same version is tried on the new runtime, then its pods are made of it."""
    changed, words = RUNTIMES[what]
    state.runtime |= changed
    status = serving.status()
    assert (status.ready, status.drifted) == (True, True)
    assert f"not what ServingRuntime spira says by now: {words}" in status.message
    assert words in serving.plan(releases["2"]).steps[3]
    status = serving.apply(releases["2"])
    assert state.writes == ["spira-candidate 2", "spira-candidate gone", "spira 2"]
    assert (status.version, status.previous, status.message, status.drifted) == ("2", "1", "", False)
    assert status.history[-1]["action"] == "repair"


def test_pods_that_kserve_is_about_to_make_are_no_drift(serving: KServe, state: ServerState) -> None:
    """They will be of the runtime as it is by now."""
    state.runtime |= {"image": "spira/serve:2"}
    state.lags.add("spira")
    status = serving.status()
    assert (status.ready, status.drifted, status.message) == (False, False, "its pods are being exchanged")


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ({"runtime_forbidden": True}, r"servingruntimes is forbidden; apply manifests/base/serving"),
        ({"runtime": None}, "it isn't there"),
    ],
)
def test_a_runtime_that_cant_be_read_is_told(
    serving: KServe, releases: dict[str, Release], state: ServerState, runtime: dict[str, Any], words: str
) -> None:
    """By the rights of before, say: it is no drift, and no failure."""
    for name, value in runtime.items():
        setattr(state, name, value)
    status = serving.status()
    assert (status.version, status.ready, status.drifted) == ("2", True, False)
    assert "whether its pods run what ServingRuntime spira says isn't known" in status.message
    assert re.search(words, status.message)
    assert serving.apply(releases["2"]) == status
    assert state.writes == []


def test_the_account_that_reads_the_model_is_the_predictors(
    server: ApiServer, serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """Another one by name; it is put right like all else."""
    assert state.objects["spira"]["spec"]["predictor"]["serviceAccountName"] == "spira-predictor"
    other = KServe(serving.cluster, serving.package, timeout_seconds=5, service_account="reader")
    assert 'serviceAccountName is "spira-predictor", not "reader"' in other.status().message
    other.apply(releases["2"])
    assert state.objects["spira"]["spec"]["predictor"]["serviceAccountName"] == "reader"


def test_an_address_is_what_the_cluster_knows_it_by(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """Where MLflow hands artifacts out itself, the cluster reads them where they lie; the history says where."""
    state.locations["s3://mlflow/1/ab/packages/x"] = releases["1"].package
    known = {"gs://": "never", "mlflow-artifacts:/": "s3://mlflow/"}
    target = KServe(serving.cluster, serving.package, timeout_seconds=5, artifacts=known)
    release = Release("3", releases["1"].package, "mlflow-artifacts:/1/ab/packages/x")
    assert "s3://mlflow/1/ab/packages/x" in target.plan(release).steps[0]
    assert target.apply(release).history[-1]["uri"] == "s3://mlflow/1/ab/packages/x"
    assert target.apply(release).version == "3"
    assert target.apply(releases["2"]).history[-1]["uri"] == "pvc://models/2"


def test_why_a_version_serves_all_the_same_is_kept(serving: KServe, releases: dict[str, Release]) -> None:
    """With the change."""
    release = dataclasses.replace(releases["1"], reason="for the study")
    assert serving.apply(release).history[-1]["reason"] == "for the study"


def test_annotations_of_others_are_theirs(serving: KServe, state: ServerState) -> None:
    """They are no drift."""
    state.objects["spira"]["metadata"]["annotations"]["someone/note"] = "hello"
    assert serving.status().message == ""


def test_two_who_deploy_at_once_dont_undo_each_other(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """Who comes second is told, and has changed nothing."""

    def change() -> None:
        state.objects["spira"]["metadata"]["generation"] += 1

    state.after["spira-candidate gone"] = change
    with pytest.raises(DeploymentError, match="someone else changed it meanwhile"):
        serving.rollback("bad")
    assert state.writes == ["spira-candidate 1", "spira-candidate gone"]


def test_kserves_own_notes_are_no_change(serving: KServe, state: ServerState) -> None:
    """It writes down the object's state at any moment."""

    def note() -> None:
        state.objects["spira"]["metadata"]["resourceVersion"] += "0"
        state.conflicts = 2

    state.after["spira-candidate gone"] = note
    assert serving.rollback("bad").version == "1"


REFUSED = {
    "no location": ({"uri": ""}, "give its uri"),
    "no plain name": ({"version": "a/b"}, "letters, digits"),
    "another location": ({"version": "1"}, "one location"),
    "another version's location": ({"version": "3"}, "one location"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_release_that_makes_no_sense_is_refused(
    serving: KServe, releases: dict[str, Release], state: ServerState, what: str
) -> None:
    """By plan too, before anything is changed."""
    changed, words = REFUSED[what]
    release = Release(**{"version": "2", "package": releases["2"].package, "uri": "pvc://models/2"} | changed)
    for verb in (serving.plan, serving.apply):
        with pytest.raises(DeploymentError, match=words):
            verb(release)
    assert state.writes == []


def test_a_damaged_history_is_said(serving: KServe, state: ServerState) -> None:
    """Rather than taken for an empty one."""
    state.objects["spira"]["metadata"]["annotations"]["spira/history"] = "["
    with pytest.raises(DeploymentError, match="damaged"):
        serving.status()


def test_a_cluster_that_refuses_is_told(target: KServe, state: ServerState) -> None:
    """With what is needed."""
    state.forbidden = True
    with pytest.raises(DeploymentError, match=r"forbidden; apply manifests/base/serving"):
        target.status()


def test_a_cluster_that_is_away_is_told(target: KServe, server: ApiServer) -> None:
    """With its address."""
    server.http.server_close()
    server.http.shutdown()
    with pytest.raises(DeploymentError, match="is the cluster up"):
        target.status()


def test_no_cluster_at_all_is_told(server: ApiServer, tmp_path: Path) -> None:
    """No file, and no such context."""
    for options in ({"kubeconfig": tmp_path / "none"}, {"kubeconfig": server.kubeconfig, "context": "b"}):
        with pytest.raises(DeploymentError, match="set KUBECONFIG"):
            KubernetesNamespace(NAMESPACE, **options)


def test_the_example_is_what_is_written() -> None:
    """``manifests/base/serving/example.yaml`` shows it, history aside."""
    example = yaml.safe_load((ROOT / "manifests" / "base" / "serving" / "example.yaml").read_text())
    history = [change("7", "apply", uri="gs://models/.../7")]
    rendered = manifests.render("spira", "spira", "spira-predictor", history)
    assert example["spec"] == rendered["spec"]
    assert example["metadata"]["annotations"].keys() == rendered["metadata"]["annotations"].keys()


def test_a_long_history_is_cut() -> None:
    """An object's annotations have a bound."""
    entries = [change(str(i), "apply", uri=f"pvc://models/{i}") for i in range(1000)]
    annotations = manifests.render("spira", "spira", "spira-predictor", entries)["metadata"]["annotations"]
    written = json.loads(annotations[manifests.HISTORY])
    assert written == entries[-200:]


def test_a_history_that_was_cut_still_tells_what_serves() -> None:
    """A rollback says itself where it went, should the change before be gone."""
    back = change("1", "rollback", uri="pvc://models/1", reason="bad", left="2")
    assert version_stack.line([change("2", "apply", uri="pvc://models/2"), back]) == [back]


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return {"image": "spira/serve:dev", "state": {}} | state


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
NO_CLAIM = UNSCHEDULABLE | {"message": '0/1 nodes are available: persistentvolumeclaim "models" not found.'}
TROUBLES = {
    "no node": (pod(conditions=[UNSCHEDULABLE]), "Insufficient cpu.; free a node"),
    "no claim": (pod(conditions=[NO_CLAIM]), "make the claim"),
    "no image": (
        pod(containerStatuses=[container(state={"waiting": {"reason": "ErrImageNeverPull", "message": "x"}})]),
        "image spira/serve:dev is not to be had",
    ),
    "no storage": (
        pod(initContainerStatuses=[container(state={"terminated": {"exitCode": 1, "message": "a\nno bucket\n"}})]),
        "code 1: no bucket",
    ),
    "last words": (
        pod(containerStatuses=[container(lastState={"terminated": {"exitCode": 1, "message": "a\nbroken\n"}})]),
        "code 1: broken",
    ),
    "too much memory": (
        pod(containerStatuses=[container(lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})]),
        "raise the limit",
    ),
    "a bad setting": (
        pod(containerStatuses=[container(state={"waiting": {"reason": "CreateContainerError", "message": "no user"}})]),
        "CreateContainerError: no user",
    ),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_a_pod_that_doesnt_answer_is_explained(what: str) -> None:
    """In words that tell what to do."""
    found, words = TROUBLES[what]
    assert words in pods.explain(None, None, [found])


def test_what_made_no_pod_is_explained() -> None:
    """By the Deployment, or by KServe; nothing is said where nothing is wrong."""
    quota = {"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}}
    waiting = {"modelStatus": {"lastFailureInfo": {"reason": "RuntimeNotRecognized", "message": "waiting"}}}
    no_runtime = manifests.render("spira", "absent", "who", [change("1", "apply", uri="a")]) | {"status": waiting}
    failed = {"status": {"modelStatus": {"lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no file"}}}}
    assert pods.explain(failed, quota, []) == "exceeded quota"
    said = 'error looking up service account a/b: serviceaccount "b" not found'
    nobody = {"status": {"conditions": [quota["status"]["conditions"][0] | {"message": said}]}}
    assert pods.explain({}, nobody, []).startswith(f"{said}; apply manifests/base/serving")
    assert pods.explain(failed, None, []) == "KServe: ModelLoadFailed: no file"
    assert pods.explain(no_runtime, None, []) == "there is no ServingRuntime absent: apply manifests/base/serving"
    assert pods.explain({}, {}, [pod(containerStatuses=[container(state={"running": {}})])]) == ""
