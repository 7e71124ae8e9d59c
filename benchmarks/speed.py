"""Features, batches and training epochs: ours and the reference's in turn, and whether the numbers are the same."""

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
from spira.features import batches as dataset
from spira.features.mfcc import files_mfcc
from spira.models.checkpoint import build_network
from spira.training import train

SEED, EPOCH = 42, 1
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cost:
    """Of the fastest of several runs."""

    wall: float  # s
    cpu: float  # s of all processes


@dataclass(frozen=True)
class Bench:
    """One data set in both forms: the files for the reference, the corpus for us."""

    root: Path
    corpus: Corpus
    config: Config

    def recordings(self) -> reference.Recordings:
        table = self.corpus.split("train").table
        return reference.Recordings(
            self.root, list(table["file_path"]), list(table["label"]), self.config, [SEED, EPOCH]
        )  # fmt: skip

    def reference_batches(self) -> reference.DataLoader:
        recordings = self.recordings()
        order = np.random.default_rng([SEED, EPOCH]).permutation(len(recordings)).tolist()
        return reference.loader(recordings, order, self.config.training.batch_files)

    def batches(self) -> Iterator[dataset.Batch]:
        split, noises = self.corpus.split("train"), self.corpus.noises
        return dataset.training_batches(split, noises, self.config, SEED, EPOCH, CPU)


def cost(work: Callable[[], object]) -> Cost:
    """Of one run, its child processes included once they have ended."""
    before, began = _cpu_seconds(), time.monotonic()
    work()
    return Cost(time.monotonic() - began, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[Cost, Cost]:
    """The best of both, run in turn so that a busy machine slows both."""
    pairs = [(cost(ours), cost(theirs)) for _ in range(rounds)]
    fastest = [min(costs, key=lambda one: one.wall) for costs in zip(*pairs, strict=True)]
    return fastest[0], fastest[1]


def features(bench: Bench, rounds: int) -> tuple[Cost, Cost]:
    """Of a batch of waveforms that are in memory, in one process."""
    split = bench.corpus.split("train")
    waveforms = [torch.tensor(split.waveform(i)) for i in range(bench.config.training.batch_files)]
    return in_turn(
        lambda: files_mfcc(waveforms, bench.config.windows, bench.config.features),
        lambda: [reference.features(one, bench.config) for one in waveforms],
        rounds,
    )


def batches(bench: Bench, rounds: int) -> tuple[Cost, Cost]:
    """An epoch's batches ready to train on: recordings and noise, windows, features; each dropped for the next."""
    return in_turn(lambda: consume(bench.batches()), lambda: consume(bench.reference_batches()), rounds)


def consume(items: Iterable[object]) -> None:
    """Take all, keep none."""
    for _ in items:
        pass


def batches_on_one_core(bench: Bench, rounds: int) -> tuple[Cost, Cost]:
    """The same where one core is all there is, as for each of the seeds that the pipeline trains side by side."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    try:
        return batches(bench, rounds)
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def epoch(bench: Bench, rounds: int) -> tuple[Cost, Cost]:
    """A training epoch from its recordings to its weights, without validation."""

    def ours() -> None:
        state = train.start(bench.config, SEED, CPU)
        for batch in bench.batches():
            train.train_step(state, batch, bench.config, EPOCH)

    def theirs() -> None:
        network = reference.Network(bench.config.model.dropout)
        reference.train(network, bench.reference_batches(), bench.config)

    return in_turn(ours, theirs, rounds)


def differences(bench: Bench) -> dict[str, float]:
    """Largest differences between both in the first batch of an epoch: features, loss, gradients (of their largest).

    Without dropout, whose random numbers are other ones.
    """
    without = bench.config.model_copy(update={"model": bench.config.model.model_copy(update={"dropout": 0.0})})
    torch.manual_seed(SEED)
    ours, theirs = build_network(without).train(), reference.Network(0.0).train()
    theirs.load_state_dict(ours.state_dict())
    batch, (features, labels) = next(bench.batches()), next(iter(bench.reference_batches()))
    losses = [
        nn.functional.binary_cross_entropy_with_logits(network(x), y)
        for network, x, y in ((ours, batch.features, batch.labels), (theirs, features, labels))
    ]
    pairs = zip(
        torch.autograd.grad(losses[0], list(ours.parameters())),
        torch.autograd.grad(losses[1], list(theirs.parameters())),
        strict=True,
    )
    gradients = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    return {
        "features": float((batch.features - features).abs().max()),
        "loss": abs(losses[0].item() - losses[1].item()),
        "gradients": max(gradients),
    }
