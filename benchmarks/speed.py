"""Speed of features, batches and training epochs, alternating with the reference, and differences between both."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import reference
from spira.config import Config
from spira.data.corpus import Corpus
from spira.features import batches as feature_batches
from spira.features.mfcc import files_mfcc
from spira.models.checkpoint import build_network
from spira.training import train

SEED, EPOCH = 42, 1
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cost:
    """Cost of the fastest of several runs."""

    wall: float
    """Wall time, s."""
    cpu: float
    """CPU time of all processes, s."""


@dataclass(frozen=True)
class Bench:
    """One data set in both forms: files for the reference, a corpus for spira."""

    root: Path
    corpus: Corpus
    config: Config

    def reference_dataset(self) -> reference.ReferenceDataset:
        """Return the training split for the reference."""
        table = self.corpus.split("train").table
        return reference.ReferenceDataset(
            self.root, list(table["file_path"]), list(table["label"]), self.config, [SEED, EPOCH]
        )  # fmt: skip

    def reference_batches(self) -> reference.DataLoader:
        """Return the batches of an epoch from the reference."""
        dataset = self.reference_dataset()
        order = np.random.default_rng([SEED, EPOCH]).permutation(len(dataset)).tolist()
        return reference.loader(dataset, order, self.config.training.batch_files)

    def batches(self) -> Iterator[feature_batches.Batch]:
        """Return the batches of an epoch from spira."""
        split, noises = self.corpus.split("train"), self.corpus.noises
        return feature_batches.training_batches(split, noises, self.config, SEED, EPOCH, CPU)


def measure_cost(work: Callable[[], object]) -> Cost:
    """Return the cost of one run, including its child processes that have ended."""
    cpu_before, start = _cpu_seconds(), time.monotonic()
    work()
    return Cost(time.monotonic() - start, _cpu_seconds() - cpu_before)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(scope) for scope in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def alternate(run_ours: Callable[[], object], run_reference: Callable[[], object], rounds: int) -> tuple[Cost, Cost]:
    """Return the lowest cost of both, run alternately so that a busy machine slows both."""
    pairs = [(measure_cost(run_ours), measure_cost(run_reference)) for _ in range(rounds)]
    fastest = [min(costs, key=lambda cost: cost.wall) for costs in zip(*pairs, strict=True)]
    return fastest[0], fastest[1]


def features(bench: Bench, rounds: int) -> tuple[Cost, Cost]:
    """Compare the features of a batch of waveforms in memory, in one process."""
    split = bench.corpus.split("train")
    waveforms = [torch.tensor(split.waveform(i)) for i in range(bench.config.training.batch_files)]
    return alternate(
        lambda: files_mfcc(waveforms, bench.config.windows, bench.config.features),
        lambda: [reference.features(waveform, bench.config) for waveform in waveforms],
        rounds,
    )


def batches(bench: Bench, rounds: int) -> tuple[Cost, Cost]:
    """Compare the batches of an epoch: recordings, noise, windows and features. Batches are discarded."""
    return alternate(lambda: consume(bench.batches()), lambda: consume(bench.reference_batches()), rounds)


def consume(items: Iterable[object]) -> None:
    """Iterate over all items and discard them."""
    for _ in items:
        pass


def batches_on_one_core(bench: Bench, rounds: int) -> tuple[Cost, Cost]:
    """Compare the batches of an epoch on one core, the share of each seed that the pipeline trains in parallel."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    try:
        return batches(bench, rounds)
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def epoch(bench: Bench, rounds: int) -> tuple[Cost, Cost]:
    """Compare a training epoch from recordings to weights, without validation."""

    def train_ours() -> None:
        state = train.start(bench.config, SEED, CPU)
        for batch in bench.batches():
            train.train_step(state, batch, bench.config, EPOCH)

    def train_reference() -> None:
        network = reference.Network(bench.config.model.dropout)
        reference.train(network, bench.reference_batches(), bench.config)

    return alternate(train_ours, train_reference, rounds)


def differences(bench: Bench) -> dict[str, float]:
    """Return the largest differences in the first batch of an epoch: features, loss, and gradients (relative).

    Computed without dropout, because its random numbers differ.
    """
    without = bench.config.model_copy(update={"model": bench.config.model.model_copy(update={"dropout": 0.0})})
    torch.manual_seed(SEED)
    network, reference_network = build_network(without).train(), reference.Network(0.0).train()
    reference_network.load_state_dict(network.state_dict())
    batch, (features, labels) = next(bench.batches()), next(iter(bench.reference_batches()))
    losses = [
        nn.functional.binary_cross_entropy_with_logits(network(batch.features), batch.labels),
        nn.functional.binary_cross_entropy_with_logits(reference_network(features), labels),
    ]
    pairs = zip(
        torch.autograd.grad(losses[0], list(network.parameters())),
        torch.autograd.grad(losses[1], list(reference_network.parameters())),
        strict=True,
    )
    gradients = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    return {
        "features": float((batch.features - features).abs().max()),
        "loss": abs(losses[0].item() - losses[1].item()),
        "gradients": max(gradients),
    }
