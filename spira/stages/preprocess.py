"""Data set to corpus."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from spira.config import Config
from spira.errors import SpiraError
from spira.files import link_files, lock
from spira.stage_logging import progress_log, stage
from spira.stages.inputs import cache_key

log = logging.getLogger(__name__)


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
    from spira.data.corpus import FILES, Corpus, build
    from spira.data.metadata import SPLITS

    log.info("preprocess: reads %s", data)
    key = cache_key(data, config.preprocess.model_dump_json(), str(skip_bad))
    place = state / f"corpus-{key}" if state else out
    with lock(place.with_name(f".{place.name}.lock")):
        quality = build(data, place, config.preprocess, skip_bad, progress_log("preprocess", "recordings"))
        link_files(place, FILES, out)
    corpus = Corpus.open(out)
    if data_digest and corpus.digest != data_digest:
        raise SpiraError(f"{data} holds data {corpus.digest}, not {data_digest} as asked for: it has changed meanwhile")
    for warning in quality["warnings"]:
        log.warning("%s", warning)
    files = {split: len(corpus.split(split)) for split in SPLITS}
    log.info("preprocess: %s recordings", ", ".join(f"{count} {split}" for split, count in files.items()))
    counts = {f"{split}_files": count for split, count in files.items()}
    return {**counts, "noises": len(corpus.noises), "skipped": len(quality["skipped"]), "digest": corpus.digest}
