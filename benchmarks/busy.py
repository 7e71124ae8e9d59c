"""Time of a training epoch and of an evaluation, alone and beside busy loops on all cores.

Threads that spin while they wait lose the cores to others, and the epoch then takes many times as long.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import speed
from spira.config import Config
from spira.data import corpus, demo
from spira.evaluation import evaluate, gate
from spira.models import checkpoint
from spira.training import train

MAX_RATIO = 3
"""Largest accepted ratio of the times beside the loops and alone."""
SPEAKERS, QUICK_SPEAKERS = 120, 24
"""Of the demo data set: 60 test recordings, and 12."""
EPOCHS = 3
CONTEXT = multiprocessing.get_context("spawn")  # a fork would inherit the threads of torch


def measure(work: Path, quick: bool) -> dict[str, Any]:
    """Return the costs of an epoch and of an evaluation with the default settings, alone and beside busy loops."""
    folder = work / "busy-corpus"
    root = demo.make_demo(work / "busy-files", speakers=QUICK_SPEAKERS if quick else SPEAKERS)
    corpus.build(root, folder)
    quiet = _in_process(folder)
    with busy_loops():
        busy = _in_process(folder)
    return {
        name: {"quiet": asdict(quiet[name]), "busy": asdict(busy[name]), "ratio": busy[name].wall / quiet[name].wall}
        for name in quiet
    }


@contextmanager
def busy_loops() -> Iterator[None]:
    """Run one busy loop for each core."""
    loops = [CONTEXT.Process(target=_loop, daemon=True) for _ in os.sched_getaffinity(0)]
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        for loop in loops:
            loop.terminate()
            loop.join()


def _loop() -> None:
    while True:
        pass


def _in_process(folder: Path) -> dict[str, speed.Cost]:
    """Return the costs in a new process, which loads the libraries as a stage of the pipeline does."""
    with CONTEXT.Pool(1) as pool:
        return pool.apply(_costs, [folder])


def _costs(folder: Path) -> dict[str, speed.Cost]:
    opened = corpus.Corpus.open(folder)
    config = train.resolve(Config(), opened)
    state = train.start(config, speed.SEED, speed.CPU)
    epoch = partial(train.run_epoch, state, opened, config, speed.SEED, speed.CPU)
    epoch()  # compiles, and fills the caches
    total = speed.measure_cost(lambda: [epoch() for _ in range(EPOCHS)])
    identity = train.TrainingIdentity.of(config, speed.SEED, opened.digest)
    info = train.training_info(state, identity, opened, speed.CPU)
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary) / "checkpoint"
        checkpoint.save(saved, state.best, state.history, config, info)
        evaluation = partial(evaluate.evaluate, opened, [saved], gate.load(), Path(temporary) / "verdict")
        return {
            "a training epoch": speed.Cost(total.wall / EPOCHS, total.cpu / EPOCHS),
            "an evaluation": speed.measure_cost(evaluation),
        }
