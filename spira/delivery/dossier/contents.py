"""The dossier of a version: everything recorded about it, in one folder for an ethics board or a regulator.

    index.html          leads through, and has the summary
    model-card.md       what the model is, for what, and how good
    report.html         the evaluation, without voices and names
    verdict.json        every number and check
    gate.yaml           the limits, fixed before the test
    data.json           the data in counts
    settings.yaml       the settings of the training
    provenance.json     in-toto statement: digests of package, data, settings, code and image
    dossier.json        what index.html shows, for programs
    SHA256SUMS          digest of each file: sha256sum -c SHA256SUMS

It names no recording and no speaker, and has no voice. It is made from the model repository and the ledger, so that no
data set is needed. What an earlier version of this program did not record is named as missing.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from spira import digests, files, signature, temporary
from spira.config import FrozenModel
from spira.delivery.dossier import page
from spira.delivery.history.events import (
    Approved,
    Finished,
    OperatorEvent,
    Pinned,
    Promoted,
    Refused,
    RolledBack,
    VersionEvent,
    VersionId,
)
from spira.delivery.history.ledger import Record
from spira.errors import SpiraError
from spira.evaluation.gate import Gate
from spira.evaluation.report.data_summary import FILE as DATA
from spira.evaluation.report.data_summary import DataSummary
from spira.evaluation.verdict import VERDICT, Verdict
from spira.language import Language
from spira.packaging import attestation, card
from spira.packaging.verify import PackageError

if TYPE_CHECKING:
    from spira.registry import RegisteredVersion, Registry

REPORT, CARD, GATE, SETTINGS = "report.html", "model-card.md", "gate.yaml", "settings.yaml"
PROVENANCE, FACTS, PAGE = "provenance.json", "dossier.json", "index.html"
VOICES = re.compile(r"data:audio|<audio", re.IGNORECASE)
"""Marks of a report of an earlier version that has voices."""
PORTUGUESE_PAGE = re.compile(r'<html lang="pt-BR">')
MAX_HEAD_CHARACTERS = 2000
"""Length of the beginning of a page, in which its language stands."""
PSEUDONYM = re.compile(r"rec-[0-9a-f]+")
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""Time of the files in a ZIP, so that the same dossier is the same file."""


class Entry(FrozenModel):
    """One event in the life of a version."""

    at: datetime
    what: str
    """Kind of the event, such as ``approved by a person``."""
    who: str = ""
    """Account of the person; empty for an event of the program."""
    why: str = ""


class Difference(FrozenModel):
    """A setting or number that differs from that of the version before; None where one of them lacks it."""

    name: str
    before: str | float | None
    after: str | float | None


class Changes(FrozenModel):
    """What differs from the version before."""

    since: int
    """Number of the version before: the one that this one replaced, or else the one with the next lower number."""
    axes: dict[str, bool]
    """Data, settings and code -> whether their fingerprint differs."""
    recordings_added: int | None
    """Training recordings; None where a version does not record them."""
    recordings_removed: int | None
    settings: tuple[Difference, ...]
    metrics: tuple[Difference, ...]


class Signature(FrozenModel):
    """State of the signature of the provenance."""

    state: str
    """``valid``, ``invalid``, ``not checked`` or ``none``."""
    key_ids: tuple[str, ...] = ()
    """Keys that signed, as the envelope names them."""
    problem: str = ""


class Dossier(FrozenModel):
    """Everything that the first page shows."""

    version: int
    model: str
    aliases: tuple[str, ...]
    registered: datetime
    package_digest: str
    tags: dict[str, str]
    """Lineage of the version."""
    verdict: Verdict
    """Without the worst mistakes, and without slices too small to be judged."""
    data: DataSummary | None
    """None for a version that was trained before the counts were recorded."""
    changes: Changes | None
    """None for the first version."""
    approvals: tuple[Entry, ...]
    """Approvals by persons; none if the gate alone decided."""
    history: tuple[Entry, ...]
    signature: Signature
    missing: dict[str, str]
    """File that is left out -> reason."""
    notes: tuple[str, ...] = ()
    """What could not be read."""


def write(
    registry: Registry,
    version: int | str,
    ledger: Sequence[Record],
    out: Path,
    notes: Sequence[str] = (),
    language: Language = Language.ENGLISH,
) -> Dossier:
    """Write the dossier of a version as a folder, or as a ZIP file if ``out`` ends in ``.zip``.

    Args:
        version: number or alias.
        ledger: records of continuous delivery; none where it is not in use.
        out: the folder or file to create.
        notes: what could not be read, for the first page.
        language: of the first page. Files for programs are in English; model card and report are in the language in
            which they were recorded.

    Raises:
        SpiraError: ``out`` exists, or the version was registered by hand or its artifacts were changed.
    """
    if out.exists():
        raise SpiraError(f"{out} exists: choose another --out, or remove it")
    if not out.parent.is_dir():
        raise SpiraError(f"{out.parent} does not exist: create it, or choose another --out")
    registered = registry.show(version)
    with temporary.folder() as parent:
        folder = parent / "dossier"
        folder.mkdir()
        dossier = _collect(registry, registered, ledger, folder, parent / "fetched", tuple(notes))
        files.write_json(folder / FACTS, dossier.model_dump(mode="json"))
        listed = sorted(path.name for path in folder.iterdir())
        files.write_text(folder / PAGE, page.render(dossier, listed, language, _languages(folder)))
        digests.record(folder, sorted([*listed, PAGE]))
        if out.suffix == ".zip":
            _write_zip(folder, out)
        else:
            with files.new_folder(out) as target:
                shutil.copytree(folder, target, dirs_exist_ok=True)
    return dossier


def _languages(folder: Path) -> dict[str, Language]:
    """Return the language of the report and of the model card, as far as they are there."""
    languages = {}
    if (folder / REPORT).is_file():
        is_portuguese = PORTUGUESE_PAGE.search((folder / REPORT).read_text("utf-8")[:MAX_HEAD_CHARACTERS])
        languages[REPORT] = Language.PORTUGUESE if is_portuguese else Language.ENGLISH
    if (folder / CARD).is_file():
        languages[CARD] = card.language_of((folder / CARD).read_text("utf-8"))
    return languages


def _collect(
    registry: Registry,
    registered: RegisteredVersion,
    ledger: Sequence[Record],
    folder: Path,
    fetched: Path,
    notes: tuple[str, ...],
) -> Dossier:
    """Write the files of the dossier apart from its page, and return its facts."""
    verdict = registry.verdict(registered)
    shown, missing = public(verdict), {}
    files.write_json(folder / VERDICT, shown.to_json())
    files.write_text(folder / GATE, _gate_text(verdict))
    settings = yaml.safe_dump(verdict.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    files.write_text(folder / SETTINGS, settings)
    data = _data(registry, registered, folder)
    if data is None:
        missing[DATA] = "the version was trained before the counts of the data were recorded"
    if problem := _report(registry, registered, verdict, folder):
        missing[REPORT] = problem
    if text := registry.model_card(registered):
        files.write_text(folder / CARD, text)
    else:
        missing[CARD] = "the version was registered before model cards were written"
    signature, statement = _signature(registry, registered, fetched)
    if statement is None:
        missing[PROVENANCE] = signature.problem or "the version was registered before provenance was recorded"
    else:
        files.write_json(folder / PROVENANCE, statement)
    version_id = VersionId(str(registered.version), registered.digest)
    history = tuple(sorted([*_of_ledger(ledger, version_id), *_of_tags(registered)], key=lambda entry: entry.at))
    return Dossier(
        version=registered.version,
        model=registry.model_name,
        aliases=registered.aliases,
        registered=registered.created,
        package_digest=registered.digest,
        tags=registered.tags,
        verdict=shown,
        data=data,
        changes=_changes(registry, registered),
        approvals=tuple(_approvals(ledger, version_id)),
        history=history,
        signature=signature,
        missing=missing,
        notes=notes,
    )


def public(verdict: Verdict) -> Verdict:
    """Return a verdict without what is about single recordings or few people."""
    minimum = verdict.gate.slices.minimum_files
    slices = tuple(part for part in verdict.slices if part.files >= minimum)
    return verdict.model_copy(update={"mistakes": (), "slices": slices})


def _gate_text(verdict: Verdict) -> str:
    """Return the limits that were applied, with a comment on their digest; comments of the gate file are not kept."""
    values = verdict.gate.model_dump(mode="json", exclude={"digest"})
    try:
        is_same = Gate.model_validate(values).digest() == verdict.gate.digest
    except ValidationError:  # a gate of another version of this program
        is_same = False
    note = "these limits have this digest" if is_same else "recorded by another version of this program, not checked"
    return f"# digest {verdict.gate.digest}: {note}\n" + yaml.safe_dump(values, sort_keys=False)


def _data(registry: Registry, registered: RegisteredVersion, folder: Path) -> DataSummary | None:
    if registry.run_file(registered, DATA, folder) is None:
        return None
    try:
        return DataSummary.model_validate_json((folder / DATA).read_text("utf-8"))
    except ValidationError as error:
        raise SpiraError(f"the counts of the data of version {registered.version} cannot be read: {error}") from None


def _report(registry: Registry, registered: RegisteredVersion, verdict: Verdict, folder: Path) -> str:
    """Write the report; return why it is left out, or an empty text."""
    report = registry.run_file(registered, REPORT, folder)
    if report is None:
        return "the run has none"
    has_names = any(not PSEUDONYM.fullmatch(mistake.file_path) for mistake in verdict.mistakes)
    if has_names or VOICES.search(report.read_text("utf-8")):
        report.unlink()
        return "an earlier version of this program wrote it, with names or voices; evaluate the model again"
    return ""


def _signature(
    registry: Registry, registered: RegisteredVersion, fetched: Path
) -> tuple[Signature, attestation.Statement | None]:
    """Fetch the package; return the state of its signature, and its provenance if there is one."""
    problem = ""
    try:
        registry.fetch(registered.version, fetched)
    except PackageError as error:  # the signature: the package itself was compared with its digest before
        problem = str(error).replace(str(fetched), "the package")
    envelope = attestation.envelope_of(fetched)
    if not envelope.exists():
        return Signature(state="invalid" if problem else "none", problem=problem), None
    try:
        key_ids, statement = tuple(attestation.signers(envelope)), attestation.provenance(fetched)
    except PackageError as error:
        return Signature(state="invalid", problem=str(error).replace(str(fetched), "the package")), None
    if problem:
        state = "invalid"
    elif not key_ids:
        state = "none"
    else:
        state = "valid" if signature.is_required() else "not checked"
    return Signature(state=state, key_ids=key_ids, problem=problem), statement


def _approvals(ledger: Sequence[Record], version: VersionId) -> Iterator[Entry]:
    for record in ledger:
        if isinstance(record.event, Approved) and record.event.version_id.is_same(version):
            yield Entry(at=record.at, what="approved by a person", who=record.event.who)


def _of_ledger(ledger: Sequence[Record], version: VersionId) -> Iterator[Entry]:
    """Yield the events of a version in continuous delivery."""
    for record in ledger:
        event = record.event
        who = event.who if isinstance(event, OperatorEvent) else ""
        match event:
            case Finished() if event.version and VersionId(event.version, event.digest).is_same(version):
                yield Entry(at=record.at, what=f"{event.outcome} by the gate", why=f"run {event.run}")
            case VersionEvent() if not event.version_id.is_same(version):
                continue
            case Approved():
                yield Entry(at=record.at, what="approved by a person", who=who)
            case Promoted():
                yield Entry(at=record.at, what="made champion", why=event.why)
            case Refused():
                yield Entry(at=record.at, what="refused by a target", why=event.message)
            case Pinned():
                yield Entry(at=record.at, what="pinned", who=who, why=event.reason)
            case RolledBack() if VersionId(event.bad, event.bad_digest).is_same(version):
                yield Entry(at=record.at, what="rolled back", who=who, why=event.reason)
            case RolledBack() if VersionId(event.to, event.to_digest).is_same(version):
                yield Entry(at=record.at, what="champion again, by a rollback", who=who, why=event.reason)


def _of_tags(registered: RegisteredVersion) -> Iterator[Entry]:
    """Yield the events that the model repository records."""
    tags = registered.tags
    yield Entry(at=registered.created, what="registered", why=tags.get("reasons", ""))
    for tag, what, reason in (
        ("promoted_at", "champion in the model repository", "promotion_forced"),
        ("rolled_back_at", "rolled back in the model repository", "rolled_back_reason"),
    ):
        if at := tags.get(tag):
            why = tags.get(reason, "")
            yield Entry(at=datetime.fromisoformat(at), what=what, why="" if why == "no" else why)


def _changes(registry: Registry, registered: RegisteredVersion) -> Changes | None:
    """Return the differences from the version before; None for the first one of this program."""
    before = _version_before(registry, registered)
    if before is None:
        return None
    differences = registry.compare(before.version, registered.version)
    recordings = [registry.training_files(version) for version in (before, registered)]
    old, new = recordings
    return Changes(
        since=before.version,
        axes={
            name: before.tags.get(f"{tag}_fingerprint") != registered.tags.get(f"{tag}_fingerprint")
            for name, tag in (("data", "data"), ("settings", "model"), ("code", "code"))
        },
        recordings_added=None if old is None or new is None else len(new - old),
        recordings_removed=None if old is None or new is None else len(old - new),
        settings=tuple(
            Difference(name=row.name, before=row.a, after=row.b) for row in differences if row.kind == "parameter"
        ),
        metrics=tuple(
            Difference(name=row.name, before=row.a, after=row.b) for row in differences if row.kind == "metric"
        ),
    )


def _version_before(registry: Registry, registered: RegisteredVersion) -> RegisteredVersion | None:
    """Return the version that a version replaced, or else the one with the next lower number."""
    older = [version for version in registry.list_versions() if version.version < registered.version and version.digest]
    replaced = registered.tags.get("replaced")
    return next((version for version in older if str(version.version) == replaced), older[0] if older else None)


def _write_zip(folder: Path, out: Path) -> None:
    with files.new_file(out) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            info = zipfile.ZipInfo(f"{out.stem}/{path.name}", ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
