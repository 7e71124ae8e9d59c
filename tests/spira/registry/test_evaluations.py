"""Evaluations of a test set, counted by the runs of a real SQLite store."""

from __future__ import annotations

import pytest

from spira.evaluation.verdict import ConfounderBaseline, ConfounderTest, Estimate, ExternalTest
from spira.registry import Registry, local_uri
from tests.support.verdicts import condition, make_verdict

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """One store for all tests, each with test sets of its own."""
    return Registry(local_uri(tmp_path_factory.mktemp("store")))


def log(registry: Registry, name: str, test: str, data: str = "", **tags: str) -> str:
    """Log a run on a test set and return its id."""
    tags = {"pipeline_run": name, "data_fingerprint": data, "test_digest": test} | tags
    return registry.log_run(name, {}, {}, make_verdict(), {}, {tag: value for tag, value in tags.items() if value})


def test_runs_on_the_test_set_are_counted(registry: Registry) -> None:
    """Whatever the rest of their data; runs on other test sets are not, although their data set has the same digest."""
    assert registry.evaluations("test a", "data a") == 0
    log(registry, "1", "test a", "data a")
    log(registry, "2", "test a", "more training data")
    log(registry, "3", "test b", "data a")
    assert registry.evaluations("test a", "data a") == 2
    assert registry.evaluations("test b", "data a") == 1


def test_a_run_of_an_earlier_version_is_counted_by_its_data(registry: Registry) -> None:
    """It has no digest of its test set."""
    log(registry, "old", "", "data c")
    log(registry, "new", "test c", "data c")
    assert registry.evaluations("test c", "data c") == 2


def test_a_repeated_run_does_not_count_itself(registry: Registry) -> None:
    """A run without a name is never taken for a repetition."""
    log(registry, "5", "test d")
    log(registry, "", "test d")
    assert registry.evaluations("test d", "", "5") == 1
    assert registry.evaluations("test d", "", "") == 2


def test_deleted_runs_count_and_parts_of_a_run_do_not(registry: Registry) -> None:
    """The result of a deleted run was seen; a child run, such as one a seed, is no evaluation of its own."""
    run_id = log(registry, "6", "test e")
    log(registry, "7", "test e", **{"mlflow.parentRunId": run_id})
    registry._store.client.delete_run(run_id)
    assert registry.evaluations("test e", "") == 1


def test_the_count_does_not_make_a_repeated_run_another_one(registry: Registry) -> None:
    """The same content is the same run, whatever was logged meanwhile."""
    first, second = (
        registry.log_run("8", {}, {}, make_verdict().model_copy(update={"test_evaluations": count}), {}, {})
        for count in (1, 2)
    )
    assert first == second


def test_few_numbers_of_the_validation_are_metrics(registry: Registry) -> None:
    """Four of an external set and two of the confounders; the curves and counts stay in the verdict."""
    rates = {"accuracy": 0.8, "sensitivity": 0.7, "specificity": 0.9, "auroc": 0.85, "brier": 0.1}
    north = ExternalTest(name="north", data=make_verdict().data, conditions={"noisy": condition(**rates)})
    unknown = ExternalTest(name="south", data=make_verdict().data, conditions={}, problem="leakage")
    estimates = {"auroc": Estimate(value=0.6), "accuracy": Estimate(value=None)}
    tests = tuple(
        ConfounderTest(condition=name, by_file=estimates, difference=estimates) for name in ("noisy", "clean")
    )
    baseline = ConfounderBaseline(tests=tests, confounders=(), train_files=8)
    verdict = make_verdict().model_copy(update={"external": (north, unknown), "confounders": baseline})
    run_id = registry.log_run("9", {}, {}, verdict, {}, {})
    logged = registry._store.client.get_run(run_id).data.metrics
    new = {name: value for name, value in logged.items() if name.startswith(("external", "confounders"))}
    assert new == {
        "external/north/accuracy": 0.8,
        "external/north/sensitivity": 0.7,
        "external/north/specificity": 0.9,
        "external/north/auroc": 0.85,
        "confounders/auroc": 0.6,
        "confounders/difference/auroc": 0.6,
    }


def test_the_count_pages_through_a_large_store(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store answers in pages."""
    for number in range(5):
        log(registry, f"many {number}", "test f")
    search = registry._store.client.search_runs
    monkeypatch.setattr(
        registry._store.client, "search_runs", lambda *args, **kwargs: search(*args, **kwargs, max_results=2)
    )
    assert registry.evaluations("test f", "") == 5
