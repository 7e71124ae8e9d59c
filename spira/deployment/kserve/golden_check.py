"""The golden check through a cluster: an InferenceService must answer the golden recordings as torch did."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import stamina

from spira.deployment.kserve.cluster import KubernetesNamespace
from spira.deployment.target import DeploymentError
from spira.kubernetes_connection import KubernetesObject
from spira.packaging import verify
from spira.packaging.verify import PackageError

INFER = "/v2/models/spira/infer"
"""Path of the inference request. The ServingRuntime gives the model the same name in every InferenceService."""

SETTLE_SECONDS = 30.0
"""Time in which a Service may still have no endpoint, or route to a terminating pod, after the new pods are ready."""

RETRY_SECONDS = 1.0

logging.getLogger("stamina").setLevel(logging.ERROR)  # the last error is raised; a line for each attempt says no more


def largest_difference(cluster: KubernetesNamespace, name: str, version: str, package: Path) -> float:
    """Send all golden recordings to an InferenceService; return the largest difference from torch's probabilities.

    Raises:
        DeploymentError: the InferenceService does not answer, or answers as another version.
        PackageError: a probability differs by more than 1e-5, or the package has no golden recording.
    """
    answers = []
    for entry in json.loads((package / "data" / "golden.json").read_text()):
        probability = _probability(cluster, name, version, (package / "data" / entry["file"]).read_bytes())
        answers.append({"file": entry["file"], "expected": entry["probability"], "probability": probability})
    if not answers:
        raise PackageError(f"{package} has no golden recording to check it with: package it again")
    return verify.largest_difference(answers)


def _probability(cluster: KubernetesNamespace, name: str, version: str, wav: bytes) -> float:
    response = _response(cluster, name, version, wav)
    return float(next(output["data"][0] for output in response["outputs"] if output["name"] == "probability"))


def _response(cluster: KubernetesNamespace, name: str, version: str, wav: bytes) -> KubernetesObject:
    """Return the response of a version; repeat the request while another version or no version answers."""
    tensor = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(wav).decode()]}
    retries = stamina.retry_context(
        on=DeploymentError,
        attempts=None,
        timeout=SETTLE_SECONDS,
        wait_initial=RETRY_SECONDS,
        wait_max=RETRY_SECONDS,
        wait_jitter=0,
    )
    for attempt in retries:
        with attempt:
            response = cluster.post(f"{name}-predictor", INFER, {"inputs": [tensor]})
            if response.get("model_version") != version:
                raise DeploymentError(f"{name} answers as version {response.get('model_version')}, not {version}")
    return response
