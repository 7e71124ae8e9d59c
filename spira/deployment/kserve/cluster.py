"""One namespace of a Kubernetes cluster: InferenceServices, and the Deployments and pods that KServe makes of them.

Objects are dictionaries in the form of the API. Required rights: ``manifests/base/serving/deployer.yaml``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from spira.deployment.target import DeploymentError
from spira.kubernetes_connection import KubernetesObject, NoClusterError, connect

KSERVE = ("serving.kserve.io", "v1beta1")
INFERENCE_SERVICES = "inferenceservices"
RUNTIMES = ("serving.kserve.io", "v1alpha1")
TIMEOUT_SECONDS = 60
"""Timeout of one API call."""


class ConflictError(DeploymentError):
    """The object was written by another client or by KServe after it was read."""


class ForbiddenError(DeploymentError):
    """The account lacks the right for the call."""


class KubernetesNamespace:
    """A namespace.

    Args:
        namespace: namespace of the InferenceServices, where ``manifests/base/serving`` is applied.
        context: context of the kubeconfig; None for the current one.
        kubeconfig: kubeconfig file; None for ``$KUBECONFIG`` or the default file, or the service account in a pod.

    Raises:
        DeploymentError: the context does not exist, or no cluster is configured.
    """

    def __init__(self, namespace: str, context: str | None = None, kubeconfig: Path | None = None) -> None:
        self.namespace = namespace
        try:
            self.api = connect(context, kubeconfig)
        except NoClusterError as error:
            raise DeploymentError(str(error)) from error
        self.custom = client.CustomObjectsApi(self.api)

    def get(self, name: str) -> KubernetesObject | None:
        """Return an InferenceService, or None if it does not exist."""
        with self._explained(f"read InferenceService {name}"):
            return self._get(KSERVE, INFERENCE_SERVICES, name)

    def runtime(self, name: str) -> KubernetesObject | None:
        """Return a ServingRuntime, or None if it does not exist.

        Raises:
            ForbiddenError: the account may not read it.
        """
        with self._explained(f"read ServingRuntime {name}"):
            return self._get(RUNTIMES, "servingruntimes", name)

    def _get(self, group: tuple[str, str], kind: str, name: str) -> KubernetesObject | None:
        try:
            custom_object: KubernetesObject = self.custom.get_namespaced_custom_object(
                *group, self.namespace, kind, name, _request_timeout=TIMEOUT_SECONDS
            )
        except ApiException as error:
            # A 404 without this text means that the resource type is missing: KServe is not installed.
            if error.status == 404 and "not found" in json.loads(error.body).get("message", ""):
                return None
            raise
        return custom_object

    def put(self, wanted: KubernetesObject, live: KubernetesObject | None, dry_run: bool = False) -> KubernetesObject:
        """Create or replace an InferenceService; return it as the cluster stores it, with its defaults filled in.

        Args:
            wanted: the InferenceService to write.
            live: the existing InferenceService as it was read; None to create one.
            dry_run: change nothing.

        Raises:
            ConflictError: the object was written after it was read; nothing is replaced.
            DeploymentError: the cluster refuses the object.
        """
        name = wanted["metadata"]["name"]
        options = {"_request_timeout": TIMEOUT_SECONDS} | ({"dry_run": "All"} if dry_run else {})
        stored: KubernetesObject
        with self._explained(f"write InferenceService {name}"):
            if live is None:
                stored = self.custom.create_namespaced_custom_object(
                    *KSERVE, self.namespace, INFERENCE_SERVICES, wanted, **options
                )
            else:
                keys = [key for key in ("resourceVersion", "finalizers") if key in live["metadata"]]
                metadata = wanted["metadata"] | {key: live["metadata"][key] for key in keys}
                stored = self.custom.replace_namespaced_custom_object(
                    *KSERVE, self.namespace, INFERENCE_SERVICES, name, wanted | {"metadata": metadata}, **options
                )
        return stored

    def delete(self, name: str) -> None:
        """Delete an InferenceService if it exists."""
        with self._explained(f"delete InferenceService {name}"):
            try:
                self.custom.delete_namespaced_custom_object(
                    *KSERVE, self.namespace, INFERENCE_SERVICES, name, _request_timeout=TIMEOUT_SECONDS
                )
            except ApiException as error:
                if error.status != 404:
                    raise

    def deployment(self, name: str) -> KubernetesObject | None:
        """Return the Deployment that KServe makes of an InferenceService, or None before it exists."""
        with self._explained(f"read Deployment {name}"):
            try:
                deployment = client.AppsV1Api(self.api).read_namespaced_deployment(
                    name, self.namespace, _request_timeout=TIMEOUT_SECONDS
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
        serialized: KubernetesObject = self.api.sanitize_for_serialization(deployment)
        return serialized

    def pods(self, inference_service: str) -> list[KubernetesObject]:
        """Return the pods of an InferenceService, oldest first."""
        with self._explained("list pods"):
            pod_list = client.CoreV1Api(self.api).list_namespaced_pod(
                self.namespace,
                label_selector=f"serving.kserve.io/inferenceservice={inference_service}",
                _request_timeout=TIMEOUT_SECONDS,
            )
        pods: list[KubernetesObject] = self.api.sanitize_for_serialization(pod_list)["items"]
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def post(self, service: str, path: str, body: KubernetesObject) -> KubernetesObject:
        """Post JSON to a Service of the namespace through the API server; return the response.

        Raises:
            DeploymentError: the Service does not answer, or its status is not 200.
        """
        response: KubernetesObject
        with self._explained(f"send a request to Service {service}"):
            response = self.api.call_api(
                f"/api/v1/namespaces/{self.namespace}/services/{service}:80/proxy{path}",
                "POST",
                header_params={"Content-Type": "application/json", "Accept": "application/json"},
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )
        return response

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Raise errors of the client as a DeploymentError with advice."""
        try:
            yield
        except ApiException as error:
            kind = {403: ForbiddenError, 409: ConflictError}.get(error.status, DeploymentError)
            raise kind(f"cannot {action} in namespace {self.namespace}: {_advice(error)}") from error
        except urllib3.exceptions.HTTPError as error:
            host = self.api.configuration.host
            raise DeploymentError(f"cannot {action}: {host} does not answer; is the cluster up? ({error})") from error


def _advice(error: ApiException) -> str:
    message = _message(error)
    match error.status:
        case 401 | 403:
            return f"{message}; apply manifests/base/serving, and use its account spira-deployer or an administrator's"
        case 404:
            return f"{message}; apply manifests/base/serving, and install KServe"
        case 409:
            return f"{message}; run the command again"
    return message


def _message(error: ApiException) -> str:
    """Return the message of the API or of the Service behind it, without the headers."""
    try:
        body = json.loads(error.body)
        return str(body.get("message") or body["error"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"status {error.status} {error.reason}"
