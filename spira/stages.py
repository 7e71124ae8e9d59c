"""The stages of a run as the pipeline's components and the command line call them: files in, files out.

A stage tells what it does, line by line, on standard error, and returns the numbers that a dashboard shows.
What is slow (the corpus, the trained networks) is made in a *state* folder under a name that follows from its
inputs: a run that was killed, or is repeated, finds there what is done. Imports are late, so that a process
loads torch or MLflow only for a stage that needs it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from spira import files, lineage
from spira.config import SAMPLE_RATE_HZ, Config, from_dict
from spira.errors import SpiraError

if TYPE_CHECKING:
    from spira.evaluation import Champion
    from spira.registry import Registry

log = logging.getLogger(__name__)

VERDICT, LINEAGE = "verdict.json", "lineage.json"
HISTORIES, PREDICTIONS = "histories.json", "predictions.parquet"
MARKS = {logging.INFO: "spira: ", logging.WARNING: "spira warning: ", logging.ERROR: "spira error: "}
"""How a line of ours begins, by level: by it a runner finds them among those of libraries."""
PROGRESS_SECONDS = 5.0
NOTICE_SECONDS = 10

Arguments = ParamSpec("Arguments")


class _Teller(logging.StreamHandler):
    """Marks every line; where nobody listens any more, the runner is gone and the stage stops with it."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(MARKS[record.levelno] + line for line in super().format(record).splitlines())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        raise


@contextmanager
def telling() -> Iterator[None]:
    """What spira logs goes to standard error, once."""
    logger, teller = logging.getLogger("spira"), _Teller(sys.stderr)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(teller)
        logger.setLevel(level)
        logger.propagate = propagate


def stage(work: Callable[Arguments, dict[str, Any]]) -> Callable[Arguments, dict[str, Any]]:
    """A stage: told from start to end, timed (``seconds`` of the result), its refusals told as errors."""

    @wraps(work)
    def told(*args: Arguments.args, **kwargs: Arguments.kwargs) -> dict[str, Any]:
        began = time.monotonic()
        with telling():
            try:
                result = work(*args, **kwargs)
            except SpiraError as error:
                log.error("%s", error)
                error.told = True
                raise
            seconds = round(time.monotonic() - began, 3)
            log.info("%s: done in %.1f s", work.__name__, seconds)
        return result | {"seconds": seconds}

    return told


def read_config(text: str) -> Config:
    """A configuration from JSON, in full or in part."""
    return from_dict(json.loads(text))


def state(uri: str) -> Path | None:
    """The state folder of a parameter; None of an empty one.

    Raises:
        SpiraError: it is no folder.
    """
    if "://" in uri:
        raise SpiraError(f"state {uri}: must be a folder, for example of a mounted volume")
    return Path(uri) if uri else None


@stage
def preprocess(
    data: str, config: Config, out: Path, *, data_digest: str, skip_bad: bool, state: Path | None
) -> dict[str, Any]:
    """Data set -> corpus.

    Args:
        data: folder or ``gs://`` prefix of the data set.
        out: the corpus folder to make.
        data_digest: what the data set must be, by content; empty for whatever it is.
        skip_bad: leave bad recordings out instead of refusing the data set.
        state: folder in which a corpus is kept for the next run.

    Raises:
        SpiraError: the data set breaks a rule, or is not the one that the digest names.
    """
    from spira.corpus import FILES, Corpus, build
    from spira.recordings import SPLITS

    log.info("preprocess: reads %s", data)
    key = _key(data, config.preprocess.model_dump_json(), str(skip_bad))
    place = state / f"corpus-{key}" if state else out
    with _alone(place):
        quality = build(data, place, config.preprocess, skip_bad, _progress("preprocess", "recordings"))
        _hand_on(place, FILES, out)
    corpus = Corpus.open(out)
    if data_digest and corpus.digest != data_digest:
        raise SpiraError(f"{data} holds data {corpus.digest}, not {data_digest} as asked for: it has changed meanwhile")
    for warning in quality["warnings"]:
        log.warning("%s", warning)
    files = {split: len(corpus.split(split)) for split in SPLITS}
    log.info("preprocess: %s recordings", ", ".join(f"{count} {split}" for split, count in files.items()))
    counts = {f"{split}_files": count for split, count in files.items()}
    return {**counts, "noises": len(corpus.noises), "skipped": len(quality["skipped"]), "digest": corpus.digest}


@stage
def train(
    corpus: Path, config: Config, seed: int, out: Path, *, device: str, require_gpu: bool, state: Path | None
) -> dict[str, Any]:
    """Corpus -> checkpoint of one seed.

    Args:
        out: the checkpoint folder to make.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        require_gpu: refuse to train on a CPU.
        state: folder that outlives the process; unfinished and finished trainings are kept in it.

    Raises:
        SpiraError: the training diverges, or a GPU is asked for and not there.
    """
    from spira import checkpoint, training
    from spira.corpus import Corpus

    opened = Corpus.open(corpus)
    key = _key(opened.digest, config.digest(), lineage.code_digest())
    place = state / f"{key}-{seed}" if state else out
    log.info("train: seed %d, %s", seed, config.model.architecture)
    with _alone(place):
        trained = training.train(opened, config, seed, place, device=device, require_gpu=require_gpu)
        _hand_on(place, checkpoint.FILES, out)
    best = trained.info["best_epoch"]
    log.info("train: seed %d is best at epoch %d of %d", seed, best, len(trained.history))
    return {"seed": seed} | {name: trained.info[name] for name in ("epochs", "best_epoch", "best_eval_loss")}


@stage
def evaluate(
    corpus: Path,
    checkpoints: Sequence[Path],
    gate: str,
    out: Path,
    report: Path,
    chosen: Path,
    *,
    registry_uri: str,
    pipeline_run: str,
) -> dict[str, Any]:
    """Corpus, checkpoints and the champion -> verdict folder, ``report.html`` and the candidate.

    Args:
        gate: the gate, JSON.
        out: the verdict folder to make: verdict, predictions, lineage and histories.
        report: the HTML file to make.
        chosen: where the candidate's checkpoint folder goes.
        registry_uri: MLflow URL, or a folder for SQLite; its champion is the one to compare with.

    Returns:
        The verdict.
    """
    from spira import checkpoint, evaluation
    from spira import report as page
    from spira.corpus import Corpus
    from spira.gates import Gate

    opened = Corpus.open(corpus)
    with _champion(registry_uri) as champion:
        evaluation.evaluate(opened, checkpoints, Gate.model_validate_json(gate), out, champion)
    verdict = _read_json(out / VERDICT)  # as every later reader sees it: what is no number is null
    by_seed = {_read_json(path / checkpoint.INFO)["seed"]: path for path in checkpoints}
    _hand_on(by_seed[verdict["candidate"]["seed"]], checkpoint.FILES, chosen)
    tags = lineage.of(opened.digest, checkpoint.load(chosen).config, pipeline_run)
    _write_json(out / LINEAGE, tags)
    _write_json(out / HISTORIES, {seed: _read_json(path / checkpoint.HISTORY) for seed, path in by_seed.items()})
    page.write(out, chosen, opened, report, tags)
    log.info("evaluate: %s", "approved" if verdict["approved"] else "NOT approved")
    for reason in verdict["reasons"]:
        log.info("evaluate: %s", reason)
    return verdict


@contextmanager
def _champion(registry_uri: str) -> Iterator[Champion | None]:
    """The version in production, answering by its own code in its own process; None before the first."""
    from spira.evaluation import Champion

    if "://" not in registry_uri and not (Path(registry_uri) / "mlflow.db").exists():
        yield None  # nothing was ever logged there: spares loading MLflow
        return
    registry = open_registry(registry_uri)
    version = registry.champion()
    if version is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as temporary:
        package = registry.fetch(version.version, Path(temporary) / "package")
        yield Champion(f"version {version.version}", partial(_answers, package))


def _answers(package: Path, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """A package's probabilities of waveforms, float32 [samples] at 16 kHz each -> [files]."""
    from scipy.io import wavfile

    from spira.proof import predict_files

    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / f"{i}.wav" for i in range(len(waveforms))]
        for file, waveform in zip(files, waveforms, strict=True):
            wavfile.write(file, SAMPLE_RATE_HZ, waveform)
        answers = predict_files(package, files)
    if mute := [answer["error"] for answer in answers if "error" in answer]:
        raise SpiraError(f"the champion can't be compared with, it refuses {len(mute)} test recordings: {mute[0]}")
    return np.array([answer["probability"] for answer in answers])


def headline(verdict: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a verdict that a dashboard shows: those of the paper's noisy test, by file."""
    noisy = verdict["conditions"].get("noisy", {}).get("by_file", {})
    return {"approved": verdict["approved"], "seconds": verdict["seconds"]} | {
        name: measured["value"] for name, measured in noisy.items() if measured["value"] is not None
    }


def draw(verdict: dict[str, Any], chart: Any) -> None:
    """ROC and confusion matrix of the noisy test, by file, as a dashboard's ``ClassificationMetrics``."""
    noisy = verdict["conditions"].get("noisy")
    if noisy:  # absent where the candidate wasn't worth measuring
        chart.log_roc_curve(noisy["roc"]["fpr"], noisy["roc"]["tpr"], noisy["roc"]["thresholds"])
        chart.log_confusion_matrix(["control", "patient"], noisy["confusion"])


@stage
def push(corpus: Path, candidate: Path, verdict: Path, report: Path, out: Path, *, registry_uri: str) -> dict[str, Any]:
    """An approved candidate -> package and registered version, alias ``challenger``.

    Args:
        candidate: its checkpoint folder.
        verdict: the verdict folder.
        out: the package folder to make.

    Raises:
        SpiraError: the verdict is no approval, or the package's answers differ from torch's.
    """
    from spira import packaging
    from spira.corpus import Corpus

    judged, tags = _read_json(verdict / VERDICT), _read_json(verdict / LINEAGE)
    if judged["approved"] is not True:
        raise SpiraError("the verdict is no approval: a model that fails its gate is not registered")
    origin = {name: tag for name, tag in tags.items() if name != "pipeline_run"}  # repeated, it is the same version
    packaging.package(candidate, Corpus.open(corpus), judged, out, origin)
    registry = open_registry(registry_uri)
    run_id = _log_run(registry, corpus, candidate, verdict, report)
    version = registry.register(out, run_id, judged, tags)
    log.info("push: version %d of %s", version, registry.model_name)
    return {"model_version": version, "run_id": run_id}


@stage
def reject(corpus: Path, candidate: Path, verdict: Path, report: Path, *, registry_uri: str) -> dict[str, Any]:
    """A candidate that failed -> a logged run with its reasons; nothing is registered.

    Raises:
        SpiraError: the verdict is an approval.
    """
    if _read_json(verdict / VERDICT)["approved"] is True:
        raise SpiraError("the verdict is an approval: an approved model is not to be rejected")
    run_id = _log_run(open_registry(registry_uri), corpus, candidate, verdict, report)
    log.info("reject: logged, no version registered")
    return {"run_id": run_id}


@stage
def deploy(package: Path, version: int, target: str, *, registry_uri: str, force_reason: str = "") -> dict[str, Any]:
    """A registered version -> it serves, and only then is champion.

    Args:
        package: the version's package folder.
        target: where, as JSON of :mod:`spira.deployment.targets`; empty where continuous delivery promotes and serves.
        force_reason: why a version that isn't approved, or was rolled back, may serve; empty if it may not.

    Raises:
        SpiraError: its golden recordings come out wrong or it can't be champion; what served before serves on.
    """
    if not target:
        log.info("deploy: version %d waits as challenger for continuous delivery", version)
        return {"model_version": version}
    from spira.deployment import Release, targets

    chosen, registry = targets.read(target), open_registry(registry_uri)
    release = Release(str(version), package, registry.show(version).uri, force_reason)
    with tempfile.TemporaryDirectory() as folder:

        def packages(which: str) -> Path:
            return package if which == release.version else registry.fetch(which, Path(folder) / which)

        place = targets.connect(chosen, registry_uri, packages)
        before = place.status().version
        place.apply(release)
        log.info("deploy: version %d serves in %s, its golden recordings are right", version, place.name)
        try:
            registry.promote(version, force_reason or None)
        except SpiraError as error:
            if before not in (None, release.version):
                place.rollback(str(error), bad=release.version)
            raise
    log.info("deploy: version %d is champion", version)
    return {"model_version": version}


@stage
def notify(run: str, state: str, message: str, url: str) -> dict[str, Any]:
    """Say how a run ended: in the log, and to a URL if it isn't empty; what can't be told there fails no run.

    Args:
        state: ``SUCCEEDED``, ``FAILED`` or ``CANCELLED``.
        message: why it failed, as far as it is known.
    """
    import urllib.request
    from http.client import HTTPException

    log.info("notify: %s %s%s", run, state.lower(), f": {message}" if message else "")
    if url:
        notice = json.dumps({"run": run, "state": state, "message": message}).encode()
        try:
            request = urllib.request.Request(url, notice, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=NOTICE_SECONDS).close()
        except (OSError, HTTPException, ValueError) as error:
            log.warning("notify: %s can't be told: %s", url, error)
    return {}


def _log_run(registry: Registry, corpus: Path, candidate: Path, verdict: Path, report: Path) -> str:
    """Everything about a run, into MLflow."""
    from spira.corpus import Corpus

    judged, tags = _read_json(verdict / VERDICT), _read_json(verdict / LINEAGE)
    return registry.log_run(
        name=tags["pipeline_run"] or "spira",
        params=judged["config"],
        histories=_read_json(verdict / HISTORIES),
        verdict=judged,
        artifacts={"report.html": report, PREDICTIONS: verdict / PREDICTIONS, "checkpoint": candidate},
        tags=tags,
        dataset_uri=Corpus.open(corpus).manifest["uri"],
    )


def open_registry(uri: str) -> Registry:
    """See :func:`spira.registry.open_at`; loads MLflow."""
    from spira.registry import open_at

    return open_at(uri)


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process at a time makes what is at a place; the next one finds it made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f".{place.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another process is making it, waits", place.name)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hand_on(place: Path, names: Sequence[str], out: Path) -> None:
    """Give the files kept at ``place`` to ``out`` as well: linked where one file system holds both."""
    if place == out:
        return
    staged = out.with_name(f"{out.name}.writing")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name in names:
        try:
            os.link(place / name, staged / name)
        except OSError:
            shutil.copyfile(place / name, staged / name)
    shutil.rmtree(out, ignore_errors=True)
    staged.rename(out)


def _progress(name: str, unit: str) -> Callable[[int, int], None]:
    """Tells of every so many seconds."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            log.info("%s: %d of %d %s", name, done, total, unit)

    return tell


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def _write_json(path: Path, value: Any) -> None:
    files.replace(path, json.dumps(value, indent=1))
