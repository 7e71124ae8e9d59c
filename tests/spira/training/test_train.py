"""Training: schedule, stopping, failures, and bit-identical resumption after a kill at any moment."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import random
import re
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from spira.config import Config, from_dict
from spira.data.corpus import Corpus
from spira.errors import SpiraError
from spira.models import checkpoint
from spira.training import train as training
from spira.training.train import TrainingError, TrainingState, noam, train, validate

pytestmark = pytest.mark.integration

CPU = torch.device("cpu")
EPOCHS = 6
VALUES = {
    "model": {"channels": 8},
    "windows": {"window_seconds": 1.0},
    "training": {"max_epochs": EPOCHS, "batch_files": 4, "warmup_steps": 10, "learning_rate": 0.003},
}
CONFIG = from_dict(VALUES)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Use one thread, as in the processes that are killed: results depend on the number of threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of an uninterrupted training of ``CONFIG`` with seed 42."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("trained")
    train(corpus, CONFIG, 42, out, device="cpu")
    return out


IDENTITY = checkpoint.TrainingIdentity(config_digest="c", seed=42, corpus_digest="d")


def weights(path: Path) -> bytes:
    return (path / "weights.safetensors").read_bytes()


# Schedule and stopping


@pytest.mark.parametrize(("step", "rate"), [(1, 0.00001), (50, 0.0005), (100, 0.001), (400, 0.0005), (10_000, 0.0001)])
def test_the_learning_rate_rises_linearly_and_falls_with_the_root(step: int, rate: float) -> None:
    """Noam with 100 warm-up steps and a peak of 0.001, computed by hand."""
    assert noam(step, 0.001, 100) == pytest.approx(rate)


def test_the_highest_learning_rate_is_the_configured_one() -> None:
    """The last step of the warm-up has it."""
    rates = [noam(step, 0.003, 500) for step in range(1, 3_000)]
    assert max(rates) == rates[499] == 0.003


def test_the_optimiser_uses_the_schedule(trained: Path) -> None:
    """With 3 batches per epoch, epoch e ends with step 3 e."""
    rates = [entry["learning_rate"] for entry in checkpoint.load(trained).history]
    assert rates == pytest.approx([noam(3 * epoch, 0.003, 10) for epoch in range(1, EPOCHS + 1)])


@pytest.mark.parametrize(
    ("losses", "done"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 0.9, 0.8, 0.7, 0.6], True),  # all five epochs
        ([0.5, 0.6, 0.7], False),
        ([0.5, 0.6, 0.7, 0.8], True),  # three without a lower loss
        ([0.5, 0.5, 0.5, 0.5], True),  # an equal loss is not a lower one
        ([0.5, 0.6, 0.7, 0.4], False),
    ],
)
def test_training_ends_after_its_epochs_or_its_patience(losses: list[float], done: bool) -> None:
    """The limits are five epochs, and three without a lower validation loss."""
    config = from_dict({"training": {"max_epochs": 5, "patience_epochs": 3}})
    history = [{"epoch": number + 1, "eval_loss": loss} for number, loss in enumerate(losses)]
    network = nn.Linear(1, 1)
    state = TrainingState(network, torch.optim.Adam(network.parameters()), history=history)
    assert training.is_done(state, config) is done


def test_early_stopping_keeps_the_best_epochs_weights(corpus: Corpus, tmp_path: Path) -> None:
    """The saved weights have the lowest validation loss of the history."""
    values = {"max_epochs": 60, "patience_epochs": 2, "learning_rate": 0.03, "batch_files": 12, "warmup_steps": 1}
    saved = train(corpus, from_dict(VALUES | {"training": values}), 0, tmp_path, device="cpu")
    losses = [entry["eval_loss"] for entry in saved.history]
    best = losses.index(min(losses))
    assert len(losses) < 60
    assert len(losses) - (best + 1) == 2
    assert (saved.info.best_epoch, saved.info.best_eval_loss) == (best + 1, min(losses))
    assert validate(saved.network, corpus, saved.config, CPU)[0] == pytest.approx(min(losses), abs=1e-6)


def test_a_network_learns_the_synthetic_corpus(corpus: Corpus, tmp_path: Path) -> None:
    """It separates controls from patients among voices that it was not trained on, with noise."""
    values = {
        "model": {"channels": 16, "dropout": 0.1},
        "windows": {"window_seconds": 1.0, "step_seconds": 0.5},
        "training": {"max_epochs": 20, "batch_files": 4, "warmup_steps": 10, "learning_rate": 0.01},
    }
    saved = train(corpus, from_dict(values), 42, tmp_path, device="cpu")
    assert saved.info.best_eval_loss < 0.2  # chance is 0.69
    assert saved.history[saved.info.best_epoch - 1]["eval_accuracy"] == 1.0


# Reproducibility and resumption


def test_a_seed_gives_the_same_weights_and_another_seed_others(corpus: Corpus, trained: Path, tmp_path: Path) -> None:
    """They are equal bit for bit, for any state of the global random generators."""
    torch.manual_seed(7)
    train(corpus, CONFIG, 42, tmp_path / "42", device="cpu")
    train(corpus, CONFIG, 43, tmp_path / "43", device="cpu")
    assert weights(tmp_path / "42") == weights(trained)
    assert weights(tmp_path / "43") != weights(trained)


def test_a_finished_training_is_not_repeated(corpus: Corpus, trained: Path) -> None:
    """The files keep their times of change, and the checkpoint is returned."""
    before = {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    again = train(corpus, CONFIG, 42, trained, device="cpu")
    assert before == {path.name: path.stat().st_mtime_ns for path in trained.iterdir()}
    assert again.info == checkpoint.load(trained).info
    assert "state.safetensors" not in before


def test_a_finished_training_of_another_configuration_is_refused(corpus: Corpus, trained: Path) -> None:
    """Its files are not overwritten."""
    with pytest.raises(SpiraError, match="another training"):
        train(corpus, CONFIG, 43, trained, device="cpu")


PROCESSES = multiprocessing.get_context("forkserver")
"""New processes that need not import torch each, so that a kill leaves no state in memory."""


def train_in_a_process(corpus_path: Path, out: Path) -> None:
    """Train as the process that is killed."""
    torch.set_num_threads(1)
    train(Corpus.open(corpus_path), CONFIG, 42, out, device="cpu")


def train_and_kill(corpus: Corpus, out: Path, epochs: int, seconds: float) -> bool:
    """Kill a training some seconds after a number of epochs; return whether it was still running."""
    state, times = out / "state.safetensors", []
    child = PROCESSES.Process(target=train_in_a_process, args=(corpus.path, out))
    child.start()
    while child.is_alive() and len(times) <= epochs:
        changed = state.stat().st_mtime_ns if state.exists() else 0
        times += [changed] if changed not in times else []
        time.sleep(0.001)
    time.sleep(seconds)
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL


def test_a_killed_training_resumes_to_the_same_weights(corpus: Corpus, trained: Path, tmp_path: Path) -> None:
    """Real processes get SIGKILL at random moments. Weights and history are bit-identical."""
    PROCESSES.set_forkserver_preload(["pytest", "spira.training.train", "torch._dynamo"])
    moments = random.Random(0)
    killed = [train_and_kill(corpus, tmp_path, moments.randint(0, 1), moments.uniform(0, 0.1)) for _ in range(5)]
    assert any(killed)
    resumed = train(corpus, CONFIG, 42, tmp_path, device="cpu")
    assert weights(tmp_path) == weights(trained)
    assert history(resumed) == history(checkpoint.load(trained))


def history(saved: checkpoint.Checkpoint) -> list[dict[str, float]]:
    """Return the history without the durations, which differ."""
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in saved.history]


@pytest.mark.parametrize("architecture", ["conv1d", "spira_v1", "spira_v2"])
def test_a_loaded_state_continues_as_if_never_saved(corpus: Corpus, tmp_path: Path, architecture: str) -> None:
    """Weights, best weights, statistics and Adam's moments are bit-identical, with dropout, for each network."""
    model = {"architecture": architecture, "channels": 8, "dropout": 0.5}
    config = from_dict(VALUES | {"model": model, "windows": {"window_seconds": 1.0, "step_seconds": 2.0}})
    straight, first = (training.start(config, 42, CPU) for _ in range(2))
    for _ in range(3):
        training.run_epoch(straight, corpus, config, 42, CPU)
    training.run_epoch(first, corpus, config, 42, CPU)
    training.save_state(first, tmp_path / "state.safetensors", IDENTITY)
    resumed = training.start(config, 7, CPU)
    training.load_state(resumed, tmp_path / "state.safetensors", IDENTITY)
    assert is_identical(resumed.best, first.best)
    for _ in range(2):
        training.run_epoch(resumed, corpus, config, 42, CPU)
    assert resumed.step == straight.step
    assert is_identical(resumed.network.state_dict(), straight.network.state_dict())
    assert is_identical(resumed.best, straight.best)
    for actual, expected in zip(moments(resumed), moments(straight), strict=True):
        assert torch.equal(actual, expected)


def is_identical(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of weights are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in second)


def moments(state: TrainingState) -> list[torch.Tensor]:
    """Return Adam's moments in the order of parameters and names."""
    by_parameter = state.optimizer.state_dict()["state"]
    return [by_parameter[number][name] for number in sorted(by_parameter) for name in sorted(by_parameter[number])]


def unfinished(corpus: Corpus, out: Path, config: Config = CONFIG, seed: int = 42) -> Path:
    """Write and return the state file of a training that was stopped after one epoch."""
    state = training.start(config, seed, CPU)
    training.run_epoch(state, corpus, config, seed, CPU)
    training.save_state(state, out / "state.safetensors", checkpoint.TrainingIdentity.of(config, seed, corpus.digest))
    return out / "state.safetensors"


def test_the_state_of_another_training_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """It is neither used nor overwritten."""
    state = unfinished(corpus, tmp_path, seed=1)
    before = state.read_bytes()
    with pytest.raises(SpiraError, match=r"state\.safetensors was left by another training"):
        train(corpus, CONFIG, 42, tmp_path, device="cpu")
    assert state.read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_state_is_refused_by_name(corpus: Corpus, tmp_path: Path, share: float) -> None:
    """As a full disk may leave it. No part of it is loaded."""
    state = unfinished(corpus, tmp_path)
    content = state.read_bytes()
    state.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SpiraError, match=r"state\.safetensors is not the state of a training: delete it"):
        train(corpus, CONFIG, 42, tmp_path, device="cpu")


def test_a_flipped_bit_in_the_state_is_refused_or_changes_nothing(corpus: Corpus, tmp_path: Path) -> None:
    """A weight or a moment with another value would give another network without a word."""
    file = unfinished(corpus, tmp_path)
    identity = checkpoint.TrainingIdentity.of(CONFIG, 42, corpus.digest)
    before, rng = file.read_bytes(), random.Random(1)
    header = 8 + int.from_bytes(before[:8], "little")
    expected = loaded(file, identity)
    refused = 0
    for position in [*(rng.randrange(header) for _ in range(150)), *(rng.randrange(len(before)) for _ in range(50))]:
        content = bytearray(before)
        content[position] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        try:
            assert loaded(file, identity) == expected
        except SpiraError as error:
            assert re.search(rf"{file}.*delete it", str(error))  # noqa: PT017 (most flips, not all, are refused)
            refused += 1
    assert refused > 150


def loaded(file: Path, identity: checkpoint.TrainingIdentity) -> str:
    """Return a digest of the state that a file gives."""
    state = training.start(CONFIG, 42, CPU)
    training.load_state(state, file, identity)
    tensors = {**state.network.state_dict(), **{f"best.{name}": value for name, value in state.best.items()}}
    tensors |= {f"adam.{number}": value for number, value in enumerate(moments(state))}
    return training.state_digest({"history": state.history, "step": state.step}, tensors)


def test_a_state_without_a_digest_is_resumed(corpus: Corpus, tmp_path: Path) -> None:
    """Earlier versions wrote none."""
    file = unfinished(corpus, tmp_path)
    identity = checkpoint.TrainingIdentity.of(CONFIG, 42, corpus.digest)
    expected = loaded(file, identity)
    with safe_open(file, framework="pt") as content:
        fields = json.loads(content.metadata()[training.STATE_FIELDS])
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (not a dictionary)
    del fields["digest"]
    save_file(tensors, file, {training.STATE_FIELDS: json.dumps(fields)})
    assert loaded(file, identity) == expected


def test_a_half_written_state_is_not_loaded(corpus: Corpus, trained: Path, tmp_path: Path) -> None:
    """A kill during a write leaves a temporary file, which is replaced by the next write."""
    state = unfinished(corpus, tmp_path)
    temporary = state.with_name("state.safetensors.writing")
    temporary.write_bytes(state.read_bytes()[:100])
    train(corpus, CONFIG, 42, tmp_path, device="cpu")
    assert weights(tmp_path) == weights(trained)
    assert not temporary.exists()
    assert not state.exists()


# Failures


def test_a_diverging_training_stops_with_step_and_remedy(corpus: Corpus, tmp_path: Path) -> None:
    """It leaves no checkpoint."""
    rates = {"learning_rate": 1e6, "warmup_steps": 1, "batch_files": 4, "max_epochs": 3}
    with pytest.raises(TrainingError, match=r"epoch 1, step [23]: .*lower training.learning_rate"):
        train(corpus, from_dict(VALUES | {"training": rates}), 42, tmp_path, device="cpu")
    assert not (tmp_path / "checkpoint.json").exists()


def test_nan_in_the_audio_stops_training_at_the_first_step(corpus: Corpus, tmp_path: Path) -> None:
    """The audio changed after it was checked."""
    damaged = corpus.audio.copy()
    damaged[:] = math.nan
    broken = Corpus(corpus.path, corpus.index, damaged, corpus.noise, corpus.quality, corpus.manifest)
    with pytest.raises(TrainingError, match="loss is nan in epoch 1, step 1"):
        train(broken, CONFIG, 42, tmp_path, device="cpu")


def test_nan_in_validation_stops_training_after_the_epoch(corpus: Corpus, tmp_path: Path) -> None:
    """An epoch of one step can diverge after its loss was computed."""
    rates = {"learning_rate": 1e30, "warmup_steps": 1, "batch_files": 12, "max_epochs": 3}
    with pytest.raises(TrainingError, match=r"validation loss is (nan|inf) after epoch 1, step 1"):
        train(corpus, from_dict(VALUES | {"training": rates}), 42, tmp_path, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_required_gpu_is_reported_before_any_file_is_written(corpus: Corpus, tmp_path: Path) -> None:
    """On a cluster a silent fall-back to the CPU costs days."""
    with pytest.raises(SpiraError, match="GPU"):
        train(corpus, CONFIG, 42, tmp_path / "out", require_gpu=True)
    assert not (tmp_path / "out").exists()


# Checkpoint and log


def test_whole_files_have_the_length_of_the_longest_training_recording(corpus: Corpus, tmp_path: Path) -> None:
    """The checkpoint's configuration holds the length, so that serving uses the same windows."""
    values = VALUES | {"windows": {"mode": "whole"}, "training": {"max_epochs": 1, "batch_files": 4}}
    saved = train(corpus, from_dict(values), 42, tmp_path, device="cpu")
    longest = corpus.split("train").table["seconds"].max()
    assert longest <= saved.config.windows.window_seconds < longest + 0.01


def test_a_checkpoint_records_its_training(corpus: Corpus, trained: Path) -> None:
    """Seed, data, speakers and files, so that an evaluation can exclude training recordings."""
    info = checkpoint.load(trained).info
    train_table = corpus.split("train").table
    assert (info.seed, info.corpus_digest, info.epochs) == (42, corpus.digest, EPOCHS)
    assert info.config_digest == CONFIG.digest()
    assert list(info.train_files) == sorted(train_table["sha256"])
    assert list(info.train_speakers) == sorted(train_table["speaker"].unique())


def test_every_epoch_is_logged_with_the_time_left(
    corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There is one line per epoch, in order."""
    with caplog.at_level(logging.INFO, "spira.training.train"):
        train(corpus, CONFIG, 42, tmp_path, device="cpu")
    lines = [line for line in caplog.messages if "to go" in line]
    epochs = [int(line.split("epoch")[1].split("/")[0]) for line in lines]
    assert all(later == earlier + 1 for earlier, later in pairwise(epochs))
    assert epochs[-1] == EPOCHS
