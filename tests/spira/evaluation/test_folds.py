"""Cross-validation: folds without a common speaker, and the frozen test in none of them."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.evaluation import folds
from spira.evaluation.evaluate import SPREAD_CONDITIONS
from spira.evaluation.folds import FoldResult
from spira.evaluation.metrics import METRICS
from tests.support.corpus_in_memory import make_corpus

CORPUS = make_corpus(speakers=8, splits=("train", "eval", "test", "test_north"))


def with_index(**columns: object) -> Corpus:
    return dataclasses.replace(CORPUS, index=CORPUS.index.assign(**columns))


@settings(max_examples=8)
@given(count=st.integers(3, 5), seed=st.integers(0, 1000), shuffled=st.booleans())
def test_every_recording_is_measured_once_by_strangers(count: int, seed: int, shuffled: bool) -> None:
    """No speaker is in two splits of a round, the test and external sets are in none, and all rounds have the noise."""
    corpus = CORPUS
    if shuffled:  # speakers with unequal numbers of recordings
        names = CORPUS.index["speaker"].fillna("").to_numpy(object)
        names[:6] = names[0]
        corpus = with_index(speaker=names, label=CORPUS.index["label"].where(CORPUS.index.index > 5, 0))
    rounds = folds.split(corpus, count, seed)
    measured = pd.concat([part.split("test").table for part in rounds])
    pooled = corpus.index[corpus.index["split"].isin(["train", "eval"])]
    assert sorted(measured["file_path"]) == sorted(pooled["file_path"])
    for part in rounds:
        speakers = [set(part.split(name).table["speaker"]) for name in ("train", "eval", "test")]
        assert sum(map(len, speakers)) == len(set.union(*speakers))
        assert sum(len(part.split(name)) for name in ("train", "eval", "test")) == len(pooled)
        assert part.external == ()
        assert len(part.noises) == 1
        assert all(set(part.split(name).labels) == {0, 1} for name in ("train", "eval", "test"))
        row = part.split("test").table.iloc[0]
        of_all = corpus.split(row["file_path"].split("/")[0])
        index = int(of_all.table.index[of_all.table["file_path"] == row["file_path"]][0])
        assert np.array_equal(part.split("test").waveform(0), of_all.waveform(index))


def test_rounds_are_told_apart_and_repeated() -> None:
    """The digest is that of the round: the same folds give the same, any other folds another one."""
    first, again, other, more = (
        [part.digest for part in folds.split(CORPUS, count, seed)] for count, seed in ((3, 0), (3, 0), (3, 1), (4, 0))
    )
    assert first == again
    assert len({*first, *other, *more, CORPUS.digest}) == 3 + 3 + 4 + 1


@pytest.mark.parametrize(
    ("corpus", "count", "words"),
    [
        (CORPUS, 2, "--folds 2: at least 3 are needed"),
        (CORPUS, 9, "--folds 9: train and eval have 8 speakers of controls; use fewer folds"),
        (dataclasses.replace(CORPUS, index=CORPUS.index.drop(columns="speaker")), 3, "needs the column speaker"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(corpus: Corpus, count: int, words: str) -> None:
    """The message has the remedy."""
    with pytest.raises(SpiraError, match=words):
        folds.split(corpus, count, 0)


def test_one_person_under_two_spellings_is_one_speaker() -> None:
    """As in the tables: case and spaces do not make a person."""
    names = CORPUS.index["speaker"].fillna("").replace({"train0": "Ana", "eval0": "ana "})
    for part in folds.split(with_index(speaker=names), 3, 0):
        homes = [name for name in ("train", "eval", "test") if {"Ana", "ana "} & set(part.split(name).table["speaker"])]
        assert len(homes) == 1


def result(fold: int, accuracy: float, auroc: float) -> FoldResult:
    metrics = {name: dict.fromkeys(METRICS, 0.5) | {"accuracy": accuracy, "auroc": auroc} for name in SPREAD_CONDITIONS}
    return FoldResult(fold=fold, seed=1, files=10, speakers=5, metrics=metrics)


def test_mean_and_deviation_are_over_the_folds_that_have_a_value(tmp_path: Path) -> None:
    """An undefined metric and a fold without finite weights are left out; both files have the same numbers."""
    broken = FoldResult(fold=4, seed=1, files=10, speakers=5, metrics={})
    combined = folds.combine("d", "c", [result(1, 0.7, 0.8), result(2, 0.9, float("nan")), result(3, 0.8, 0.6), broken])
    accuracy, auroc = (combined.spread["noisy"][metric] for metric in ("accuracy", "auroc"))
    assert (accuracy.mean, accuracy.std) == (pytest.approx(0.8), pytest.approx(0.1))
    assert (auroc.mean, auroc.std) == (pytest.approx(0.7), pytest.approx(np.std([0.8, 0.6], ddof=1)))
    folds.write(tmp_path, combined)
    assert folds.FoldsResult.model_validate_json((tmp_path / "folds.json").read_text()) == combined
    json.loads((tmp_path / "folds.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    rows = list(csv.DictReader((tmp_path / "folds.csv").open()))
    assert [row["fold"] for row in rows] == ["1", "2", "3", "4", "mean", "std"]
    assert [row["noisy_auroc"] for row in rows[:4]] == ["0.8", "", "0.6", ""]
    assert float(rows[4]["clean_accuracy"]) == pytest.approx(0.8)
    assert len(rows[0]) == 4 + 2 * len(METRICS)


def test_a_single_value_has_no_deviation() -> None:
    """One fold, or one fold in which a metric is defined."""
    spread = folds.combine("d", "c", [result(1, 0.7, 0.8)]).spread["noisy"]["accuracy"]
    assert (spread.mean, spread.std) == (0.7, None)
