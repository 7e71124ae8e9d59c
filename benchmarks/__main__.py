"""Command line of the benchmarks: ``python -m benchmarks [--quick] [--json FILE] [--work FOLDER]``."""

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

from benchmarks import busy, memory, recordings, serving, speed
from spira.config import Config, paper
from spira.data import corpus
from spira.evaluation import gate
from spira.models import checkpoint
from spira.packaging.build import package

NOTES = (
    "Equal results: features within 1e-4 dB, loss and gradients (without dropout) as above; the order of sums differs.",
    "Costs: dropout masks come from a hash keyed by torch's generator, so they differ from torch's; maps are computed "
    "twice instead of stored; decoded recordings need 4 bytes per sample on disk; the first training on a machine "
    "compiles for 10 s.",
    "The epochs have no validation. Ratios are of wall time, the fastest of alternating runs; CPU s of all processes.",
)
MAX_DIFFERENCES = {"features": 1e-4, "loss": 1e-5, "gradients": 1e-3}
"""Largest accepted differences from the reference."""
console = Console()


def main() -> None:
    """Run all benchmarks and print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Compare with a plain reference implementation."
    )
    parser.add_argument("--quick", action="store_true", help="use 90 recordings and one run each")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--work", type=Path, help="folder for the synthetic recordings, kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(options.work or Path(temporary), options.quick)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def measure(work: Path, quick: bool) -> dict[str, Any]:
    """Return all figures.

    Raises:
        AssertionError: the results differ from the reference.
    """
    train, rounds = (90, 1) if quick else (292, 2)
    small = 30 if quick else 73
    figures: dict[str, Any] = {"machine": machine(), "recordings": train}
    with console.status("preprocessing") as status:
        root, corpus_folder = recordings.make(work / f"files-{train}", train), work / f"corpus-{train}"
        bench, figures["preprocessing"] = preprocess(root, corpus_folder)
        status.update("comparing results (the first run compiles)")
        figures["differences"] = differences = speed.differences(bench)
        for name, limit in MAX_DIFFERENCES.items():
            assert differences[name] <= limit, f"{name} differ by {differences[name]:.2g} (limit {limit:g})"
        for name, compare, times in (
            ("features of a batch in memory", speed.features, 3),
            ("an epoch's batches", speed.batches, rounds),
            ("an epoch's batches on one core", speed.batches_on_one_core, rounds),
            ("a training epoch", speed.epoch, rounds),
        ):
            status.update(f"{name}, alternating with the reference")
            ours, reference = compare(bench, times)
            ratio = reference.wall / ours.wall
            figures[name] = {"ours": asdict(ours), "reference": asdict(reference), "ratio": ratio}
        status.update("an epoch and an evaluation beside busy loops")
        figures["beside busy loops"] = busy.measure(work, quick)
        status.update("memory")
        figures["memory"] = [memory_of(work, count) for count in (small, 4 * small)]
        figures["memory of the libraries"] = memory.peak(memory.nothing)
        status.update("packages")
        figures["packages"] = {name: measure_package(work, config) for name, config in PACKAGES.items()}
    return figures


PACKAGES = {"conv1d (default)": Config(), "spira_v2 (paper)": paper()}


def machine() -> dict[str, Any]:
    """Return the number of CPUs and the load of the machine."""
    return {"cpus": os.cpu_count(), "torch_threads": torch.get_num_threads(), "load_before": os.getloadavg()[0]}


def preprocess(root: Path, corpus_folder: Path) -> tuple[speed.Bench, dict[str, float]]:
    """Build the corpus again, and return it with the speed."""
    if corpus_folder.exists():
        (corpus_folder / "manifest.json").unlink()  # an incomplete corpus is built again
    start = time.monotonic()
    corpus.build(root, corpus_folder)
    seconds = time.monotonic() - start
    bench = speed.Bench(root, corpus.Corpus.open(corpus_folder), paper())
    audio_seconds = float(bench.corpus.index["seconds"].sum())
    return bench, {"seconds": seconds, "audio_seconds": audio_seconds, "times_real_time": audio_seconds / seconds}


def memory_of(work: Path, count: int) -> dict[str, Any]:
    """Return the peak memory of preprocessing and of an epoch for a number of recordings."""
    root, folder = recordings.make(work / f"files-{count}", count), work / f"memory-corpus-{count}"
    preprocessing = memory.peak(memory.preprocess, root, folder)
    return {"recordings": count, "preprocess": preprocessing, "train": memory.peak(memory.train, root, folder)}


def make_package(work: Path, config: Config) -> Path:
    """Write a package with random weights and return its folder."""
    torch.manual_seed(0)
    network = checkpoint.build_network(config)
    folder = work / config.model.architecture
    identity = checkpoint.identity(config, 0, "0" * 64)
    info = checkpoint.CheckpointInfo(**identity, best_epoch=1)
    checkpoint.save(folder / "checkpoint", network.state_dict(), [], config, info)
    return package(folder / "checkpoint", None, gate.load().abstention.band, folder / "package", {})


def measure_package(work: Path, config: Config) -> dict[str, float]:
    """Return start time, latency and memory of a package that computes one recording 50 times."""
    package_folder = make_package(work, config)
    recording = package_folder.parent / "ten-seconds.wav"
    recordings.write(recording, recordings.syllables(10, np.random.default_rng(0)))
    return serving.measure_in_process(package_folder, recording, 50)


def show(figures: dict[str, Any]) -> None:
    """Print all figures as tables."""
    machine_figures = figures["machine"]
    console.print(
        f"\n{figures['recordings']} recordings of 5-12 s, batches of 30, SpiraConv V2, dropout 0.7, noises 4/3; "
        f"{machine_figures['cpus']} CPUs, load before {machine_figures['load_before']:.1f}"
    )
    table = Table("", "ours", "reference", "ratio", title="Comparison with the reference: wall s (CPU s)")
    for name, figure in figures.items():
        if isinstance(figure, dict) and "ratio" in figure:
            cells = [f"{figure[side]['wall']:.2f} ({figure[side]['cpu']:.2f})" for side in ("ours", "reference")]
            table.add_row(name, *cells, f"{figure['ratio']:.1f} x")
    console.print(table)
    console.print("Largest differences: " + ", ".join(f"{k} {v:.1e}" for k, v in figures["differences"].items()))
    table = Table("", "alone", "beside loops", "ratio", title="Beside a busy loop on each core: wall s (CPU s)")
    for name, figure in figures["beside busy loops"].items():
        cells = [f"{figure[side]['wall']:.2f} ({figure[side]['cpu']:.2f})" for side in ("quiet", "busy")]
        slow = f" (more than {busy.MAX_RATIO} x)" if figure["ratio"] > busy.MAX_RATIO else ""
        table.add_row(name, *cells, f"{figure['ratio']:.1f} x{slow}")
    console.print(table)
    speed_figures = figures["preprocessing"]
    console.print(
        f"Preprocessing: {speed_figures['audio_seconds'] / 60:.0f} min of audio in {speed_figures['seconds']:.1f} s, "
        f"{speed_figures['times_real_time']:.0f} times real time"
    )
    table = Table("recordings", "preprocessing", "a training epoch", title="Peak memory: own MB (with mapped files)")
    for row in figures["memory"]:
        cells = [f"{row[work]['own']:.0f} ({row[work]['with_mapped']:.0f})" for work in ("preprocess", "train")]
        table.add_row(str(row["recordings"]), *cells)
    baseline = figures["memory of the libraries"]
    table.caption = f"Python and the libraries only: {baseline['own']:.0f} ({baseline['with_mapped']:.0f})"
    console.print(table)
    table = Table("package", "start s", "p50 ms", "p95 ms", "peak MB", title="One recording of 10 s")
    for name, row in figures["packages"].items():
        table.add_row(
            name, f"{row['start_s']:.2f}", f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{row['peak_mb']:.0f}"
        )  # fmt: skip
    console.print(table)
    for line in NOTES:
        console.print(line)


if __name__ == "__main__":
    main()
