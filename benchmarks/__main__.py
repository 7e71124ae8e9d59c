"""Measure everything and print it: ``python -m benchmarks [--quick] [--json FILE] [--work FOLDER]``."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import memory, recordings, serving, speed
from spira.config import Config, paper
from spira.data import corpus
from spira.evaluation import gate
from spira.models import checkpoint
from spira.packaging.build import package

TRADED = (
    "Same numbers: features within 1e-4 dB, loss and gradients (without dropout) as above; sums run in another order.",
    "Traded: dropout draws from a hash keyed by torch's generator, so its places are others than torch's; maps are "
    "made twice rather than kept (arithmetic for memory); recordings lie decoded on disk, 4 bytes a sample; a "
    "machine's first training compiles for 10 s.",
    "Neither epoch holds validation. Ratios are of wall time, the fastest of the runs in turn; CPU s of all processes.",
)
LIMITS = {"features": 1e-4, "loss": 1e-5, "gradients": 1e-3}
"""Largest differences from the reference that count as the same numbers."""
console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours against a plain reference.")
    parser.add_argument("--quick", action="store_true", help="90 recordings, one run each")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--work", type=Path, help="keep the synthetic recordings here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(given.work or Path(temporary), given.quick)
    show(figures)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def measure(work: Path, quick: bool) -> dict[str, Any]:
    """All figures; raises AssertionError if the numbers are not the reference's."""
    train, rounds = (90, 1) if quick else (292, 2)
    small = 30 if quick else 73
    figures: dict[str, Any] = {"machine": machine(), "recordings": train}
    with console.status("preprocessing") as status:
        root, made = recordings.make(work / f"files-{train}", train), work / f"corpus-{train}"
        bench, figures["preprocessing"] = preprocess(root, made)
        status.update("comparing numbers (the first run compiles)")
        figures["differences"] = differences = speed.differences(bench)
        for name, limit in LIMITS.items():
            assert differences[name] <= limit, f"{name} differ by {differences[name]:.2g}, more than {limit:g}"
        for name, compare, times in (
            ("features of a batch in memory", speed.features, 3),
            ("an epoch's batches", speed.batches, rounds),
            ("an epoch's batches on one core", speed.batches_on_one_core, rounds),
            ("a training epoch", speed.epoch, rounds),
        ):
            status.update(f"{name}, both in turn")
            ours, theirs = compare(bench, times)
            ratio = theirs.wall / ours.wall
            figures[name] = {"ours": asdict(ours), "reference": asdict(theirs), "ratio": ratio}
        status.update("memory")
        figures["memory"] = [memory_of(work, count) for count in (small, 4 * small)]
        figures["memory of the libraries"] = memory.peak(memory.nothing)
        status.update("packages")
        figures["packages"] = {name: serve(work, config) for name, config in SERVED.items()}
    return figures


SERVED = {"conv1d (default)": Config(), "spira_v2 (paper)": paper()}


def machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "torch_threads": torch.get_num_threads(), "load_before": os.getloadavg()[0]}


def preprocess(root: Path, made: Path) -> tuple[speed.Bench, dict[str, float]]:
    """Build the corpus anew; how fast."""
    if made.exists():
        (made / "manifest.json").unlink()  # no longer complete: it is made again
    began = time.monotonic()
    corpus.build(root, made)
    seconds = time.monotonic() - began
    bench = speed.Bench(root, corpus.Corpus.open(made), paper())
    audio_seconds = float(bench.corpus.index["seconds"].sum())
    return bench, {"seconds": seconds, "audio_seconds": audio_seconds, "times_real_time": audio_seconds / seconds}


def memory_of(work: Path, count: int) -> dict[str, Any]:
    """Peak memory of preprocessing and of an epoch for that many recordings."""
    root, made = recordings.make(work / f"files-{count}", count), work / f"memory-corpus-{count}"
    building = memory.peak(memory.preprocess, root, made)
    return {"recordings": count, "preprocess": building, "train": memory.peak(memory.train, root, made)}


def serve(work: Path, config: Config) -> dict[str, float]:
    """A package with fresh weights, asked for one recording again and again."""
    torch.manual_seed(0)
    network = checkpoint.build_network(config)
    folder = work / config.model.architecture
    identity = checkpoint.identity(config, 0, "0" * 64)
    info = checkpoint.CheckpointInfo(**identity, best_epoch=1)
    checkpoint.save(folder / "checkpoint", network.state_dict(), [], config, info)
    made = package(folder / "checkpoint", None, gate.load().abstention.band, folder / "package", {})
    recording = folder / "ten-seconds.wav"
    recordings.write(recording, recordings.syllables(10, np.random.default_rng(0)))
    return serving.of(made, recording, 50)


def show(figures: dict[str, Any]) -> None:
    """Everything as tables."""
    state = figures["machine"]
    console.print(
        f"\n{figures['recordings']} recordings of 5-12 s, batches of 30, SpiraConv V2, dropout 0.7, noises 4/3; "
        f"{state['cpus']} CPUs, load before {state['load_before']:.1f}"
    )
    table = Table("", "ours", "reference", "ratio", title="Against the reference: wall s (CPU s)")
    for name, figure in figures.items():
        if isinstance(figure, dict) and "ratio" in figure:
            cells = [f"{figure[who]['wall']:.2f} ({figure[who]['cpu']:.2f})" for who in ("ours", "reference")]
            table.add_row(name, *cells, f"{figure['ratio']:.1f} x")
    console.print(table)
    console.print("Largest differences: " + ", ".join(f"{k} {v:.1e}" for k, v in figures["differences"].items()))
    made = figures["preprocessing"]
    console.print(
        f"Preprocessing: {made['audio_seconds'] / 60:.0f} min of audio in {made['seconds']:.1f} s, "
        f"{made['times_real_time']:.0f} times real time"
    )
    table = Table("recordings", "preprocessing", "a training epoch", title="Peak memory: own MB (with mapped files)")
    for row in figures["memory"]:
        cells = [f"{row[work]['own']:.0f} ({row[work]['with_mapped']:.0f})" for work in ("preprocess", "train")]
        table.add_row(str(row["recordings"]), *cells)
    alone = figures["memory of the libraries"]
    table.caption = f"Python and the libraries alone: {alone['own']:.0f} ({alone['with_mapped']:.0f})"
    console.print(table)
    table = Table("package", "start s", "p50 ms", "p95 ms", "peak MB", title="One recording of 10 s, served")
    for name, one in figures["packages"].items():
        table.add_row(
            name, f"{one['start_s']:.2f}", f"{one['p50_ms']:.1f}", f"{one['p95_ms']:.1f}", f"{one['peak_mb']:.0f}"
        )  # fmt: skip
    console.print(table)
    for line in TRADED:
        console.print(line)


if __name__ == "__main__":
    main()
