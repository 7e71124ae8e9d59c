"""The manifests as kustomize renders them: what they hold, what they don't, and who reaches whom."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from pipelines.kubeflow import settings as cluster
from spira.delivery import settings
from spira.deployment.targets import KServeTarget
from tests.support import ROOT

MANIFESTS = ROOT / "manifests"
OVERLAYS = ("kind", "gke")
ALL = ("base", *OVERLAYS, "base/delivery/kubeflow")
NAMESPACES = ("mlflow", "spira-serving", "spira-delivery")
OURS = ("spira/base", "spira/serve")

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders them, is absent")

Thing = dict[str, Any]


@cache
def rendered(folder: str, root: Path = MANIFESTS) -> tuple[Thing, ...]:
    """All objects of a kustomization."""
    done = subprocess.run(["kubectl", "kustomize", str(root / folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # no warning either: a deprecated field, a patch without effect
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: str, *kinds: str) -> list[Thing]:
    return [thing for thing in rendered(folder) if thing["kind"] in kinds]


def called(thing: Thing) -> str:
    return f"{thing['kind']} {thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"


def template(thing: Thing) -> Thing | None:
    """The pods that an object makes: labels and spec; None for one that makes none."""
    if thing["kind"] == "ServingRuntime":  # a pod spec itself; labels as KServe sets them
        labels = {"serving.kserve.io/inferenceservice": "spira", "component": "predictor"}
        return {"metadata": {"labels": labels}, "spec": thing["spec"]}
    spec = thing.get("spec", {})
    if thing["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"] if thing["kind"] in ("Deployment", "StatefulSet", "CronJob") else None


def workloads(folder: str) -> Iterator[tuple[Thing, Thing]]:
    """Objects that make pods, and their pods."""
    for thing in rendered(folder):
        if made := template(thing):
            yield thing, made


def containers(pod: Thing) -> list[Thing]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


@pytest.mark.parametrize("folder", ALL)
def test_it_renders(folder: str):
    """Each object once."""
    names = [called(thing) for thing in rendered(folder)]
    assert names
    assert len(set(names)) == len(names)


VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""That the Pod Security Standard "restricted" allows; no folder of the node is one."""


def breaches(pod: Thing) -> list[str]:
    """Of "restricted", of any version, Linux."""
    spec, told = pod["spec"], []
    for volume in spec.get("volumes", []):
        told += [f"volume {volume['name']}"] if set(volume) - {"name"} - VOLUMES else []
    told += [host for host in ("hostNetwork", "hostPID", "hostIPC") if spec.get(host)]
    of_pod = spec.get("securityContext", {})
    for container in containers(pod):
        secured = of_pod | container.get("securityContext", {})
        capabilities = secured.get("capabilities", {})
        rules = {
            "privileged": not secured.get("privileged"),
            "may escalate": secured.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in capabilities.get("drop", []) and not capabilities.get("add"),
            "root": secured.get("runAsNonRoot") is True and secured.get("runAsUser") != 0,
            "seccomp": secured.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "a port of the node": not any(port.get("hostPort") for port in container.get("ports", [])),
            "proc": secured.get("procMount", "Default") == "Default",
        }
        told += [f"{container['name']}: {rule}" for rule, kept in rules.items() if not kept]
    return told


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(overlay: str):
    """By the rules that their namespaces enforce, so none is refused; as a number, and with a root it can't write."""
    for thing, pod in workloads(overlay):
        assert breaches(pod) == [], called(thing)
        for container in containers(pod):
            secured = pod["spec"].get("securityContext", {}) | container["securityContext"]
            assert secured["readOnlyRootFilesystem"] is True, called(thing)
            assert secured["runAsUser"] > 0, called(thing)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_gets_a_token_but_the_tick(overlay: str):
    """Nobody else asks the API server; what serves is KServe's, whose object says so itself."""
    given = {
        called(thing)
        for thing, pod in workloads(overlay)
        if thing["kind"] != "ServingRuntime" and pod["spec"]["automountServiceAccountToken"]
    }
    assert given == {"CronJob spira-delivery/spira-delivery"}
    accounts = of_kind(overlay, "ServiceAccount")
    assert [called(one) for one in accounts if one["automountServiceAccountToken"] is not False] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_says_what_it_needs(overlay: str):
    """Requests and limits, of processors and memory; requests within limits."""
    for thing, pod in workloads(overlay):
        for container in containers(pod):
            needs = container["resources"]
            for what in ("cpu", "memory"):
                asked, most = (parse_quantity(needs[kind][what]) for kind in ("requests", "limits"))
                assert 0 < asked <= most, f"{called(thing)} {container['name']}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_named_exactly(overlay: str):
    """A tag that isn't latest, or a digest: of ours the digest, where they come from a registry."""
    images = {container["image"]: pod for _, pod in workloads(overlay) for container in containers(pod)}
    for image in images:
        assert re.search(r":(?!latest)[\w.-]+$|@sha256:[0-9a-f]{64}$", image), image
    ours = {image for image in images if "spira" in image.split("/", 1)[-1] or image.startswith("spira/")}
    if overlay == "gke":
        assert ours == {f"REGISTRY/{name.replace('/', '-')}@sha256:{'0' * 64}" for name in OURS}
    else:
        assert ours == {f"{name}:dev" for name in OURS}


def test_secrets_are_for_kind_only():
    """Where they say so; elsewhere an administrator makes them."""
    for folder in set(ALL) - {"kind"}:
        assert of_kind(folder, "Secret") == []
    values = [value for secret in of_kind("kind", "Secret") for value in secret["data"].values()]
    plain = subprocess.run(["base64", "--decode"], input="".join(values), capture_output=True, text=True, check=True)
    assert plain.stdout.count("for-kind-only") >= 5


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_namespace_is_guarded(overlay: str):
    """Restricted, bounded, with defaults for who says nothing, and closed."""
    assert {thing["metadata"]["name"] for thing in of_kind(overlay, "Namespace")} == set(NAMESPACES)
    for thing in of_kind(overlay, "Namespace"):
        assert thing["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        mine = [one for one in rendered(overlay) if one["metadata"].get("namespace") == thing["metadata"]["name"]]
        (quota,) = (one["spec"]["hard"] for one in mine if one["kind"] == "ResourceQuota")
        assert quota["requests.nvidia.com/gpu"] == "0"
        bounded = {"pods", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "requests.storage"}
        assert bounded <= set(quota)
        (limits,) = (one["spec"]["limits"] for one in mine if one["kind"] == "LimitRange")
        assert {"default", "defaultRequest"} <= set(limits[0])
        denies = [one["spec"] for one in mine if one["metadata"]["name"] == "default-deny"]
        assert denies == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]


PODS = {"ServingRuntime": 3}
"""At once, of what one object makes: while a version is exchanged there is the old pod, the new one and a candidate."""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_quotas_have_room(overlay: str):
    """For everything that runs at once: containers side by side, or the largest of those that run before them."""
    for quota in of_kind(overlay, "ResourceQuota"):
        hard, used = quota["spec"]["hard"], dict.fromkeys(quota["spec"]["hard"], Decimal(0))
        for thing, pod in workloads(overlay):
            if thing["metadata"]["namespace"] != quota["metadata"]["namespace"]:
                continue
            count = PODS.get(thing["kind"], thing["spec"].get("replicas", 1))
            used["pods"] += count
            for kind in ("requests", "limits"):
                for what in ("cpu", "memory"):
                    side_by_side = sum(
                        parse_quantity(one["resources"][kind][what]) for one in pod["spec"]["containers"]
                    )
                    first = [
                        parse_quantity(one["resources"][kind][what]) for one in pod["spec"].get("initContainers", [])
                    ]
                    used[f"{kind}.{what}"] += count * max([side_by_side, *first])
        for claim in claims(overlay):
            if claim["metadata"]["namespace"] == quota["metadata"]["namespace"]:
                used["persistentvolumeclaims"] += 1
                used["requests.storage"] += parse_quantity(claim["spec"]["resources"]["requests"]["storage"])
        over = {what: value for what, value in used.items() if value > parse_quantity(hard[what])}
        assert over == {}, called(quota)


def claims(overlay: str) -> Iterator[Thing]:
    yield from of_kind(overlay, "PersistentVolumeClaim")
    for thing in of_kind(overlay, "StatefulSet"):
        for claim in thing["spec"]["volumeClaimTemplates"]:
            yield claim | {"metadata": claim["metadata"] | {"namespace": thing["metadata"]["namespace"]}}


@pytest.mark.parametrize("folder", ALL)
def test_rights_are_named(folder: str):
    """No wildcard; a secret only by its name; nobody may give himself more."""
    for role in of_kind(folder, "Role", "ClusterRole"):
        assert role["kind"] == "Role"  # of one namespace
        for rule in role["rules"]:
            named = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in named, called(role)
            assert "secrets" not in rule["resources"] or rule.get("resourceNames"), called(role)
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), called(role)
            assert not {"roles", "rolebindings", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_find_their_pods(overlay: str):
    """By label, at a port that a container opens."""
    for service in of_kind(overlay, "Service"):
        found = [
            pod
            for thing, pod in workloads(overlay)
            if thing["metadata"]["namespace"] == service["metadata"]["namespace"]
            and service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ]
        assert len(found) == 1, called(service)
        opened = {port["containerPort"] for container in containers(found[0]) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= opened


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_of_the_tick_are_taken(overlay: str, tmp_path: Path):
    """By what reads them; MLflow's name of a model's folder becomes one of the bucket that MLflow was given."""
    (config,) = (one for one in of_kind(overlay, "ConfigMap") if one["metadata"]["name"].startswith("spira-delivery"))
    for name, text in config["data"].items():
        (tmp_path / name).write_text(text)
    told = settings.load(tmp_path / "delivery.yaml")
    if told.kubeflow:
        assert cluster.load(Path(told.kubeflow)).registry_uri == told.registry
    (target,) = told.targets
    assert isinstance(target, KServeTarget)
    (deployment,) = (one for one in of_kind(overlay, "Deployment") if one["metadata"]["name"] == "mlflow")
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    (bucket,) = (one["value"] for one in environment if one["name"] == "MLFLOW_ARTIFACTS_DESTINATION")
    ((known, there),) = target.artifacts.items()
    assert "mlflow-artifacts:/1/models".replace(known, there, 1) == f"{bucket}/1/models"
    assert target.service_account in {one["metadata"]["name"] for one in of_kind(overlay, "ServiceAccount")}


def test_a_place_on_gke_is_written_once(tmp_path: Path):
    """In place.env; nothing of the placeholders is left."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    (tmp_path / "manifests/gke/place.env").write_text("bucket=voices\naccounts=lab.iam.gserviceaccount.com\n")
    text = json.dumps(rendered("gke", tmp_path / "manifests"))
    assert not re.search(r"BUCKET/|//BUCKET|PROJECT\.", text)
    assert text.count("gs://voices/") == 4
    assert text.count("@lab.iam.gserviceaccount.com") == 3


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an address outside of the cluster."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    namespace_labels: dict[str, str] = field(default_factory=dict)
    address: str = ""


def selects(selector: Thing, labels: dict[str, str]) -> bool:
    """A label selector, all of it."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for each in selector.get("matchExpressions", []):
        value, key = labels.get(each["key"]), each["key"]
        right = {
            "In": value in each.get("values", []),
            "NotIn": value not in each.get("values", []),
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not right[each["operator"]]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_named(rule: Thing, policy_namespace: str, peer: Peer) -> bool:
    """Whether one entry of "from" or "to" names a peer. A block of addresses is for what is outside: whether it holds
    for pods differs between network plug-ins, so nothing here may need that."""
    if "ipBlock" in rule:
        assert set(rule) == {"ipBlock"}
        if not peer.address:
            return False
        address = ipaddress.ip_address(peer.address)
        inside = address in ipaddress.ip_network(rule["ipBlock"]["cidr"])
        return inside and not any(address in ipaddress.ip_network(one) for one in rule["ipBlock"].get("except", []))
    assert rule
    assert set(rule) <= {"podSelector", "namespaceSelector"}
    if peer.address:
        return False
    if "namespaceSelector" in rule:
        if not selects(rule["namespaceSelector"], peer.namespace_labels):
            return False
    elif peer.namespace != policy_namespace:
        return False
    return selects(rule.get("podSelector", {}), peer.labels)


def is_open(rule: Thing, port: int, protocol: str) -> bool:
    """Whether a rule names a port; none named are all. Ports are numbers here, as the Services' are."""
    return not rule.get("ports") or any(
        protocol == one.get("protocol", "TCP")
        and ("port" not in one or one["port"] <= port <= one.get("endPort", one["port"]))
        for one in rule["ports"]
    )


def lets(policies: list[Thing], direction: str, mine: Peer, other: Peer, port: int, protocol: str) -> bool:
    """Whether one end of a connection allows it: policies add up, and a pod that none selects is open."""
    word = {"Ingress": "from", "Egress": "to"}[direction]
    concerned = []
    for policy in policies:
        spec = policy["spec"]
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        if (
            policy["metadata"]["namespace"] == mine.namespace
            and selects(spec["podSelector"], mine.labels)
            and direction in types
        ):
            concerned.append(policy)
    if mine.address or not concerned:
        return True
    return any(
        (not rule.get(word) or any(is_named(one, policy["metadata"]["namespace"], other) for one in rule[word]))
        and is_open(rule, port, protocol)
        for policy in concerned
        for rule in policy["spec"].get(direction.lower(), [])
    )


def reaches(policies: list[Thing], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is allowed at both its ends."""
    leaves = lets(policies, "Egress", source, target, port, protocol)
    return leaves and lets(policies, "Ingress", target, source, port, protocol)


def peers(overlay: str) -> dict[str, Peer]:
    """Who is there: our pods as they are rendered, others' as they are known, and addresses."""
    spaces = {thing["metadata"]["name"]: thing["metadata"]["labels"] for thing in of_kind(overlay, "Namespace")}
    spaces |= {"kubeflow": {}, "kube-system": {}, "default": {}}
    spaces |= {f"{word}-space": {f"spira.internal/{word}": "true"} for word in ("asks", "monitors", "uses-mlflow")}

    def pod(namespace: str, **labels: str) -> Peer:
        named = {"kubernetes.io/metadata.name": namespace} | spaces[namespace]
        return Peer(namespace, {key.replace("_", "-"): value for key, value in labels.items()}, named)

    found = {}
    for thing, made in workloads(overlay):
        one = pod(thing["metadata"]["namespace"])
        found[thing["metadata"]["name"]] = Peer(one.namespace, made["metadata"]["labels"], one.namespace_labels)
    found["predictor"], found["tick"] = found.pop("spira"), found.pop("spira-delivery")
    return found | {
        "task": pod("kubeflow", pipeline="spira"),
        "ml-pipeline": pod("kubeflow", app="ml-pipeline"),
        "ml-pipeline-ui": pod("kubeflow", app="ml-pipeline-ui"),
        "dns": pod("kube-system", k8s_app="kube-dns"),
        "konnectivity": pod("kube-system", k8s_app="konnectivity-agent"),
        "system": pod("kube-system", k8s_app="another"),
        "asker": pod("asks-space", app="clinic"),
        "monitor": pod("monitors-space", app="prometheus"),
        "user": pod("uses-mlflow-space", app="notebook"),
        "neighbour": pod("mlflow", app="another"),
        "other-server": pod("spira-serving", app="another"),
        "stranger": pod("default", app="another"),
        "gcs": Peer(address="142.250.186.59"),
        "metadata": Peer(address="169.254.169.254"),
        "agent": Peer(address="169.254.169.252"),
        "node": Peer(address="172.18.0.3"),
        "private": Peer(address="10.0.0.7"),
        "dns-cache": Peer(address="169.254.20.10"),
    }


REACHES = {
    "base": """
        mlflow > postgres:5432          postgres-backup > postgres:5432      tick > mlflow:5000
        task > mlflow:5000              user > mlflow:5000                   tick > ml-pipeline:8888
        asker > predictor:8080          monitor > predictor:8080             konnectivity > predictor:8080
        mlflow > dns:53                 tick > dns:53/UDP                    predictor > dns:53/UDP
        postgres-backup > dns:53/UDP    mlflow > dns-cache:53/UDP            tick > private:443
        tick > gcs:443                  tick > node:6443
    """,
    "kind": """
        mlflow > seaweedfs:8333         predictor > seaweedfs:8333           node > predictor:8080
    """,
    "gke": """
        mlflow > gcs:443                predictor > gcs:443                  mlflow > metadata:80
        predictor > agent:988           tick > agent:988                     tick > metadata:80
        mlflow > metadata:53/UDP
    """,
}
"""Who must reach whom: by the base in each overlay, and by an overlay."""

REFUSED = {
    "base": """
        stranger > mlflow:5000          asker > mlflow:5000                  predictor > mlflow:5000
        stranger > postgres:5432        tick > postgres:5432                 user > postgres:5432
        neighbour > postgres:5432       neighbour > mlflow:5000              mlflow > postgres:22
        stranger > predictor:8080       task > predictor:8080                tick > predictor:8080
        system > predictor:8080         other-server > predictor:8080        asker > predictor:8081
        user > predictor:8080           gcs > predictor:8080                 gcs > mlflow:5000
        tick > gcs:80                   tick > ml-pipeline-ui:3000           tick > ml-pipeline-ui:8888
        tick > task:443                 mlflow > tick:443                    stranger > tick:8080
        predictor > predictor:8080      predictor > private:443              predictor > node:6443
        mlflow > private:443            mlflow > node:6443                   mlflow > task:443
        postgres > gcs:443              postgres > mlflow:5000               postgres-backup > gcs:443
        postgres-backup > mlflow:5000   mlflow > gcs:80                      predictor > gcs:80
        mlflow > dns:443                stranger > neighbour:80              stranger > other-server:80
    """,
    "kind": """
        stranger > seaweedfs:8333       tick > seaweedfs:8333                task > seaweedfs:8333
        asker > seaweedfs:8333          other-server > seaweedfs:8333        postgres > seaweedfs:8333
        mlflow > seaweedfs:9333         seaweedfs > gcs:443                  mlflow > gcs:443
        predictor > gcs:443             node > mlflow:5000                   node > postgres:5432
        neighbour > seaweedfs:8333      predictor > metadata:80
    """,
    "gke": """
        node > predictor:8080           postgres > metadata:80               postgres-backup > metadata:80
        mlflow > agent:80443            predictor > metadata:443
    """,
}
"""Who must not."""


def rows(table: str) -> list[tuple[str, str, int, str]]:
    found = re.findall(r"([\w-]+) > ([\w-]+):(\d+)(?:/(UDP))?", table)
    assert len(found) == table.count(">")
    return [(source, target, int(port), protocol or "TCP") for source, target, port, protocol in found]


def wrong(overlay: str, policies: list[Thing]) -> list[str]:
    """Of the tables' rows, those that policies don't keep."""
    there, told = peers(overlay), []
    for table, expected in ((REACHES, True), (REFUSED, False)):
        for source, target, port, protocol in rows(table["base"] + table[overlay]):
            if reaches(policies, there[source], there[target], port, protocol) != expected:
                told.append(f"{source} {'reaches' if not expected else 'misses'} {target}:{port}/{protocol}")
    return told


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_must_reach_whom_does_and_nobody_else(overlay: str):
    """By policies at both ends; a stranger least, and nobody by another port."""
    assert wrong(overlay, of_kind(overlay, "NetworkPolicy")) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_policy_is_idle(overlay: str):
    """Without any one of them a row of the tables is broken; and every rule names its ports and their protocols."""
    policies = of_kind(overlay, "NetworkPolicy")
    for left_out in policies:
        assert wrong(overlay, [one for one in policies if one is not left_out]), called(left_out)
        for rule in (*left_out["spec"].get("ingress", []), *left_out["spec"].get("egress", [])):
            assert rule["ports"]
            assert all(set(port) == {"port", "protocol"} for port in rule["ports"]), called(left_out)


A = Peer("a", {"app": "one"}, {"team": "x"})
B = Peer("b", {"app": "two"}, {"team": "y"})
OUTSIDE = Peer(address="192.0.2.1")
ONE, TEAM = {"podSelector": {"matchLabels": {"app": "two"}}}, {"namespaceSelector": {"matchLabels": {"team": "y"}}}
BLOCK = {"ipBlock": {"cidr": "192.0.2.0/24"}}


@pytest.mark.parametrize(
    ("ingress", "source", "allowed"),
    [
        ([], B, False),
        ([{}], B, True),
        ([{}], OUTSIDE, True),
        ([{"from": []}], B, True),
        ([{"from": [ONE]}], B, False),  # of the policy's own namespace
        ([{"from": [ONE]}], Peer("a", {"app": "two"}), True),
        ([{"from": [TEAM]}], B, True),
        ([{"from": [{"podSelector": {}}, TEAM]}], B, True),
        ([{"from": [TEAM | {"podSelector": {"matchLabels": {"app": "three"}}}]}], B, False),
        ([{"from": [TEAM | {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}]}], B, True),
        ([{"from": [{"namespaceSelector": {}}]}], B, True),
        ([{"from": [{"namespaceSelector": {}}]}], OUTSIDE, False),
        ([{"from": [BLOCK]}], OUTSIDE, True),
        ([{"from": [BLOCK]}], B, False),
        ([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]}}]}], OUTSIDE, False),
        ([{"from": [TEAM], "ports": [{"port": 81}]}], B, False),
        ([{"from": [TEAM], "ports": [{"port": 80, "protocol": "UDP"}]}], B, False),
        ([{"from": [TEAM], "ports": [{"port": 79, "endPort": 81}]}], B, True),
        ([{"from": [TEAM], "ports": [{"port": 81}]}, {"from": [TEAM], "ports": [{"port": 80}]}], B, True),
    ],
)
def test_the_evaluator_reads_policies_as_kubernetes_does(ingress: list[Thing], source: Peer, allowed: bool):
    """Entries are alternatives, selectors in one entry are not; nothing named is everything; no rule lets nobody in."""
    spec = {"podSelector": {"matchLabels": {"app": "one"}}, "ingress": ingress}
    policies = [{"metadata": {"name": "p", "namespace": "a"}, "spec": spec}]
    assert reaches(policies, source, A, 80) == allowed
    assert reaches(policies, source, Peer("a", {"app": "not selected"}), 80)
    assert reaches(policies, A, B, 80)  # without policyTypes or egress it is about ingress alone


def test_the_example_can_be_made_to_serve():
    """By the account that may read the bucket, on the runtime that is there."""
    predictor = yaml.safe_load((MANIFESTS / "base/serving/example.yaml").read_text())["spec"]["predictor"]
    names = {(thing["kind"], thing["metadata"]["name"]) for thing in rendered("base")}
    assert ("ServiceAccount", predictor["serviceAccountName"]) in names
    assert ("ServingRuntime", predictor["model"]["runtime"]) in names


def test_of_kubeflow_only_gpus_are_bounded():
    """Its own pods name no limits; a pipeline may deploy, and nothing else."""
    (quota,) = of_kind("base/delivery/kubeflow", "ResourceQuota")
    assert list(quota["spec"]["hard"]) == ["requests.nvidia.com/gpu"]
    (claim,) = of_kind("base/delivery/kubeflow", "PersistentVolumeClaim")
    assert claim["metadata"] == {"name": "spira-state", "namespace": "kubeflow"}
    given = [
        (one["metadata"]["namespace"], one["roleRef"]["name"])
        for one in of_kind("base/delivery/kubeflow", "RoleBinding")
        if one["subjects"] == [{"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"}]
    ]
    assert given == [("spira-serving", "spira-deployer")]
