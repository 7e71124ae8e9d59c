"""The model card beside a package: the sections about the model, and the provenance of the package."""

from __future__ import annotations

from pathlib import Path

from spira.packaging.attestation import Statement

SUFFIX = ".model-card.md"
"""Suffix of the file, after the name of the package's folder."""
TITLE = "# Detector of respiratory insufficiency in speech"
MINIMAL = (
    "Intended use: research on the SPIRA data; input is a recording of the read sentence. It is no medical device."
)
"""Section about a model of which only the provenance is known."""


def compose(sections: str, content: Statement, version: int, key_ids: list[str]) -> str:
    """Return the model card of a version, Markdown.

    Args:
        sections: what :func:`spira.evaluation.report.model_card.markdown` says of the model; empty if nothing is known.
        content: in-toto statement about the package.
        key_ids: ids of the keys that signed the statement.
    """
    title = f"{TITLE}, version {version}"
    return "\n\n".join([title, sections.strip() or MINIMAL, _provenance(content, key_ids)]) + "\n"


def file_of(package: Path) -> Path:
    """Return the path of the card beside a package."""
    return package.with_name(package.name + SUFFIX)


def _provenance(content: Statement, key_ids: list[str]) -> str:
    build, run = content["predicate"]["buildDefinition"], content["predicate"]["runDetails"]
    verdict = run["byproducts"][0]["annotations"]
    decision = "approved by its gate" if verdict["approved"] else "NOT approved: " + "; ".join(verdict["reasons"])
    signature = ", ".join(f"key `{key_id}`" for key_id in key_ids) or "none: the provenance is a record only"
    lines = [
        "## Provenance",
        "",
        f"- package: `{content['subject'][0]['digest']['sha256']}`",
        f"- verdict: {decision}",
        f"- gate: `{verdict['gate']}`",
        f"- run: {run['metadata']['invocationId'] or 'outside a pipeline'}",
        f"- commit: {build['externalParameters']['git_commit'] or 'unknown'}",
        *(f"- {entry['name']}: `{entry['digest']['sha256']}`" for entry in build["resolvedDependencies"]),
        f"- signature: {signature}",
    ]
    return "\n".join(lines)
