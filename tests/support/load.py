"""Runs in a pod: two clients ask one recording over and over; each second a line of JSON tells what they got.

What they ask, and what each version must answer, lies in /asks: ask.json and the recording in base64.
"""

import http.client
import json
import pathlib
import threading
import time

PAUSE_SECONDS, TIMEOUT_SECONDS = 0.03, 10

asked = json.loads(pathlib.Path("/asks/ask.json").read_text())
wav = pathlib.Path("/asks/wav.b64").read_text()
body = json.dumps({"inputs": [{"name": "audio", "datatype": "BYTES", "shape": [1], "data": [wav]}]})
answered: dict[str, int] = {}
failed: list[str] = []


def ask(keeps_connections: bool) -> None:
    connection = http.client.HTTPConnection(asked["host"], timeout=TIMEOUT_SECONDS)
    while True:
        try:
            connection.request("POST", asked["path"], body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise ValueError(f"{response.status}: {content[:200]!r}")
            answer = json.loads(content)
            version, probability = answer["model_version"], answer["outputs"][0]["data"][0]
            if abs(probability - asked["probabilities"][version]) > 1e-5:
                raise ValueError(f"version {version} says {probability}")
            answered[version] = answered.get(version, 0) + 1
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
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
