"""README.pt-BR.md has the commands and the data format of the English pages."""

from __future__ import annotations

import re

from tests.support import ROOT

PORTUGUESE = (ROOT / "README.pt-BR.md").read_text()
ENGLISH = (ROOT / "README.md").read_text()
DATA_FORMAT = (ROOT / "docs/data-format.md").read_text()


def section(text: str, heading: str) -> str:
    """Return the text below a heading, up to the next."""
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def commands(text: str) -> list[str]:
    """Return the indented lines without their comments."""
    lines = re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)
    return [" ".join(line.partition("#")[0].split()) for line in lines]


def names(text: str) -> set[str]:
    """Return the names of files and columns in the tables."""
    return {name for row in re.findall(r"^\|.*", text, flags=re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}


def test_the_first_run_has_the_same_commands() -> None:
    """A command that changes in the English page changes in the Portuguese one."""
    assert commands(section(PORTUGUESE, "Dois comandos")) == commands(section(ENGLISH, "Two commands"))
    own = commands(section(PORTUGUESE, "Suas próprias gravações"))
    assert own[0] == ".venv/bin/spira data check DIR"
    assert own[1:] == commands(section(ENGLISH, "Your own recordings"))


def test_the_data_format_has_the_same_names() -> None:
    """Tables and columns have the same names; ranges have the same numbers."""
    portuguese = section(PORTUGUESE, "Formato dos dados")
    assert names(portuguese) == names(section(DATA_FORMAT, "Tables"))
    assert commands(portuguese)[:2] == commands(DATA_FORMAT.partition("## Tables")[0])[:2]
    for english, translated in (("0.5 to 120 s", "0,5 a 120 s"), ("4 to\n384 kHz", "4 a 384 kHz"), ("5 %", "5 %")):
        assert english in DATA_FORMAT
        assert translated in portuguese


def test_both_pages_name_the_same_disk_space() -> None:
    """The environment has one size."""
    assert "6.5 GB" in ENGLISH
    assert "6,5 GB" in PORTUGUESE


def test_links_lead_to_files() -> None:
    """Relative links are valid."""
    for link in re.findall(r"\]\(([^)#:]+)\)", PORTUGUESE):
        assert (ROOT / link).exists(), link
