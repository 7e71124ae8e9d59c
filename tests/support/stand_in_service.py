"""The Inference Service as its contract has it, for the tests; MLflow is a folder ``<model>/<version>/package``.

    env model_path=models:/spira/3 receiving_channel=... python stand_in_service.py

One message after the other, no queue group, no reply where it fails. A file ``<version>/faults.json`` beside the
package makes it fail on purpose: {"fault": name, "on": the channel on which it does}.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import nats
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ENVIRONMENT = dict(os.environ)
RECORDINGS = ("aceite", "sustentada", "parlenda", "frase")
FIELDS = ("id", "model_id", "rgh", "mask_type", "gender", "covid_status", "local", "status", "user_id", "created_in")


def version_folder() -> Path:
    """Where the pinned version lies."""
    scheme, model, version = ENVIRONMENT["model_path"].split("/")
    assert scheme == "models:"
    return Path(ENVIRONMENT["MLFLOW_TRACKING_URI"], model, version)


def load_model() -> Any:
    """Once, with the package's own code."""
    package = version_folder() / "package"
    sys.path.insert(0, str(package / "code"))
    from spira_inference.pyfunc import _load_pyfunc

    return _load_pyfunc(str(package / "data"))


def fault() -> str:
    """What goes wrong on this channel."""
    file = version_folder() / "faults.json"
    told = json.loads(file.read_text()) if file.exists() else {"on": None}
    return told["fault"] if told["on"] == ENVIRONMENT["receiving_channel"] else ""


def recording(inference_id: str, name: str) -> bytes:
    """From the bucket; signed here, since a whole S3 client takes as long to start as everything else."""
    place = f"http://{ENVIRONMENT['minio_conn_url']}/{ENVIRONMENT['bucket_name']}/{inference_id}/{name}.wav"
    signed = AWSRequest("GET", place)
    keys = Credentials(ENVIRONMENT["minio_access_key"], ENVIRONMENT["minio_secret_key"])
    S3SigV4Auth(keys, "s3", "us-east-1").add_auth(signed)
    with urllib.request.urlopen(urllib.request.Request(place, headers=dict(signed.headers)), timeout=10) as response:
        return response.read()


def answer(model: Any, message: bytes) -> bytes:
    """A request -> what is sent to the central channel."""
    inference = json.loads(message)
    assert all(type(inference[name]) is str for name in FIELDS)
    files = {name: {"content": recording(inference["id"], name), "filename": f"{name}.wav"} for name in RECORDINGS}
    output, diagnosis = model.predict([inference, files])
    if fault() == "wrong":
        output = [output[0] + 0.01]
    return json.dumps({"inference_id": inference["id"], "output": output, "diagnosis": diagnosis}).encode()


async def serve(model: Any) -> None:
    """Listen for ever."""
    client = await nats.connect(ENVIRONMENT["nats_conn_url"])
    requests = await client.subscribe(ENVIRONMENT["receiving_channel"])
    await client.flush()
    while True:
        logging.info("waiting for inference on channel %s.", ENVIRONMENT["receiving_channel"])
        message = (await requests.next_msg(timeout=None)).data
        try:
            told = answer(model, message)
            if fault() != "silent":
                await client.publish(ENVIRONMENT["central_channel"], told)
                await client.flush()
        except (OSError, ValueError, LookupError, AssertionError):
            logging.exception("could not answer")
        if fault() == "dies after an answer":
            sys.exit("out of memory")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    if fault() == "exits":
        sys.exit("no such model")
    if fault() == "never listens":
        time.sleep(600)
    asyncio.run(serve(load_model()))
