"""The KServe target against an API server that stores objects like a real one; ``tests/e2e`` uses a real cluster."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira.deployment.kserve import golden_check, manifests, pods
from spira.deployment.kserve import target as kserve
from spira.deployment.kserve.cluster import KubernetesNamespace
from spira.deployment.kserve.target import KServe
from spira.deployment.target import DeploymentError, Plan, Release
from spira.deployment.version_stack import Change, to_json, version_stack
from spira.packaging.verify import PackageError
from tests.support import ROOT
from tests.support.kubernetes_api import NAMESPACE, ApiServer, ServerState
from tests.support.packages import make_package

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """Two versions with different weights, read-only."""
    folder = tmp_path_factory.mktemp("packages")
    return {
        version: Release(version, make_package(folder / version, seed=int(version)), f"pvc://models/{version}")
        for version in ("1", "2")
    }


@pytest.fixture
def server(releases: dict[str, Release], tmp_path: Path) -> Iterator[ApiServer]:
    """A cluster that can read the artifacts of both versions."""
    with ApiServer({release.uri: release.package for release in releases.values()}, tmp_path / "kubeconfig") as started:
        yield started


@pytest.fixture
def state(server: ApiServer) -> ServerState:
    return server.state


@pytest.fixture
def target(server: ApiServer, releases: dict[str, Release], monkeypatch: pytest.MonkeyPatch) -> KServe:
    """A target with short waiting times."""
    monkeypatch.setattr(kserve, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(golden_check, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(golden_check, "SETTLE_SECONDS", 0.1)
    cluster = KubernetesNamespace(NAMESPACE, kubeconfig=server.kubeconfig)
    return KServe(cluster, lambda version: releases[version].package, timeout_seconds=5)


@pytest.fixture
def serving(target: KServe, releases: dict[str, Release], state: ServerState) -> KServe:
    """A target that serves version 2 and served version 1 before."""
    target.apply(releases["1"])
    target.apply(releases["2"])
    state.writes.clear()
    return target


def test_before_the_first_apply_verify_and_rollback_are_refused(target: KServe) -> None:
    """The status has no version."""
    status = target.status()
    assert (status.version, status.ready) == (None, False)
    assert "no version was applied" in status.message
    with pytest.raises(DeploymentError, match="apply one first"):
        target.verify()
    with pytest.raises(DeploymentError, match="nothing served before"):
        target.rollback("bad")


def test_a_version_is_checked_as_candidate_before_clients_use_it(
    target: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """The candidate is created and deleted before the one write of the serving object."""
    status = target.apply(releases["1"])
    assert (status.version, status.previous, status.ready, status.message) == ("1", None, True, "")
    assert state.writes == ["spira-candidate 1", "spira-candidate gone", "spira 1"]
    assert target.verify() <= 1e-5


def test_the_history_is_an_annotation_of_the_object(serving: KServe, state: ServerState) -> None:
    """It has version, action, time and location of every change; there is no other copy."""
    written = json.loads(state.objects["spira"]["metadata"]["annotations"]["spira/history"])
    assert [(entry["version"], entry["action"], entry["uri"]) for entry in written] == [
        ("1", "apply", "pvc://models/1"),
        ("2", "apply", "pvc://models/2"),
    ]
    assert to_json(serving.status().history) == written
    assert serving.status().previous == "1"


def test_apply_again_changes_nothing(serving: KServe, releases: dict[str, Release], state: ServerState) -> None:
    """It only runs the golden check."""
    before = serving.status()
    assert serving.apply(releases["2"]) == before
    assert state.writes == []


def test_a_rollback_for_a_bad_version_happens_once(serving: KServe, state: ServerState) -> None:
    """The previous version is checked as candidate; the call can be repeated for the same bad version."""
    status = serving.rollback("too many alarms", bad="2")
    assert (status.version, status.previous, status.ready) == ("1", None, True)
    assert (status.history[-1].reason, status.history[-1].left) == ("too many alarms", "2")
    assert state.writes == ["spira-candidate 1", "spira-candidate gone", "spira 1"]
    assert serving.rollback("too many alarms", bad="2") == status
    with pytest.raises(DeploymentError, match="nothing served before"):
        serving.rollback("again")


def test_a_plan_lists_the_steps_and_changes_nothing(
    target: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """The steps have the location and the version that is replaced."""
    first = target.plan(releases["1"])
    assert [step.split()[0] for step in first.steps] == ["start", "check", "delete", "serve", "check"]
    assert "pvc://models/1" in first.steps[0]
    assert state.writes == []
    target.apply(releases["1"])
    assert target.plan(releases["1"]) == Plan("1", "1", ("check its golden recordings",))
    assert "version 2 instead of 1" in target.plan(releases["2"]).steps[3]


def test_a_version_that_does_not_start_never_serves(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """The error has the last line of its log; the serving object is not touched."""
    state.broken["spira-candidate", "1"] = "this model must not be served"
    with pytest.raises(DeploymentError, match="exited with code 1: this model must not be served"):
        serving.apply(releases["1"])
    assert state.writes == ["spira-candidate 1", "spira-candidate gone"]
    assert serving.status().version == "2"


def test_artifacts_that_differ_from_the_package_never_serve(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """The artifacts in the cluster pass their own golden check, but not that of the approved package."""
    state.locations["pvc://models/3"] = releases["1"].package
    with pytest.raises(PackageError, match="must not be served"):
        serving.apply(Release("3", releases["2"].package, "pvc://models/3"))
    assert state.writes == ["spira-candidate 3", "spira-candidate gone"]


def test_the_object_is_restored_if_its_pods_do_not_start(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """The candidate passed, but the serving pods fail: the old object comes back with its history."""
    before = serving.status()
    state.broken["spira", "1"] = "no node is left"
    with pytest.raises(DeploymentError, match="no node is left"):
        serving.rollback("too many alarms")
    assert state.writes[-2:] == ["spira 1", "spira 2"]
    assert serving.status() == before


def test_a_first_version_that_does_not_start_leaves_no_object(
    target: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """There is no object to restore."""
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


@pytest.mark.parametrize("case", DRIFT)
def test_drift_is_reported_and_repaired(
    serving: KServe, releases: dict[str, Release], state: ServerState, case: str
) -> None:
    """Any change in the object is drift; a repair does not change the previous version."""
    path, value, words = DRIFT[case]
    parent = state.objects["spira"]
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    assert serving.status().drifted
    assert words in serving.status().message
    assert words in serving.plan(releases["2"]).steps[3]
    status = serving.apply(releases["2"])
    assert (status.version, status.previous, status.message, status.drifted) == ("2", "1", "", False)
    assert status.history[-1].action == "repair"


RUNTIMES: dict[str, tuple[dict[str, Any], str]] = {
    "another image": ({"image": "spira/serve:2"}, 'image is "spira/serve:1", not "spira/serve:2"'),
    "another argument": ({"args": ["--threads=2"]}, "args is ["),
    "more memory": ({"resources": {"limits": {"memory": "1Gi"}}}, 'resources.limits.memory is null, not "1Gi"'),
    "another quantity": ({"resources": {"limits": {"cpu": "2"}}}, 'resources.limits.cpu is "1", not "2"'),
    "another probe": ({"readinessProbe": {"periodSeconds": 9}}, "readinessProbe.periodSeconds is 2, not 9"),
    "a probe more": ({"livenessProbe": {"periodSeconds": 9}}, "livenessProbe is null"),
}


@pytest.mark.parametrize("case", RUNTIMES)
def test_a_changed_runtime_is_rolled_out(
    serving: KServe, releases: dict[str, Release], state: ServerState, case: str
) -> None:
    """The difference is drift; the version is checked on the new runtime as candidate, then its pods are replaced."""
    changed, words = RUNTIMES[case]
    state.runtime |= changed
    status = serving.status()
    assert (status.ready, status.drifted) == (True, True)
    assert f"differs from ServingRuntime spira: {words}" in status.message
    assert words in serving.plan(releases["2"]).steps[3]
    status = serving.apply(releases["2"])
    assert state.writes == ["spira-candidate 2", "spira-candidate gone", "spira 2"]
    assert (status.version, status.previous, status.message, status.drifted) == ("2", "1", "", False)
    assert status.history[-1].action == "repair"


def test_pods_that_kserve_is_about_to_replace_are_no_drift(serving: KServe, state: ServerState) -> None:
    """The new pods will follow the present runtime."""
    state.runtime |= {"image": "spira/serve:2"}
    state.lags.add("spira")
    status = serving.status()
    assert (status.ready, status.drifted, status.message) == (False, False, "its pods are being replaced")


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ({"runtime_forbidden": True}, r"servingruntimes is forbidden; apply manifests/base/serving"),
        ({"runtime": None}, "it does not exist"),
    ],
)
def test_a_runtime_that_cannot_be_read_is_reported(
    serving: KServe, releases: dict[str, Release], state: ServerState, runtime: dict[str, Any], words: str
) -> None:
    """For example because the rights are those of an older release: it is neither drift nor failure."""
    for name, value in runtime.items():
        setattr(state, name, value)
    status = serving.status()
    assert (status.version, status.ready, status.drifted) == ("2", True, False)
    assert "cannot compare the pods with ServingRuntime spira" in status.message
    assert re.search(words, status.message)
    assert serving.apply(releases["2"]) == status
    assert state.writes == []


def test_another_service_account_is_drift_and_is_repaired(
    server: ApiServer, serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """The default is spira-predictor."""
    assert state.objects["spira"]["spec"]["predictor"]["serviceAccountName"] == "spira-predictor"
    other = KServe(serving.cluster, serving.package, timeout_seconds=5, service_account="reader")
    assert 'serviceAccountName is "spira-predictor", not "reader"' in other.status().message
    other.apply(releases["2"])
    assert state.objects["spira"]["spec"]["predictor"]["serviceAccountName"] == "reader"


def test_a_location_is_translated_for_the_cluster(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """If MLflow proxies artifacts, the cluster reads them from the bucket; the history has that location."""
    state.locations["s3://mlflow/1/ab/packages/x"] = releases["1"].package
    prefixes = {"gs://": "never", "mlflow-artifacts:/": "s3://mlflow/"}
    target = KServe(serving.cluster, serving.package, timeout_seconds=5, artifacts=prefixes)
    release = Release("3", releases["1"].package, "mlflow-artifacts:/1/ab/packages/x")
    assert "s3://mlflow/1/ab/packages/x" in target.plan(release).steps[0]
    assert target.apply(release).history[-1].uri == "s3://mlflow/1/ab/packages/x"
    assert target.apply(release).version == "3"
    assert target.apply(releases["2"]).history[-1].uri == "pvc://models/2"


def test_the_reason_of_a_forced_apply_is_recorded(serving: KServe, releases: dict[str, Release]) -> None:
    """It is in the history."""
    release = dataclasses.replace(releases["1"], reason="for the study")
    assert serving.apply(release).history[-1].reason == "for the study"


def test_annotations_of_other_owners_are_no_drift(serving: KServe, state: ServerState) -> None:
    """The message stays empty."""
    state.objects["spira"]["metadata"]["annotations"]["someone/note"] = "hello"
    assert serving.status().message == ""


def test_of_two_concurrent_changes_the_second_is_refused(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """It has changed nothing."""

    def change_object() -> None:
        state.objects["spira"]["metadata"]["generation"] += 1

    state.after["spira-candidate gone"] = change_object
    with pytest.raises(DeploymentError, match="another client changed it meanwhile"):
        serving.rollback("bad")
    assert state.writes == ["spira-candidate 1", "spira-candidate gone"]


def test_a_status_update_of_kserve_is_no_concurrent_change(serving: KServe, state: ServerState) -> None:
    """KServe can update the status between a read and a write."""

    def update_status() -> None:
        state.objects["spira"]["metadata"]["resourceVersion"] += "0"
        state.conflicts = 2

    state.after["spira-candidate gone"] = update_status
    assert serving.rollback("bad").version == "1"


REFUSED = {
    "no location": ({"uri": ""}, "give its uri"),
    "no plain name": ({"version": "a/b"}, "letters, digits"),
    "another location": ({"version": "1"}, "the same location"),
    "another version's location": ({"version": "3"}, "the same location"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_release_is_refused(
    serving: KServe, releases: dict[str, Release], state: ServerState, case: str
) -> None:
    """Plan and apply refuse it before any write."""
    changed, words = REFUSED[case]
    release = Release(**{"version": "2", "package": releases["2"].package, "uri": "pvc://models/2"} | changed)
    for method in (serving.plan, serving.apply):
        with pytest.raises(DeploymentError, match=words):
            method(release)
    assert state.writes == []


def test_another_package_under_the_same_version_serves(
    serving: KServe, releases: dict[str, Release], server: ApiServer, tmp_path: Path
) -> None:
    """A number is a label: after a loss of the model repository, versions begin again at 1."""
    other = Release("2", make_package(tmp_path / "3", seed=3), "pvc://models/after-the-loss/2")
    server.state.locations[other.uri] = other.package
    assert serving.plan(other).steps[0] == "start spira-candidate from pvc://models/after-the-loss/2"
    status = serving.apply(other)
    assert (status.version, status.digest, status.previous) == ("2", other.digest, "2")
    assert status.history[-1].action == "apply"
    with pytest.raises(DeploymentError, match="is not the one that was served"):
        serving.verify()


def test_a_rollback_to_a_version_that_the_repository_has_replaced_is_refused(
    serving: KServe, releases: dict[str, Release], state: ServerState
) -> None:
    """The golden recordings of another package would prove nothing."""
    serving.package = lambda version: releases["2"].package
    with pytest.raises(DeploymentError, match="version 1 in the model repository is not the one that was served"):
        serving.rollback("bad")
    assert state.writes == []


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), bit=st.integers(0, 6))
def test_a_flipped_bit_in_the_history_never_changes_the_state(
    serving: KServe, state: ServerState, position: int, bit: int
) -> None:
    """It is reported, or has no effect."""
    annotations, intact = state.objects["spira"]["metadata"]["annotations"], serving.status()
    content = annotations["spira/history"]
    index = position % len(content)
    flipped = chr(ord(content[index]) ^ 1 << bit)
    annotations["spira/history"] = content[:index] + flipped + content[index + 1 :]
    try:
        result: object = serving.status().history
    except DeploymentError as error:
        result = str(error)
    annotations["spira/history"] = content
    is_reported = isinstance(result, str) and "annotation spira/history is damaged" in result
    assert is_reported or result == intact.history


@pytest.mark.parametrize("content", ["[", "7", '[{"version": "1"}]'])
def test_a_damaged_history_is_reported(serving: KServe, state: ServerState, content: str) -> None:
    """It does not count as an empty history."""
    state.objects["spira"]["metadata"]["annotations"]["spira/history"] = content
    with pytest.raises(DeploymentError, match="damaged"):
        serving.status()


def test_missing_rights_are_reported_with_the_remedy(target: KServe, state: ServerState) -> None:
    """The message names the manifests that grant them."""
    state.forbidden = True
    with pytest.raises(DeploymentError, match=r"forbidden; apply manifests/base/serving"):
        target.status()


def test_an_unreachable_cluster_is_reported(target: KServe, server: ApiServer) -> None:
    """The message asks whether the cluster is up."""
    server.http.server_close()
    server.http.shutdown()
    with pytest.raises(DeploymentError, match="is the cluster up"):
        target.status()


def test_a_missing_kubeconfig_or_context_is_reported(server: ApiServer, tmp_path: Path) -> None:
    """The message names KUBECONFIG."""
    for options in ({"kubeconfig": tmp_path / "none"}, {"kubeconfig": server.kubeconfig, "context": "b"}):
        with pytest.raises(DeploymentError, match="set KUBECONFIG"):
            KubernetesNamespace(NAMESPACE, **options)


def test_the_example_manifest_is_up_to_date() -> None:
    """``manifests/base/serving/example.yaml`` shows a written object without its history and the checksum of that."""
    example = yaml.safe_load((ROOT / "manifests" / "base" / "serving" / "example.yaml").read_text())
    history = [Change.now("7", "apply", uri="gs://models/.../7", digest="1f2e3d4c...")]
    rendered = manifests.render("spira", "spira", "spira-predictor", history)
    assert example["spec"] == rendered["spec"]
    written = rendered["metadata"]["annotations"].keys() - {manifests.HISTORY_CHECKSUM}
    assert example["metadata"]["annotations"].keys() == written


def test_a_long_history_is_cut() -> None:
    """The size of annotations is limited."""
    entries = [Change.now(str(i), "apply", uri=f"pvc://models/{i}") for i in range(1000)]
    annotations = manifests.render("spira", "spira", "spira-predictor", entries)["metadata"]["annotations"]
    written = json.loads(annotations[manifests.HISTORY])
    assert written == to_json(entries[-200:])


def test_a_cut_history_still_has_the_serving_version() -> None:
    """A rollback names its version, even if the apply of that version was cut off."""
    back = Change.now("1", "rollback", uri="pvc://models/1", reason="bad", left="2")
    assert version_stack([Change.now("2", "apply", uri="pvc://models/2"), back]) == [back]


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return {"image": "spira/serve:dev", "state": {}} | state


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
NO_CLAIM = UNSCHEDULABLE | {"message": '0/1 nodes are available: persistentvolumeclaim "models" not found.'}
PROBLEMS = {
    "no node": (pod(conditions=[UNSCHEDULABLE]), "Insufficient cpu.; free a node"),
    "no claim": (pod(conditions=[NO_CLAIM]), "create the claim"),
    "no image": (
        pod(containerStatuses=[container(state={"waiting": {"reason": "ErrImageNeverPull", "message": "x"}})]),
        "image spira/serve:dev is not available",
    ),
    "no storage": (
        pod(initContainerStatuses=[container(state={"terminated": {"exitCode": 1, "message": "a\nno bucket\n"}})]),
        "code 1: no bucket",
    ),
    "an error at the start": (
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


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_pod_that_is_not_ready_is_explained(case: str) -> None:
    """The message has the remedy."""
    not_ready, words = PROBLEMS[case]
    assert words in pods.explain(None, None, [not_ready])


def test_missing_pods_are_explained() -> None:
    """The Deployment or KServe has the reason; without a problem the explanation is empty."""
    quota = {"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}}
    waiting = {"modelStatus": {"lastFailureInfo": {"reason": "RuntimeNotRecognized", "message": "waiting"}}}
    no_runtime = manifests.render("spira", "absent", "who", [Change.now("1", "apply", uri="a")]) | {"status": waiting}
    failed = {"status": {"modelStatus": {"lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no file"}}}}
    assert pods.explain(failed, quota, []) == "exceeded quota"
    message = 'error looking up service account a/b: serviceaccount "b" not found'
    nobody = {"status": {"conditions": [quota["status"]["conditions"][0] | {"message": message}]}}
    assert pods.explain({}, nobody, []).startswith(f"{message}; apply manifests/base/serving")
    assert pods.explain(failed, None, []) == "KServe: ModelLoadFailed: no file"
    assert pods.explain(no_runtime, None, []) == "ServingRuntime absent does not exist: apply manifests/base/serving"
    assert pods.explain({}, {}, [pod(containerStatuses=[container(state={"running": {}})])]) == ""


def test_a_history_of_an_earlier_release_is_read_and_written_unchanged() -> None:
    """The annotation keeps its keys, their order and fields that this release does not know."""
    entries = [
        {"version": "1", "action": "apply", "at": "2026-11-24T06:00:00+00:00", "uri": "pvc://models/1"},
        {"version": "2", "action": "apply", "at": "2026-11-24T07:00:00+00:00", "uri": "pvc://models/2", "reason": "r"},
        {"version": "2", "action": "repair", "at": "2026-11-24T08:00:00+00:00", "uri": "pvc://models/2"},
        {
            "version": "1",
            "action": "rollback",
            "at": "2026-11-24T09:00:00+00:00",
            "uri": "pvc://models/1",
            "reason": "too many alarms",
            "left": "2",
            "note": "written by a newer release",
        },
    ]
    written = json.dumps(entries)
    live = {"metadata": {"name": "spira", "annotations": {manifests.HISTORY: written}}}
    history = manifests.history(live)
    assert [change.version for change in version_stack(history)] == ["1"]
    rendered = manifests.render("spira", "spira", "spira-predictor", history)
    assert rendered["metadata"]["annotations"][manifests.HISTORY] == written


def test_the_cluster_downloads_what_stands_beside_a_registered_package() -> None:
    """The server finds the signature beside the package; the history keeps the location of the package itself."""
    history = [Change.now("7", "apply", uri="gs://models/packages/ab/package")]
    rendered = manifests.render("spira", "spira", "spira-predictor", history)
    assert rendered["spec"]["predictor"]["model"]["storageUri"] == "gs://models/packages/ab"
    assert manifests.history(rendered)[-1].uri == "gs://models/packages/ab/package"


def test_the_server_gets_the_digest_of_the_package() -> None:
    """It then refuses another one at the same location. A change of an older program has no digest."""
    for digest, expected in (("ab" * 32, [{"name": "PACKAGE_DIGEST", "value": "ab" * 32}]), ("", [])):
        history = [Change.now("7", "apply", uri="gs://models/7", digest=digest)]
        rendered = manifests.render("spira", "spira", "spira-predictor", history)
        assert rendered["spec"]["predictor"]["model"]["env"] == [{"name": "MODEL_VERSION", "value": "7"}, *expected]


def test_a_runtime_that_requires_signatures_is_a_drift_of_older_pods() -> None:
    """So the next tick replaces them; KServe's own variables and those of the InferenceService do not count."""
    name, key = manifests.CONTAINER, {"name": "SPIRA_VERIFY_KEY", "value": "/etc/spira-verify/verify.pem"}
    runtime = {"spec": {"containers": [{"name": name, "env": [key]}]}}

    def deployment(*env: dict[str, str]) -> dict[str, Any]:
        version = {"name": "MODEL_VERSION", "value": "7"}
        return {"spec": {"template": {"spec": {"containers": [{"name": name, "env": [version, *env]}]}}}}

    assert manifests.outdated(deployment(key), runtime) == []
    assert [line.split(" ")[0] for line in manifests.outdated(deployment(), runtime)] == ["env.SPIRA_VERIFY_KEY"]
    changed = manifests.outdated(deployment({**key, "value": "/other"}), runtime)
    assert changed == ['env.SPIRA_VERIFY_KEY.value is "/other", not "/etc/spira-verify/verify.pem"']
