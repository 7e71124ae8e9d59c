"""The connection to a Kubernetes cluster: the pod's service account, or the user's kubeconfig."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spira.errors import SpiraError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


KubernetesObject = dict[str, Any]
"""A Kubernetes object as the API server's JSON has it."""


class NoClusterError(SpiraError):
    """No cluster is configured on this machine."""


def connect(context: str | None = None, kubeconfig: Path | None = None, *, retries: bool = True) -> ApiClient:
    """Return an API client with the credentials of the pod, or of a kubeconfig outside a cluster.

    Args:
        context: context of the kubeconfig; None for the pod's service account, else the current context.
        kubeconfig: kubeconfig file; None for ``$KUBECONFIG`` or the default file.
        retries: whether the client repeats calls that get no connection.

    Raises:
        NoClusterError: there is neither a service account nor a kubeconfig with the context.
    """
    from kubernetes import client, config  # slow to import, and not needed on a single machine

    configuration = client.Configuration()
    if not retries:
        configuration.retries = False
    if context is None and kubeconfig is None:
        try:
            config.load_incluster_config(client_configuration=configuration)
            return client.ApiClient(configuration)
        except config.ConfigException:
            pass  # not in a pod
    # kubernetes reads $KUBECONFIG once, at import; a later value counts here.
    file = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or None
    try:
        config.load_kube_config(file, context, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        reason = f"context {context}: {error}" if context else str(error)
        raise NoClusterError(f"no cluster: {reason}; set KUBECONFIG, or name a context that it holds") from error
    return client.ApiClient(configuration)
