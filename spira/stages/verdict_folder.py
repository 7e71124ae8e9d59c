"""File names in the verdict folder that evaluate writes."""

from pathlib import Path

from spira.evaluation.verdict import HISTORIES, PREDICTIONS, VERDICT
from spira.files import read_json
from spira.project import UNKNOWN, Project

__all__ = ["HISTORIES", "LINEAGE", "PREDICTIONS", "PROJECT", "VERDICT", "WORK_TIMES", "read_project"]

LINEAGE, PROJECT, WORK_TIMES = "lineage.json", "project.json", "work-times.json"


def read_project(verdict: Path) -> Project:
    """Return the project file as it was at the evaluation; nothing is known if an earlier version wrote the folder."""
    file = verdict / PROJECT
    return Project.model_validate(read_json(file)) if file.is_file() else UNKNOWN
