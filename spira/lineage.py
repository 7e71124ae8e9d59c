"""Where a model comes from: fingerprints of its data, its settings and the code that made it."""

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
"""The checkout, or the folder that the packages are installed in."""
PACKAGES = ("spira", "components", "pipelines")
SOURCES = (".py", ".yaml", ".html")


def of(data_digest: str, config: Config, pipeline_run: str) -> dict[str, str]:
    """The tags by which a run, a model version and a deployment tell what made them.

    Args:
        data_digest: of the corpus.
        config: as resolved for the training.
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
    """What runs: sources, installed packages and Python; or the image's digest where it is told one."""
    return os.environ.get("SPIRA_IMAGE_DIGEST") or _sha256(sources_digest(), lock_digest(), platform.python_version())


def code_parts() -> dict[str, str]:
    """What :func:`code_digest` is made of, by name: the sources' files, the lock file, Python; or the image."""
    if image := os.environ.get("SPIRA_IMAGE_DIGEST"):
        return {"image": image}
    return {**sources(), "requirements.lock": lock_digest(), "python": platform.python_version()}


def look_again() -> None:
    """What was read of the code is forgotten: it may have changed since this process began."""
    for kept in (sources, sources_digest, lock_digest, git_commit):
        kept.cache_clear()


@cache
def sources_digest() -> str:
    """SHA-256 over the sorted paths and hashes of :func:`sources`."""
    return _sha256(*(f"{path} {sha256}" for path, sha256 in sources().items()))


@cache
def sources() -> dict[str, str]:
    """The project's packages: a hash of each file by path, sorted; comments and docstrings are no part of it."""
    files = sorted(file for name in PACKAGES for file in (ROOT / name).rglob("*") if file.suffix in SOURCES)
    return {file.relative_to(ROOT).as_posix(): _source_sha256(file) for file in files}


@cache
def lock_digest() -> str:
    """SHA-256 of the lock file; of the installed names and versions where the lock file is not here."""
    lock = ROOT / "requirements.lock"
    if lock.is_file():
        return _file_sha256(lock)
    return _sha256(*sorted(f"{each.name}=={each.version}" for each in metadata.distributions()))


@cache
def git_commit() -> str:
    """The commit checked out, with ``-dirty`` where files differ from it; ``unknown`` without git.

    An image is told by ``SPIRA_GIT_COMMIT``.
    """
    if told := os.environ.get("SPIRA_GIT_COMMIT"):
        return told
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _source_sha256(file: Path) -> str:
    """Of what a Python file does: of its syntax tree without docstrings; of any other file's bytes."""
    if file.suffix != ".py":
        return _file_sha256(file)
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:
        return _file_sha256(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [each for each in node.body if not _is_text(each)]
    return _sha256(ast.dump(tree))


def _is_text(statement: ast.stmt) -> bool:
    """A text that stands by itself: a docstring of a module, class, function or attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _file_sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
