"""The model card beside a package: the sections about the model, and the provenance of the package."""

from __future__ import annotations

from pathlib import Path

from spira.language import Language, Translator, translator
from spira.packaging.attestation import Statement

SUFFIX = ".model-card.md"
"""Suffix of the file, after the name of the package's folder."""


def compose(
    sections: str, content: Statement, version: int, key_ids: list[str], language: Language = Language.ENGLISH
) -> str:
    """Return the model card of a version, Markdown.

    Args:
        sections: what :func:`spira.evaluation.report.model_card.markdown` says of the model, in the same language;
            empty if nothing is known.
        content: in-toto statement about the package.
        key_ids: ids of the keys that signed the statement.
    """
    words = translator(language)
    minimal = words.gettext(
        "Intended use: research on the SPIRA data; input is a recording of the read sentence. It is no medical device."
    )
    parts = [_title(version, words), sections.strip() or minimal, _provenance(content, key_ids, words)]
    return "\n\n".join(parts) + "\n"


def language_of(card: str) -> Language:
    """Return the language of a model card, by its title; English if a person has changed that."""
    title = card.partition("\n")[0]
    for language in Language:
        if title.startswith(_title("", translator(language))):
            return language
    return Language.ENGLISH


def file_of(package: Path) -> Path:
    """Return the path of the card beside a package."""
    return package.with_name(package.name + SUFFIX)


def _title(version: int | str, words: Translator) -> str:
    return words.gettext("# Detector of respiratory insufficiency in speech, version %(version)s", version=version)


def _provenance(content: Statement, key_ids: list[str], words: Translator) -> str:
    build, run = content["predicate"]["buildDefinition"], content["predicate"]["runDetails"]
    verdict = run["byproducts"][0]["annotations"]
    reasons = "; ".join(words.message(reason) for reason in verdict["reasons"])
    decision = (
        words.gettext("approved by its gate")
        if verdict["approved"]
        else words.gettext("NOT approved: %(reasons)s", reasons=reasons)
    )
    keys = ", ".join(words.gettext("key %(key)s", key=f"`{key_id}`") for key_id in key_ids)
    lines = [
        (words.gettext("package"), f"`{content['subject'][0]['digest']['sha256']}`"),
        (words.gettext("verdict"), decision),
        (words.gettext("gate"), f"`{verdict['gate']}`"),
        (words.gettext("run"), run["metadata"]["invocationId"] or words.gettext("outside a pipeline")),
        (words.gettext("commit"), build["externalParameters"]["git_commit"] or words.gettext("unknown")),
        *((words.message(entry["name"]), f"`{entry['digest']['sha256']}`") for entry in build["resolvedDependencies"]),
        (words.gettext("signature"), keys or words.gettext("none: the provenance is a record only")),
    ]
    heading = words.gettext("Provenance")
    return "\n".join([f"## {heading}", "", *(f"- {name}: {value}" for name, value in lines)])
