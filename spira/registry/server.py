"""The requirements on an MLflow server, checked before anything is logged.

SPIRA's own deployment ran MLflow 1.28.0, which has neither aliases nor data sets and no ``/version``. MLflow's client
finds that out call by call, the last of them after the training.
"""

from __future__ import annotations

from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from packaging.version import InvalidVersion, Version

MINIMUM = Version("2.22.0")
"""Oldest supported server. Earlier ones do not find a model by the client's search, which leaves prompts out."""

HELP = "see docs/inference-service.md"


def check_version(url: str) -> None:
    """Check the version of the server at a URL.

    Raises:
        MlflowException: the server is older than :data:`MINIMUM`, is no MLflow server, or cannot be reached.
    """
    response = http_request(get_default_host_creds(url), "/version", "GET", raise_on_status=False)
    if response.status_code == 404:
        raise MlflowException(
            f"it does not give its version (404 at /version, as MLflow 1.28 answers): MLflow {MINIMUM} or later is "
            f"required; {HELP}"
        )
    if response.status_code != 200:
        raise MlflowException(f"its /version answers {response.status_code}: check the URL and the credentials")
    try:
        version = Version(response.text.strip())
    except InvalidVersion:
        raise MlflowException("its /version gives no version: this is no MLflow server; check the URL") from None
    if version < MINIMUM:
        raise MlflowException(f"it is MLflow {version}, and {MINIMUM} or later is required; {HELP}")


def check_artifacts(url: str, experiment: Experiment) -> None:
    """Check that the server takes the artifacts of an experiment itself, or gives an address of a bucket.

    Raises:
        MlflowException: it would have clients write to a folder of their own machine.
    """
    location = experiment.artifact_location
    if location.startswith("file:") or ":/" not in location:  # mlflow-artifacts:/3, s3://bucket/3
        raise MlflowException(
            f"the artifacts of experiment {experiment.name!r} belong in {location}, a folder of the server that no "
            "client reaches: start the server with --artifacts-destination and without --default-artifact-root, and "
            f"use a new experiment; {HELP}"
        )
