"""The verdict folder that evaluate writes: names of its files, and their digests."""

from pathlib import Path

from spira import digests
from spira.evaluation.verdict import HISTORIES, PREDICTIONS, REMEDY, VERDICT
from spira.files import read_json
from spira.project import UNKNOWN, Project

__all__ = ["FILES", "HISTORIES", "LINEAGE", "PREDICTIONS", "PROJECT", "VERDICT", "WORK_TIMES", "check", "read_project"]

LINEAGE, PROJECT, WORK_TIMES = "lineage.json", "project.json", "work-times.json"


FILES = (VERDICT, PREDICTIONS, HISTORIES, LINEAGE, PROJECT, WORK_TIMES)


def check(folder: Path) -> None:
    """Compare the files of a verdict folder with their digests, which earlier versions did not write.

    Raises:
        DamagedError: a file was changed or is missing.
    """
    digests.check(folder, FILES, REMEDY)


def read_project(verdict: Path) -> Project:
    """Return the project file as it was at the evaluation; nothing is known if an earlier version wrote the folder."""
    file = verdict / PROJECT
    return Project.model_validate(read_json(file)) if file.is_file() else UNKNOWN
