"""File names in the verdict folder that evaluate writes."""

from spira.evaluation.verdict import HISTORIES, PREDICTIONS, VERDICT

__all__ = ["HISTORIES", "LINEAGE", "PREDICTIONS", "VERDICT"]

LINEAGE = "lineage.json"
