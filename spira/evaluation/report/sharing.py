"""The part of an evaluation that may leave the pipeline: files for MLflow, with pseudonyms instead of names.

    shared/verdict.json          worst mistakes by pseudonym; a slice too small to be checked has no value
    shared/predictions.parquet   recordings and speakers by pseudonym; no optional column, such as age
    shared/checkpoint.json       training speakers by pseudonym
    shared/SHA256SUMS            digests of the files above (:mod:`spira.digests`)

Evaluate writes them once, so that a repeated push logs the same content, whatever its key.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from spira import digests
from spira.data.pseudonyms import Pseudonyms
from spira.evaluation import verdict as verdicts
from spira.evaluation.verdict import PREDICTIONS, VERDICT, Verdict
from spira.files import new_folder, write_json
from spira.models import checkpoint as checkpoints
from spira.models.checkpoint import CheckpointInfo

FOLDER = "shared"
"""Folder in the verdict folder."""
FILES = (VERDICT, PREDICTIONS, checkpoints.INFO)
COLUMNS = ["file_path", "speaker", "label", "condition", "draw", "probability"]
"""Columns of the shared predictions. The others describe a person, and may be the hospital's own numbers."""


def write(verdict_dir: Path, candidate: Path, pseudonyms: Pseudonyms) -> None:
    """Write the shared files of a verdict folder and of the candidate's checkpoint folder.

    Raises:
        SpiraError: the verdict or the checkpoint cannot be read.
    """
    verdict = verdicts.read(verdict_dir / VERDICT)
    table = pd.read_parquet(verdict_dir / PREDICTIONS)
    info = checkpoints.read_info(candidate)
    with new_folder(verdict_dir / FOLDER) as folder:
        shared_predictions(table, pseudonyms).to_parquet(folder / PREDICTIONS)
        write_json(folder / checkpoints.INFO, shared_info(info, pseudonyms).model_dump(mode="json"))
        verdicts.write(folder / VERDICT, shared_verdict(verdict, pseudonyms))
        digests.record(folder, FILES)


def shared_verdict(verdict: Verdict, pseudonyms: Pseudonyms) -> Verdict:
    """Return a verdict with pseudonyms instead of names, and without the values that few recordings share."""
    mistakes = tuple(
        mistake.model_copy(update={"file_path": pseudonyms.recording(mistake.file_path)})
        for mistake in verdict.mistakes
    )
    slices = tuple(
        part
        if part.files >= verdict.gate.slices.minimum_files
        else part.model_copy(update={"value": pseudonyms.value(part.column, part.value)})
        for part in verdict.slices
    )
    return verdict.model_copy(update={"mistakes": mistakes, "slices": slices})


def shared_predictions(table: pd.DataFrame, pseudonyms: Pseudonyms) -> pd.DataFrame:
    """Return predictions with pseudonyms instead of names, and without optional columns."""
    shared = table[[column for column in COLUMNS if column in table]].copy()
    for column, pseudonym in (("file_path", pseudonyms.recording), ("speaker", pseudonyms.speaker)):
        if column in shared:
            shared[column] = [pseudonym(str(name)) for name in shared[column]]
    return shared


def shared_info(info: CheckpointInfo, pseudonyms: Pseudonyms) -> CheckpointInfo:
    """Return the origin of a network with pseudonyms of its speakers."""
    if info.train_speakers is None:
        return info
    return info.model_copy(update={"train_speakers": tuple(map(pseudonyms.speaker, info.train_speakers))})
