"""The project file: optional, and refused by line and rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira import project
from spira.config import ConfigError
from spira.project import Project

FULL = """\
# who answers for these models
owner: SPIRA, Universidade de São Paulo
contact: spira@example.org
licence: CC BY-NC 4.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "project.yaml"


def test_a_file_is_read(file: Path) -> None:
    file.write_text(FULL, "utf-8")
    read = project.load(file)
    assert (read.owner, read.licence, read.citation) == ("SPIRA, Universidade de São Paulo", "CC BY-NC 4.0", "")
    assert not read.is_empty


def test_without_a_file_nothing_is_known(file: Path) -> None:
    """An empty file is the same."""
    assert project.load(None).is_empty
    file.write_text("# nothing yet\n")
    assert project.load(file).is_empty


def test_the_first_folder_with_a_file_counts(tmp_path: Path) -> None:
    """A given path comes before all folders, even if it does not exist."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    for name in ("b", "c"):
        (tmp_path / name / "project.yaml").write_text(FULL, "utf-8")
    folders = [tmp_path / name for name in ("a", "b", "c")]
    assert project.find(None, *folders) == tmp_path / "b" / "project.yaml"
    assert project.find(tmp_path / "other.yaml", *folders) == tmp_path / "other.yaml"
    assert project.find(None, tmp_path / "a") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("owner: A\nlicense: MIT\n", r"project\.yaml line 2: license: unknown key; known are owner, contact, licence"),
        ("owner: A\n\nlicence: 4.0\n", r"project\.yaml line 3: licence: Input should be a valid string"),
        ("owner: A\ncontact: call me\n", r"line 2: contact: must be an e-mail address or a URL"),
        ("owner: |\n  A\n  B\n", r"line 1: owner: must be one line without control characters"),
        ('owner: A\nlicence: "{{$.x}}"\n', r"line 2: licence: must not contain \{\{\$"),
        (f"owner: {'A' * 301}\n", r"line 1: owner: String should have at most 300 characters"),
        ("owner: A\nowner: B\n", r"line 2: owner: occurs a second time; first in line 1"),
        ("owner: A\ncontact: x\nlicence: 1\n", r"line 2: .*; line 3: licence"),
        ("- owner\n", r"must be a mapping"),
        ("owner: [\n", r"cannot be read as YAML"),
    ],
)
def test_bad_input_is_refused_by_line_and_rule(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as refusal:
        project.load(file)
    assert "\n" not in str(refusal.value)


def test_a_named_file_must_exist(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"project\.yaml: cannot be read"):
        project.load(file)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=80) | st.text(alphabet="owner: contac\n&*<-[]{}'\"?|", max_size=80))
def test_any_text_is_read_or_refused_in_one_line(file: Path, text: str) -> None:
    file.write_text(text, "utf-8", newline="")
    refusal = ""
    try:
        assert isinstance(project.load(file), Project)
    except ConfigError as error:
        refusal = str(error)
    assert "\n" not in refusal
