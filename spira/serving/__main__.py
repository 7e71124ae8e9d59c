"""``python -m spira.serving --model-dir DIR --model-name spira --http-port 8080``; ``--help`` lists the limits."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path

from kserve.utils import utils

from spira.serving import memory
from spira.serving.detector import Detector
from spira.serving.guard import Limits
from spira.serving.package import PackageError
from spira.serving.server import serve


def arguments() -> argparse.Namespace:
    """The command line, with KServe's names of what it passes; dashes and underscores are the same."""
    parser = argparse.ArgumentParser(prog="python -m spira.serving", description="Serve a package in KServe.")
    parser.add_argument("--model-dir", "--model_dir", type=Path, default=Path("/mnt/models"), help="the package")
    parser.add_argument("--model-name", "--model_name", default="spira", help="in the paths")
    parser.add_argument("--model-version", default=os.environ.get("MODEL_VERSION", ""), help="told in every answer")
    parser.add_argument("--http-port", "--http_port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=utils.cpu_count(), help="recordings computed at a time")
    parser.add_argument("--queue", type=int, default=16, help="requests that wait; past them the answer is 429")
    parser.add_argument("--max-bytes", type=int, default=Limits.body_bytes, help="of a body")
    parser.add_argument("--drain-seconds", type=float, default=10.0, help="answers go on so long after SIGTERM")
    return parser.parse_args()


def main() -> None:
    """Serve until told to end; exits 1 and says why where the package must not be served."""
    given = arguments()
    memory.keep()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    detector = Detector(given.model_name, given.model_dir, given.model_version, given.threads)
    all_bytes = max(Limits.all_bytes, 4 * given.max_bytes)
    limits = Limits(given.threads + given.queue, given.max_bytes, all_bytes)
    try:
        asyncio.run(serve(detector, limits, given.http_port, given.drain_seconds))
    except PackageError as refused:
        raise SystemExit(str(refused)) from refused


if __name__ == "__main__":
    main()
