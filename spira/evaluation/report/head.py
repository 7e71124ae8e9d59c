"""The head of the report: which model on which data, of whom, when, by which code, and on what terms.

Nothing is guessed: what is not known stays empty, and the page says that it is not recorded. It has neither names of
files nor speakers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from spira.data.corpus import Corpus
from spira.evaluation.report.data_summary import data_set_name
from spira.models.checkpoint import CheckpointInfo
from spira.project import PAPER, UNKNOWN, Project

DIGEST_CHARACTERS = 12
"""Characters of a digest or commit that the head shows; the lineage has all."""
UNKNOWN_COMMIT = "unknown"
"""Commit that :func:`spira.lineage.git_commit` records without git."""


@dataclass(frozen=True)
class Origin:
    """What is known of a report beside the verdict, the corpus and the lineage."""

    project: Project = UNKNOWN
    version: str = ""
    """Number of the registered version; empty where it is registered later, or not at all."""
    evaluated: datetime | None = None
    """Begin of the evaluation; None if it was not recorded."""


NOTHING_KNOWN = Origin()


@dataclass(frozen=True)
class Head:
    """Texts of the head; an empty one is not recorded."""

    version: str
    run: str
    trained: str
    """Day on which the training ended, ISO 8601, UTC."""
    evaluated: str
    """Day of the evaluation, likewise."""
    data_set: str
    data_digest: str
    owner: str
    contact: str
    commit: str
    """Commit of the code; it ends with ``-dirty`` if files differed from it."""
    code_fingerprint: str
    licence: str
    ethics_approval: str
    citation: str
    """How to cite: of the project file, or the paper of the method."""
    has_own_citation: bool
    """Whether the citation is the project file's."""


def head(origin: Origin, corpus: Corpus, info: CheckpointInfo, lineage: Mapping[str, str]) -> Head:
    """Return the head of a report.

    Args:
        origin: what is known beside the other arguments.
        corpus: the corpus of the evaluation.
        info: origin of the candidate's network.
        lineage: tags of :func:`spira.lineage.tags`.
    """
    project, commit = origin.project, lineage.get("git_commit", "")
    return Head(
        version=origin.version,
        run=lineage.get("pipeline_run", ""),
        trained=_day(info.ended_at),
        evaluated=_day(origin.evaluated),
        data_set=data_set_name(corpus),
        data_digest=corpus.digest[:DIGEST_CHARACTERS],
        owner=project.owner,
        contact=project.contact,
        commit="" if commit == UNKNOWN_COMMIT else _short_commit(commit),
        code_fingerprint=lineage.get("code_fingerprint", "")[:DIGEST_CHARACTERS],
        licence=project.licence,
        ethics_approval=project.ethics_approval,
        citation=project.citation or PAPER,
        has_own_citation=bool(project.citation),
    )


def _day(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).date().isoformat()


def _short_commit(commit: str) -> str:
    sha, dash, state = commit.partition("-")
    return f"{sha[:DIGEST_CHARACTERS]}{dash}{state}"
