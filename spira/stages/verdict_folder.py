"""File names in the verdict folder that evaluate writes."""

from spira.evaluation.verdict import HISTORIES, PREDICTIONS, VERDICT

__all__ = ["HISTORIES", "LINEAGE", "PREDICTIONS", "PROJECT", "VERDICT", "WORK_TIMES"]

LINEAGE, PROJECT, WORK_TIMES = "lineage.json", "project.json", "work-times.json"
