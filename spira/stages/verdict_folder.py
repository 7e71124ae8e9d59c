"""File names in the verdict folder that evaluate makes."""

VERDICT, LINEAGE = "verdict.json", "lineage.json"
HISTORIES, PREDICTIONS = "histories.json", "predictions.parquet"
