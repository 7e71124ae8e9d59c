"""Asking what a Service of the cluster serves for the golden recordings of a package."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

from spira.deployment.kserve.cluster import KubernetesNamespace, Object
from spira.deployment.target import DeploymentError
from spira.packaging import verify
from spira.packaging.verify import PackageError

INFER = "/v2/models/spira/infer"
"""The ServingRuntime's model name is the same for every InferenceService."""

SETTLE_SECONDS = 30.0
"""A Service may lead nowhere, or to a pod that is told to go, so long after its new pods are ready."""

RETRY_SECONDS = 1.0


def largest_difference(cluster: KubernetesNamespace, name: str, version: str, package: Path) -> float:
    """From torch, of all golden recordings, as an InferenceService answers them.

    Raises:
        DeploymentError: it doesn't answer, or another version does.
        PackageError: a probability is off by more than 1e-5, or there is no recording to ask for.
    """
    answers = []
    for one in json.loads((package / "data" / "golden.json").read_text()):
        probability = _probability(cluster, name, version, (package / "data" / one["file"]).read_bytes())
        answers.append({"file": one["file"], "expected": one["probability"], "probability": probability})
    if not answers:
        raise PackageError(f"{package} has no golden recording to ask for: package it again")
    return verify.largest_difference(answers)


def _probability(cluster: KubernetesNamespace, name: str, version: str, wav: bytes) -> float:
    reply = _reply(cluster, name, version, wav)
    return next(output["data"][0] for output in reply["outputs"] if output["name"] == "probability")


def _reply(cluster: KubernetesNamespace, name: str, version: str, wav: bytes) -> Object:
    """What a version answers; another's answers are waited out."""
    tensor = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(wav).decode()]}
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            reply = cluster.post(f"{name}-predictor", INFER, {"inputs": [tensor]})
            if reply.get("model_version") == version:
                return reply
            trouble = DeploymentError(f"{name} answers as version {reply.get('model_version')}, not {version}")
        except DeploymentError as error:
            trouble = error
        if time.monotonic() > end:
            raise trouble
        time.sleep(RETRY_SECONDS)
