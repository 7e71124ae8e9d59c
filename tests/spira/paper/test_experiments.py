"""The paper's experiments: their settings, that finished ones are kept, and the table."""

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
from spira.paper.experiments import EXPERIMENTS, configuration, run, text

QUICK = (
    "model.architecture=conv1d",
    "model.channels=8",
    "windows.window_seconds=1",
    "training.max_epochs=2",
    "training.warmup_steps=2",
)


@pytest.fixture(scope="module")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """The work folder and table of two quick experiments with two seeds."""
    work = tmp_path_factory.mktemp("experiments")
    return work, run(corpus, work, ("1.3", "3.6"), (1, 2), QUICK, "cpu")


def test_there_are_the_papers_18_experiments() -> None:
    """Three without noise, three with 1/0, twelve with the pairs of the paper, in order."""
    series = {"1": 3, "2": 3, "3": 12}
    assert list(EXPERIMENTS) == [f"{name}.{n + 1}" for name, length in series.items() for n in range(length)]
    noises = [(c.noise.train_controls, c.noise.train_patients) for c in map(configuration, EXPERIMENTS)]
    assert noises[:6] == [(0, 0)] * 3 + [(1, 0)] * 3
    assert noises[6:] == [
        (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4), (5, 4), (5, 5), (6, 5), (6, 6), (7, 6)
    ]  # fmt: skip


def test_windows_differ_in_the_first_two_series_alone() -> None:
    """x.1 takes whole files, x.2 3 s, all others 4 s, every second."""
    windows = {name: configuration(name).windows for name in EXPERIMENTS}
    assert [name for name, each in windows.items() if each.mode == "whole"] == ["1.1", "2.1"]
    assert [name for name, each in windows.items() if each.window_seconds == 3.0] == ["1.2", "2.2"]
    assert {each.step_seconds for each in windows.values()} == {1.0}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_the_paper_but_for_its_differences(name: str) -> None:
    """Files a batch and warm-up are those of the authors' files; the rest of 3.6 is ``paper()``."""
    config, best = configuration(name), paper()
    assert (config.training.batch_files, config.training.warmup_steps) == (5, 1000)
    same = {"training": best.training, "windows": best.windows, "noise": best.noise}
    assert config.model_copy(update=same) == best
    if name == "3.6":
        assert config.model_copy(update={"training": best.training}) == best


def test_settings_stand_over_every_experiment() -> None:
    """For a data set or a machine on which 1000 epochs are too many."""
    assert configuration("1.1", ("training.max_epochs=3",)).training.max_epochs == 3
    assert configuration("1.1").training.max_epochs == 1000


def test_an_unknown_experiment_is_refused_before_anything_is_trained(corpus: Corpus, tmp_path: Path) -> None:
    """With the names that there are."""
    with pytest.raises(SpiraError, match=r"'4\.1' is none of the paper's: 1\.1, .*3\.12"):
        run(corpus, tmp_path, ("1.3", "4.1"), (1,), QUICK, "cpu")
    assert not list(tmp_path.iterdir())


def test_the_table_has_a_row_an_experiment(finished: tuple[Path, pd.DataFrame]) -> None:
    """In the order asked for, with windows, noises and number of seeds."""
    _, table = finished
    assert table[["experiment", "windows", "noise_controls", "noise_patients", "seeds"]].to_numpy().tolist() == [
        ["1.3", "1 s", 0, 0, 2],
        ["3.6", "1 s", 4, 3, 2],
    ]


def test_the_accuracies_are_of_files_of_the_test_split(corpus: Corpus, finished: tuple[Path, pd.DataFrame]) -> None:
    """Mean and standard deviation over the seeds, on the clean test computed once more from the checkpoints."""
    work, table = finished
    test = corpus.split("test")
    accuracies = []
    for seed in (1, 2):
        saved = checkpoint.load(work / "3.6" / f"seed-{seed}")
        called = predict_waveforms(saved.network, saved.config, [test.waveform(i) for i in range(len(test))]) >= 0.5
        accuracies.append(np.mean(called == test.labels))
    clean = table.set_index("experiment").loc["3.6"]
    assert clean["clean"] == pytest.approx(np.mean(accuracies))
    assert clean["clean_std"] == pytest.approx(np.std(accuracies, ddof=1))


class Loudness(torch.nn.Module):
    """Says patient of any window with sound in its quietest frame: what a learner of the ward does."""

    def __init__(self) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(-500.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[W, T, 40] -> [W]``."""
        return features[:, :, 0].amin(dim=1) - self.level


def test_the_noisy_test_adds_noise_to_controls_alone(corpus: Corpus) -> None:
    """A listener for noise hears none in silent recordings; in the noisy test, in those of controls alone."""
    config = configuration("1.3", QUICK)
    shortcut = checkpoint.Checkpoint(Loudness(), config, checkpoint.CheckpointInfo(seed=0), [])
    silent = dataclasses.replace(corpus, audio=np.zeros_like(corpus.audio))
    assert experiments.accuracy(silent, shortcut, "clean") == 0.5  # all are called control
    assert experiments.accuracy(silent, shortcut, "noisy") == 0.0  # and with noise the controls are called patient


def test_what_is_finished_is_kept(corpus: Corpus, finished: tuple[Path, pd.DataFrame]) -> None:
    """The same command again gives the same table and touches no file; another experiment is added to it."""
    work, table = finished
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    pd.testing.assert_frame_equal(run(corpus, work, ("1.3", "3.6"), (1, 2), QUICK, "cpu"), table)
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("*")}


def test_a_test_that_was_interrupted_is_done_again(corpus: Corpus, finished: tuple[Path, pd.DataFrame]) -> None:
    """Its training is not."""
    work, table = finished
    weights = work / "3.6" / "seed-2" / "weights.safetensors"
    trained = weights.stat().st_mtime_ns
    (work / "3.6" / "seed-2" / "test.json").unlink()
    pd.testing.assert_frame_equal(run(corpus, work, ("1.3", "3.6"), (1, 2), QUICK, "cpu"), table)
    assert weights.stat().st_mtime_ns == trained


def test_results_of_other_settings_are_not_taken(corpus: Corpus, finished: tuple[Path, pd.DataFrame]) -> None:
    """A work folder is of one configuration."""
    work, _ = finished
    with pytest.raises(SpiraError, match="another training"):
        run(corpus, work, ("3.6",), (1,), (*QUICK, "model.dropout=0.1"), "cpu")


def test_whole_files_are_one_window_each(corpus: Corpus, tmp_path: Path) -> None:
    """Experiment 1.1, but for a smaller network and one epoch: windows as long as the longest file of training."""
    quick = ("model.architecture=conv1d", "model.channels=8", "training.max_epochs=1")
    table = run(corpus, tmp_path, ("1.1",), (42,), quick, "cpu")
    assert table.loc[0, "windows"] == "whole files"
    assert 0 <= table.loc[0, "noisy"] <= 1
    saved = checkpoint.load(tmp_path / "1.1" / "seed-42").config
    assert saved.windows.window_seconds >= corpus.split("train").table["seconds"].max()


def test_the_printed_table_stands_beside_the_papers(finished: tuple[Path, pd.DataFrame]) -> None:
    """Per cent with spread, the published figure where the paper's text gives one, a dash where not."""
    _, table = finished
    lines = text(table).splitlines()
    (first,) = [line for line in lines if line.startswith("1.3")]
    (best,) = [line for line in lines if line.startswith("3.6")]
    figure = r"\d+\.\d\d ± +\d+\.\d"
    assert re.fullmatch(rf"1\.3 +1 s +0 / 0 +2 +{figure} +- +{figure} +-", first)
    assert re.fullmatch(rf"3\.6 +1 s +4 / 3 +2 +{figure} +91\.67 +{figure} +-", best)
    assert len({len(line) for line in (first, best)}) == 1
