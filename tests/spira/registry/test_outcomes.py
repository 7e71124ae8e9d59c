"""What a run of the pipeline came to, looked up by its name in a real SQLite store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spira.registry import Outcome, Registry, RegistryError, local_uri

REASONS = ["accuracy 0.60 is below 0.80", "speaker; a name with a semicolon"]


def verdict(approved: bool) -> dict[str, Any]:
    return {
        "approved": approved,
        "reasons": [] if approved else REASONS,
        "conditions": {"noisy": {"by_file": {"accuracy": {"value": 0.9 if approved else 0.6}}}},
    }


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One store for all: each test names its runs."""
    return Registry(local_uri(tmp_path_factory.mktemp("store")))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of the registry's shape."""
    for name in ("package.json", "data/config.json", "code/spira_inference/pyfunc.py"):
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_text("{}" if name.endswith("json") else "")
    (tmp_path / "package" / "data" / "config.json").write_text(f'{{"place": "{tmp_path}"}}')
    return tmp_path / "package"


def log(registry: Registry, name: str, approved: bool, **more: Any) -> str:
    return registry.log_run(name, more, {}, verdict(approved), {}, {"pipeline_run": name})


def test_an_approved_run_has_its_version(registry: Registry, package: Path) -> None:
    """Verdict, version and metrics of the run of that name, and of no other."""
    run_id = log(registry, "approved", True)
    version = registry.register(package, run_id, verdict(True), {"pipeline_run": "approved"})
    log(registry, "another", False)
    metrics = {"approved": 1.0, "noisy.by_file.accuracy": 0.9}
    assert registry.outcome("approved") == Outcome(True, (), version, metrics)


def test_a_rejected_run_has_its_reasons(registry: Registry) -> None:
    """Each as it was given, and no version."""
    log(registry, "rejected", False)
    found = registry.outcome("rejected")
    assert found == Outcome(False, tuple(REASONS), None, {"approved": 0.0, "noisy.by_file.accuracy": 0.6})


def test_a_run_keeps_its_version_when_a_later_one_makes_the_same(registry: Registry, package: Path) -> None:
    """The version's own tags tell of the latest run only."""
    numbers = [
        registry.register(package, log(registry, name, True), verdict(True), {"pipeline_run": name})
        for name in ("first", "second", "third")
    ]
    found = [registry.outcome(name) for name in ("first", "second", "third")]
    assert [each.model_version for each in found if each] == numbers
    assert len(set(numbers)) == 1


def test_the_latest_of_a_repeated_run_counts(registry: Registry) -> None:
    """A task that was tried again may have been judged anew."""
    log(registry, "repeated", True)
    log(registry, "repeated", False, again=True)
    found = registry.outcome("repeated")
    assert found is not None
    assert not found.approved


def test_a_run_that_logged_nothing_has_no_outcome(registry: Registry) -> None:
    """It failed before its verdict, or never was."""
    assert registry.outcome("nothing") is None


def test_an_unfinished_run_has_no_outcome(registry: Registry) -> None:
    """Killed while it was logged: what is there is not whole."""
    run_id = log(registry, "unfinished", False)
    registry._store.client.update_run(run_id, status="RUNNING")
    assert registry.outcome("unfinished") is None


def test_an_approval_without_a_version_is_none(registry: Registry) -> None:
    """Killed between log and version: there is nothing to deliver."""
    log(registry, "unregistered", True)
    assert registry.outcome("unregistered") is None


def test_a_verdict_that_cannot_be_read_is_an_error(registry: Registry) -> None:
    """It must never pass for one; the message names the run."""
    run_id = log(registry, "spoilt", True)
    (stored,) = Path(registry.tracking_uri.removeprefix("sqlite:///")).parent.rglob(f"{run_id}/**/verdict.json")
    stored.write_text("{")
    with pytest.raises(RegistryError, match="'spoilt' is no JSON"):
        registry.outcome("spoilt")
    stored.unlink()
    with pytest.raises(RegistryError, match="the outcome of the run can't be looked up"):
        registry.outcome("spoilt")


def test_a_name_cannot_reach_into_the_search(registry: Registry) -> None:
    """A quotation mark would end the text that is searched for."""
    with pytest.raises(RegistryError, match="quotation mark"):
        registry.outcome("x' or tags.approved = 'true")
