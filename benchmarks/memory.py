"""Peak memory of a piece of work, in a process of its own.

Told apart: memory of the process's own (anonymous), and with the pages of mapped files that it has looked at, which
the system takes back when it needs them.
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

EVERY_SECONDS = 0.02


def peak(work: Callable[..., None], *arguments: Any) -> dict[str, float]:
    """MB at most while the work is done: ``own`` and ``with_mapped``, all with Python and its libraries."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_watched, args=(results, work, *arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} failed in its own process")
    return results.get()


def _watched(results: Any, work: Callable[..., None], *arguments: Any) -> None:
    done, seen = threading.Event(), [_memory_mb()]

    def watch() -> None:
        while not done.wait(EVERY_SECONDS):
            seen.append(_memory_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work(*arguments)
    finally:
        done.set()
        watcher.join()
    results.put({name: max(one[name] for one in seen) for name in seen[0]})


def _memory_mb() -> dict[str, float]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1024 for name, key in (("own", "RssAnon"), ("with_mapped", "VmRSS"))}


def nothing() -> None:
    """What Python and the libraries take by themselves."""
    time.sleep(2 * EVERY_SECONDS)


def preprocess(root: Path, out: Path) -> None:
    """A data set into a corpus."""
    corpus.build(root, out)


def train(root: Path, made: Path) -> None:
    """An epoch of the paper's training."""
    bench = speed.Bench(root, corpus.Corpus.open(made), paper())
    state = training.start(bench.config, speed.SEED, speed.CPU)
    for batch in bench.batches():
        training.train_step(state, batch, bench.config, speed.EPOCH)
