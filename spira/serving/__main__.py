"""Command line: ``python -m spira.serving --model-dir DIR --model-name spira --http-port 8080``."""

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
    """Parse the command line. KServe passes its own names, with dashes or with underscores."""
    parser = argparse.ArgumentParser(prog="python -m spira.serving", description="Serve a package in KServe.")
    parser.add_argument("--model-dir", "--model_dir", type=Path, default=Path("/mnt/models"), help="package folder")
    parser.add_argument("--model-name", "--model_name", default="spira", help="model name in the URL paths")
    parser.add_argument("--model-version", default=os.environ.get("MODEL_VERSION", ""), help="version in responses")
    parser.add_argument("--package-digest", default=os.environ.get("PACKAGE_DIGEST", ""), help="refuse another package")
    parser.add_argument("--http-port", "--http_port", type=int, default=8080, help="port to listen on")
    parser.add_argument("--threads", type=int, default=utils.cpu_count(), help="recordings computed at a time")
    parser.add_argument("--queue", type=int, default=16, help="requests that wait; more are answered with 429")
    parser.add_argument("--max-bytes", type=int, default=Limits.body_bytes, help="largest request body, in bytes")
    parser.add_argument("--drain-seconds", type=float, default=10.0, help="time to keep answering after SIGTERM")
    return parser.parse_args()


def main() -> None:
    """Serve until a signal ends the process; exit with code 1 and the reason if the package is refused."""
    options = arguments()
    memory.retain_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    detector = Detector(
        options.model_name, options.model_dir, options.model_version, options.threads, options.package_digest
    )
    all_bytes = max(Limits.all_bytes, 3 * options.max_bytes)
    limits = Limits(options.threads + options.queue, options.max_bytes, all_bytes)
    try:
        asyncio.run(serve(detector, limits, options.http_port, options.drain_seconds))
    except PackageError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
