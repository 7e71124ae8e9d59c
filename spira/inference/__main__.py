"""Use a package in a process of its own, with the code that travels in it.

    PYTHONPATH=package/code python -m spira_inference predict package/data a.wav b.wav
    PYTHONPATH=package/code python -m spira_inference golden package/data [more folders with a golden.json]

Both print a JSON list, an entry a recording: file, probability, diagnosis (or error); ``golden`` adds what was
expected. The exit code is 0 whatever the entries say.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, List

from .model import Model


def main(verb: str, data: str, *places: str) -> List[Dict[str, Any]]:
    """Do what the command line says.

    Raises:
        ValueError: the verb is unknown, or the folder holds no model.
    """
    model = Model.load(data)
    if verb == "predict":
        return [answer(model, file) for file in places]
    if verb == "golden":
        return [entry for folder in (data, *places) for entry in golden(model, folder)]
    raise ValueError("unknown verb %r: predict or golden" % verb)


def golden(model: Model, folder: str) -> List[Dict[str, Any]]:
    """The recordings listed in a folder's ``golden.json``, computed anew."""
    with open(os.path.join(folder, "golden.json"), encoding="utf-8") as file:
        entries = json.load(file)
    return [
        dict(answer(model, os.path.join(folder, entry["file"])), file=entry["file"], expected=entry["probability"])
        for entry in entries
    ]


def answer(model: Model, file: str) -> Dict[str, Any]:
    """What the model says of a WAV file, or why it says nothing."""
    try:
        with open(file, "rb") as opened:
            probability = model.probability(opened.read())
    except (OSError, ValueError) as error:
        return {"file": file, "error": str(error)}
    return {"file": file, "probability": probability, "diagnosis": model.diagnose(probability)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
