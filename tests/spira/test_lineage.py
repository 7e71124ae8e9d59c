"""Lineage: fingerprints change with what they stand for, and with nothing else."""

from __future__ import annotations

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
    lineage.look_again()
    yield tmp_path
    lineage.look_again()


def code_now() -> str:
    lineage.look_again()
    return lineage.code_digest()


def test_a_changed_source_is_another_code(checkout: Path):
    """One changed character of a module changes the code's fingerprint."""
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
def test_comments_and_docstrings_are_no_change(checkout: Path, text: str, changes: bool):
    """What a file says beside what it does trains nothing anew; a file that is no Python counts by its bytes."""
    before = code_now()
    (checkout / "spira" / "noise.py").write_text(text)
    assert (code_now() != before) == changes


def test_code_is_told_part_by_part(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    """By file, lock and Python; or by the image alone."""
    lineage.look_again()
    assert set(lineage.code_parts()) == {"spira/features/noise.py", "requirements.lock", "python"}
    monkeypatch.setenv("SPIRA_IMAGE_DIGEST", "sha256:12")
    assert lineage.code_parts() == {"image": "sha256:12"}


def test_a_renamed_source_is_another_code(checkout: Path):
    """The same content under another name is another code."""
    before = code_now()
    (checkout / "spira" / "noise.py").rename(checkout / "spira" / "windows.py")
    assert code_now() != before


def test_a_changed_lock_is_another_code(checkout: Path):
    """Another version of a dependency changes the code's fingerprint."""
    before = code_now()
    (checkout / "requirements.lock").write_text("numpy==2.0.1\n")
    assert code_now() != before


def test_byte_code_and_touched_files_are_no_change(checkout: Path):
    """What running the code leaves, and a touched file, don't change the fingerprint."""
    before = code_now()
    (checkout / "spira" / "__pycache__").mkdir()
    (checkout / "spira" / "__pycache__" / "noise.pyc").write_bytes(b"x")
    (checkout / "spira" / "noise.py").touch()
    assert code_now() == before


def test_without_a_lock_file_the_installed_packages_count(checkout: Path):
    """Installed from a wheel there is no lock file; there is a digest all the same."""
    (checkout / "requirements.lock").unlink()
    lineage.look_again()
    assert len(lineage.lock_digest()) == 64


def test_an_image_is_told_its_identity(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    """On a cluster the image's digest is the code, and the commit is the one it was built of."""
    monkeypatch.setenv("SPIRA_IMAGE_DIGEST", "sha256:12")
    monkeypatch.setenv("SPIRA_GIT_COMMIT", "abc")
    lineage.look_again()
    assert (lineage.code_digest(), lineage.git_commit()) == ("sha256:12", "abc")


def test_without_a_repository_the_commit_is_unknown(checkout: Path):
    """No git repository is no error."""
    assert lineage.git_commit() == "unknown"


def test_a_commit_with_changes_is_dirty(checkout: Path):
    """The commit is told, and that files differ from it."""
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    lineage.look_again()
    clean = lineage.git_commit()
    (checkout / "spira" / "noise.py").write_text("A = 2\n")
    lineage.look_again()
    assert (len(clean), lineage.git_commit()) == (40, f"{clean}-dirty")


def test_one_fingerprint_stands_for_data_settings_and_code():
    """It changes with the data and with the configuration, and not with the run."""
    tags = lineage.of("data", config.Config(), "run 1")
    assert lineage.of("other data", config.Config(), "run 1")["fingerprint"] != tags["fingerprint"]
    assert lineage.of("data", config.smoke(), "run 1")["fingerprint"] != tags["fingerprint"]
    assert lineage.of("data", config.Config(), "run 2")["fingerprint"] == tags["fingerprint"]
