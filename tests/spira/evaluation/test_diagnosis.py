"""Threshold and calibration are chosen on the validation split, and applied by evaluation and package alike."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spira import config
from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.evaluation import diagnosis, evaluate, gate
from spira.evaluation import verdict as verdicts
from spira.evaluation.gate import DiagnosisRules, Gate
from spira.evaluation.report.page import about_diagnosis
from spira.evaluation.verdict import Verdict
from spira.inference.model import Model
from spira.models import checkpoint
from spira.packaging import verify
from spira.packaging.build import package
from spira.training import train


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a short training."""
    folder = tmp_path_factory.mktemp("diagnosis") / "checkpoint"
    train.train(corpus, config.smoke(), 1, folder)
    return folder


def with_rules(**rules: object) -> Gate:
    return gate.load().model_copy(update={"diagnosis": DiagnosisRules(**rules)})


@pytest.fixture(scope="module")
def judged(corpus: Corpus, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """The verdict under a gate with both rules."""
    rules = with_rules(target_sensitivity=0.9, temperature_scaling=True)
    return evaluate.evaluate(corpus, [trained], rules, tmp_path_factory.mktemp("judged"))


probability = st.integers(1_000, 999_000).map(lambda millionths: millionths / 1e6)
"""Between neighbouring floating-point numbers there is no threshold, so these are further apart."""


@given(
    patients=st.lists(probability, min_size=1, max_size=30),
    controls=st.lists(probability, min_size=1, max_size=30),
    target=st.floats(0.05, 1),
)
@settings(max_examples=200)
def test_the_threshold_is_the_highest_with_its_sensitivity(
    patients: list[float], controls: list[float], target: float
) -> None:
    """On validation the sensitivity reaches the target, and just above the next probability it does not."""
    probabilities = np.array(patients + controls)
    labels = np.repeat([1, 0], (len(patients), len(controls)))
    threshold = diagnosis.highest_threshold(probabilities, labels, target)
    sensitivity = np.mean(np.array(patients) >= threshold)
    assert 0 < threshold < 1
    assert sensitivity >= target - 1e-9
    lowest_called = min(p for p in patients if p >= threshold)
    assert np.mean(np.array(patients) > lowest_called) < target + 1e-9


@given(band=st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)), threshold=st.floats(0.01, 0.99))
@settings(max_examples=100)
def test_the_band_stays_around_the_threshold(band: tuple[float, float], threshold: float) -> None:
    """A band around 0.5 becomes one around the threshold; a threshold that stays moves nothing."""
    low, high = diagnosis.moved_band(band, 0.5, threshold)
    assert 0 <= low <= threshold + 1e-12
    assert threshold - 1e-12 <= high <= 1
    assert diagnosis.moved_band(band, 0.5, 0.5) == pytest.approx(band)


@pytest.mark.parametrize(("factor", "expected"), [(3.0, 3.0), (1.0, 1.0), (0.5, 0.5)])
def test_the_temperature_undoes_logits_that_are_too_large(factor: float, expected: float) -> None:
    """Calibrated probabilities whose logits were multiplied by a factor get it back as their temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000) * 1.5
    labels = (rng.uniform(size=20_000) < 1 / (1 + np.exp(-logits))).astype(int)
    temperature = diagnosis.fitted_temperature(1 / (1 + np.exp(-factor * logits)), labels, 20_000)
    assert temperature == pytest.approx(expected, rel=0.05)


def test_classes_that_are_separated_on_validation_do_not_become_certain() -> None:
    """Fourteen recordings without a mistake justify no probability beyond 0.99."""
    labels = np.repeat([0, 1], 7)
    probabilities = np.where(labels == 1, 0.8, 0.2)
    temperature = diagnosis.fitted_temperature(probabilities, labels, 14)
    assert 0.8 < diagnosis.with_temperature(probabilities, temperature).max() < 0.99


def test_without_a_rule_nothing_is_chosen_and_nothing_changes(corpus: Corpus, trained: Path, tmp_path: Path) -> None:
    """A verdict has no diagnosis, the threshold is the configuration's, and a temperature of 1 changes no bit."""
    verdict = evaluate.evaluate(corpus, [trained], gate.load(), tmp_path)
    assert "diagnosis" not in json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict.threshold, verdict.band) == (0.5, gate.load().abstention.band)
    probabilities = np.random.default_rng(0).uniform(size=5)
    assert diagnosis.with_temperature(probabilities, 1.0) is probabilities


def test_the_verdict_records_the_choice(corpus: Corpus, trained: Path, judged: Verdict) -> None:
    """Threshold, temperature, rule, and what it reaches on validation; the metrics are those of the choice."""
    rule = judged.diagnosis
    assert rule is not None
    assert rule.validation["sensitivity"].value >= 0.9
    assert rule.recordings == len(corpus.split("eval"))
    assert "sensitivity of 0.9 on validation" in rule.chosen_by
    (line,) = about_diagnosis(judged)
    assert "validation recordings" in line
    noisy = judged.conditions["noisy"]
    (in_use,) = (point for point in noisy.operating_points if point.threshold == rule.threshold)
    assert in_use.sensitivity.value == noisy.by_file["sensitivity"].value
    assert Verdict.model_validate(judged.to_json()) == judged


def test_the_test_split_does_not_influence_the_choice(corpus: Corpus, trained: Path, judged: Verdict) -> None:
    """The same rule is chosen if the labels of the test split are turned round."""
    table = corpus.index.copy()
    is_test = table["split"] == "test"
    table.loc[is_test, "label"] = 1 - table.loc[is_test, "label"]
    turned = dataclasses.replace(corpus, index=table)
    rules = with_rules(target_sensitivity=0.9, temperature_scaling=True)
    assert diagnosis.choose(turned, checkpoint.load(trained), rules) == judged.diagnosis


def test_a_package_gives_the_answers_that_were_judged(
    corpus: Corpus, trained: Path, judged: Verdict, tmp_path: Path
) -> None:
    """Threshold, band and temperature are in the package, and its golden recordings verify."""
    built = package(trained, corpus, judged.band, tmp_path / "package", {}, judged.diagnosis)
    assert verify.verify(built) <= 1e-5
    model = Model.load(built / "data")
    assert (model.threshold, (model.low, model.high)) == (judged.threshold, judged.band)
    assert model.temperature == judged.diagnosis.temperature != 1.0
    described = json.loads((built / "package.json").read_text())["diagnosis"]
    assert verdicts.DiagnosisRule.model_validate(described) == judged.diagnosis


def test_code_that_does_not_know_the_temperature_refuses_the_package(
    corpus: Corpus, trained: Path, judged: Verdict, tmp_path: Path
) -> None:
    """Its golden recordings have calibrated probabilities, so an older reader does not serve other ones."""
    built = package(trained, None, judged.band, tmp_path / "package", {}, judged.diagnosis)
    path = built / "data" / "config.json"
    settings = json.loads(path.read_text())
    del settings["temperature"]  # as code reads it that does not look for the key
    path.write_text(json.dumps(settings))
    with pytest.raises(verify.PackageError, match="must not be served"):
        verify.check_golden(built)


def test_a_package_without_a_rule_has_the_bytes_of_before(trained: Path, tmp_path: Path) -> None:
    """Neither settings nor description have a key for calibration."""
    built = package(trained, None, (0.4, 0.6), tmp_path / "package", {})
    assert "temperature" not in json.loads((built / "data" / "config.json").read_text())
    assert "diagnosis" not in json.loads((built / "package.json").read_text())


def test_a_validation_split_of_one_class_is_refused(corpus: Corpus, trained: Path) -> None:
    """The message names the file and the remedy."""
    table = corpus.index
    one = dataclasses.replace(corpus, index=table[(table["split"] != "eval") | (table["label"] == 0)])
    with pytest.raises(SpiraError, match=r"no recording of a patient.*metadata_eval\.csv"):
        diagnosis.choose(one, checkpoint.load(trained), with_rules(target_sensitivity=0.9))


def test_a_champion_is_judged_by_its_own_threshold(corpus: Corpus, trained: Path, tmp_path: Path) -> None:
    """A champion that calls everyone patient has a sensitivity of 1, whatever the candidate's threshold."""
    size = len(corpus.split("test"))
    champion = evaluate.ChampionPredictor("low", lambda waveforms: np.full(size, 0.3), threshold=0.2, band=(0.1, 0.2))
    verdict = evaluate.evaluate(corpus, [trained], gate.load(), tmp_path, champion)
    values = {name: verdict.champion.by_file[name].value for name in ("sensitivity", "specificity", "coverage")}
    assert values == {"sensitivity": 1.0, "specificity": 0.0, "coverage": 1.0}
