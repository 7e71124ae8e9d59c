"""Lineage: a fingerprint changes with its subject, and with nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from spira import config, lineage


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one module, outside any git repository."""
    (tmp_path / "spira").mkdir()
    (tmp_path / "spira" / "noise.py").write_text("A = 1\n")
    (tmp_path / "requirements.lock").write_text("numpy==2.0.0\n")
    monkeypatch.setattr(lineage, "ROOT", tmp_path)
    for name in ("SPIRA_GIT_COMMIT", "SPIRA_IMAGE_DIGEST"):
        monkeypatch.delenv(name, raising=False)
    lineage.clear_caches()
    yield tmp_path
    lineage.clear_caches()


def code_now() -> str:
    """Return the digest of the code as it is on disk."""
    lineage.clear_caches()
    return lineage.code_digest()


def test_a_changed_source_changes_the_code_digest(checkout: Path):
    """One changed character of a module is enough."""
    before = code_now()
    (checkout / "spira" / "noise.py").write_text("A = 2\n")
    assert code_now() != before


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ('"""A module."""\nA = 1  # the first\n', False),
        ('A = 1\n"""A documented number."""\n\n\n', False),
        ("A = (\n    1\n)\n", False),
        ("A = 1.0\n", True),
        ('A = 1\nB = "text"\n', True),
        ("A = 1 +\n", True),
    ],
)
def test_comments_and_docstrings_do_not_change_the_code_digest(checkout: Path, text: str, changes: bool):
    """They start no new training. A file that is not valid Python is hashed by its bytes."""
    before = code_now()
    (checkout / "spira" / "noise.py").write_text(text)
    assert (code_now() != before) == changes


def test_the_code_digest_is_listed_by_parts(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    """It is listed file by file, with lock file and Python; an image changes nothing."""
    lineage.clear_caches()
    parts = lineage.code_parts()
    assert set(parts) == {"spira/noise.py", "requirements.lock", "python"}
    monkeypatch.setenv("SPIRA_IMAGE_DIGEST", "sha256:12")
    assert lineage.code_parts() == parts


def test_what_is_no_file_among_the_sources_does_not_change_the_code_digest(checkout: Path):
    """An editor's lock is a link to nowhere, and a folder may have any name."""
    before = code_now()
    (checkout / "spira" / ".#noise.py").symlink_to("me@host.1234:1700000000")
    (checkout / "spira" / "loop.py").symlink_to("loop.py")
    (checkout / "spira" / "folder.py").mkdir()
    assert code_now() == before


@pytest.mark.parametrize("content", [b"\0", b"\xff\xfe", b"(" * 500, b"-" * 100_000 + b"1", b"A = '\\ud800'\n"])
def test_a_source_that_python_cannot_parse_changes_the_code_digest(checkout: Path, content: bytes):
    before = code_now()
    (checkout / "spira" / "noise.py").write_bytes(content)
    assert code_now() != before


def test_a_source_may_have_a_name_that_is_not_utf_8(checkout: Path):
    before = code_now()
    Path(os.fsdecode(os.fsencode(checkout / "spira") + b"/ru\xeddo.py")).write_text("A = 1\n")
    assert code_now() != before


def test_a_renamed_source_changes_the_code_digest(checkout: Path):
    """The same content under another name is different code."""
    before = code_now()
    (checkout / "spira" / "noise.py").rename(checkout / "spira" / "windows.py")
    assert code_now() != before


def test_a_changed_lock_file_changes_the_code_digest(checkout: Path):
    """Another version of a dependency is different code."""
    before = code_now()
    (checkout / "requirements.lock").write_text("numpy==2.0.1\n")
    assert code_now() != before


def test_byte_code_and_touched_files_do_not_change_the_code_digest(checkout: Path):
    """Only the content of source files counts."""
    before = code_now()
    (checkout / "spira" / "__pycache__").mkdir()
    (checkout / "spira" / "__pycache__" / "noise.pyc").write_bytes(b"x")
    (checkout / "spira" / "noise.py").touch()
    assert code_now() == before


def test_without_a_lock_file_the_installed_packages_are_hashed(checkout: Path):
    """A wheel has no lock file."""
    (checkout / "requirements.lock").unlink()
    lineage.clear_caches()
    assert len(lineage.lock_digest()) == 64


def test_an_image_has_its_identity_from_the_environment(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    """On a cluster the environment has the image's digest, for the provenance, and the commit of its sources."""
    monkeypatch.setenv("SPIRA_IMAGE_DIGEST", "sha256:12")
    monkeypatch.setenv("SPIRA_GIT_COMMIT", "abc")
    lineage.clear_caches()
    assert (lineage.image_digest(), lineage.git_commit()) == ("sha256:12", "abc")


def test_without_a_repository_the_commit_is_unknown(checkout: Path):
    """A missing repository is not an error."""
    assert lineage.git_commit() == "unknown"


def test_a_commit_with_changes_is_dirty(checkout: Path):
    """The suffix is added if files differ from the commit."""
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    lineage.clear_caches()
    clean = lineage.git_commit()
    (checkout / "spira" / "noise.py").write_text("A = 2\n")
    lineage.clear_caches()
    assert (len(clean), lineage.git_commit()) == (40, f"{clean}-dirty")


def test_the_fingerprint_covers_data_and_configuration():
    """It does not change with the name of the run."""
    tags = lineage.tags("data", config.Config(), "run 1")
    assert lineage.tags("other data", config.Config(), "run 1")["fingerprint"] != tags["fingerprint"]
    assert lineage.tags("data", config.smoke(), "run 1")["fingerprint"] != tags["fingerprint"]
    assert lineage.tags("data", config.Config(), "run 2")["fingerprint"] == tags["fingerprint"]
