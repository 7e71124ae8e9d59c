"""Command line of a package: compute recordings in a process of its own, with the package's own code.

    PYTHONPATH=package/code python -m spira_inference predict package/data a.wav b.wav
    PYTHONPATH=package/code python -m spira_inference golden package/data [more folders with a golden.json]

Both commands print a JSON list with one entry per recording: file, probability and diagnosis, or file and error.
``golden`` adds the expected probability. The exit code is 0 even if recordings were refused.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, List

from .model import Model


def main(verb: str, data: str, *paths: str) -> List[Dict[str, Any]]:
    """Run one command.

    Args:
        verb: ``predict`` or ``golden``.
        data: the package's ``data`` folder.
        paths: WAV files for ``predict``, further folders with a ``golden.json`` for ``golden``.

    Raises:
        ValueError: the verb is unknown, or the folder holds no model.
    """
    model = Model.load(data)
    if verb == "predict":
        return [predict_file(model, path) for path in paths]
    if verb == "golden":
        return [entry for folder in (data, *paths) for entry in golden(model, folder)]
    raise ValueError("unknown command %r: use predict or golden" % verb)


def golden(model: Model, folder: str) -> List[Dict[str, Any]]:
    """Compute the recordings listed in a folder's ``golden.json`` again."""
    with open(os.path.join(folder, "golden.json"), encoding="utf-8") as file:
        entries = json.load(file)
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
            probability = model.probability(file.read())
    except (OSError, ValueError) as error:
        return {"file": path, "error": str(error)}
    return {"file": path, "probability": probability, "diagnosis": model.diagnose(probability)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
