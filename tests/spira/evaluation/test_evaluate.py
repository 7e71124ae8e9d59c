"""The parts of a verdict: candidate, measurements and slices. The acceptance tests evaluate whole models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spira import config
from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.evaluation import evaluate, gate
from spira.evaluation import verdict as verdicts
from spira.models import checkpoint
from spira.training import train


@pytest.fixture(scope="module")
def seeds(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of two short trainings that differ in their seed."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in (1, 2):
        train.train(corpus, config.smoke(), seed, folder / str(seed))
    return [folder / "1", folder / "2"]


@pytest.fixture(scope="module")
def evaluator(corpus: Corpus) -> evaluate.TestSetEvaluator:
    return evaluate.TestSetEvaluator(corpus, config.smoke(), gate.load())


def test_the_candidate_is_the_one_with_the_lowest_validation_loss(
    corpus: Corpus, seeds: list[Path], tmp_path: Path
) -> None:
    """Neither the test split nor the order of the checkpoints matters; every seed is measured."""
    losses = {path: checkpoint.load(path).info.best_eval_loss for path in seeds}
    best = int(min(losses, key=lambda path: losses[path]).name)
    verdicts = [evaluate.evaluate(corpus, order, gate.load(), tmp_path) for order in (seeds, seeds[::-1])]
    assert [verdict.candidate.seed for verdict in verdicts] == [best, best]
    assert set(verdicts[0].seeds) == {"1", "2"}
    accuracies = [conditions["noisy"]["accuracy"] for conditions in verdicts[0].seeds.values()]
    assert verdicts[0].spread["noisy"]["accuracy"].mean == pytest.approx(np.mean(accuracies))
    assert verdicts[0].spread["noisy"]["accuracy"].std == pytest.approx(np.std(accuracies, ddof=1))


def test_the_verdict_is_the_same_twice_and_is_json(corpus: Corpus, seeds: list[Path], tmp_path: Path) -> None:
    """Noise draws and bootstrap are seeded; NaN is written as null; what is returned is what is written."""
    results = [evaluate.evaluate(corpus, seeds[:1], gate.load(), tmp_path / name) for name in ("a", "b")]
    first, second = ((tmp_path / name / "verdict.json").read_text() for name in ("a", "b"))
    assert first == second
    json.loads(first, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert verdicts.read(tmp_path / "a" / "verdict.json") == results[0]


def test_no_checkpoint_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """An empty list is an error, not an approval."""
    with pytest.raises(SpiraError, match="no checkpoint"):
        evaluate.evaluate(corpus, [], gate.load(), tmp_path)


def test_a_verdict_without_checks_is_not_an_approval() -> None:
    """A model is approved only if at least one check passed."""
    assert evaluate.decide([]) == (False, ())


def test_noise_is_inserted_in_controls_only(evaluator: evaluate.TestSetEvaluator) -> None:
    """In the paper's test, patients have no inserted noise; another draw is another noise."""
    clean, first, second = (evaluator.waveforms(*key) for key in (("clean", 0), ("noisy", 0), ("noisy", 1)))
    for index, label in enumerate(evaluator.test.labels):
        assert np.array_equal(clean[index], first[index]) == bool(label)
        assert np.array_equal(first[index], second[index]) == bool(label)


def test_the_confusion_matrix_has_a_row_per_true_class(evaluator: evaluate.TestSetEvaluator) -> None:
    """[[true controls, false patients], [missed patients, true patients]]."""
    rows = pd.DataFrame(
        {
            "file_path": list("abcdef"),
            "label": [0, 0, 0, 1, 1, 1],
            "draw": 0,
            "probability": [0.1, 0.2, 0.9, 0.3, 0.8, 0.9],
        }
    )
    measured = evaluator.condition(rows)
    assert measured.confusion == ((2, 1), (1, 2))
    assert measured.by_speaker is None
    assert measured.by_file["accuracy"].value == pytest.approx(4 / 6)


def test_a_speakers_probability_is_the_mean_of_the_recordings() -> None:
    """A voice with three recordings counts once; a voice in both classes counts in each."""
    rows = pd.DataFrame(
        {"speaker": ["a", "a", "a", "b"], "label": [1, 1, 0, 0], "draw": 0, "probability": [0.2, 0.6, 0.9, 0.1]}
    )
    means = evaluate.by_speaker(rows).set_index(["speaker", "label"])["probability"]
    assert means.to_dict() == pytest.approx({("a", 0): 0.9, ("a", 1): 0.4, ("b", 0): 0.1})


def test_slices_are_the_values_of_every_optional_column() -> None:
    """A numeric column with many values is cut into thirds; a text column with as many values as recordings is none."""
    ages = [20, 30, 40, 50, 60, 70, 80, 90, 95, None]
    columns = {"sex": ["f", "m"] * 5, "age": ages, "note": [*"klmnopqr", "", ""], "record": list("0123456789")}
    rows = pd.DataFrame({"file_path": list("abcdefghij"), "label": 0, **columns})
    sizes = {(column, value): len(part) for column, value, part in evaluate.slices(rows)}
    assert sizes == {
        ("age", "20 to 40"): 3,
        ("age", "50 to 70"): 3,
        ("age", "80 to 95"): 3,
        ("sex", "f"): 5,
        ("sex", "m"): 5,
    }


def test_the_worst_mistakes_come_first() -> None:
    """Mistakes are sorted by distance from the truth, over the draws; right predictions are left out."""
    rows = pd.DataFrame(
        {
            "file_path": ["a", "a", "b", "c", "d"],
            "label": [0, 0, 1, 1, 0],
            "probability": [0.7, 0.5, 0.1, 0.45, 0.2],
        }
    )
    worst = evaluate.worst_mistakes(rows, 0.5)
    assert [(mistake.file_path, mistake.probability) for mistake in worst] == [("b", 0.1), ("a", 0.6), ("c", 0.45)]


def test_external_sets_are_measured_and_decide_nothing(corpus: Corpus, seeds: list[Path], tmp_path: Path) -> None:
    """Candidate, checks, reasons and predictions are those of the same corpus without them."""
    moved = corpus.index.copy()
    moved.loc[moved["speaker"].isin(["test2", "test3"]), "split"] = "test_north"
    outside = dataclasses.replace(corpus, index=moved)
    alone = dataclasses.replace(corpus, index=moved[moved["split"] != "test_north"])
    verdict, without = (
        evaluate.evaluate(data, seeds, gate.load(), tmp_path / name)
        for name, data in (("with", outside), ("without", alone))
    )
    (north,) = verdict.external
    assert (north.name, north.data.files, north.problem) == ("north", 4, "")
    assert north.data.classes == {"control": {"files": 2, "speakers": 1}, "patient": {"files": 2, "speakers": 1}}
    assert set(north.conditions) == {"noisy", "clean"}
    candidate = checkpoint.load(next(path for path in seeds if int(path.name) == verdict.candidate.seed))
    of_all = evaluate.TestSetEvaluator(corpus, candidate.config, gate.load()).predictions(candidate, ("clean",))
    rows = of_all[of_all["speaker"].isin(["test2", "test3"])]
    assert north.conditions["clean"].by_file["accuracy"].value == pytest.approx(
        np.mean((rows["probability"] >= 0.5) == rows["label"])
    )
    assert without.external == ()
    assert verdict.model_copy(update={"external": (), "flow": ()}) == without.model_copy(update={"flow": ()})
    written, expected = (pd.read_parquet(tmp_path / name / "predictions.parquet") for name in ("with", "without"))
    pd.testing.assert_frame_equal(written, expected)


def test_an_external_set_that_was_trained_on_is_not_measured(corpus: Corpus, seeds: list[Path], tmp_path: Path) -> None:
    """Its recordings and its speakers are recognised; the verdict warns with the numbers, and decides as without it."""
    moved = corpus.index.copy()
    moved.loc[moved["speaker"].isin(["train0", "train1"]), "split"] = "test_north"
    verdict = evaluate.evaluate(dataclasses.replace(corpus, index=moved), seeds[:1], gate.load(), tmp_path)
    (north,) = verdict.external
    assert north.conditions == {}
    assert north.problem == (
        "4 test recordings were used in training: leakage; 2 test speakers were used in training: leakage"
    )
    assert f"external test set north: {north.problem}" in verdict.warnings
    assert not any("leakage" in reason for reason in verdict.reasons)


def test_the_digest_of_a_test_set_is_that_of_its_recordings_and_classes(corpus: Corpus) -> None:
    """Order, names, speakers and the other splits do not matter."""
    digest = evaluate.test_digest(corpus.split("test"))
    shuffled = corpus.index.sample(frac=1, random_state=1).assign(speaker="x", file_path="y")
    others = shuffled[shuffled["split"] != "train"]
    assert evaluate.test_digest(dataclasses.replace(corpus, index=others).split("test")) == digest
    swapped = corpus.index.assign(label=1 - corpus.index["label"])
    fewer = corpus.index.drop(index=corpus.index.index[corpus.index["split"] == "test"][0])
    for index in (swapped, fewer):
        assert evaluate.test_digest(dataclasses.replace(corpus, index=index).split("test")) != digest


def test_evaluations_of_the_test_are_counted(corpus: Corpus, seeds: list[Path], tmp_path: Path) -> None:
    """This one included; the number is not known if the earlier ones are not."""
    for earlier, expected in ((None, None), (0, 1), (6, 7)):
        verdict = evaluate.evaluate(corpus, seeds[:1], gate.load(), tmp_path, earlier_evaluations=earlier)
        assert verdict.test_evaluations == expected
    assert verdict.data.digest == evaluate.test_digest(corpus.split("test"))


def test_the_finding_on_confounders_comes_first(corpus: Corpus, seeds: list[Path], tmp_path: Path) -> None:
    """Before every other check and warning, whatever the gate says about the rest."""
    twice = pd.concat([corpus.index, corpus.index[corpus.index["split"] == "test"].assign(speaker=COPIES)])
    wide = dataclasses.replace(corpus, index=twice)
    verdict = evaluate.evaluate(wide, seeds[:1], gate.load(), tmp_path)
    assert verdict.checks[0].name == "better_than_confounders"
    assert verdict.confounders is not None
    assert [test.condition for test in verdict.confounders.tests] == ["noisy", "clean"]
    assert verdict.checks[0].is_warning
    assert verdict.warnings[0].startswith("the network is not shown to be better than length, level and noise level")


COPIES = [f"copy{number}" for number in range(8)]
"""Speakers of the second copy of the test recordings, so that there are enough speakers to judge by."""


def test_a_metric_without_a_value_for_one_seed_has_no_spread() -> None:
    """A likelihood ratio is infinite if no control is called patient; the other metrics keep their spread."""
    seeds = [dict.fromkeys(evaluate.METRICS, 0.5) | {"positive_likelihood_ratio": ratio} for ratio in (4.0, np.inf)]
    by_seed = {str(seed): {"noisy": values, "clean": values} for seed, values in enumerate(seeds)}
    spread = evaluate.spread_over_seeds(by_seed)["noisy"]
    assert (spread["positive_likelihood_ratio"].mean, spread["positive_likelihood_ratio"].std) == (None, None)
    assert (spread["accuracy"].mean, spread["accuracy"].std) == (0.5, 0.0)


def test_missing_speakers_are_not_invented(corpus: Corpus, seeds: list[Path], tmp_path: Path) -> None:
    """Without the column there is no metric by speaker, and no minimum number of speakers is checked."""
    unknown = dataclasses.replace(corpus, index=corpus.index.drop(columns="speaker"))
    verdict = evaluate.evaluate(unknown, seeds[:1], gate.load(), tmp_path)
    assert verdict.conditions["noisy"].by_speaker is None
    assert set(verdict.data.classes["control"]) == {"files"}
