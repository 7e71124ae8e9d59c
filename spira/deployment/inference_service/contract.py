"""What SPIRA's Inference Service agrees on with the world: its environment, channels, requests and answers.

Nothing here talks to anything. The names ``model_path``, ``receiving_channel``, ``central_channel`` and
``MLFLOW_TRACKING_URI``, the log line, the four recordings, the fields of an inference and the answer are those of the
contract. It doesn't tell the other variables, where a recording lies, or the form of a request on the channel: these
follow the service's public source (spirabr/SPIRA-Inference-Service), each in one place below.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from spira.deployment.target import DeploymentError

WAITING = "waiting for inference on channel"
"""In the service's log once it listens."""

RECORDINGS = ("aceite", "sustentada", "parlenda", "frase")
"""That belong to every inference."""

DIAGNOSES = ("positive", "negative", "inconclusive")


class Channels(NamedTuple):
    """NATS subjects of a process."""

    receiving: str
    central: str


@dataclass(frozen=True)
class Service:
    """How the Inference Service is started, and where its messages and recordings are, as seen from here."""

    command: tuple[str, ...]
    """Starts one in the foreground; ``{env_file}`` in it stands for the file with its environment, as in
    ``("docker", "run", "--rm", "--env-file", "{env_file}", "spira-inference-service")``."""
    mlflow_uri: str
    """Of an MLflow server that proxies artifacts."""
    nats_url: str
    minio: str
    """Host and port, no scheme."""
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str = "audio-files"
    model: str = "spira"
    """Name of the registered model."""
    central_channel: str = "result_updates"
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further ones of the service's environment, or others than above where it sees a place by another name."""
    start_seconds: float = 120
    """The longest that it may take to listen."""
    answer_seconds: float = 30
    """The longest that it may take to answer one request."""
    stop_seconds: float = 30
    """After which a process that was asked to end is killed."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", self.model):
            raise DeploymentError(f"model {self.model!r}: use letters, digits, - and _ only")

    @property
    def channels(self) -> Channels:
        """Where users' requests come in, and their answers go."""
        return Channels(f"{self.model}-topic", self.central_channel)

    @property
    def probe_channels(self) -> Channels:
        """Where nobody listens but us."""
        return Channels(f"{self.model}-probe-topic", f"{self.model}-probe-updates")

    def model_path(self, version: str) -> str:
        """A version's own address; never an alias, or a restart after a crash could serve another."""
        return f"models:/{self.model}/{version}"

    def environment(self, version: str, channels: Channels) -> dict[str, str]:
        """Of a process that serves a version on channels."""
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
            "model_path": self.model_path(version),
            "receiving_channel": channels.receiving,
            "central_channel": channels.central,
        }


def version_of(environment: Mapping[str, str]) -> str:
    """The version that an environment is pinned to; empty where it is to none."""
    return environment.get("model_path", "").rpartition("/")[2]


def new_id() -> str:
    """24 hexadecimal digits, as the database of SPIRA's API numbers inferences; no user's has this one."""
    return uuid.uuid4().hex[:24]


def recording_key(inference_id: str, recording: str) -> str:
    """Where the service looks for a recording of an inference in the bucket."""
    return f"{inference_id}/{recording}.wav"


def request(inference_id: str, model: str) -> bytes:
    """A synthetic request: the inference's fields that are not optional, as JSON.

    The contract says what ``predict`` gets, and so which fields there are, but not how they travel: the service's
    source reads the message as the inference itself, and the recordings by its id from the bucket.
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


def read_answer(message: bytes, inference_id: str) -> dict[str, Any] | None:
    """What a message says to an inference: probability and diagnosis, or error; None where it answers another."""
    try:
        told = json.loads(message)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("inference_id") != inference_id:
        return None
    match told:
        case {"output": [float(probability)], "diagnosis": str(word)} if word in DIAGNOSES:
            return {"probability": probability} if math.isfinite(probability) else {"error": "no number"}
    return {"error": f"output {told.get('output')!r} with diagnosis {told.get('diagnosis')!r}"}
