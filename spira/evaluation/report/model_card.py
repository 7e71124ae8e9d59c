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
from spira.language import Translator, translator
from spira.models.checkpoint import Checkpoint
from spira.project import PAPER, Project

USE = (
    "spira predict RECORDING.wav --model VERSION",
    "spira models fetch VERSION --out FOLDER",
    "spira models dossier VERSION",
)
"""Commands that use a version."""


def markdown(verdict: Verdict, trained: Checkpoint, corpus: Corpus, project: Project) -> str:
    """Return the sections of the card in the language of the project, the most important first.

    It is Markdown without a title.
    """
    words = translator(project.language)
    sentences = {
        heading: [words.message(line) for line in lines] for heading, lines in card(verdict, trained, corpus).items()
    }
    sections = {
        words.gettext("Numbers"): _numbers(verdict, words),
        words.gettext("Intended use"): _bullets(sentences["Intended use"]),
        words.gettext("Not for"): _bullets(sentences["Not for"]),
        words.gettext("Owner, contact and licence"): _bullets(_ownership(project, words)),
        words.gettext("Data"): _bullets(sentences["Data"]),
        words.gettext("Limits"): _bullets(sentences["Limits"]),
        words.gettext("Gate"): _gate(verdict, words),
        words.gettext("Model"): _bullets([*sentences["Model"], *sentences["Training"]]),
        words.gettext("How to use"): _use(words),
        words.gettext("How to cite"): _bullets([project.citation or PAPER, _software(words)]),
        words.gettext("Ethics"): _bullets(sentences["Ethics"]),
    }
    parts = [f"## {title}\n\n{text}" for title, text in sections.items()]
    warning = notice(corpus)
    return "\n\n".join([*([synthetic_notice(warning, words)] if warning else []), *parts])


def _numbers(verdict: Verdict, words: Translator) -> str:
    level = f"{100 * verdict.config.evaluation.confidence:.0f}"
    counts = ", ".join(_count(name, classes, words) for name, classes in verdict.data.classes.items())
    caption = words.gettext(
        "By recording, with %(level)s%% intervals. Frozen test: %(files)s recordings, %(counts)s.",
        level=level,
        files=verdict.data.files,
        counts=counts,
    )
    nothing = words.gettext("Nothing was measured: a check of the data or of the training failed.")
    return f"{escaped(caption)}\n\n{metrics_table(verdict, words) or nothing}"


def _count(name: str, counts: Mapping[str, int], words: Translator) -> str:
    files, plural = counts["files"], words.message(f"{name}s")
    if "speakers" not in counts:
        return words.gettext("%(count)s of %(name)s", count=files, name=plural)
    return words.ngettext(
        "%(count)s of %(name)s by %(num)s speaker",
        "%(count)s of %(name)s by %(num)s speakers",
        counts["speakers"],
        count=files,
        name=plural,
    )


def _ownership(project: Project, words: Translator) -> list[str]:
    values = {
        words.gettext("Owner"): project.owner,
        words.gettext("Contact"): project.contact,
        words.gettext("Licence"): project.licence,
    }
    missing = words.gettext("not recorded (project.yaml)")
    lines = [f"{name}: {value or missing}" for name, value in values.items()]
    approval = words.gettext("Ethics approval: %(number)s", number=project.ethics_approval)
    return [*lines, *([approval] if project.ethics_approval else [])]


def _gate(verdict: Verdict, words: Translator) -> str:
    """Return every check with its value and limit."""
    passed, failed = words.gettext("passed"), words.gettext("FAILED")
    rows = [
        (words.message(check.title), passed if check.passed else failed, _value(check, words), _limit(check, words))
        for check in verdict.checks
    ]
    text = words.ngettext(
        "Limits fixed before the test, gate %(digest)s: %(decision)s, %(num)s check.",
        "Limits fixed before the test, gate %(digest)s: %(decision)s, %(num)s checks.",
        len(rows),
        digest=verdict.gate.digest[:12],
        decision=words.gettext("approved") if verdict.approved else words.gettext("NOT approved"),
    )
    heading = (words.gettext("check"), words.gettext("result"), words.gettext("value"), words.gettext("limit"))
    return "\n\n".join(filter(None, [text, table(heading, rows) if rows else ""]))


def _value(check: Check, words: Translator) -> str:
    return words.number(number(check.value, missing=""))


def _limit(check: Check, words: Translator) -> str:
    if check.limit is None:
        return ""
    return f"{words.message(LIMIT_SIGNS.get(check.kind, ''))} {words.number(f'{check.limit:g}')}".strip()


def _use(words: Translator) -> str:
    """Return the commands with comments, as a block of code."""
    comments = (
        words.gettext("probability, diagnosis, and whether it abstains"),
        words.gettext("the package: weights, features, golden recordings"),
        words.gettext("everything that was recorded about this version"),
    )
    return "\n".join(f"    {command:47} # {comment}" for command, comment in zip(USE, comments, strict=True))


def _software(words: Translator) -> str:
    return words.gettext(
        "The software: see CITATION.cff in the source of the SPIRA trainer, at the commit under Provenance."
    )


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)
