"""The outcome of a pipeline run, looked up by its name in a real SQLite store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spira.evaluation.verdict import Verdict
from spira.packaging import mlflow_model
from spira.packaging.verify import digests
from spira.registry import Outcome, Registry, RegistryError, local_uri
from tests.support.verdicts import make_verdict

pytestmark = pytest.mark.integration

REASONS = ["accuracy 0.60 is below 0.80", "speaker; a name with a semicolon"]


def verdict(approved: bool) -> Verdict:
    return make_verdict(True, (), 0.9) if approved else make_verdict(False, REASONS, 0.6)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One store for all tests, each with runs of its own names."""
    return Registry(local_uri(tmp_path_factory.mktemp("store")))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with the files that a registration needs."""
    folder = tmp_path / "package"
    for name in ("data/config.json", "code/spira_inference/pyfunc.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "data" / "config.json").write_text(json.dumps({"folder": str(tmp_path)}))
    mlflow_model.write(folder)
    (folder / "package.json").write_text(json.dumps({"format": 2, "files": digests(folder)}))
    return folder


def log(registry: Registry, name: str, approved: bool, **params: Any) -> str:
    return registry.log_run(name, params, {}, verdict(approved), {}, {"pipeline_run": name})


def test_an_approved_run_has_its_version(registry: Registry, package: Path) -> None:
    """Verdict, version and metrics are those of the run of that name."""
    run_id = log(registry, "approved", True)
    version = registry.register(package, run_id, verdict(True), {"pipeline_run": "approved"})
    log(registry, "another", False)
    assert registry.outcome("approved") == Outcome(True, (), version, {"accuracy": 0.9})


def test_a_rejected_run_has_its_reasons(registry: Registry) -> None:
    """The reasons are unchanged, and there is no version."""
    log(registry, "rejected", False)
    assert registry.outcome("rejected") == Outcome(False, tuple(REASONS), None, {"accuracy": 0.6})


def test_a_run_keeps_its_version_if_a_later_run_has_the_same_package(registry: Registry, package: Path) -> None:
    """The version's own tags name only the latest run."""
    numbers = [
        registry.register(package, log(registry, name, True), verdict(True), {"pipeline_run": name})
        for name in ("first", "second", "third")
    ]
    outcomes = [registry.outcome(name) for name in ("first", "second", "third")]
    assert [outcome.model_version for outcome in outcomes if outcome] == numbers
    assert len(set(numbers)) == 1


def test_the_latest_of_a_repeated_run_counts(registry: Registry) -> None:
    """A repeated task may have another verdict."""
    log(registry, "repeated", True)
    log(registry, "repeated", False, again=True)
    outcome = registry.outcome("repeated")
    assert outcome is not None
    assert not outcome.approved


def test_a_run_that_logged_nothing_has_no_outcome(registry: Registry) -> None:
    """Such a run failed before its verdict, or never existed."""
    assert registry.outcome("nothing") is None


def test_an_unfinished_run_has_no_outcome(registry: Registry) -> None:
    """A run that was killed while it was logged is incomplete."""
    run_id = log(registry, "unfinished", False)
    registry._store.client.update_run(run_id, status="RUNNING")
    assert registry.outcome("unfinished") is None


def test_an_approval_without_a_version_has_no_outcome(registry: Registry) -> None:
    """A run that was killed before the registration has nothing to deliver."""
    log(registry, "unregistered", True)
    assert registry.outcome("unregistered") is None


def test_a_verdict_that_cannot_be_read_is_an_error(registry: Registry) -> None:
    """An unreadable verdict is neither approval nor rejection; the message names the run."""
    run_id = log(registry, "spoilt", True)
    (stored,) = Path(registry.tracking_uri.removeprefix("sqlite:///")).parent.rglob(f"{run_id}/**/verdict.json")
    stored.write_text("{")
    with pytest.raises(RegistryError, match="'spoilt' is not JSON"):
        registry.outcome("spoilt")
    stored.unlink()
    with pytest.raises(RegistryError, match="the outcome of the run cannot be looked up"):
        registry.outcome("spoilt")


def test_a_name_cannot_change_the_query(registry: Registry) -> None:
    """A quotation mark would end the quoted name in the query; a name with one kind is quoted with the other."""
    log(registry, "Clone of Bob's run", False)
    assert registry.outcome("Clone of Bob's run") is not None
    log(registry, 'a "quoted" run', False)
    assert registry.outcome('a "quoted" run') is not None
    assert registry.outcome("x' or tags.approved = 'true") is None
    with pytest.raises(RegistryError, match=r"cannot be looked up: its name has ' and \""):
        registry.outcome("x' or \" = ' \"")
