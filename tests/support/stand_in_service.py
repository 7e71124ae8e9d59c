"""A stand-in for the Inference Service that follows its contract.

    env model_path=models/3 receiving_channel=... python stand_in_service.py

It handles one message after the other, without a queue group, and does not answer a request that fails. A file
``<model>/<version>/faults.json`` in the folder ``MLFLOW_TRACKING_URI`` injects a fault: {"fault": name, "on": channel}.
"""

from __future__ import annotations

import asyncio
import importlib
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


def load_model() -> Any:
    """Load the model with the code in its folder, by the loader that its ``MLmodel`` names."""
    folder = Path(ENVIRONMENT["model_path"])
    (loader,) = (line.split()[-1] for line in (folder / "MLmodel").read_text().splitlines() if "loader_module:" in line)
    sys.path.insert(0, str(folder / "code"))
    return importlib.import_module(loader)._load_pyfunc(str(folder / "data"))


def fault() -> str:
    """Return the fault to inject on this process's channel; empty for none."""
    version = Path(ENVIRONMENT["model_path"]).name
    for path in Path(ENVIRONMENT["MLFLOW_TRACKING_URI"]).glob(f"*/{version}/faults.json"):
        faults = json.loads(path.read_text())
        if faults["on"] == ENVIRONMENT["receiving_channel"]:
            return faults["fault"]
    return ""


def recording(inference_id: str, name: str) -> bytes:
    """Return a recording from the bucket.

    The request is signed here: a complete S3 client would take as long to start as the rest of the process.
    """
    url = f"http://{ENVIRONMENT['minio_conn_url']}/{ENVIRONMENT['bucket_name']}/{inference_id}/{name}.wav"
    signed = AWSRequest("GET", url)
    keys = Credentials(ENVIRONMENT["minio_access_key"], ENVIRONMENT["minio_secret_key"])
    S3SigV4Auth(keys, "s3", "us-east-1").add_auth(signed)
    with urllib.request.urlopen(urllib.request.Request(url, headers=dict(signed.headers)), timeout=10) as response:
        return response.read()


def answer(model: Any, message: bytes) -> bytes:
    """Return the answer to a request, for the central channel."""
    inference = json.loads(message)
    logging.info("inference %s", inference)  # whole, as the service does
    assert all(type(inference[name]) is str for name in FIELDS)
    files = {name: {"content": recording(inference["id"], name), "filename": f"{name}.wav"} for name in RECORDINGS}
    output, diagnosis = model.predict([inference, files])
    if fault() == "wrong":
        output = [output[0] + 0.01]
    return json.dumps({"inference_id": inference["id"], "output": output, "diagnosis": diagnosis}).encode()


async def serve(model: Any) -> None:
    """Answer requests until the process is killed."""
    client = await nats.connect(ENVIRONMENT["nats_conn_url"])
    requests = await client.subscribe(ENVIRONMENT["receiving_channel"])
    await client.flush()
    while True:
        logging.info("waiting for inference on channel %s.", ENVIRONMENT["receiving_channel"])
        message = (await requests.next_msg(timeout=None)).data
        try:
            response = answer(model, message)
            if fault() != "silent":
                await client.publish(ENVIRONMENT["central_channel"], response)
                await client.flush()
        except (OSError, ValueError, LookupError, AssertionError):
            logging.exception("could not answer")
        if fault() == "dies after an answer":
            raise MemoryError(json.loads(message))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    if fault() == "exits":
        raise LookupError("no such model")
    if fault() == "never listens":
        time.sleep(600)
    asyncio.run(serve(load_model()))
