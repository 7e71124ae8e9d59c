"""Tests of the rendered manifests: objects, pod security, quotas, rights, and allowed connections."""

from __future__ import annotations

import base64
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
from pipelines.training import STORE_VARIABLES
from spira import signature
from spira.delivery import settings
from spira.delivery.notices.channels import URLS_VARIABLE
from spira.deployment.targets import KServeTarget
from tests.support import ROOT

MANIFESTS = ROOT / "manifests"
OVERLAYS = ("kind", "gke")
ALL = ("base", *OVERLAYS, "base/delivery/kubeflow", "kind/kubeflow")
NAMESPACES = ("mlflow", "spira-serving", "spira-delivery")
PROJECT_IMAGES = ("spira/base", "spira/serve")

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which renders the manifests, is not installed"
)

Object = dict[str, Any]


@cache
def rendered(folder: str, root: Path = MANIFESTS) -> tuple[Object, ...]:
    """Return all objects of a kustomization."""
    command = ["kubectl", "kustomize", str(root / folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr  # warnings, such as a deprecated field or a patch without effect
    return tuple(yaml.safe_load_all(result.stdout))


def of_kind(folder: str, *kinds: str) -> list[Object]:
    """Return the objects of some kinds in a kustomization."""
    return [item for item in rendered(folder) if item["kind"] in kinds]


def full_name(item: Object) -> str:
    """Return kind, namespace and name of an object."""
    return f"{item['kind']} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def pod_template(item: Object) -> Object | None:
    """Return labels and spec of the pods that an object creates; None if it creates no pods."""
    if item["kind"] == "ServingRuntime":  # its spec is a pod spec; KServe sets the labels
        labels = {"serving.kserve.io/inferenceservice": "spira", "component": "predictor"}
        return {"metadata": {"labels": labels}, "spec": item["spec"]}
    spec = item.get("spec", {})
    if item["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec["template"] if item["kind"] in ("Deployment", "StatefulSet", "CronJob") else None


def workloads(folder: str) -> Iterator[tuple[Object, Object]]:
    """Yield the objects that create pods, with their pod templates."""
    for item in rendered(folder):
        if pod := pod_template(item):
            yield item, pod


def containers(pod: Object) -> list[Object]:
    """Return the init containers and the containers of a pod."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


@pytest.mark.integration
@pytest.mark.parametrize("folder", ALL)
def test_every_kustomization_renders(folder: str):
    """Each object occurs once."""
    names = [full_name(item) for item in rendered(folder)]
    assert names
    assert len(set(names)) == len(names)


VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Kinds of volumes that the Pod Security Standard "restricted" allows; hostPath is not one of them."""


def violations(pod: Object) -> list[str]:
    """Return violations of the Pod Security Standard "restricted" (Linux, any version)."""
    spec, violated = pod["spec"], []
    for volume in spec.get("volumes", []):
        violated += [f"volume {volume['name']}"] if set(volume) - {"name"} - VOLUMES else []
    violated += [host for host in ("hostNetwork", "hostPID", "hostIPC") if spec.get(host)]
    pod_context = spec.get("securityContext", {})
    for container in containers(pod):
        context = pod_context | container.get("securityContext", {})
        capabilities = context.get("capabilities", {})
        rules = {
            "privileged": not context.get("privileged"),
            "privilege escalation": context.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in capabilities.get("drop", []) and not capabilities.get("add"),
            "root": context.get("runAsNonRoot") is True and context.get("runAsUser") != 0,
            "seccomp": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "host port": not any(port.get("hostPort") for port in container.get("ports", [])),
            "proc": context.get("procMount", "Default") == "Default",
        }
        violated += [f"{container['name']}: {rule}" for rule, holds in rules.items() if not holds]
    return violated


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(overlay: str):
    """Pods meet the standard of their namespaces, with a numeric user and a read-only root file system."""
    for item, pod in workloads(overlay):
        assert violations(pod) == [], full_name(item)
        for container in containers(pod):
            context = pod["spec"].get("securityContext", {}) | container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, full_name(item)
            assert context["runAsUser"] > 0, full_name(item)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_tick_gets_a_token(overlay: str):
    """No other pod uses the API server. Predictors are created by KServe; the InferenceService disables their token."""
    with_token = {
        full_name(item)
        for item, pod in workloads(overlay)
        if item["kind"] != "ServingRuntime" and pod["spec"]["automountServiceAccountToken"]
    }
    assert with_token == {"CronJob spira-delivery/spira-delivery"}
    accounts = of_kind(overlay, "ServiceAccount")
    assert [full_name(account) for account in accounts if account["automountServiceAccountToken"] is not False] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_has_requests_and_limits(overlay: str):
    """Both are given for CPU and memory, and requests do not exceed limits."""
    for item, pod in workloads(overlay):
        for container in containers(pod):
            resources = container["resources"]
            for resource in ("cpu", "memory"):
                request, limit = (parse_quantity(resources[kind][resource]) for kind in ("requests", "limits"))
                assert 0 < request <= limit, f"{full_name(item)} {container['name']}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_a_tag_or_a_digest(overlay: str):
    """No image is ``latest``, and on GKE the project's images have a digest."""
    images = {container["image"]: pod for _, pod in workloads(overlay) for container in containers(pod)}
    for image in images:
        assert re.search(r":(?!latest)[\w.-]+$|@sha256:[0-9a-f]{64}$", image), image
    project = {image for image in images if "spira" in image.split("/", 1)[-1] or image.startswith("spira/")}
    if overlay == "gke":
        assert project == {f"REGISTRY/{name.replace('/', '-')}@sha256:{'0' * 64}" for name in PROJECT_IMAGES}
    else:
        assert project == {f"{name}:dev" for name in PROJECT_IMAGES}


def test_only_kind_has_secrets():
    """Their values say so; elsewhere an administrator creates the Secrets."""
    for folder in set(ALL) - {"kind", "kind/kubeflow"}:
        assert of_kind(folder, "Secret") == []
    values = [value for secret in of_kind("kind", "Secret") for value in secret["data"].values()]
    plain = subprocess.run(["base64", "--decode"], input="".join(values), capture_output=True, text=True, check=True)
    assert plain.stdout.count("for-kind-only") >= 5


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_namespace_has_guards(overlay: str):
    """Each has pod security, a quota, default resources, and a policy that denies all connections."""
    assert {namespace["metadata"]["name"] for namespace in of_kind(overlay, "Namespace")} == set(NAMESPACES)
    for namespace in of_kind(overlay, "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        name = namespace["metadata"]["name"]
        items = [item for item in rendered(overlay) if item["metadata"].get("namespace") == name]
        (quota,) = (item["spec"]["hard"] for item in items if item["kind"] == "ResourceQuota")
        assert quota["requests.nvidia.com/gpu"] == "0"
        limited = {"pods", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "requests.storage"}
        assert limited <= set(quota)
        (limits,) = (item["spec"]["limits"] for item in items if item["kind"] == "LimitRange")
        assert {"default", "defaultRequest"} <= set(limits[0])
        denies = [item["spec"] for item in items if item["metadata"]["name"] == "default-deny"]
        assert denies == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]


PODS = {"ServingRuntime": 3}
"""Pods of one object at a time: during a deployment there are the old pod, the new one and a candidate."""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_quotas_are_large_enough(overlay: str):
    """A pod needs the sum of its containers, or its largest init container if that is more."""
    for quota in of_kind(overlay, "ResourceQuota"):
        hard, used = quota["spec"]["hard"], dict.fromkeys(quota["spec"]["hard"], Decimal(0))
        for item, pod in workloads(overlay):
            if item["metadata"]["namespace"] != quota["metadata"]["namespace"]:
                continue
            count = PODS.get(item["kind"], item["spec"].get("replicas", 1))
            used["pods"] += count
            for kind in ("requests", "limits"):
                for resource in ("cpu", "memory"):
                    needs, init_needs = (
                        [parse_quantity(container["resources"][kind][resource]) for container in listed]
                        for listed in (pod["spec"]["containers"], pod["spec"].get("initContainers", []))
                    )
                    used[f"{kind}.{resource}"] += count * max([sum(needs), *init_needs])
        for claim in claims(overlay):
            if claim["metadata"]["namespace"] == quota["metadata"]["namespace"]:
                used["persistentvolumeclaims"] += 1
                used["requests.storage"] += parse_quantity(claim["spec"]["resources"]["requests"]["storage"])
        exceeded = {name: value for name, value in used.items() if value > parse_quantity(hard[name])}
        assert exceeded == {}, full_name(quota)


def claims(overlay: str) -> Iterator[Object]:
    """Yield the claims of an overlay, including those of StatefulSets."""
    yield from of_kind(overlay, "PersistentVolumeClaim")
    for item in of_kind(overlay, "StatefulSet"):
        for claim in item["spec"]["volumeClaimTemplates"]:
            yield claim | {"metadata": claim["metadata"] | {"namespace": item["metadata"]["namespace"]}}


@pytest.mark.parametrize("folder", ALL)
def test_roles_are_minimal(folder: str):
    """No wildcard, secrets only by name, and no right to get more rights."""
    for role in of_kind(folder, "Role", "ClusterRole"):
        assert role["kind"] == "Role"  # limited to one namespace
        for rule in role["rules"]:
            values = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in values, full_name(role)
            assert "secrets" not in rule["resources"] or rule.get("resourceNames"), full_name(role)
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), full_name(role)
            assert not {"roles", "rolebindings", "pods/exec", "serviceaccounts/token"} & set(rule["resources"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_select_their_pods(overlay: str):
    """Each Service selects one pod template, at a port that a container opens."""
    for service in of_kind(overlay, "Service"):
        pods = [
            pod
            for item, pod in workloads(overlay)
            if item["metadata"]["namespace"] == service["metadata"]["namespace"]
            and service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ]
        assert len(pods) == 1, full_name(service)
        ports = {port["containerPort"] for container in containers(pods[0]) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_of_the_tick_are_valid(overlay: str, tmp_path: Path):
    """They load, and their artifact mapping turns MLflow's URIs into URIs of MLflow's bucket."""
    config_maps = of_kind(overlay, "ConfigMap")
    (config,) = (item for item in config_maps if item["metadata"]["name"].startswith("spira-delivery"))
    for name, text in config["data"].items():
        (tmp_path / name).write_text(text)
    loaded = settings.load(tmp_path / "delivery.yaml")
    if loaded.kubeflow:
        assert cluster.load(Path(loaded.kubeflow)).registry_uri == loaded.registry
    (target,) = loaded.targets
    assert isinstance(target, KServeTarget)
    (deployment,) = (item for item in of_kind(overlay, "Deployment") if item["metadata"]["name"] == "mlflow")
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    (bucket,) = (entry["value"] for entry in environment if entry["name"] == "MLFLOW_ARTIFACTS_DESTINATION")
    ((prefix, replacement),) = target.artifacts.items()
    assert "mlflow-artifacts:/1/models".replace(prefix, replacement, 1) == f"{bucket}/1/models"
    assert target.service_account in {item["metadata"]["name"] for item in of_kind(overlay, "ServiceAccount")}


def test_place_env_sets_bucket_and_project(tmp_path: Path):
    """No placeholder is left in the rendered GKE overlay."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    (tmp_path / "manifests/gke/place.env").write_text("bucket=voices\naccounts=lab.iam.gserviceaccount.com\n")
    text = json.dumps(rendered("gke", tmp_path / "manifests"))
    assert not re.search(r"BUCKET/|//BUCKET|PROJECT\.", text)
    assert text.count("gs://voices/") == 4
    assert text.count("@lab.iam.gserviceaccount.com") == 3


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or an address outside the cluster."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    namespace_labels: dict[str, str] = field(default_factory=dict)
    address: str = ""


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Return whether a label selector matches."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", []):
        value, key = labels.get(expression["key"]), expression["key"]
        matches = {
            "In": value in expression.get("values", []),
            "NotIn": value not in expression.get("values", []),
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not matches[expression["operator"]]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def matches_peer(rule: Object, policy_namespace: str, peer: Peer) -> bool:
    """Return whether an entry of "from" or "to" matches a peer.

    Address blocks match addresses outside the cluster only. Whether they also match pods differs between network
    plug-ins, so no policy may depend on it.
    """
    if "ipBlock" in rule:
        assert set(rule) == {"ipBlock"}
        if not peer.address:
            return False
        address = ipaddress.ip_address(peer.address)
        inside = address in ipaddress.ip_network(rule["ipBlock"]["cidr"])
        return inside and not any(address in ipaddress.ip_network(block) for block in rule["ipBlock"].get("except", []))
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


def matches_port(rule: Object, port: int, protocol: str) -> bool:
    """Return whether a rule allows a port. A rule without ports allows all. Ports are numbers, not names."""
    return not rule.get("ports") or any(
        protocol == entry.get("protocol", "TCP")
        and ("port" not in entry or entry["port"] <= port <= entry.get("endPort", entry["port"]))
        for entry in rule["ports"]
    )


def allows(policies: list[Object], direction: str, pod: Peer, other: Peer, port: int, protocol: str) -> bool:
    """Return whether the policies of one pod allow a connection.

    A connection is allowed if one policy allows it, or if no policy selects the pod.
    """
    key = {"Ingress": "from", "Egress": "to"}[direction]
    selected = []
    for policy in policies:
        spec = policy["spec"]
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        if (
            policy["metadata"]["namespace"] == pod.namespace
            and selects(spec["podSelector"], pod.labels)
            and direction in types
        ):
            selected.append(policy)
    if pod.address or not selected:
        return True
    return any(
        (not rule.get(key) or any(matches_peer(entry, policy["metadata"]["namespace"], other) for entry in rule[key]))
        and matches_port(rule, port, protocol)
        for policy in selected
        for rule in policy["spec"].get(direction.lower(), [])
    )


def is_allowed(policies: list[Object], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Return whether the policies at both ends allow a connection."""
    egress = allows(policies, "Egress", source, target, port, protocol)
    return egress and allows(policies, "Ingress", target, source, port, protocol)


def peers(overlay: str) -> dict[str, Peer]:
    """Return the ends of connections by name: rendered pods, pods of other projects, and addresses."""
    namespaces = {item["metadata"]["name"]: item["metadata"]["labels"] for item in of_kind(overlay, "Namespace")}
    namespaces |= {"kubeflow": {}, "kube-system": {}, "default": {}}
    roles = ("asks", "monitors", "uses-mlflow", "shows-status")
    namespaces |= {f"{role}-space": {f"spira.internal/{role}": "true"} for role in roles}

    def pod(namespace: str, **labels: str) -> Peer:
        namespace_labels = {"kubernetes.io/metadata.name": namespace} | namespaces[namespace]
        return Peer(namespace, {key.replace("_", "-"): value for key, value in labels.items()}, namespace_labels)

    rendered_pods = {}
    for item, template in workloads(overlay):
        peer = pod(item["metadata"]["namespace"])
        name, labels = item["metadata"]["name"], template["metadata"]["labels"]
        rendered_pods[name] = Peer(peer.namespace, labels, peer.namespace_labels)
    rendered_pods["predictor"] = rendered_pods.pop("spira")
    rendered_pods["tick"] = rendered_pods.pop("spira-delivery")
    return rendered_pods | {
        "task": pod("kubeflow", pipeline="spira"),
        "ml-pipeline": pod("kubeflow", app="ml-pipeline"),
        "ml-pipeline-ui": pod("kubeflow", app="ml-pipeline-ui"),
        "dns": pod("kube-system", k8s_app="kube-dns"),
        "konnectivity": pod("kube-system", k8s_app="konnectivity-agent"),
        "system": pod("kube-system", k8s_app="another"),
        "client": pod("asks-space", app="clinic"),
        "monitor": pod("monitors-space", app="prometheus"),
        "user": pod("uses-mlflow-space", app="notebook"),
        "viewer": pod("shows-status-space", app="ingress"),
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


ALLOWED = {
    "base": """
        mlflow > postgres:5432          postgres-backup > postgres:5432      tick > mlflow:5000
        task > mlflow:5000              user > mlflow:5000                   tick > ml-pipeline:8888
        client > predictor:8080          monitor > predictor:8080             konnectivity > predictor:8080
        mlflow > dns:53                 tick > dns:53/UDP                    predictor > dns:53/UDP
        postgres-backup > dns:53/UDP    mlflow > dns-cache:53/UDP            tick > private:443
        tick > gcs:443                  tick > node:6443                     tick > gcs:587
        tick > private:465
    """,
    "kind": """
        mlflow > seaweedfs:8333         predictor > seaweedfs:8333           node > predictor:8080
        tick > seaweedfs:8333           task > seaweedfs:8333                spira-page > seaweedfs:8333
        viewer > spira-page:8080        spira-page > gcs:443                 spira-page > dns:53/UDP
    """,
    "gke": """
        mlflow > gcs:443                predictor > gcs:443                  mlflow > metadata:80
        predictor > agent:988           tick > agent:988                     tick > metadata:80
        mlflow > metadata:53/UDP
    """,
}
"""Connections that must be allowed: in every overlay, and in one overlay."""

REFUSED = {
    "base": """
        stranger > mlflow:5000          client > mlflow:5000                  predictor > mlflow:5000
        stranger > postgres:5432        tick > postgres:5432                 user > postgres:5432
        neighbour > postgres:5432       neighbour > mlflow:5000              mlflow > postgres:22
        stranger > predictor:8080       task > predictor:8080                tick > predictor:8080
        system > predictor:8080         other-server > predictor:8080        client > predictor:8081
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
        stranger > seaweedfs:8333       tick > seaweedfs:9333                task > seaweedfs:9333
        client > seaweedfs:8333          other-server > seaweedfs:8333        postgres > seaweedfs:8333
        mlflow > seaweedfs:9333         seaweedfs > gcs:443                  mlflow > gcs:443
        predictor > gcs:443             node > mlflow:5000                   node > postgres:5432
        neighbour > seaweedfs:8333      predictor > metadata:80
        stranger > spira-page:8080      user > spira-page:8080               tick > spira-page:8080
        gcs > spira-page:8080           viewer > spira-page:443              viewer > mlflow:5000
        spira-page > mlflow:5000        spira-page > node:6443               spira-page > ml-pipeline:8888
        spira-page > gcs:587            spira-page > predictor:8080          spira-page > seaweedfs:9333
    """,
    "gke": """
        node > predictor:8080           postgres > metadata:80               postgres-backup > metadata:80
        mlflow > agent:80443            predictor > metadata:443
    """,
}
"""Connections that must be refused."""


def rows(table: str) -> list[tuple[str, str, int, str]]:
    """Return source, target, port and protocol of each connection in a table."""
    matches = re.findall(r"([\w-]+) > ([\w-]+):(\d+)(?:/(UDP))?", table)
    assert len(matches) == table.count(">")
    return [(source, target, int(port), protocol or "TCP") for source, target, port, protocol in matches]


def broken_rows(overlay: str, policies: list[Object]) -> list[str]:
    """Return the rows of the tables that the policies violate."""
    ends, broken = peers(overlay), []
    for table, expected in ((ALLOWED, True), (REFUSED, False)):
        for source, target, port, protocol in rows(table["base"] + table[overlay]):
            if is_allowed(policies, ends[source], ends[target], port, protocol) != expected:
                broken.append(f"{source} {'cannot reach' if expected else 'can reach'} {target}:{port}/{protocol}")
    return broken


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_policies_allow_only_the_listed_connections(overlay: str):
    """The policies at both ends are evaluated."""
    assert broken_rows(overlay, of_kind(overlay, "NetworkPolicy")) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_policy_is_necessary(overlay: str):
    """Without any one policy a row of the tables is broken. Every rule has ports with protocols."""
    policies = of_kind(overlay, "NetworkPolicy")
    for omitted in policies:
        assert broken_rows(overlay, [policy for policy in policies if policy is not omitted]), full_name(omitted)
        for rule in (*omitted["spec"].get("ingress", []), *omitted["spec"].get("egress", [])):
            assert rule["ports"]
            assert all(set(port) == {"port", "protocol"} for port in rule["ports"]), full_name(omitted)


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
        ([{"from": [ONE]}], B, False),  # a podSelector alone matches the policy's namespace only
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
def test_policies_are_evaluated_as_in_kubernetes(ingress: list[Object], source: Peer, allowed: bool):
    """Entries are alternatives; selectors in one entry must all match; an empty rule allows all; no rule, none."""
    spec = {"podSelector": {"matchLabels": {"app": "one"}}, "ingress": ingress}
    policies = [{"metadata": {"name": "p", "namespace": "a"}, "spec": spec}]
    assert is_allowed(policies, source, A, 80) == allowed
    assert is_allowed(policies, source, Peer("a", {"app": "not selected"}), 80)
    assert is_allowed(policies, A, B, 80)  # without policyTypes or egress, a policy concerns ingress only


@pytest.mark.integration
@pytest.mark.parametrize("overlay", ["base", *OVERLAYS])
def test_signing_gives_the_public_key_to_the_tick_and_the_server(overlay: str, tmp_path: Path):
    """The component changes nothing else, and an overlay without it has no key. Pods stay restricted."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    folder = tmp_path / "manifests" / "own"
    folder.mkdir()
    own = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [f"../{overlay}"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own | {"components": ["../signing"]}))
    before, after = rendered(overlay), rendered("own", tmp_path / "manifests")
    changed = {full_name(new): new for old, new in zip(before, after, strict=True) if old != new}
    assert set(changed) == {"CronJob spira-delivery/spira-delivery", "ServingRuntime spira-serving/spira"}
    for item in changed.values():
        pod = pod_template(item)
        assert pod is not None
        assert violations(pod) == []
        container = pod["spec"]["containers"][0]
        (variable,) = (entry for entry in container["env"] if entry["name"] == signature.VERIFY_KEY)
        (mount,) = (entry for entry in container["volumeMounts"] if entry["name"] == "verify-key")
        assert variable["value"] == f"{mount['mountPath']}/verify.pem"
        assert mount["readOnly"] is True
        assert {"name": "verify-key", "configMap": {"name": "spira-verify-key"}} in pod["spec"]["volumes"]
    assert signature.VERIFY_KEY not in json.dumps(before)


def test_the_example_refers_to_existing_objects():
    """Its service account and its runtime are in the base."""
    predictor = yaml.safe_load((MANIFESTS / "base/serving/example.yaml").read_text())["spec"]["predictor"]
    names = {(item["kind"], item["metadata"]["name"]) for item in rendered("base")}
    assert ("ServiceAccount", predictor["serviceAccountName"]) in names
    assert ("ServingRuntime", predictor["model"]["runtime"]) in names


def test_ticks_and_preprocess_read_one_place():
    """Both Secrets have what a client of S3 needs, and keys of an identity with rights on the data's bucket."""
    secrets = [item for folder in ("kind", "kind/kubeflow") for item in of_kind(folder, "Secret")]
    tick, task = (item for item in secrets if item["metadata"]["name"].startswith("spira-data"))
    assert tick["data"] == task["data"]
    assert set(tick["data"]) == set(STORE_VARIABLES)
    keys = {name: base64.b64decode(value).decode() for name, value in tick["data"].items()}
    (identity,) = (
        one
        for one in json.loads((MANIFESTS / "kind/s3.json").read_text())["identities"]
        if one["credentials"] == [{"accessKey": keys["AWS_ACCESS_KEY_ID"], "secretKey": keys["AWS_SECRET_ACCESS_KEY"]}]
    )
    watched = yaml.safe_load((MANIFESTS / "kind/delivery.yaml").read_text())
    assert watched["data"].startswith("s3://spira/")
    assert {"Read:spira", "Write:spira", "List:spira"} <= set(identity["actions"])
    (cron_job,) = (item for item in of_kind("kind", "CronJob") if item["metadata"]["name"] == "spira-delivery")
    for container in containers(pod_template(cron_job)):
        assert container["envFrom"] == [{"secretRef": {"name": tick["metadata"]["name"]}}]


def test_the_state_of_trainings_ties_them_to_no_node():
    """Except on kind, whose volumes belong to a node."""
    modes = {
        folder: of_kind(folder, "PersistentVolumeClaim")[0]["spec"]["accessModes"]
        for folder in ("base/delivery/kubeflow", "kind/kubeflow")
    }
    assert modes == {"base/delivery/kubeflow": ["ReadWriteMany"], "kind/kubeflow": ["ReadWriteOnce"]}


def test_the_quota_of_kubeflow_limits_only_gpus():
    """Kubeflow's own pods have no limits. The account of pipelines gets only the right to deploy."""
    (quota,) = of_kind("base/delivery/kubeflow", "ResourceQuota")
    assert list(quota["spec"]["hard"]) == ["requests.nvidia.com/gpu"]
    (claim,) = of_kind("base/delivery/kubeflow", "PersistentVolumeClaim")
    assert claim["metadata"] == {"name": "spira-state", "namespace": "kubeflow"}
    roles = [
        (binding["metadata"]["namespace"], binding["roleRef"]["name"])
        for binding in of_kind("base/delivery/kubeflow", "RoleBinding")
        if binding["subjects"] == [{"kind": "ServiceAccount", "name": "pipeline-runner", "namespace": "kubeflow"}]
    ]
    assert roles == [("spira-serving", "spira-deployer")]


def test_the_status_page_can_only_read_the_ledger():
    """It has no token and no role, mounts only settings and temporary files, and its keys can write nothing."""
    (deployment,) = (item for item in of_kind("kind", "Deployment") if item["metadata"]["name"] == "spira-page")
    spec = pod_template(deployment)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} == {"configMap", "emptyDir"}
    subjects = [subject for binding in of_kind("kind", "RoleBinding") for subject in binding["subjects"]]
    assert spec["serviceAccountName"] not in {subject["name"] for subject in subjects}
    (container,) = spec["containers"]
    assert "watch" not in container["args"]
    (secret,) = (item for item in of_kind("kind", "Secret") if item["metadata"]["name"].startswith("spira-page"))
    assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    key = base64.b64decode(secret["data"]["AWS_ACCESS_KEY_ID"]).decode()
    (identity,) = (
        one
        for one in json.loads((MANIFESTS / "kind/s3.json").read_text())["identities"]
        if one["credentials"][0]["accessKey"] == key
    )
    assert set(identity["actions"]) == {"Read:spira", "List:spira"}
    (config,) = (volume["configMap"] for volume in spec["volumes"] if "configMap" in volume)
    assert config["name"] in {item["metadata"]["name"] for item in of_kind("kind", "ConfigMap")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_addresses_of_notices_come_from_a_secret_that_may_be_missing(overlay: str):
    """A cluster without notices needs no Secret."""
    (cron_job,) = (item for item in of_kind(overlay, "CronJob") if item["metadata"]["name"] == "spira-delivery")
    (tick,) = pod_template(cron_job)["spec"]["containers"]
    (entry,) = (entry for entry in tick["env"] if entry["name"] == URLS_VARIABLE)
    assert entry["valueFrom"] == {"secretKeyRef": {"name": "spira-notices", "key": "urls", "optional": True}}
