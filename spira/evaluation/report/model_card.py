"""The model card (Mitchell and others, 2019) of a version, Markdown: what the model is, for what, and how good.

The card is for readers outside the team. Its provenance is added where the version is registered
(:mod:`spira.packaging.card`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spira.data.corpus import Corpus
from spira.evaluation.numbers import number
from spira.evaluation.report.page import LIMIT_SIGNS, card, notice
from spira.evaluation.report.verdict_text import escaped, metrics_table, synthetic_notice, table
from spira.evaluation.verdict import Check, Verdict
from spira.models.checkpoint import Checkpoint
from spira.project import PAPER, Project

SOFTWARE = "The software: see CITATION.cff in the source of the SPIRA trainer, at the commit under Provenance."
NOT_RECORDED = "not recorded (project.yaml)"
USE = """\
    spira predict RECORDING.wav --model VERSION     # probability, diagnosis, and whether it abstains
    spira models fetch VERSION --out FOLDER         # the package: weights, features, golden recordings
    spira models dossier VERSION                    # everything that was recorded about this version"""


def markdown(verdict: Verdict, trained: Checkpoint, corpus: Corpus, project: Project) -> str:
    """Return the sections of the card, the most important first, as Markdown without a title."""
    sentences = card(verdict, trained, corpus)
    sections = {
        "Numbers": _numbers(verdict),
        "Intended use": _bullets(sentences["Intended use"]),
        "Not for": _bullets(sentences["Not for"]),
        "Owner, contact and licence": _bullets(_ownership(project)),
        "Data": _bullets(sentences["Data"]),
        "Limits": _bullets(sentences["Limits"]),
        "Gate": _gate(verdict),
        "Model": _bullets([*sentences["Model"], *sentences["Training"]]),
        "How to use": USE,
        "How to cite": _bullets([project.citation or PAPER, SOFTWARE]),
        "Ethics": _bullets(sentences["Ethics"]),
    }
    parts = [f"## {title}\n\n{text}" for title, text in sections.items()]
    warning = notice(corpus)
    return "\n\n".join([*([synthetic_notice(warning)] if warning else []), *parts])


def _numbers(verdict: Verdict) -> str:
    level = verdict.config.evaluation.confidence
    counts = ", ".join(_count(name, classes) for name, classes in verdict.data.classes.items())
    caption = f"By recording, with {level:.0%} intervals. Frozen test: {verdict.data.files} recordings, {counts}."
    measured = metrics_table(verdict) or "Nothing was measured: a check of the data or of the training failed."
    return f"{escaped(caption)}\n\n{measured}"


def _count(name: str, counts: Mapping[str, int]) -> str:
    speakers = f" by {counts['speakers']} speakers" if "speakers" in counts else ""
    return f"{counts['files']} of {name}s{speakers}"


def _ownership(project: Project) -> list[str]:
    values = {"Owner": project.owner, "Contact": project.contact, "Licence": project.licence}
    lines = [f"{name}: {value or NOT_RECORDED}" for name, value in values.items()]
    return [*lines, *([f"Ethics approval: {project.ethics_approval}"] if project.ethics_approval else [])]


def _gate(verdict: Verdict) -> str:
    """Return every check with its value and limit."""
    rows = [
        (check.title, "passed" if check.passed else "FAILED", _value(check), _limit(check)) for check in verdict.checks
    ]
    decision = "approved" if verdict.approved else "NOT approved"
    text = f"Limits fixed before the test, gate {verdict.gate.digest[:12]}: {decision}, {len(rows)} checks."
    checks = table(("check", "result", "value", "limit"), rows) if rows else ""
    return "\n\n".join(filter(None, [text, checks]))


def _value(check: Check) -> str:
    return number(check.value, missing="")


def _limit(check: Check) -> str:
    return "" if check.limit is None else f"{LIMIT_SIGNS.get(check.kind, '')} {check.limit:g}".strip()


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)
