"""Lineage of a model: fingerprints of its data, its configuration and its code."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from spira.config import Config

ROOT = Path(__file__).parents[1]
"""The checkout, or the folder in which the packages are installed."""
PACKAGES = ("spira", "components", "pipelines")
SUFFIXES = (".py", ".yaml", ".html")
"""Suffixes of source files."""


def tags(data_digest: str, config: Config, pipeline_run: str) -> dict[str, str]:
    """Return the tags that record the origin of a run, a model version or a release.

    Args:
        data_digest: digest of the corpus.
        config: resolved configuration of the training.
        pipeline_run: name of the pipeline's run; empty outside a pipeline.
    """
    axes = {
        "data_fingerprint": data_digest,
        "model_fingerprint": config.digest(),
        "code_fingerprint": code_digest(),
    }
    return {
        **axes,
        "fingerprint": _sha256(*axes.values()),
        "sources_digest": sources_digest(),
        "lock_digest": lock_digest(),
        "python": platform.python_version(),
        "git_commit": git_commit(),
        "pipeline_run": pipeline_run,
    }


def code_digest() -> str:
    """Return the digest of sources, installed packages and Python."""
    return _sha256(sources_digest(), lock_digest(), platform.python_version())


def code_parts() -> dict[str, str]:
    """Return the parts of :func:`code_digest` by name: source files, lock file and Python."""
    return {**sources(), "requirements.lock": lock_digest(), "python": platform.python_version()}


def image_digest() -> str:
    """Return the digest of the image that runs, from ``SPIRA_IMAGE_DIGEST``; empty outside an image.

    It belongs to the provenance of a model. It is no part of the code's fingerprint: an image that is built again from
    the same sources has another digest, and nothing to train.
    """
    return os.environ.get("SPIRA_IMAGE_DIGEST", "")


def clear_caches() -> None:
    """Forget the digests of the code: it may have changed since this process began."""
    for cached in (sources, sources_digest, lock_digest, git_commit):
        cached.cache_clear()


@cache
def sources_digest() -> str:
    """Return the SHA-256 over the sorted paths and hashes of :func:`sources`."""
    return _sha256(*(f"{path} {sha256}" for path, sha256 in sources().items()))


@cache
def sources() -> dict[str, str]:
    """Return path -> hash of the project's source files, sorted; comments and docstrings do not change a hash."""
    paths = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in SUFFIXES)
    files = [path for path in paths if path.is_file()]  # not an editor's lock, which is a link to nowhere
    return {file.relative_to(ROOT).as_posix(): _source_sha256(file) for file in files}


@cache
def lock_digest() -> str:
    """Return the SHA-256 of the lock file, or of the installed names and versions if there is no lock file."""
    lock = ROOT / "requirements.lock"
    if lock.is_file():
        return _file_sha256(lock)
    return _sha256(*sorted(f"{package.name}=={package.version}" for package in metadata.distributions()))


@cache
def git_commit() -> str:
    """Return the checked-out commit, with ``-dirty`` if files differ from it; ``unknown`` without git.

    ``SPIRA_GIT_COMMIT`` names the commit inside an image.
    """
    if commit := os.environ.get("SPIRA_GIT_COMMIT"):
        return commit
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        process = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return process.stdout.strip() or "unknown"


def _source_sha256(file: Path) -> str:
    """Return the hash of a Python file's syntax tree without docstrings, or of any other file's bytes."""
    if file.suffix != ".py":
        return _file_sha256(file)
    try:
        tree = ast.parse(file.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [statement for statement in node.body if not _is_docstring(statement)]
        return _sha256(ast.dump(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # no Python that can be parsed
        return _file_sha256(file)


def _is_docstring(statement: ast.stmt) -> bool:
    """Return whether a statement is a bare string: a docstring of a module, class, function or attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _file_sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _sha256(*parts: str) -> str:
    # a file name that is not UTF-8 has surrogates for its bytes
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()
