"""Addresses of pages for people: reports in MLflow, and the status page."""

from __future__ import annotations

from dataclasses import dataclass

REPORT = "report.html"
"""Artifact of a run with its report."""
MODEL = "spira"
"""Name of the registered model."""


@dataclass(frozen=True)
class Links:
    """Addresses at which people open MLflow and the status page."""

    mlflow: str = ""
    """Empty if MLflow has no address, as in a work folder."""
    page: str = ""
    """Empty if the status page is not served."""

    def report(self, run_page: str, version: str = "") -> str:
        """Return the address of a report, or else of a version's page; empty if there is neither.

        Args:
            run_page: path of the run's page in MLflow, as the ledger has it.
        """
        if not self.mlflow:
            return ""
        base = self.mlflow.rstrip("/")
        if run_page:
            return f"{base}/#/{run_page}/artifactPath/{REPORT}"
        return f"{base}/#/models/{MODEL}/versions/{version}" if version else ""
