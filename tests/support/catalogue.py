"""The gettext catalogue and the texts that it must hold: ``python -m tests.support.catalogue`` brings it up to date."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

from tests.support import ROOT

LOCALE = ROOT / "spira/locale"
PORTUGUESE = LOCALE / "pt_BR/LC_MESSAGES/spira.po"
STORED = LOCALE / "stored_messages.txt"
"""Messages that the code stores in English, one a line, with fields in braces; and words of tables and pictures."""
SOURCES = ("spira/**/*.html", "spira/**/*.py")
"""Templates of pages, and code that writes for people."""
KEYWORDS = {"gettext": None, "ngettext": (1, 2)}
"""Functions of the code whose arguments are texts; a template may use all of gettext's names."""
FIELD = re.compile(r"\{[^{}]*\}")
SLOT = re.compile(r"\{\w+\}|%\(\w+\)s|</?\w+>|\n")
"""A field, a mark or the end of a plural form."""
WORD = re.compile(r"[A-Za-z]{2,}")


def stored_messages() -> list[str]:
    """Return the messages of :data:`STORED`."""
    return [line for line in STORED.read_text("utf-8").splitlines() if line and not line.startswith("#")]


def source_messages() -> dict[str | tuple[str, str], list[str]]:
    """Return the texts of the page templates and of the code, each with the files that have it."""
    found: dict[str | tuple[str, str], list[str]] = {}
    for path in sorted(path for pattern in SOURCES for path in ROOT.glob(pattern)):
        for message in _messages(path):
            key = tuple(message[:2]) if isinstance(message, tuple) else message
            found.setdefault(key, []).append(str(path.relative_to(ROOT)))
    return found


def _messages(path: Path) -> Iterator[str | tuple[str, ...]]:
    content = io.BytesIO(path.read_bytes())
    if path.suffix == ".py":
        extracted = extract("python", content, keywords=KEYWORDS, options={"encoding": "utf-8"})
    else:
        options = {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}
        extracted = extract("jinja2", content, options=options)
    for _, message, _, _ in extracted:
        yield message


def code_texts() -> set[str]:
    """Return every text of the code with ``{}`` for each field of an f-string."""
    return {
        text
        for folder in ("spira", "pipelines", "components")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (text := _text(node))
    }


def foreign_stored_messages() -> list[str]:
    """Return the stored messages with a part, between two fields, that is in no text of the code."""
    code = "\n".join(code_texts())
    return [
        message
        for message in stored_messages()
        # a comma at the end of a part may stand elsewhere, where the code composes the message of two texts
        if not all(part.strip(" ,:") in code for part in FIELD.split(message))
    ]


def catalogue() -> Catalog:
    """Return the Portuguese catalogue."""
    return read_po(io.BytesIO(PORTUGUESE.read_bytes()), locale="pt_BR")


def texts_to_store(path: Path) -> list[str]:
    """Return the texts of a module with several words that are no docstrings, errors or texts of the catalogue."""
    tree = ast.parse(path.read_text("utf-8"))
    left_out: set[ast.AST] = set()
    for node in ast.walk(tree):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_for_catalogue = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in KEYWORDS
        if is_docstring or is_for_catalogue or isinstance(node, ast.Raise):
            left_out.update(ast.walk(node))
        if isinstance(node, ast.JoinedStr):
            left_out.update(node.values)
    found = [text for node in ast.walk(tree) if node not in left_out and (text := _text(node))]
    return [text for text in found if " " in text.strip() and len(WORD.findall(text)) > 1]


def english_left(text: str) -> list[str]:
    """Return the texts of the catalogue, by their parts between fields, that stand in a page in Portuguese."""
    line = " ".join(text.split())
    translations = "\n".join(_flat(entry.string) for entry in catalogue() if entry.id)
    parts = {
        " ".join(part.split()).strip(" ,:;.()")
        for entry in catalogue()
        if entry.id
        for part in SLOT.split(_flat(entry.id))
    }
    return sorted(part for part in parts if len(WORD.findall(part)) > 1 and part in line and part not in translations)


def _flat(texts: str | tuple[str, ...] | list[str]) -> str:
    return texts if isinstance(texts, str) else "\n".join(texts)


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def update() -> None:
    """Write the catalogue with the texts of today; new ones have no translation yet."""
    old = catalogue() if PORTUGUESE.is_file() else Catalog(locale="pt_BR")
    new = Catalog(locale="pt_BR", project="spira", charset="utf-8", fuzzy=False)
    for key, places in source_messages().items():
        known = old.get(key if isinstance(key, str) else key[0])
        new.add(key, string=known.string if known else None, locations=[(place, 0) for place in sorted(set(places))])
    for message in stored_messages():
        known = old.get(message)
        if message not in new:
            new.add(message, string=known.string if known else None)
    buffer = io.BytesIO()
    write_po(buffer, new, omit_header=False, sort_output=True, include_lineno=False, width=110)
    # without the times of the header, which would change with every update
    text = re.sub(rb'^"(?:POT-Creation-Date|PO-Revision-Date|Generated-By)[^\n]*\n', b"", buffer.getvalue(), flags=re.M)
    PORTUGUESE.parent.mkdir(parents=True, exist_ok=True)
    Path(PORTUGUESE).write_bytes(text)


if __name__ == "__main__":
    update()
    missing = [entry.id for entry in catalogue() if entry.id and not entry.string]
    print(f"{len(missing)} texts without a translation", *missing, sep="\n  ")
