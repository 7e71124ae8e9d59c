"""Planted bad models are rejected, each for the right reason; the good model from which they come is approved."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spira import config, digests
from spira.data import corpus
from spira.data.corpus import Corpus
from spira.data.demo import make_demo
from spira.evaluation import evaluate, gate
from spira.evaluation.predict import predict_waveforms
from spira.models import checkpoint
from spira.training import train

pytestmark = pytest.mark.integration

EPOCHS = 40
SEED = 42


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The demo set of ``make run``, preprocessed."""
    folder = tmp_path_factory.mktemp("voices")
    corpus.build(make_demo(folder / "demo"), folder / "corpus", config.Preprocess())
    return Corpus.open(folder / "corpus")


def settings(**noise: int) -> config.Config:
    return config.from_dict({"noise": noise, "training": {"max_epochs": EPOCHS, "seeds": [SEED]}})


@pytest.fixture(scope="module")
def good(voices: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a network trained with the default settings."""
    out = tmp_path_factory.mktemp("good") / "checkpoint"
    train.train(voices, settings(), SEED, out)
    return out


def failures(voices: Corpus, planted: Path, out: Path) -> dict[str, str]:
    """Return the names of the failed checks with their messages; a rejection must have at least one."""
    verdict = evaluate.evaluate(voices, [planted], gate.load(), out)
    failed = {check.name: check.message for check in verdict.checks if not check.passed}
    assert verdict.approved is (not failed)
    assert list(verdict.reasons) == list(failed.values())
    assert json.loads((out / "verdict.json").read_text())["approved"] is verdict.approved
    return failed


def plant(good: Path, out: Path, change: Any = None, **info: Any) -> Path:
    """Copy the good checkpoint with changed weights, or a changed ``checkpoint.json``."""
    shutil.copytree(good, out)
    if change:
        weights = load_file(out / checkpoint.WEIGHTS)
        save_file({name: change(name, value).contiguous() for name, value in weights.items()}, out / checkpoint.WEIGHTS)
    written = json.loads((out / checkpoint.INFO).read_text())
    (out / checkpoint.INFO).write_text(json.dumps(written | info))
    digests.record(out, checkpoint.FILES)
    return out


def test_the_good_model_is_approved(voices: Corpus, good: Path, tmp_path: Path) -> None:
    """Without this control, the rejections below would show nothing."""
    assert failures(voices, good, tmp_path / "verdict") == {}


def test_random_weights_are_no_better_than_chance(voices: Corpus, good: Path, tmp_path: Path) -> None:
    """All weights but those of normalisation layers are replaced by random ones."""

    def randomly(name: str, value: torch.Tensor) -> torch.Tensor:
        return value if value.dtype != torch.float32 or "norm" in name else torch.randn_like(value) * 0.1

    torch.manual_seed(0)
    failed = failures(voices, plant(good, tmp_path / "planted", randomly), tmp_path / "verdict")
    assert "better_than_chance" in failed


def test_swapped_labels_are_distinguished_from_chance(voices: Corpus, good: Path, tmp_path: Path) -> None:
    """Negating the last layer gives the network that learnt 0 for patient."""

    def swapped(name: str, value: torch.Tensor) -> torch.Tensor:
        return -value if name.startswith("head.") else value

    failed = failures(voices, plant(good, tmp_path / "planted", swapped), tmp_path / "verdict")
    assert "the labels look swapped" in failed["labels_not_swapped"]


def test_constant_output_is_named(voices: Corpus, good: Path, tmp_path: Path) -> None:
    """With a last layer of zeros the probability is always 0.5."""

    def constant(name: str, value: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(value) if name.startswith("head.") else value

    failed = failures(voices, plant(good, tmp_path / "planted", constant), tmp_path / "verdict")
    assert "the output is constant" in failed["answers_differ"]
    assert "coverage" in failed


def test_nan_weights_stop_the_evaluation(voices: Corpus, good: Path, tmp_path: Path) -> None:
    """One NaN in one layer is enough."""

    def broken(name: str, value: torch.Tensor) -> torch.Tensor:
        return torch.full_like(value, float("nan")) if name == "head.bias" else value

    failed = failures(voices, plant(good, tmp_path / "planted", broken), tmp_path / "verdict")
    assert list(failed) == ["weights_finite"]


def test_a_noise_shortcut_learner_fails_the_noise_tests(voices: Corpus, tmp_path: Path) -> None:
    """Trained without inserted noise, a network learns the ward: it fails as soon as controls have noise."""
    train.train(voices, settings(train_controls=0, train_patients=0), SEED, tmp_path / "planted")
    failed = failures(voices, tmp_path / "planted", tmp_path / "verdict")
    assert {"noisy.accuracy", "noisy.specificity", "noise_drop", "background"} <= set(failed)
    assert {"clean.accuracy", "labels_not_swapped"}.isdisjoint(failed)
    assert "inserting ward noise" in failed["noise_drop"]
    assert "the background alone separates the classes" in failed["background"]


def test_preprocessing_other_than_that_of_the_training_is_detected(voices: Corpus, good: Path, tmp_path: Path) -> None:
    """The digest of an edited configuration differs from the one that the training recorded."""
    planted = plant(good, tmp_path / "planted")
    edited = json.loads((planted / checkpoint.CONFIG).read_text())
    edited["features"]["win_length"] = 1200
    (planted / checkpoint.CONFIG).write_text(json.dumps(edited))
    digests.record(planted, checkpoint.FILES)
    failed = failures(voices, planted, tmp_path / "verdict")
    assert list(failed) == ["configuration_intact"]


def test_other_preprocessing_with_a_forged_digest_fails_on_its_figures(
    voices: Corpus, good: Path, tmp_path: Path
) -> None:
    """The digest fits, and the metrics are too low."""
    planted = plant(good, tmp_path / "planted")
    edited = json.loads((planted / checkpoint.CONFIG).read_text())
    edited["features"] |= {"top_db": 15.0, "hop_length": 640}
    (planted / checkpoint.CONFIG).write_text(json.dumps(edited))
    forged = json.loads((planted / checkpoint.INFO).read_text()) | {"config_digest": config.from_dict(edited).digest()}
    (planted / checkpoint.INFO).write_text(json.dumps(forged))
    digests.record(planted, checkpoint.FILES)
    failed = failures(voices, planted, tmp_path / "verdict")
    assert any(name.startswith("noisy.") for name in failed)


def test_training_on_the_tests_speakers_is_leakage(voices: Corpus, tmp_path: Path) -> None:
    """With half of the test recordings in training, both files and speakers are recognised."""
    moved = voices.index.copy()
    rows = moved.index[moved["split"] == "test"][::2]
    moved.loc[rows, "split"] = "train"
    leaky = dataclasses.replace(voices, index=moved)
    short = config.from_dict({"training": {"max_epochs": 1, "seeds": [SEED]}})
    train.train(leaky, short, SEED, tmp_path / "planted")
    failed = failures(voices, tmp_path / "planted", tmp_path / "verdict")
    assert list(failed) == ["test_files_unseen", "test_speakers_unseen"]
    assert "leakage" in failed["test_speakers_unseen"]


def test_too_little_data_is_a_refusal_and_not_a_pass(voices: Corpus, good: Path, tmp_path: Path) -> None:
    """The good model is refused on a test of three speakers per class."""
    table = voices.index
    speakers = table[table["split"] == "test"].drop_duplicates("speaker").groupby("label")["speaker"]
    remaining = speakers.head(3)
    few = dataclasses.replace(voices, index=table[(table["split"] != "test") | table["speaker"].isin(remaining)])
    failed = failures(few, good, tmp_path / "verdict")
    assert {"data.patient_speakers", "data.control_speakers"} <= set(failed)
    assert failed["data.patient_speakers"].startswith("too little data to judge by: 3 test speakers of patients")


def test_a_candidate_must_not_be_worse_than_the_champion(voices: Corpus, good: Path, tmp_path: Path) -> None:
    """A network is not inferior to itself; a network with swapped labels is inferior to an oracle."""
    trained = checkpoint.load(good)
    predict = partial(predict_waveforms, trained.network, trained.config)
    itself = evaluate.ChampionPredictor("itself", predict)
    equal = evaluate.evaluate(voices, [good], gate.load(), tmp_path / "equal", itself)
    assert equal.approved
    difference = equal.champion.difference
    assert difference.value == 0.0
    assert -difference.low == pytest.approx(difference.high)
    assert 0.1 < difference.high < gate.load().champion.margin  # 24 speakers cannot show more

    planted = plant(good, tmp_path / "planted", lambda name, value: -value if name.startswith("head.") else value)
    labels = voices.split("test").labels.astype(float)
    oracle = evaluate.ChampionPredictor("oracle", lambda waveforms: labels)
    worse = evaluate.evaluate(voices, [planted], gate.load(), tmp_path / "worse", oracle)
    assert worse.champion.difference.high < 0
    assert any("not shown to be as good as the champion" in reason for reason in worse.reasons)
