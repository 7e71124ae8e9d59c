"""The preprocess stage: from a data set to a corpus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spira import digests
from spira.config import Preprocess
from spira.errors import SpiraError
from spira.files import link_files, lock
from spira.stage_logging import StageResult, progress_log, stage
from spira.stages.inputs import cache_key

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreprocessResult(StageResult):
    """Content of a corpus."""

    uri: str
    """Folder or prefix of the data set."""
    digest: str
    """Content digest of the data set."""
    files: dict[str, int]
    """Split -> number of recordings."""
    noises: int
    skipped: int
    """Number of bad recordings that were left out."""

    def metrics(self) -> dict[str, str | float]:
        """Return the numbers that a dashboard shows."""
        counts = {f"{split}_files": count for split, count in self.files.items()}
        return {
            "display_name": "preprocess: recordings",
            **counts,
            "noises": self.noises,
            "skipped": self.skipped,
            "seconds": self.seconds,
        }

    def metadata(self) -> dict[str, str]:
        """Return what a dashboard shows of the corpus."""
        counts = ", ".join(f"{count} {split}" for split, count in self.files.items())
        return {"display_name": f"corpus: {counts}", "data": self.uri, "data_digest": self.digest}


@contextmanager
def cached_corpus(
    data: str,
    settings: Preprocess,
    skip_bad: bool,
    state: Path | None,
    progress: Callable[[int, int], None],
    out: Path = Path(),
) -> Iterator[Path]:
    """Build the corpus in the state folder, or find it there, and provide its locked folder.

    Args:
        state: folder of corpora; None to build in ``out``.
        progress: called with the number of decoded recordings and their total.
        out: folder of the corpus if there is no state folder.
    """
    from spira.data.corpus import build

    key = cache_key(data, settings.model_dump_json(), str(skip_bad))
    folder = state / f"corpus-{key}" if state else out
    with lock(folder.with_name(f".{folder.name}.lock")):
        build(data, folder, settings, skip_bad, progress)
        yield folder


@stage
def preprocess(
    data: str, settings: Preprocess, out: Path, *, data_digest: str, skip_bad: bool, state: Path | None
) -> PreprocessResult:
    """Build the corpus of a data set.

    Args:
        data: folder, ``gs://`` or ``s3://`` prefix of the data set.
        out: the corpus folder to write.
        data_digest: expected content digest of the data set; empty to accept any content.
        skip_bad: leave bad recordings out instead of refusing the data set.
        state: folder that outlives the process; the corpus is cached in it for the next run.

    Raises:
        SpiraError: the data set breaks a rule, or its digest is not the expected one.
    """
    from spira.data.corpus import FILES, Corpus
    from spira.data.metadata import SPLITS
    from spira.data.quality import fold

    log.info("preprocess: reads %s", data)
    with cached_corpus(data, settings, skip_bad, state, progress_log("preprocess", "recordings"), out) as folder:
        link_files(folder, FILES, out, optional=[digests.FILE])  # an earlier version wrote none
    corpus = Corpus.open(out)
    quality = corpus.quality
    if data_digest and corpus.digest != data_digest:
        raise SpiraError(
            f"{data} changed after this run was requested: its digest is {corpus.digest}, not {data_digest}; "
            "request a new run"
        )
    for warning in fold(quality.warnings):
        log.warning("%s", warning)
    files = {split: len(corpus.split(split)) for split in (*SPLITS, *corpus.external)}
    log.info("preprocess: %s recordings", ", ".join(f"{count} {split}" for split, count in files.items()))
    return PreprocessResult(
        uri=data, digest=corpus.digest, files=files, noises=len(corpus.noises), skipped=len(quality.skipped)
    )
