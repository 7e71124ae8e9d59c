"""The summary of a finished run on this machine, as ``summary.json`` and the end of ``spira run`` show it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool

from spira.config import Config, FrozenModel
from spira.evaluation.verdict import (
    Candidate,
    ChampionComparison,
    Estimate,
    Number,
    SeedSpread,
    SeedTraining,
    TestData,
    Verdict,
)


class RunPaths(FrozenModel):
    """Files and folders that a run left."""

    verdict: str
    predictions: str
    checkpoint: str
    corpus: str
    report: str
    log: str
    package: str | None = None
    """Package of the approved model; None after a rejection."""
    serving: str | None = None
    """Folder of the local target; None after a rejection."""


class RunSummary(FrozenModel):
    """Verdict, measurements and places of one run."""

    approved: StrictBool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """Messages of the checks that could not be made and do not reject."""
    finding: str = ""
    """Message that the network is not shown to be better than the confounders alone, one of the warnings; or ""."""
    test_evaluations: int | None = None
    """How often this test set was evaluated so far; None if that is not known."""
    external: dict[str, dict[str, Estimate]] = Field(default_factory=dict)
    """External test set -> metric -> estimate in the noisy test, by file."""
    metrics: dict[str, Estimate]
    """Metric -> estimate in the noisy test, by file; empty if the candidate was not measured."""
    metrics_of: Literal["the noisy test, by file"] = "the noisy test, by file"
    model_version: int | None
    """Registered version; None after a rejection."""
    champion: ChampionComparison | None = None
    """Comparison with the champion at that time; None if there was none."""
    candidate: Candidate
    training: dict[str, SeedTraining]
    """Seed -> its training."""
    seeds: dict[str, dict[str, dict[str, Number]]]
    """Seed -> condition -> metric -> value by file."""
    spread: dict[str, dict[str, SeedSpread]]
    """Condition -> metric -> mean and standard deviation over seeds."""
    data: TestData
    config: Config
    lineage: dict[str, str]
    stages: dict[str, float]
    """Stage -> wall time, seconds."""
    paths: RunPaths
    mlflow: str
    """URI of MLflow's store."""

    @classmethod
    def of(
        cls,
        verdict: Verdict,
        *,
        model_version: int | None,
        lineage: dict[str, str],
        stages: dict[str, float],
        paths: RunPaths,
        mlflow: str,
    ) -> RunSummary:
        """Return the summary of a verdict and of what the run made."""
        noisy = verdict.conditions.get("noisy")
        return cls(
            approved=verdict.approved,
            reasons=verdict.reasons,
            warnings=verdict.warnings,
            finding=verdict.finding,
            test_evaluations=verdict.test_evaluations,
            external={
                test.name: test.conditions["noisy"].by_file for test in verdict.external if "noisy" in test.conditions
            },
            metrics=noisy.by_file if noisy else {},
            model_version=model_version,
            champion=verdict.champion,
            candidate=verdict.candidate,
            training=verdict.training,
            seeds=verdict.seeds,
            spread=verdict.spread,
            data=verdict.data,
            config=verdict.config,
            lineage=lineage,
            stages=stages,
            paths=paths,
            mlflow=mlflow,
        )
