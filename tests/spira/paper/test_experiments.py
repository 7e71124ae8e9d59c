"""The paper's experiments: settings, resumption, accuracies and the table."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from spira.config import paper
from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.evaluation.predict import predict_waveforms
from spira.models import checkpoint
from spira.paper import experiments
from spira.paper.experiments import EXPERIMENTS, configuration, format_table, run

QUICK = (
    "model.architecture=conv1d",
    "model.channels=8",
    "windows.window_seconds=1",
    "training.max_epochs=2",
    "training.warmup_steps=2",
)


@pytest.fixture(scope="module")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Work folder and table of two quick experiments with two seeds."""
    work = tmp_path_factory.mktemp("experiments")
    return work, run(corpus, work, ("1.3", "3.6"), (1, 2), QUICK, "cpu")


def test_all_18_experiments_of_the_paper_are_defined() -> None:
    """Three have no noise, three have 1/0, and twelve have the pairs of the paper, in order."""
    series = {"1": 3, "2": 3, "3": 12}
    assert list(EXPERIMENTS) == [f"{name}.{n + 1}" for name, length in series.items() for n in range(length)]
    noises = [(c.noise.train_controls, c.noise.train_patients) for c in map(configuration, EXPERIMENTS)]
    assert noises[:6] == [(0, 0)] * 3 + [(1, 0)] * 3
    assert noises[6:] == [
        (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4), (5, 4), (5, 5), (6, 5), (6, 6), (7, 6)
    ]  # fmt: skip


def test_windows_differ_only_in_the_first_two_series() -> None:
    """1.1 and 2.1 have whole files, 1.2 and 2.2 windows of 3 s, all others 4 s, every second."""
    windows = {name: configuration(name).windows for name in EXPERIMENTS}
    assert [name for name, setting in windows.items() if setting.mode == "whole"] == ["1.1", "2.1"]
    assert [name for name, setting in windows.items() if setting.window_seconds == 3.0] == ["1.2", "2.2"]
    assert {setting.step_seconds for setting in windows.values()} == {1.0}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_differs_from_the_paper_only_where_defined(name: str) -> None:
    """Batch size and warm-up are those of the authors' files; all other settings of 3.6 are those of ``paper()``."""
    config, best = configuration(name), paper()
    assert (config.training.batch_files, config.training.warmup_steps) == (5, 1000)
    common = {"training": best.training, "windows": best.windows, "noise": best.noise}
    assert config.model_copy(update=common) == best
    if name == "3.6":
        assert config.model_copy(update={"training": best.training}) == best


def test_settings_override_every_experiment() -> None:
    """For data sets or machines for which 1000 epochs are too many."""
    assert configuration("1.1", ("training.max_epochs=3",)).training.max_epochs == 3
    assert configuration("1.1").training.max_epochs == 1000


def test_an_unknown_experiment_is_refused_before_anything_is_trained(corpus: Corpus, tmp_path: Path) -> None:
    """The message lists the names of the experiments."""
    with pytest.raises(SpiraError, match=r"'4\.1' is not one of the paper's: 1\.1, .*3\.12"):
        run(corpus, tmp_path, ("1.3", "4.1"), (1,), QUICK, "cpu")
    assert not list(tmp_path.iterdir())


def test_the_table_has_a_row_per_experiment(finished: tuple[Path, pd.DataFrame]) -> None:
    """The rows have the given order, with windows, noises and number of seeds."""
    _, table = finished
    assert table[["experiment", "windows", "noise_controls", "noise_patients", "seeds"]].to_numpy().tolist() == [
        ["1.3", "1 s", 0, 0, 2],
        ["3.6", "1 s", 4, 3, 2],
    ]


def test_accuracies_are_by_file_on_the_test_split(corpus: Corpus, finished: tuple[Path, pd.DataFrame]) -> None:
    """Mean and standard deviation over seeds equal those computed again from the checkpoints."""
    work, table = finished
    test = corpus.split("test")
    accuracies = []
    for seed in (1, 2):
        saved = checkpoint.load(work / "3.6" / f"seed-{seed}")
        waveforms = [test.waveform(i) for i in range(len(test))]
        is_patient = predict_waveforms(saved.network, saved.config, waveforms) >= 0.5
        accuracies.append(np.mean(is_patient == test.labels))
    clean = table.set_index("experiment").loc["3.6"]
    assert clean["clean"] == pytest.approx(np.mean(accuracies))
    assert clean["clean_std"] == pytest.approx(np.std(accuracies, ddof=1))


class LoudnessNetwork(torch.nn.Module):
    """Classifies windows with sound in the quietest frame as patient, like a network that learnt the ward noise."""

    def __init__(self) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(-500.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[W, T, 40] -> [W]``."""
        return features[:, :, 0].amin(dim=1) - self.level


def test_the_noisy_test_adds_noise_to_controls_only(corpus: Corpus) -> None:
    """A network that detects noise finds none in silent recordings, and in the noisy test only in those of controls."""
    config = configuration("1.3", QUICK)
    shortcut = checkpoint.Checkpoint(LoudnessNetwork(), config, checkpoint.CheckpointInfo(seed=0), [])
    silent = dataclasses.replace(corpus, audio=np.zeros_like(corpus.audio))
    assert experiments.accuracy(silent, shortcut, "clean") == 0.5  # all are classified as control
    assert experiments.accuracy(silent, shortcut, "noisy") == 0.0  # controls with noise are classified as patients


def test_finished_results_are_kept(corpus: Corpus, finished: tuple[Path, pd.DataFrame]) -> None:
    """The same command again gives the same table and changes no file."""
    work, table = finished
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    pd.testing.assert_frame_equal(run(corpus, work, ("1.3", "3.6"), (1, 2), QUICK, "cpu"), table)
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("*")}


def test_an_interrupted_test_is_repeated(corpus: Corpus, finished: tuple[Path, pd.DataFrame]) -> None:
    """Its training is not repeated."""
    work, table = finished
    weights = work / "3.6" / "seed-2" / "weights.safetensors"
    trained = weights.stat().st_mtime_ns
    (work / "3.6" / "seed-2" / "test.json").unlink()
    pd.testing.assert_frame_equal(run(corpus, work, ("1.3", "3.6"), (1, 2), QUICK, "cpu"), table)
    assert weights.stat().st_mtime_ns == trained


def test_results_of_other_settings_are_refused(corpus: Corpus, finished: tuple[Path, pd.DataFrame]) -> None:
    """A work folder holds one configuration."""
    work, _ = finished
    with pytest.raises(SpiraError, match="another training"):
        run(corpus, work, ("3.6",), (1,), (*QUICK, "model.dropout=0.1"), "cpu")


def test_whole_files_are_one_window_each(corpus: Corpus, tmp_path: Path) -> None:
    """Experiment 1.1 has a smaller network and one epoch. Windows are as long as the longest training recording."""
    quick = ("model.architecture=conv1d", "model.channels=8", "training.max_epochs=1")
    table = run(corpus, tmp_path, ("1.1",), (42,), quick, "cpu")
    assert table.loc[0, "windows"] == "whole files"
    assert 0 <= table.loc[0, "noisy"] <= 1
    saved = checkpoint.load(tmp_path / "1.1" / "seed-42").config
    assert saved.windows.window_seconds >= corpus.split("train").table["seconds"].max()


def test_the_printed_table_includes_the_published_accuracies(finished: tuple[Path, pd.DataFrame]) -> None:
    """Per cent with standard deviation, then the published figure, or a dash."""
    _, table = finished
    lines = format_table(table).splitlines()
    (first,) = [line for line in lines if line.startswith("1.3")]
    (best,) = [line for line in lines if line.startswith("3.6")]
    figure = r"\d+\.\d\d ± +\d+\.\d"
    assert re.fullmatch(rf"1\.3 +1 s +0 / 0 +2 +{figure} +- +{figure} +-", first)
    assert re.fullmatch(rf"3\.6 +1 s +4 / 3 +2 +{figure} +91\.67 +{figure} +-", best)
    assert len({len(line) for line in (first, best)}) == 1
