"""The public class of the model repository.

Every run is logged, rejected ones too. A registered package is a version with the alias ``challenger``. A promoted
version is ``champion``, and the champion before it ``previous``.

Writes are ordered so that a call that was killed anywhere converges when it is repeated. ``previous`` is written
before ``champion``: in the other order, a kill in between would lose the old champion. If both aliases point to one
version, a call was killed between the two writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Run, RunData
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from spira import lineage, signature, temporary
from spira.evaluation.report.verdict_text import MAX_DESCRIPTION_LENGTH, shortened
from spira.evaluation.report.work_times import WorkTimes
from spira.evaluation.verdict import Verdict
from spira.language import Language
from spira.packaging import attestation, card
from spira.packaging.verify import PackageError, check_files, package_digest
from spira.registry import artifacts as package_artifacts
from spira.registry import evaluations, headlines, runs
from spira.registry.evaluations import Evaluation
from spira.registry.store import ModelStore, RegistryError, explained, local_uri

RUN_TAG = "pipeline_run"
"""Tag of a run: name of the pipeline run."""

FROZEN_TEST_TAG = "test_fingerprint"
"""Tag of a version: :attr:`spira.data.corpus.Corpus.test_digest`. Two versions with the same one answered the same
recordings with the same noises, so they can be compared recording by recording."""

VERSION_TAG = "model_version"
"""Tag of a run: version that its package became."""

TEST_TAG = "test_digest"
"""Tag of a run: digest of the test recordings on which its candidate was measured, to count their evaluations."""

DIGEST_TAG = "package_digest"
"""Tag of a version: digest of its package, which is its identity. Its number is only a label: a lost database begins
again at 1."""


VIEW = "workflowType=machine_learning"
"""View of MLflow's pages. In MLflow 3.17 a new browser opens another one, whatever the kind of the experiment."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered model."""

    version: int
    aliases: tuple[str, ...]
    created: datetime
    approved: bool
    metrics: dict[str, float]
    """Metrics of the run with the version's latest verdict."""
    tags: dict[str, str]
    run_id: str
    """Run with the version's latest verdict."""
    uri: str
    """Folder of the version's artifacts, which never changes: a server loads the model from it."""
    digest: str
    """Digest of the version's package; empty if it was registered by hand."""


@dataclass(frozen=True)
class Difference:
    """A metric or parameter that differs between two versions; None where a version lacks it."""

    kind: str
    name: str
    a: float | str | None
    b: float | str | None


@dataclass(frozen=True)
class Outcome:
    """Result of a pipeline run: its verdict, and the version if one was registered."""

    approved: bool
    reasons: tuple[str, ...]
    model_version: int | None
    metrics: dict[str, float]
    """Metrics of the paper's noisy test, without bounds of intervals: ``accuracy`` and others."""


class Registry:
    """The runs and versions of one model in one MLflow store.

    Args:
        tracking_uri: ``sqlite:///…/mlflow.db``, with the artifacts in ``mlartifacts`` beside it, or the http(s)
            URL of an MLflow server that proxies artifacts.
        model_name: name of the registered model and of the experiment.

    Raises:
        RegistryError: the Inference Service refuses the name, or the store cannot be reached.
    """

    def __init__(self, tracking_uri: str, model_name: str = "spira") -> None:
        self.tracking_uri = tracking_uri
        self.model_name = model_name
        self._store = ModelStore.connect(tracking_uri, model_name)

    @explained("the run cannot be logged")
    def log_run(
        self,
        name: str,
        params: Mapping[str, Any],
        histories: Mapping[int, list[dict[str, float]]],
        verdict: Verdict,
        artifacts: Mapping[str, Path],
        tags: Mapping[str, str],
        dataset_uri: str | None = None,
        times: WorkTimes | None = None,
        notice: str = "",
    ) -> str:
        """Log a run, whatever its verdict, and return its id.

        The same content is the same run, so that a call that was killed can be repeated.

        Args:
            name: name of the run.
            params: the resolved configuration; nested keys are joined by dots.
            histories: the epochs of each seed, logged to a child run as ``train/loss`` with the epoch as step.
            verdict: its headline numbers become metrics (``noisy/accuracy``), its gate parameters; it is logged as
                ``verdict.json`` too.
            artifacts: path in the run -> the file or folder to log there.
            tags: lineage of the run.
            dataset_uri: location of the data set; its digest is the tag ``data_fingerprint``.
            times: when the work was done; the run starts and ends now if it is not known.
            notice: the words by which the data set calls itself synthetic; empty for recordings of patients.

        Raises:
            RegistryError: an artifact is missing, or the store fails.
        """
        content = runs.RunContent(name, params, histories, verdict, artifacts, tags, dataset_uri, times, notice)
        return runs.log(self._store, content)

    @explained("the outcome of the run cannot be looked up")
    def outcome(self, pipeline_run: str) -> Outcome | None:
        """Return the result of a pipeline run, by its tag ``pipeline_run``; of the latest if it was repeated.

        None if no finished run is logged under the name, or if it is approved and its version is not registered.

        Raises:
            RegistryError: the name has both kinds of quotation marks, the verdict cannot be read, or the store fails.
        """
        store, run = self._store, self._finished(pipeline_run)
        if run is None:
            return None
        verdict, version = runs.read_verdict(store, run), run.data.tags.get(VERSION_TAG)
        if verdict.approved and version is None:
            return None
        return Outcome(
            approved=verdict.approved,
            reasons=verdict.reasons,
            model_version=int(version) if verdict.approved and version else None,
            metrics=headlines.of_noisy_test(run.data.metrics),
        )

    def _finished(self, pipeline_run: str) -> Run | None:
        """Return the latest finished run of a pipeline run."""
        quote = "'" if "'" not in pipeline_run else '"'
        if quote in pipeline_run:  # it would end the quoted name in the query below
            raise RegistryError(f"the run {pipeline_run} cannot be looked up: its name has ' and \"; rename it")
        store = self._store
        query = f"tags.{RUN_TAG} = {quote}{pipeline_run}{quote} and attributes.status = 'FINISHED'"
        logged = store.client.search_runs([store.experiment_id], query, max_results=1, order_by=["end_time DESC"])
        return logged[0] if logged else None

    @explained("the page of the run cannot be looked up")
    def page_of(self, pipeline_run: str) -> str:
        """Return the path of the page of a pipeline run below MLflow's address; empty if no finished run has the name.

        Raises:
            RegistryError: the name has both kinds of quotation marks, or the store fails.
        """
        run = self._finished(pipeline_run)
        return self._run_path(run.info.run_id) if run else ""

    @explained("the evaluations of the test set cannot be counted")
    def evaluations(self, test_digest: str, data_digest: str, except_run: str = "") -> int:
        """Return the number of runs whose candidate was measured on a test set.

        Runs are counted here, and not in a file of the work folder, because all machines and work folders that develop
        one model share its repository. A deleted run is counted too: its result was seen.

        Args:
            test_digest: digest of the test set.
            data_digest: fingerprint of the whole data set: older runs have no digest of their test set.
            except_run: name of a pipeline run that is not counted, because it is repeated.

        Raises:
            RegistryError: the store fails.
        """
        run_ids: set[str] = set()
        for tag, digest in ((TEST_TAG, test_digest), ("data_fingerprint", data_digest)):
            for run in self._store.runs(f"tags.{tag} = '{digest}'"):
                tags = run.data.tags
                is_other_test = tags.get(TEST_TAG, test_digest) != test_digest
                is_repeated = bool(except_run) and tags.get(RUN_TAG) == except_run
                if not (is_other_test or is_repeated or MLFLOW_PARENT_RUN_ID in tags):
                    run_ids.add(run.info.run_id)
        return len(run_ids)

    def run_page(self, run_id: str) -> str:
        """Return the URL of a run's page in MLflow; empty for a store without a server."""
        return self._page(self._run_path(run_id))

    def _run_path(self, run_id: str) -> str:
        return f"experiments/{self._store.experiment_id}/runs/{run_id}"

    def version_page(self, version: int) -> str:
        """Return the URL of a version's page in MLflow; empty for a store without a server."""
        return self._page(f"models/{self.model_name}/versions/{version}")

    def _page(self, path: str) -> str:
        is_server = self.tracking_uri.startswith(("http://", "https://"))
        return f"{self.tracking_uri.rstrip('/')}/#/{path}?{VIEW}" if is_server else ""

    @explained("the package cannot be registered")
    def register(
        self,
        package: Path,
        run_id: str,
        verdict: Verdict,
        tags: Mapping[str, str],
        sections: str = "",
        language: Language = Language.ENGLISH,
    ) -> int:
        """Make a package the next version, alias ``challenger``, and return its number.

        The same package (by :func:`spira.packaging.verify.package_digest`) is the same version: its tags get the
        latest verdict and lineage. A champion does not become its own challenger.

        Args:
            sections: what the model card says of the model
                (:func:`spira.evaluation.report.model_card.markdown`). The card stands beside the package, and is the
                version's description.
            language: of the card; tags are in English.

        Raises:
            PackageError: the package is incomplete, or a file in it was changed or added.
            RegistryError: the store fails.
        """
        check_files(package)
        digest = package_digest(package)
        tags = {**tags, "approved": runs.approval(verdict), "reasons": "; ".join(verdict.reasons)}
        tags |= {"verdict_run": run_id, DIGEST_TAG: digest}
        if verdict.warnings:
            tags["warnings"] = "; ".join(verdict.warnings)
        same = self._store.search(f"tag.{DIGEST_TAG} = '{digest}'")
        with temporary.folder() as beside:
            content = attestation.statement(digest, tags, verdict, lineage.image_digest())
            attestation.write(beside, package_artifacts.PACKAGE, content)  # first: the signing key may be refused
            key_ids = attestation.signers(beside / (package_artifacts.PACKAGE + attestation.ENVELOPE))
            if same:
                entity, owner = same[0], same[0].run_id or run_id
                package_artifacts.upload_attestation(self._store, self._store.uri(entity), owner, beside)
            else:
                uri = package_artifacts.upload(self._store, package, run_id, digest)
                package_artifacts.upload_attestation(self._store, uri, run_id, beside)
                entity, owner = self._store.create_version(uri, run_id, tags), run_id
        self._store.tag(entity, tags)
        self._write_card(entity, owner, card.compose(sections, content, int(entity.version), key_ids, language))
        if "champion" not in entity.aliases:
            self._store.point("challenger", entity.version)
        self._store.client.set_tag(run_id, VERSION_TAG, str(entity.version))
        return int(entity.version)

    def _write_card(self, entity: ModelVersion, run_id: str, text: str) -> None:
        """Upload the model card beside the package, and make it the description; the last sections may not fit."""
        with temporary.folder() as beside:
            (beside / (package_artifacts.PACKAGE + card.SUFFIX)).write_text(text, "utf-8")
            package_artifacts.upload_attestation(self._store, self._store.uri(entity), run_id, beside)
        self._store.describe(entity, shortened(text, MAX_DESCRIPTION_LENGTH))

    @explained("the version cannot be promoted")
    def promote(self, version: int | str, force_reason: str | None = None) -> RegisteredVersion:
        """Make a version champion and the champion before it ``previous``. A repeated call changes nothing.

        Raises:
            RegistryError: the version is unknown; or it is not approved or was rolled back, and no ``force_reason``
                is given.
        """
        store = self._store
        new, old = store.find(version), store.at("champion")
        if old is None or old.version != new.version:
            _check_promotable(new, force_reason)
            store.tag(new, {"promoted_at": _now(), "promotion_forced": force_reason or "no"})
            if old is not None:
                store.tag(new, {"replaced": old.version})
                store.point("previous", old.version)
            store.point("champion", new.version)
        if force_reason:
            store.untag(new, "rolled_back_at", "rolled_back_reason")
        if "challenger" in new.aliases:
            store.drop("challenger")
        return self.show(new.version)

    @explained("the champion cannot be rolled back")
    def rollback(self, reason: str, bad: int | None = None) -> RegisteredVersion:
        """Make ``previous`` champion again, and the version it had replaced ``previous``; return the champion.

        The old champion is marked as rolled back: it is not promoted again unless forced. If both aliases point to
        one version, a promotion or rollback was killed half-way, and is undone or finished.

        Args:
            reason: recorded with the old champion.
            bad: roll back only if this version is champion, so that the call can be repeated.

        Raises:
            RegistryError: there is no previous version.
        """
        store = self._store
        champion, previous = store.at("champion"), store.at("previous")
        is_half_way = champion and previous and champion.version == previous.version
        if champion and bad is not None and int(champion.version) != bad and not is_half_way:
            return self.show(champion.version)
        if champion is None or previous is None:
            raise RegistryError("nothing to roll back to: no version has the alias previous")
        if not is_half_way:
            store.tag(champion, {"rolled_back_reason": reason, "rolled_back_at": _now()})
            store.point("champion", previous.version)
        self._set_previous(previous)
        return self.show(previous.version)

    def _set_previous(self, champion: ModelVersion) -> None:
        """Point ``previous`` to the version that the champion had replaced, unless that was rolled back."""
        replaced = champion.tags.get("replaced")
        before = next((entity for entity in self._store.search() if str(entity.version) == replaced), None)
        if before is None or "rolled_back_reason" in before.tags:
            self._store.drop("previous")
        else:
            self._store.point("previous", before.version)

    @explained("the versions cannot be listed")
    def list_versions(self) -> list[RegisteredVersion]:
        """Return all versions, newest first."""
        return [self._registered(entity) for entity in self._store.search()]

    @explained("the version cannot be shown")
    def show(self, version: int | str) -> RegisteredVersion:
        """Return a version by number or alias.

        Raises:
            RegistryError: there is none; the message lists those that exist.
        """
        return self._registered(self._store.find(version))

    @explained("the training data cannot be looked up")
    def training_files(self, version: RegisteredVersion) -> frozenset[str] | None:
        """Return the SHA-256 of each recording that a version was trained on; None if they are not recorded.

        Raises:
            RegistryError: the store fails.
        """
        return runs.training_files(self._store, version.run_id)

    @explained("the evaluation cannot be read")
    def evaluation(self, version: RegisteredVersion) -> Evaluation | None:
        """Return the latest evaluation of a version; None if it has no run, or a run without a verdict.

        Raises:
            RegistryError: the verdict is damaged, or the store fails.
        """
        return evaluations.read(self._store, version.run_id) if version.run_id else None

    @explained("the verdict cannot be looked up")
    def verdict(self, version: RegisteredVersion) -> Verdict:
        """Return the verdict on a version.

        Raises:
            RegistryError: the version was registered by hand, its verdict cannot be read, or the store fails.
        """
        return runs.read_verdict(self._store, self._run(version))

    @explained("the record of the run cannot be downloaded")
    def run_file(self, version: RegisteredVersion, path: str, folder: Path) -> Path | None:
        """Download one artifact of a version's run into a folder; None if an earlier version logged none.

        Raises:
            RegistryError: the store fails.
        """
        return runs.download(self._store, version.run_id, path, folder)

    @explained("the model card cannot be downloaded")
    def model_card(self, version: RegisteredVersion) -> str:
        """Return the model card beside a version's package; empty if an earlier version wrote none."""
        return package_artifacts.read_beside(self._store, self._store.find(version.version), card.SUFFIX)

    @explained("the champion cannot be looked up")
    def champion(self) -> RegisteredVersion | None:
        """Return the champion, or None before the first promotion."""
        entity = self._store.at("champion")
        return self._registered(entity) if entity else None

    @explained("the champion cannot be looked up")
    def champion_status(self) -> tuple[str | None, frozenset[str], dict[str, str]]:
        """Return the champion, or None before the first promotion, the versions rolled back, and all digests.

        Versions are numbers. The digest of a version that was registered by hand is missing.
        """
        entities = self._store.search()
        champion = next((str(entity.version) for entity in entities if "champion" in entity.aliases), None)
        rolled_back = frozenset(str(entity.version) for entity in entities if "rolled_back_reason" in entity.tags)
        digests = {str(entity.version): entity.tags[DIGEST_TAG] for entity in entities if DIGEST_TAG in entity.tags}
        return champion, rolled_back, digests

    @explained("the versions cannot be compared")
    def compare(self, a: int | str, b: int | str) -> list[Difference]:
        """Return the metrics, then the parameters, that differ between two versions, by name."""
        first, second = (self._run_data(self.show(version)) for version in (a, b))
        return [
            *_differences("metric", *(headlines.comparable(data.metrics) for data in (first, second))),
            *_differences("parameter", first.params, second.params),
        ]

    def _run_data(self, version: RegisteredVersion) -> RunData:
        return self._run(version).data

    def _run(self, version: RegisteredVersion) -> Run:
        if not version.run_id:
            raise RegistryError(f"version {version.version} has no run: it was registered by hand; use another version")
        return self._store.client.get_run(version.run_id)

    @explained("the version cannot be fetched")
    def fetch(self, version: int | str, out: Path, verify_key: str = "") -> Path:
        """Download a version's package to the folder ``out``, completely or not at all.

        Args:
            version: number or alias.
            out: the folder to create; kept if it holds the package already.
            verify_key: path of the public key of signatures; by default that in the environment.

        Raises:
            RegistryError: the artifacts are not what was registered, ``out`` holds something else, or a public key is
                configured and the version's tag contradicts the signed verdict.
            PackageError: the artifacts hold a link, or a file that does not belong to a package; or the version has no
                valid signature, and a public key is configured (:mod:`spira.signature`).
        """
        entity = self._store.find(version)
        registered = _package_digest(entity)
        if out.exists():
            if not _is_attested(out, entity, verify_key):  # such as by an earlier verdict about the same package
                package_artifacts.download_attestation(self._store, entity, out)
            return _checked(out, entity, registered, verify_key)
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.folder(out.parent, "fetch") as folder:
            package = package_artifacts.download(self._store, entity, folder)
            if package_digest(package) != registered:
                raise RegistryError(
                    f"version {entity.version} cannot be used: its artifacts differ from what was registered"
                )
            package_artifacts.download_attestation(self._store, entity, out)
            try:
                package.rename(out)
            except OSError:
                if not out.exists():  # otherwise another process has just fetched it
                    raise
        return _checked(out, entity, registered, verify_key)

    def _registered(self, entity: ModelVersion) -> RegisteredVersion:
        run_id = entity.tags.get("verdict_run") or entity.run_id or ""
        return RegisteredVersion(
            version=int(entity.version),
            aliases=tuple(sorted(entity.aliases)),
            created=datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC),
            approved=_is_approved(entity),
            metrics=headlines.readable(self._store.client.get_run(run_id).data.metrics) if run_id else {},
            tags=dict(entity.tags),
            run_id=run_id,
            uri=self._store.uri(entity),
            digest=entity.tags.get(DIGEST_TAG, ""),
        )


def open_at(uri: str) -> Registry:
    """Open the model repository at an MLflow URL, or in a folder (SQLite), which is created if it is absent."""
    if "://" in uri:
        return Registry(uri)
    Path(uri).mkdir(parents=True, exist_ok=True)
    return Registry(local_uri(Path(uri)))


def _package_digest(entity: ModelVersion) -> str:
    """Return the digest with which a package was registered.

    Raises:
        RegistryError: the version was registered by hand, or by another program.
    """
    digest: str | None = entity.tags.get(DIGEST_TAG)
    if digest is None:
        raise RegistryError(
            f"version {entity.version} was not registered by spira, so it has no package to serve or to compare with: "
            "use another version; to register a model, run spira models push CHECKPOINT --data DIR"
        )
    return digest


def _checked(out: Path, entity: ModelVersion, registered: str, verify_key: str) -> Path:
    """Return a downloaded package.

    Raises:
        RegistryError: it is not the registered one, or the version's tag contradicts the signed verdict.
        PackageError: it has no valid signature, and a public key is configured.
    """
    if package_digest(out) != registered:
        raise RegistryError(f"{out} exists and is not version {entity.version}: remove it or choose another folder")
    attestation.check(out, verify_key)
    if signature.is_required(verify_key) and (signed := attestation.is_approved(out)) != _is_approved(entity):
        raise RegistryError(
            f"version {entity.version} is {'not ' * (not signed)}approved in its signed verdict, and "
            f"{'not ' * signed}approved in the model repository: somebody changed the tag approved, or the signature; "
            "register the package again"
        )
    return out


def _is_attested(out: Path, entity: ModelVersion, verify_key: str) -> bool:
    """Return whether the envelope beside a package is there and, if a key is configured, agrees with the repository."""
    try:
        return attestation.is_approved(out) == _is_approved(entity) or not signature.is_required(verify_key)
    except PackageError:
        return False


def _is_approved(entity: ModelVersion) -> bool:
    return bool(entity.tags.get("approved") == "true")


def _check_promotable(entity: ModelVersion, force_reason: str | None) -> None:
    tags = entity.tags
    if "rolled_back_reason" in tags:
        problem = f"was rolled back ({tags['rolled_back_reason']})"
    elif tags.get("approved") != "true":
        problem = f"is not approved ({tags.get('reasons') or 'no reason recorded'})"
    else:
        return
    if not force_reason:
        raise RegistryError(f"version {entity.version} {problem}; to promote it nevertheless, give a reason to force")


def _differences(kind: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name)):
        yield Difference(kind, name, a.get(name), b.get(name))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
