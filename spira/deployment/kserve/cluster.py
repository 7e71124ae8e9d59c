"""One namespace of a Kubernetes cluster, as far as serving needs it: InferenceServices, and what they became.

Objects are dictionaries, as the API writes them. Rights needed: ``manifests/base/serving/deployer.yaml``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from spira.deployment.target import DeploymentError

Object = dict[str, Any]

KSERVE = ("serving.kserve.io", "v1beta1")
INFERENCE_SERVICES = "inferenceservices"
RUNTIMES = ("serving.kserve.io", "v1alpha1")
TIMEOUT_SECONDS = 60
"""Of one call."""


class ConflictError(DeploymentError):
    """An object was written by someone else, or by KServe, since it was read."""


class ForbiddenError(DeploymentError):
    """The account may not do this."""


class KubernetesNamespace:
    """A namespace.

    Args:
        namespace: of the InferenceServices; ``manifests/base/serving`` is applied there.
        context: of the kubeconfig; None for the current one.
        kubeconfig: a file; None for ``$KUBECONFIG`` or the usual one, or in a pod for its service account.

    Raises:
        DeploymentError: there is no such context, or no cluster known at all.
    """

    def __init__(self, namespace: str, context: str | None = None, kubeconfig: Path | None = None) -> None:
        self.namespace = namespace
        self.api = client.ApiClient(_configuration(context, kubeconfig))
        self.custom = client.CustomObjectsApi(self.api)

    def get(self, name: str) -> Object | None:
        """An InferenceService; None where there is none."""
        with self._told(f"read InferenceService {name}"):
            return self._found(KSERVE, INFERENCE_SERVICES, name)

    def runtime(self, name: str) -> Object | None:
        """A ServingRuntime; None where there is none.

        Raises:
            ForbiddenError: the account may not read it.
        """
        with self._told(f"read ServingRuntime {name}"):
            return self._found(RUNTIMES, "servingruntimes", name)

    def _found(self, group: tuple[str, str], kind: str, name: str) -> Object | None:
        try:
            return self.custom.get_namespaced_custom_object(
                *group, self.namespace, kind, name, _request_timeout=TIMEOUT_SECONDS
            )
        except ApiException as error:
            if error.status == 404 and "not found" in json.loads(error.body).get("message", ""):
                return None
            raise

    def put(self, wanted: Object, live: Object | None, dry_run: bool = False) -> Object:
        """Create or replace an InferenceService; gives it back as the cluster keeps it, its defaults filled in.

        Args:
            live: as it was read.
            dry_run: change nothing.

        Raises:
            ConflictError: it was written since it was read; nothing is replaced.
            DeploymentError: the cluster refuses it.
        """
        name = wanted["metadata"]["name"]
        options = {"_request_timeout": TIMEOUT_SECONDS} | ({"dry_run": "All"} if dry_run else {})
        with self._told(f"write InferenceService {name}"):
            if live is None:
                return self.custom.create_namespaced_custom_object(
                    *KSERVE, self.namespace, INFERENCE_SERVICES, wanted, **options
                )
            kept = {key: live["metadata"][key] for key in ("resourceVersion", "finalizers") if key in live["metadata"]}
            wanted = wanted | {"metadata": wanted["metadata"] | kept}
            return self.custom.replace_namespaced_custom_object(
                *KSERVE, self.namespace, INFERENCE_SERVICES, name, wanted, **options
            )

    def delete(self, name: str) -> None:
        """Delete an InferenceService, if it is there."""
        with self._told(f"delete InferenceService {name}"):
            try:
                self.custom.delete_namespaced_custom_object(
                    *KSERVE, self.namespace, INFERENCE_SERVICES, name, _request_timeout=TIMEOUT_SECONDS
                )
            except ApiException as error:
                if error.status != 404:
                    raise

    def deployment(self, name: str) -> Object | None:
        """The Deployment that an InferenceService became; None until it did."""
        with self._told(f"read Deployment {name}"):
            try:
                found = client.AppsV1Api(self.api).read_namespaced_deployment(
                    name, self.namespace, _request_timeout=TIMEOUT_SECONDS
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
        return self.api.sanitize_for_serialization(found)

    def pods(self, inference_service: str) -> list[Object]:
        """The pods of an InferenceService, oldest first."""
        with self._told("list pods"):
            found = client.CoreV1Api(self.api).list_namespaced_pod(
                self.namespace,
                label_selector=f"serving.kserve.io/inferenceservice={inference_service}",
                _request_timeout=TIMEOUT_SECONDS,
            )
        pods = self.api.sanitize_for_serialization(found)["items"]
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def post(self, service: str, path: str, body: Object) -> Object:
        """What a Service of the namespace answers to JSON, asked through the API server.

        Raises:
            DeploymentError: it doesn't answer, or not with 200.
        """
        with self._told(f"ask Service {service}"):
            return self.api.call_api(
                f"/api/v1/namespaces/{self.namespace}/services/{service}:80/proxy{path}",
                "POST",
                header_params={"Content-Type": "application/json", "Accept": "application/json"},
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_SECONDS,
            )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of the client as one that says what to do."""
        try:
            yield
        except ApiException as error:
            kind = {403: ForbiddenError, 409: ConflictError}.get(error.status, DeploymentError)
            raise kind(f"can't {what} in namespace {self.namespace}: {_advice(error)}") from error
        except urllib3.exceptions.HTTPError as error:
            host = self.api.configuration.host
            raise DeploymentError(f"can't {what}: {host} doesn't answer; is the cluster up? ({error})") from error


def _configuration(context: str | None, kubeconfig: Path | None) -> client.Configuration:
    configuration = client.Configuration()
    try:
        if context is None and kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            file = str(kubeconfig) if kubeconfig else None
            config.load_kube_config(file, context, client_configuration=configuration)
    except ConfigException as error:
        raise DeploymentError(f"no cluster: {error}; set KUBECONFIG, or name a context that it holds") from error
    return configuration


def _advice(error: ApiException) -> str:
    said = _message(error)
    match error.status:
        case 401 | 403:
            return f"{said}; apply manifests/base/serving, and use its account spira-deployer or an administrator's"
        case 404:
            return f"{said}; apply manifests/base/serving, and install KServe"
        case 409:
            return f"{said}; run the command again"
    return said


def _message(error: ApiException) -> str:
    """The API's own words, or those of the Service behind it; never the headers."""
    try:
        answer = json.loads(error.body)
        return str(answer.get("message") or answer["error"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"status {error.status} {error.reason}"
