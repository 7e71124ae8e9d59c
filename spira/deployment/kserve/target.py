"""The KServe target: one InferenceService per model in Standard mode, updated without losing a request.

Objects
-------
    spira               the InferenceService that clients use; its annotation ``spira/history`` is the history
    spira-candidate     a second InferenceService, without clients, in which a new version is checked first

Steps of an apply
-----------------
Standard mode has no canary traffic (``canaryTrafficPercent`` is silently ignored). An apply needs none:

1. *Candidate.* The version starts as ``spira-candidate`` and must pass the golden check through its own Service. If it
   fails, the apply ends; the serving InferenceService has not been touched.
2. *Rolling update.* One write replaces version, location and history of the serving InferenceService. A pod gets
   requests only once it is ready, which requires its golden recordings (the ServingRuntime probes
   ``/v2/models/spira/ready``), and an old pod is removed only then (``maxUnavailable: 0``). A terminating pod answers
   for ten more seconds and closes its connections, longer than the cluster needs to route requests elsewhere.
3. *Golden check* through the Service that clients use. If pods do not start or answer wrongly, the InferenceService is
   restored.

Why not switch a Service's selector between two InferenceServices? It would save the second start, but the Service,
its status and its scaling would be ours beside KServe's own, and the pods left behind would still lose requests
unless they drain.

Locations and drift
-------------------
Each version must have its own location, which never changes: otherwise the cluster would not notice a new version.
``status`` reports and ``apply`` repairs drift: changes that others made in the object, and pods that differ from their
ServingRuntime, such as an older image (not every KServe replaces those pods by itself, and users can turn that off).
Every method can be killed and called again.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import stamina

from spira.deployment.kserve import golden_check, manifests, pods
from spira.deployment.kserve.cluster import ConflictError, ForbiddenError, KubernetesNamespace
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.deployment.version_stack import Action, Change, current_and_previous
from spira.kubernetes_connection import KubernetesObject
from spira.packaging.verify import PackageError, package_digest

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0

MAX_WRITES = 5
"""Attempts to write an object whose status KServe updates at the same time."""


class KServe:
    """The target in a cluster; see :class:`spira.deployment.target.Target`.

    Args:
        cluster: namespace in which ``manifests/base/serving`` is applied.
        package: returns the local package folder of a version, for its golden recordings.
        model: name of the InferenceService.
        runtime: name of the ServingRuntime.
        timeout_seconds: maximum time for a version's pods to become ready.
        service_account: ServiceAccount with read access to the model's bucket.
        artifacts: prefix of a release's location -> prefix of the same location as the cluster reads it.
        verify_key: path of the public key of signatures; see :mod:`spira.signature`.
    """

    name = "kserve"

    def __init__(
        self,
        cluster: KubernetesNamespace,
        package: Callable[[str], Path],
        model: str = "spira",
        runtime: str = "spira",
        timeout_seconds: float = 300.0,
        service_account: str = "spira-predictor",
        artifacts: Mapping[str, str] | None = None,
        verify_key: str = "",
    ) -> None:
        self.cluster, self.package, self.verify_key = cluster, package, verify_key
        self.model, self.runtime, self.service_account = model, runtime, service_account
        self.timeout_seconds = timeout_seconds
        self.artifacts = artifacts or {}

    @property
    def candidate(self) -> str:
        """Name of the InferenceService in which a version is checked first."""
        return f"{self.model}-candidate"

    def status(self) -> Status:
        """See :class:`~spira.deployment.target.Target`; reports drift, and why pods are not ready.

        Raises:
            DeploymentError: the cluster is unreachable, or the history is damaged.
        """
        live = self.cluster.get(self.model)
        history = manifests.history(live)
        current, previous = current_and_previous(history)
        if live is None or current is None:
            return Status(None, ready=False, message=f"no version was applied to {self._resource}", history=history)
        deployment = self._deployment()
        ready = manifests.is_rolled_out(deployment, live)
        drift, unknown = self._drift(live, deployment)
        messages = [*(f"{difference}; apply version {current.version} again" for difference in drift), *unknown]
        if not ready:
            problem = pods.explain(live, deployment, self.cluster.pods(self.model))
            messages.append(problem or "its pods are being replaced")
        return Status(
            current.version,
            previous.version if previous else None,
            ready,
            "; ".join(messages),
            history,
            drifted=bool(drift),
            digest=current.digest,
        )

    def plan(self, release: Release) -> Plan:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the release has no location, or the version was served from another one.
            PackageError: the package is incomplete or was modified.
        """
        release, live = self._localized(release), self.cluster.get(self.model)
        manifests.check(release, manifests.history(live), self.verify_key)
        current, check = manifests.current(live), "check its golden recordings"
        serving = current.version if current else None
        drift, _ = self._drift(live, self._deployment())
        if manifests.is_current(release, live) and not drift:
            return Plan(release.version, serving, (check,))
        switch = f"serve version {release.version} instead of {serving or 'nothing'}, pod by pod"
        if manifests.is_current(release, live):
            switch = "repair: " + "; ".join(drift)
        steps = (f"start {self.candidate} from {release.uri}", check, f"delete {self.candidate}", switch, check)
        return Plan(release.version, serving, steps)

    def apply(self, release: Release) -> Status:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the pods do not start, or the cluster refuses them; the version before keeps serving.
            PackageError: the package was modified, or its probabilities in the cluster differ from torch's.
        """
        release, live = self._localized(release), self.cluster.get(self.model)
        manifests.check(release, manifests.history(live), self.verify_key)
        is_current = manifests.is_current(release, live)
        drift, _ = self._drift(live, self._deployment())
        if not is_current or drift:
            action: Action = "repair" if is_current else "apply"
            change = Change.now(release.version, action, digest=release.digest, uri=release.uri, reason=release.reason)
            self._check_candidate(change, release.package)
            self._switch(live, change, release.package)
        elif live is not None:
            self._wait_until_rolled_out(live)
            golden_check.largest_difference(self.cluster, self.model, release.version, release.package)
        return self.status()

    def verify(self) -> float:
        """See :class:`~spira.deployment.target.Target`; sends requests to the Service of the InferenceService.

        Raises:
            DeploymentError: no version serves, it does not answer, or another version does.
            PackageError: a probability differs.
        """
        current = manifests.current(self.cluster.get(self.model))
        if current is None:
            raise DeploymentError(f"no version was applied to {self._resource}: apply one first")
        return golden_check.largest_difference(self.cluster, self.model, current.version, self._package(current))

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """See :class:`~spira.deployment.target.Target`; the previous version takes the same steps as a new one.

        Raises:
            DeploymentError: there is no previous version, or it does not start; the current one keeps serving.
            PackageError: the probabilities of the previous version differ from torch's.
        """
        live = self.cluster.get(self.model)
        history = manifests.history(live)
        current, previous = current_and_previous(history)
        if bad is not None and (current is None or current.version != bad):
            return self.status()
        if current is None or previous is None:
            serving = current.version if current else "now"
            raise DeploymentError(f"{self._resource}: nothing served before {serving}: apply a version instead")
        package = self._package(previous)
        self._check_candidate(previous, package)
        change = Change.now(
            previous.version,
            "rollback",
            digest=previous.digest,
            uri=previous.uri,
            reason=reason,
            left=current.version,
        )
        self._switch(live, change, package)
        return self.status()

    def _package(self, change: Change) -> Path:
        """Return the local package of a change.

        Raises:
            DeploymentError: the model repository has another package under the version.
        """
        package = self.package(change.version)
        if change.digest and package_digest(package) != change.digest:
            raise DeploymentError(
                f"{self._resource}: version {change.version} in the model repository is not the one that was served: "
                "apply another version, or restore the repository from a copy"
            )
        return package

    @property
    def _resource(self) -> str:
        return f"InferenceService {self.cluster.namespace}/{self.model}"

    def _localized(self, release: Release) -> Release:
        """Return the release with its location as the cluster reads it."""
        prefix = next((prefix for prefix in self.artifacts if release.uri.startswith(prefix)), None)
        if prefix is None:
            return release
        return dataclasses.replace(release, uri=self.artifacts[prefix] + release.uri.removeprefix(prefix))

    def _render(self, name: str, history: Sequence[Change]) -> KubernetesObject:
        return manifests.render(name, self.runtime, self.service_account, history)

    def _deployment(self, name: str = "") -> KubernetesObject | None:
        return self.cluster.deployment(f"{name or self.model}-predictor")

    def _drift(self, live: KubernetesObject | None, deployment: KubernetesObject | None) -> tuple[list[str], list[str]]:
        """Return the drift of the object and its pods, and why some of it is unknown.

        The expected object comes from a server-side dry run, so defaults are filled in.
        """
        history = manifests.history(live)
        if live is None or not history:
            return [], []
        wanted = self.cluster.put(self._render(f"{self.model}-dry-run", history), None, dry_run=True)
        changed = [f"changed by others: {difference}" for difference in manifests.drift(wanted, live)]
        outdated, unknown = self._outdated(live, deployment)
        return changed + outdated, unknown

    def _outdated(self, live: KubernetesObject, deployment: KubernetesObject | None) -> tuple[list[str], list[str]]:
        """Return how the pods differ from their ServingRuntime, or why that is unknown."""
        name = f"ServingRuntime {self.runtime}"
        if deployment is None or not manifests.is_rendered(deployment, live):
            return [], []  # KServe is about to make the Deployment from the present ServingRuntime
        try:
            runtime = self.cluster.runtime(self.runtime)
        except ForbiddenError as error:
            return [], [f"cannot compare the pods with {name}: {error}"]
        if runtime is None:
            return [], [f"cannot compare the pods with {name}: it does not exist"]
        return [f"differs from {name}: {difference}" for difference in manifests.outdated(deployment, runtime)], []

    def _check_candidate(self, change: Change, package: Path) -> None:
        """Start the version of a change without clients, and run the golden check on it."""
        self._remove_candidate()
        try:
            log.info("starting %s with version %s for the golden check", self.candidate, change.version)
            first = Change.now(change.version, "apply", digest=change.digest, uri=change.uri)
            written = self.cluster.put(self._render(self.candidate, [first]), None)
            self._wait_until_rolled_out(written)
            golden_check.largest_difference(self.cluster, self.candidate, change.version, package)
        finally:
            self.cluster.delete(self.candidate)

    def _remove_candidate(self) -> None:
        """Delete an earlier candidate and wait for its pods to go, so that they are not taken for the new ones."""
        deadline = time.monotonic() + self.timeout_seconds
        self.cluster.delete(self.candidate)
        while self._deployment(self.candidate) or self.cluster.pods(self.candidate):
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"an earlier {self.candidate} is not removed: delete its Deployment and pods by hand"
                )
            time.sleep(POLL_SECONDS)

    def _switch(self, live: KubernetesObject | None, change: Change, package: Path) -> None:
        """Serve the version of a change; restore the InferenceService if that fails."""
        history = [*manifests.history(live), change]
        old = {pod["metadata"]["name"] for pod in self.cluster.pods(self.model)}
        log.info("replacing the pods of %s by those of version %s", self.model, change.version)
        written = self._write(self._render(self.model, history), live)
        try:
            self._wait_until_rolled_out(written, old)
            golden_check.largest_difference(self.cluster, self.model, change.version, package)
        except (DeploymentError, PackageError):
            self._restore(live, written)
            raise

    def _restore(self, live: KubernetesObject | None, written: KubernetesObject) -> None:
        log.info("restoring %s", self.model)
        if live is None:
            self.cluster.delete(self.model)
        else:
            self._write(self._render(self.model, manifests.history(live)), written)

    def _write(self, wanted: KubernetesObject, seen: KubernetesObject | None) -> KubernetesObject:
        """Replace the serving InferenceService if nobody changed it since it was seen.

        Raises:
            DeploymentError: another client changed it.
        """
        changed = DeploymentError(f"{self._resource}: another client changed it meanwhile: run the command again")
        # A conflict means that KServe updated the status between the read and the write: repeat both at once.
        retries = stamina.retry_context(
            on=ConflictError, attempts=MAX_WRITES, timeout=None, wait_initial=0, wait_max=0, wait_jitter=0
        )
        try:
            for attempt in retries:
                with attempt:
                    live = self.cluster.get(self.model)
                    if not manifests.is_unchanged(seen, live):
                        raise changed
                    written = self.cluster.put(wanted, live)
        except ConflictError as error:
            raise changed from error
        return written

    def _wait_until_rolled_out(self, inference_service: KubernetesObject, old: Collection[str] = ()) -> None:
        """Wait until all pods of an InferenceService come from its last write and are ready.

        Args:
            inference_service: the object as it was written.
            old: names of the pods that must be gone.

        Raises:
            DeploymentError: the pods are not ready in time; the message has the reason.
        """
        name, deadline = inference_service["metadata"]["name"], time.monotonic() + self.timeout_seconds
        while True:
            deployment, running = self._deployment(name), self.cluster.pods(name)
            new = [pod for pod in running if pod["metadata"]["name"] not in old]
            if manifests.is_rolled_out(deployment, inference_service) and len(new) == len(running):
                return
            if time.monotonic() > deadline or pods.is_crash_looping(new):
                reason = (
                    pods.explain(self.cluster.get(name), deployment, new)
                    or f"its pods are not ready after {self.timeout_seconds:g} s"
                )
                current = manifests.current(inference_service)
                raise DeploymentError(
                    f"version {current.version if current else '?'} does not start as {name}: {reason}"
                )
            time.sleep(POLL_SECONDS)
