"""The golden recordings of a package, computed again: their probabilities decide whether this code may serve it."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

from .model import Model


def golden(model: Model, folder: str) -> List[Dict[str, Any]]:
    """Compute the recordings listed in a folder's ``golden.json``; return file, expected, and probability or error."""
    with open(os.path.join(folder, "golden.json"), encoding="utf-8") as file:
        entries = json.load(file)
    for entry in entries:
        if os.path.isabs(entry["file"]) or ".." in entry["file"].split("/"):
            raise ValueError("golden.json names the file %r outside its folder" % entry["file"])
    return [
        dict(
            predict_file(model, os.path.join(folder, entry["file"])),
            file=entry["file"],
            expected=entry["probability"],
        )
        for entry in entries
    ]


def predict_file(model: Model, path: str) -> Dict[str, Any]:
    """Return the probability and the diagnosis of a WAV file, or the error that refuses it."""
    try:
        with open(path, "rb") as file:
            return predict(model, file.read())
    except OSError as error:
        return {"error": str(error)}


def predict(model: Model, content: bytes) -> Dict[str, Any]:
    """Return the probability and the diagnosis of a WAV file's content, or the error that refuses it."""
    try:
        probability = model.probability(content)
    except ValueError as error:
        return {"error": str(error)}
    return {"probability": probability, "diagnosis": model.diagnose(probability)}
