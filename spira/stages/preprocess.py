"""The preprocess stage: from a data set to a corpus."""

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
    from spira.data.corpus import FILES, Corpus, build
    from spira.data.metadata import SPLITS

    log.info("preprocess: reads %s", data)
    key = cache_key(data, config.preprocess.model_dump_json(), str(skip_bad))
    folder = state / f"corpus-{key}" if state else out
    with lock(folder.with_name(f".{folder.name}.lock")):
        quality = build(data, folder, config.preprocess, skip_bad, progress_log("preprocess", "recordings"))
        link_files(folder, FILES, out)
    corpus = Corpus.open(out)
    if data_digest and corpus.digest != data_digest:
        raise SpiraError(
            f"{data} changed after this run was requested: its digest is {corpus.digest}, not {data_digest}; "
            "request a new run"
        )
    for warning in quality.warnings:
        log.warning("%s", warning)
    files = {split: len(corpus.split(split)) for split in SPLITS}
    log.info("preprocess: %s recordings", ", ".join(f"{count} {split}" for split, count in files.items()))
    counts = {f"{split}_files": count for split, count in files.items()}
    return {**counts, "noises": len(corpus.noises), "skipped": len(quality.skipped), "digest": corpus.digest}
