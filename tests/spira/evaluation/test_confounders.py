"""The baseline of confounders: planted ones are found, and a network that uses the voice is not suspected."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from spira import config
from spira.data.corpus import Corpus
from spira.evaluation import confounders, evaluate, gate
from spira.evaluation.verdict import Check, CheckKind, ConfounderBaseline
from tests.support.corpus_in_memory import make_corpus

MANY = {"control": {"files": 20, "speakers": 10}, "patient": {"files": 20, "speakers": 10}}
REQUIRED = gate.load().model_copy(update={"require_better_than_confounders": True})
CORPUS = make_corpus()
"""Without a confounder."""

COLUMNS = {"age": "age", "sex": "sex", "site": "site"}
GROUPS = {"sex": ("F", "M"), "site": ("north", "south"), "sample rate": (48_000, 8_000)}


def planted(corpus: Corpus, name: str, rng: np.random.Generator, size: float = 3.0) -> Corpus:
    """Return the corpus with a property that patients have more of, by ``size`` standard deviations."""
    labels = corpus.index["label"].to_numpy()
    values = size * labels + rng.standard_normal(len(labels))
    if name in GROUPS:
        values = np.where(values > size / 2, *GROUPS[name])
    elif name == "age":
        values = np.clip(50 + 10 * values, 0, 120)
    if name in COLUMNS:
        return dataclasses.replace(corpus, index=corpus.index.assign(**{COLUMNS[name]: values}))
    assert corpus.measures is not None
    return dataclasses.replace(corpus, measures=corpus.measures.assign(**{confounders.MEASURES[name]: values}))


def network(evaluator: evaluate.TestSetEvaluator, rng: np.random.Generator, size: float) -> pd.DataFrame:
    """Return the predictions of a network whose logits differ by ``size`` standard deviations between the classes."""
    table = evaluator.test.table[["file_path", "label", "speaker"]]
    return pd.concat(
        [
            table.assign(
                condition=condition,
                draw=draw,
                probability=1 / (1 + np.exp(size / 2 - size * table["label"] - rng.standard_normal(len(table)))),
            )
            for condition, draws in evaluator.draws.items()
            for draw in range(draws)
        ],
        ignore_index=True,
    )


def measured(corpus: Corpus, size: float, seed: int = 0) -> ConfounderBaseline:
    """Return the baseline beside a network of a given strength."""
    evaluator = evaluate.TestSetEvaluator(corpus, config.smoke(), gate.load())
    return confounders.baseline(corpus, evaluator, network(evaluator, np.random.default_rng(seed), size))


def judged(corpus: Corpus, size: float, seed: int = 0, rules: gate.Gate | None = None) -> Check:
    return confounders.check(rules or gate.load(), measured(corpus, size, seed), MANY)


@pytest.mark.integration
@pytest.mark.parametrize("name", confounders.CONFOUNDERS)
def test_a_planted_confounder_is_found(name: str) -> None:
    """The baseline separates the classes by it, names it as the strongest, and a network as good as it is a finding."""
    corpus = planted(CORPUS, name, np.random.default_rng(1))
    found = measured(corpus, size=2.0)
    test = found.tests[0]
    assert (test.condition, test.by_file["auroc"].value) == ("noisy", pytest.approx(0.93, abs=0.07))
    assert max(found.confounders, key=lambda confounder: confounder.auroc or 0).name == name
    check = judged(corpus, size=2.0)
    assert (check.passed, check.is_warning, check.kind, check.limit) == (True, True, CheckKind.LOW_AT_LEAST, 0.0)
    assert check.message.startswith("the network is not shown to be better than ")
    assert f"({name}: 0." in check.message


@pytest.mark.integration
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_a_data_set_without_a_confounder_is_not_suspected(seed: int) -> None:
    """Whatever the noise of age, sex, site and levels, a network that knows the voice is better."""
    corpus, rng = CORPUS, np.random.default_rng(seed)
    for name in confounders.CONFOUNDERS:
        corpus = planted(corpus, name, rng, size=0.0)
    check = judged(corpus, size=5.0, seed=seed)
    assert (check.passed, check.is_warning) == (True, False)
    assert check.low is not None
    assert check.low > 0


def test_a_network_that_is_better_than_a_weak_confounder_is_not_suspected() -> None:
    """The comparison is paired: what counts is the difference, not that the baseline is above chance."""
    corpus = planted(make_corpus(speakers=40), "age", np.random.default_rng(1), size=1.0)
    test = measured(corpus, size=6.0).tests[0]
    assert test.by_file["auroc"].low is not None
    assert test.by_file["auroc"].low > 0.5
    assert not judged(corpus, size=6.0).is_warning


def test_the_gate_can_make_it_a_limit() -> None:
    """With the key, what is otherwise a warning is a rejection; without it, the gate keeps its digest."""
    corpus = planted(CORPUS, "length", np.random.default_rng(1))
    check = judged(corpus, size=3.0, rules=REQUIRED)
    assert (check.passed, check.is_warning) == (False, False)
    assert judged(CORPUS, size=5.0, rules=REQUIRED).passed
    assert "require_better_than_confounders" not in gate.load().model_dump()
    assert REQUIRED.digest() != gate.load().digest()


def test_too_few_speakers_are_not_judged() -> None:
    """Three speakers of a class are ranked by chance."""
    few = {"control": {"files": 20, "speakers": 10}, "patient": {"files": 6, "speakers": 3}}
    check = confounders.check(REQUIRED, measured(planted(CORPUS, "age", np.random.default_rng(1)), size=0.0), few)
    assert (check.passed, check.is_warning, check.kind) == (True, False, CheckKind.FACT)
    assert check.message.startswith("not judged: 3 speakers")


def test_what_is_missing_is_left_out_and_named() -> None:
    """Columns that the tables lack, measures of an older corpus, and properties of a single value."""
    older = dataclasses.replace(CORPUS, measures=None)
    found = measured(older, size=3.0)
    assert found.used == ("length",)
    left_out = {confounder.name: confounder.left_out for confounder in found.confounders if confounder.left_out}
    assert left_out == dict.fromkeys(("age", "sex", "site"), "no such column") | dict.fromkeys(
        ("sample rate", "level", "noise level"), "not in this corpus: preprocess again"
    )
    rates = {confounder.name: confounder.left_out for confounder in measured(CORPUS, size=3.0).confounders}
    assert rates["sample rate"] == "one value in training"


def test_notes_and_empty_columns_are_left_out() -> None:
    """A site for each recording is a name, and a column without values in training says nothing."""
    index = CORPUS.index.assign(site=CORPUS.index["file_path"], sex="", age=np.nan)
    left_out = {
        confounder.name: confounder.left_out
        for confounder in measured(dataclasses.replace(CORPUS, index=index), size=3.0).confounders
    }
    assert left_out["site"] == "another value in every recording"
    assert (left_out["sex"], left_out["age"]) == ("no value in training", "no value in training")


def test_that_a_value_is_missing_tells_nothing() -> None:
    """Age and sex are written down for patients alone; the values themselves are drawn without regard to the class."""
    rng = np.random.default_rng(2)
    is_patient = CORPUS.index["label"] == 1
    index = CORPUS.index.assign(
        age=np.where(is_patient, rng.integers(20, 80, len(is_patient)), np.nan),
        sex=np.where(is_patient, rng.choice(["F", "M"], len(is_patient)), ""),
    )
    found = measured(dataclasses.replace(CORPUS, index=index), size=5.0)
    areas = {confounder.name: confounder.auroc for confounder in found.confounders}
    assert areas["age"] == pytest.approx(0.5, abs=0.2)
    assert areas["sex"] == pytest.approx(0.5, abs=0.1)


def test_a_group_that_training_does_not_have_is_accepted() -> None:
    """A recording of a new site gets the probability of a recording without one."""
    training = pd.DataFrame({"site": ["north", "south", None] * 4})
    labels = np.array([0, 1, 1] * 4)
    new, missing = confounders.fit(training, labels, pd.DataFrame({"site": ["east", None]}), ["site"])
    assert new == missing


def test_without_any_confounder_the_share_of_patients_is_the_answer() -> None:
    """The baseline cannot separate the classes then."""
    tested = pd.DataFrame(index=range(3))
    assert confounders.fit(pd.DataFrame(), np.array([0, 1, 1, 1]), tested, []).tolist() == [0.75] * 3


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), size=st.floats(-3, 3))
def test_one_number_alone_ranks_as_the_number(seed: int, size: float) -> None:
    """A logistic regression is monotone: its AUROC is that of the property, or of its negative (scikit-learn's)."""
    rng = np.random.default_rng(seed)
    training, tested = (pd.DataFrame({"age": size * labels + rng.standard_normal(40)}) for labels in (LABELS, LABELS))
    area = roc_auc_score(LABELS, confounders.fit(training, LABELS, tested, ["age"]))
    of_age = roc_auc_score(LABELS, tested["age"])
    assert area == pytest.approx(of_age) or area == pytest.approx(1 - of_age)


LABELS = np.array([0, 1] * 20)


def test_names_are_listed_as_text() -> None:
    """One, two or three names."""
    texts = [confounders.listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])]
    assert texts == ["a", "a and b", "a, b and c"]
