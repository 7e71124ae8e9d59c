"""The contract of SPIRA's Inference Service: environment, channels, requests and answers. Nothing here does I/O.

The contract itself defines the variables ``model_path``, ``receiving_channel``, ``central_channel`` and
``MLFLOW_TRACKING_URI``, the log line, the four recordings, the fields of an inference and the answer. It leaves open
the other variables, the location of a recording and the form of a request on the channel. These follow the service's
public source (spirabr/SPIRA-Inference-Service), each in one function below.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from spira.deployment.target import DeploymentError

WAITING = "waiting for inference on channel"
"""Text in the service's log once it listens."""

RECORDINGS = ("aceite", "sustentada", "parlenda", "frase")
"""Names of the recordings of every inference."""

DIAGNOSES = ("positive", "negative", "inconclusive")


class Channels(NamedTuple):
    """NATS subjects of a process."""

    receiving: str
    central: str


@dataclass(frozen=True)
class Service:
    """Command of the Inference Service, and the addresses of its servers as seen from this machine."""

    command: tuple[str, ...]
    """Command that runs the service in the foreground; ``{env_file}`` is replaced by the path of its environment, as
    in ``("docker", "run", "--rm", "--env-file", "{env_file}", "spira-inference-service")``."""
    mlflow_uri: str
    """URL of an MLflow server that proxies artifacts."""
    nats_url: str
    """URL of the NATS server."""
    minio: str
    """Host and port of the bucket, without a scheme."""
    access_key: str
    """Access key of the bucket."""
    secret_key: str = field(repr=False)
    """Secret key of the bucket."""
    bucket: str = "audio-files"
    """Name of the bucket with the recordings."""
    model: str = "spira"
    """Name of the registered model."""
    receiving_channel: str = ""
    """NATS subject of the clients' requests; empty for ``<model>-topic``."""
    central_channel: str = "result_updates"
    """NATS subject of the answers to clients."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Additional environment variables; they override addresses that the service reaches under another name."""
    start_seconds: float = 120
    """Maximum time from the start until the service listens."""
    answer_seconds: float = 30
    """Maximum time for the answer to one request."""
    stop_seconds: float = 30
    """Time between SIGTERM and SIGKILL."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", self.model):
            raise DeploymentError(f"model {self.model!r}: use letters, digits, - and _ only")
        names = [*self.channels, *self.probe_channels]
        if len(set(names)) < len(names):  # a golden recording would be a client's request, or an answer a request
            raise DeploymentError(
                f"receiving_channel {self.channels.receiving} and central_channel {self.channels.central} must differ "
                f"from each other, and from {' and '.join(self.probe_channels)}, which the golden check uses"
            )

    @property
    def channels(self) -> Channels:
        """Channels of the clients' requests and answers."""
        return Channels(self.receiving_channel or f"{self.model}-topic", self.central_channel)

    @property
    def probe_channels(self) -> Channels:
        """Channels without clients, for the golden check."""
        return Channels(f"{self.model}-probe-topic", f"{self.model}-probe-updates")

    def environment(self, model: Path, channels: Channels) -> dict[str, str]:
        """Return the environment of a process that serves a model on channels.

        Args:
            model: verified folder of the version, named after it. An address in MLflow (``models:/spira/3``) would be
                downloaded and executed without a check, and an alias could change between two starts.
            channels: channels of the process.
        """
        return {
            "nats_conn_url": self.nats_url,
            "minio_conn_url": self.minio,
            "minio_access_key": self.access_key,
            "minio_secret_key": self.secret_key,
            "bucket_name": self.bucket,
            "default_extension": ".wav",
            "mlflow_conn_url": self.mlflow_uri,
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "loop_interval": "0.01",
            **self.variables,
            "PYTHONDONTWRITEBYTECODE": "1",  # byte code in the model's folder would be a file that nobody approved
            "model_path": str(model),
            "receiving_channel": channels.receiving,
            "central_channel": channels.central,
        }


def version_of(environment: Mapping[str, str]) -> str:
    """Return the version that an environment names; empty if it names none."""
    return environment.get("model_path", "").rpartition("/")[2]  # of a path, and of an older models:/NAME/VERSION


def new_id() -> str:
    """Return a unique inference id: 24 hexadecimal digits, like the ids of SPIRA's API."""
    return uuid.uuid4().hex[:24]


def recording_key(inference_id: str, recording: str) -> str:
    """Return the key of an inference's recording in the bucket."""
    return f"{inference_id}/{recording}.wav"


def request(inference_id: str, model: str) -> bytes:
    """Return a synthetic request: the required fields of an inference, as JSON.

    The contract defines the arguments of ``predict``, and so the fields, but not the message. The service's source
    parses the message as the inference itself, and reads the recordings of its id from the bucket.
    """
    inference = {
        "id": inference_id,
        "model_id": model,
        "rgh": "0",
        "mask_type": "none",
        "gender": "F",
        "covid_status": "unknown",
        "local": "deployment check, synthetic",
        "status": "processing",
        "user_id": "spira-deployment",
        "created_in": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(inference).encode()


@dataclass(frozen=True)
class Answer:
    """Result of one process for one inference: a probability, or an error."""

    probability: float | None = None
    error: str = ""
    """What is wrong with the answer; empty if it has a probability."""


def read_answer(message: bytes, inference_id: str) -> Answer | None:
    """Return the result in the answer to an inference; None for the answer to another inference."""
    try:
        answer = json.loads(message)
    except ValueError:
        return None
    if not isinstance(answer, dict) or answer.get("inference_id") != inference_id:
        return None
    match answer:
        case {"output": [float(probability)], "diagnosis": str(diagnosis)} if diagnosis in DIAGNOSES:
            return Answer(probability) if math.isfinite(probability) else Answer(error="no number")
    return Answer(error=f"output {answer.get('output')!r} with diagnosis {answer.get('diagnosis')!r}")
