"""A load generator that runs in a pod: two clients send one recording again and again.

The request and the expected probability of each version are in /load/request.json, the recording in base64 in
/load/wav.b64. Every second a line of JSON reports the responses so far.
"""

import http.client
import json
import pathlib
import threading
import time

PAUSE_SECONDS, TIMEOUT_SECONDS = 0.03, 10

request = json.loads(pathlib.Path("/load/request.json").read_text())
wav = pathlib.Path("/load/wav.b64").read_text()
body = json.dumps({"inputs": [{"name": "audio", "datatype": "BYTES", "shape": [1], "data": [wav]}]})
answered: dict[str, int] = {}
failed: list[str] = []


def send_requests(keep_connection: bool) -> None:
    """Send requests until the process ends."""
    connection = http.client.HTTPConnection(request["host"], timeout=TIMEOUT_SECONDS)
    while True:
        try:
            connection.request("POST", request["path"], body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise ValueError(f"{response.status}: {content[:200]!r}")
            result = json.loads(content)
            version, probability = result["model_version"], result["outputs"][0]["data"][0]
            if abs(probability - request["probabilities"][version]) > 1e-5:
                raise ValueError(f"version {version} returned probability {probability}")
            answered[version] = answered.get(version, 0) + 1
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            failed.append(f"{time.strftime('%X')} {type(error).__name__}: {error}")
            connection.close()
        if not keep_connection:
            connection.close()
        time.sleep(PAUSE_SECONDS)


for keep_connection in (True, False):
    threading.Thread(target=send_requests, args=(keep_connection,), daemon=True).start()
while True:
    time.sleep(1)
    print(json.dumps({"answered": answered, "failed": failed[:20]}), flush=True)
