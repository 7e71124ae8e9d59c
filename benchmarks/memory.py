"""Peak memory of a function in a separate process.

Two figures: the private (anonymous) memory of the process, and the same with the pages of mapped files that it has
read. The system can reclaim those pages at any time.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import speed
from spira.config import paper
from spira.data import corpus
from spira.training import train as training

SAMPLING_SECONDS = 0.02


def peak(work: Callable[..., None], *arguments: Any) -> dict[str, float]:
    """Return the peak memory of a function in MB, ``own`` and ``with_mapped``, including Python and its libraries."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measure, args=(results, work, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} failed in its process: see the traceback above")
    return results.get()


def _measure(results: Any, work: Callable[..., None], *arguments: Any) -> None:
    done, samples = threading.Event(), [_memory_mb()]

    def sample() -> None:
        while not done.wait(SAMPLING_SECONDS):
            samples.append(_memory_mb())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        work(*arguments)
    finally:
        done.set()
        sampler.join()
    results.put({name: max(sample[name] for sample in samples) for name in samples[0]})


def _memory_mb() -> dict[str, float]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1024 for name, key in (("own", "RssAnon"), ("with_mapped", "VmRSS"))}


def nothing() -> None:
    """Do nothing, to measure the memory of Python and the libraries."""
    time.sleep(2 * SAMPLING_SECONDS)


def preprocess(root: Path, out: Path) -> None:
    """Build a corpus from a data set."""
    corpus.build(root, out)


def train(root: Path, corpus_folder: Path) -> None:
    """Train one epoch with the paper's configuration."""
    bench = speed.Bench(root, corpus.Corpus.open(corpus_folder), paper())
    state = training.start(bench.config, speed.SEED, speed.CPU)
    for batch in bench.batches():
        training.train_step(state, batch, bench.config, speed.EPOCH)
