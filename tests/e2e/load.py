"""Runs in a pod: two clients ask one recording over and over; each second a line of JSON tells what they got."""

import base64
import http.client
import json
import pathlib
import threading
import time

HOST, PATH = "spira-predictor", "/v2/models/spira/infer"
PAUSE_SECONDS, TIMEOUT_SECONDS = 0.03, 10
FILE = "golden/voice-one-window.wav"

wav = pathlib.Path("/models/1/data", FILE).read_bytes()
tensor = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(wav).decode()]}
body = json.dumps({"inputs": [tensor]})
answered: dict[str, int] = {}
failed: list[str] = []


def right(version: str) -> float:
    """Torch's probability by a version."""
    listing = json.loads(pathlib.Path("/models", version, "data/golden.json").read_text())
    return next(one["probability"] for one in listing if one["file"] == FILE)


def ask(keeps_connections: bool) -> None:
    connection = http.client.HTTPConnection(HOST, timeout=TIMEOUT_SECONDS)
    while True:
        try:
            connection.request("POST", PATH, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise ValueError(f"{response.status}: {content[:200]!r}")
            answer = json.loads(content)
            version, probability = answer["model_version"], answer["outputs"][0]["data"][0]
            if abs(probability - right(version)) > 1e-5:
                raise ValueError(f"version {version} says {probability}")
            answered[version] = answered.get(version, 0) + 1
        except (OSError, ValueError, http.client.HTTPException) as error:
            failed.append(f"{time.strftime('%X')} {type(error).__name__}: {error}")
            connection.close()
        if not keeps_connections:
            connection.close()
        time.sleep(PAUSE_SECONDS)


for keeps in (True, False):
    threading.Thread(target=ask, args=(keeps,), daemon=True).start()
while True:
    time.sleep(1)
    print(json.dumps({"answered": answered, "failed": failed[:20]}), flush=True)
