"""The baseline without the voice: how well age, sex, site, sample rate, length and levels alone tell the classes apart.

A network can use all of these instead of the voice. The baseline is a logistic regression on them, fitted on the
training split and scored on the same frozen test as the network, with the same resamples. If the network is not shown
to be better, its figures do not show that it uses the voice.

What the baseline gets
    The properties of the recordings as they were recorded, in the noisy test too: noise that the noisy test inserts in
    one class alone would itself give the class away. Columns other than age, sex and site are not used, because a
    column can be a finding of the illness, such as the oxygen saturation, which is no confounder.

Missing values
    A value that is missing, or a group that the training does not have, gets the average of the training. Whether a
    value was written down may follow the class, and is no property of a recording that a network could use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spira.config import Config
from spira.data.corpus import Corpus, Split
from spira.evaluation import metrics
from spira.evaluation.checks import MIN_RANKED
from spira.evaluation.gate import Gate
from spira.evaluation.intervals import Interval, Method
from spira.evaluation.metrics import METRICS, Scores
from spira.evaluation.numbers import number
from spira.evaluation.verdict import (
    CONFOUNDER_CHECK,
    Check,
    CheckKind,
    Confounder,
    ConfounderBaseline,
    ConfounderTest,
    Estimate,
)

if TYPE_CHECKING:
    from spira.evaluation.evaluate import TestSetEvaluator

COLUMNS = {"age": "age", "sex": "sex", "site": "site"}
MEASURES = {"sample rate": "sample_rate", "length": "seconds", "level": "rms_dbfs", "noise level": "background_dbfs"}
"""Confounder -> column of the tables, and of the corpus's measures."""
CONFOUNDERS = (*COLUMNS, *MEASURES)
GROUPS = ("sex", "site", "sample rate")
"""Confounders that are groups; the others are numbers."""
METRICS_COMPARED = ("auroc", "accuracy")
CONDITIONS_COMPARED = ("noisy", "clean")
PAIRED_BOOTSTRAP = Method("paired bootstrap percentile", "Efron and Tibshirani 1993, chapter 13")
"""Method of the interval of a difference in AUROC. It has no width for two perfect rankings: neither is better."""
DECIDING = ("noisy", "auroc")
"""Condition and metric of the check. A ranking does not depend on a threshold, which the network and the baseline can
have at different places."""
MAX_ITERATIONS = 1000

Floats = NDArray[np.float64]


def baseline(corpus: Corpus, evaluator: TestSetEvaluator, predictions: pd.DataFrame) -> ConfounderBaseline:
    """Fit the baseline and compare the candidate with it.

    Args:
        corpus: the corpus of the evaluator.
        evaluator: on the frozen test.
        predictions: the candidate's, of :meth:`TestSetEvaluator.predictions`.
    """
    train = corpus.split("train")
    training, tested = properties(train, corpus), properties(evaluator.test, corpus)
    left_out = reasons_to_leave_out(training)
    used = [name for name in CONFOUNDERS if name not in left_out]
    rows = {condition: predictions[predictions["condition"] == condition] for condition in CONDITIONS_COMPARED}

    def scores(condition: str, names: Sequence[str]) -> Scores:
        by_file = dict(zip(evaluator.test.table["file_path"], fit(training, train.labels, tested, names), strict=True))
        return evaluator.scores(rows[condition].assign(probability=rows[condition]["file_path"].map(by_file)))

    condition, metric = DECIDING
    alone = {name: METRICS[metric].value(scores(condition, [name])) for name in used}
    return ConfounderBaseline(
        tests=tuple(
            _compare(condition, evaluator, evaluator.scores(rows[condition]), scores(condition, used))
            for condition in CONDITIONS_COMPARED
        ),
        confounders=tuple(
            Confounder(name=name, auroc=alone.get(name), left_out=left_out.get(name, "")) for name in CONFOUNDERS
        ),
        train_files=len(train),
    )


def check(gate: Gate, measured: ConfounderBaseline, counts: Mapping[str, Mapping[str, int]]) -> Check:
    """Check that the network is better than the baseline: the interval of the difference in AUROC lies above 0.

    Args:
        counts: {class: {files, speakers}} of the test split; no speakers if they are not known.
    """
    condition, metric = DECIDING
    title = "Noisy test: AUROC minus that of age, sex, levels and other confounders alone"
    ranked = min(units.get("speakers", units["files"]) for units in counts.values())
    if ranked < MIN_RANKED:
        message = f"not judged: {ranked} speakers or files of a class, at least {MIN_RANKED} are needed"
        return Check(name=CONFOUNDER_CHECK, title=title, kind=CheckKind.FACT, passed=True, message=message)
    test = next(test for test in measured.tests if test.condition == condition)
    difference, other = test.difference[metric], test.by_file[metric]
    is_better = difference.low is not None and difference.low > 0
    is_required = gate.require_better_than_confounders
    message = f"{_interval(difference)}, its lower end must be above 0"
    if not is_better:
        strongest = max(measured.confounders, key=lambda confounder: confounder.auroc or 0)
        message = (
            f"the network is not shown to be better than {listed(measured.used)} alone: their AUROC is "
            f"{_number(other.value)} ({strongest.name}: {_number(strongest.auroc)}), the difference {message}"
        )
    return Check(
        name=CONFOUNDER_CHECK,
        title=title,
        kind=CheckKind.LOW_AT_LEAST,
        passed=is_better or not is_required,
        value=difference.value,
        low=difference.low,
        high=difference.high,
        limit=0.0,
        is_warning=not is_better and not is_required,
        message=message,
    )


def properties(recordings: Split, corpus: Corpus) -> pd.DataFrame:
    """Return the confounders of recordings, one row each; without those that the corpus does not have."""
    table = recordings.table
    known = pd.DataFrame({name: table[column] for name, column in COLUMNS.items() if column in table})
    known["length"] = table["seconds"]
    if corpus.measures is not None:
        measures = corpus.measures.set_index("file_path").reindex(table["file_path"])
        for name, column in MEASURES.items():
            known[name] = measures[column].to_numpy()
    for name in GROUPS:
        if name in known:
            known[name] = known[name].astype(object).where(known[name].notna() & (known[name] != ""), None)
    return known


def reasons_to_leave_out(known: pd.DataFrame) -> dict[str, str]:
    """Return the confounders that a baseline on these training recordings cannot have, with the reason."""
    reasons: dict[str, str] = {}
    for name in CONFOUNDERS:
        values = known[name].nunique() if name in known else 0
        if name not in known:
            reasons[name] = "no such column" if name in COLUMNS else "not in this corpus: preprocess again"
        elif values == 0:
            reasons[name] = "no value in training"
        elif values == 1:
            reasons[name] = "one value in training"
        elif name in GROUPS and values == len(known):
            reasons[name] = "another value in every recording"
    return reasons


def fit(training: pd.DataFrame, labels: np.ndarray, tested: pd.DataFrame, names: Sequence[str]) -> Floats:
    """Return the probabilities ``[rows of tested]`` of a logistic regression on some confounders.

    Args:
        training: properties of the training recordings.
        labels: ``[rows of training]``: 0 control, 1 patient.
        tested: properties of the test recordings.
        names: confounders to use; without any, every recording gets the share of patients in the training.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not names:
        return np.full(len(tested), labels.mean())
    groups = [name for name in names if name in GROUPS]
    numbers = [name for name in names if name not in GROUPS]
    medians = training[numbers].median()

    def encoded(rows: pd.DataFrame) -> Floats:
        """Return ``[rows, columns]``: the numbers, and for each group of the training a column of 0 and 1."""
        columns = [rows[numbers].fillna(medians).to_numpy(float)]
        for name in groups:
            values = sorted(training[name].dropna().unique())
            shares = training[name].value_counts(normalize=True)[values].to_numpy()
            members = rows[name].to_numpy()[:, None] == np.array(values, dtype=object)  # [rows, groups]
            columns.append(np.where(members.any(axis=1, keepdims=True), members, shares))
        return np.hstack(columns)

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    regression.fit(encoded(training), labels)
    probabilities: Floats = regression.predict_proba(encoded(tested))[:, 1]
    return probabilities


def listed(names: Sequence[str]) -> str:
    """Return names as text: "age, sex and length"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _compare(condition: str, evaluator: TestSetEvaluator, candidate: Scores, other: Scores) -> ConfounderTest:
    """Return the baseline's metrics, and candidate minus baseline, paired: same recordings, same resamples."""
    return ConfounderTest(
        condition=condition,
        by_file=evaluator.intervals(other, METRICS_COMPARED),
        difference={name: _difference(candidate, other, name, evaluator.config) for name in METRICS_COMPARED},
    )


def _difference(candidate: Scores, other: Scores, metric: str, config: Config) -> Estimate:
    """Return candidate minus baseline in a metric, with its paired interval."""
    settings, compared = config.evaluation, METRICS[metric]
    if metric == "accuracy":
        return metrics.difference(candidate, other, settings.confidence)
    weights = metrics.resamples(candidate, settings.bootstrap_samples, settings.seed)
    gaps = compared.compute(candidate, weights) - compared.compute(other, weights)
    tail = (1 - settings.confidence) / 2
    low, high = np.nanquantile(gaps, [tail, 1 - tail])  # a replicate without one of the classes has no AUROC
    return metrics.as_estimate(
        compared.value(candidate) - compared.value(other), Interval(float(low), float(high)), PAIRED_BOOTSTRAP
    )


def _number(value: float | None) -> str:
    return number(value, missing="not defined")


def _interval(measured: Estimate) -> str:
    return f"{_number(measured.value)} [{_number(measured.low)}, {_number(measured.high)}]"
