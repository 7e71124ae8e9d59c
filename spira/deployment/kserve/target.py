"""The KServe target: one InferenceService a model, in Standard mode, its pods exchanged so that no request is lost.

    spira               the InferenceService that users ask; its annotation ``spira/history`` is the record
    spira-candidate     another of a new version, where no user is, while it is tried

Standard mode has no canary traffic (``canaryTrafficPercent`` is silently ignored), and it needs none:

1. *Alone.* The candidate is brought up and asked for the golden recordings through its own Service. What doesn't
   start, or answers wrongly, ends here: the object that users ask has not been touched.
2. *Pod by pod.* The serving object is replaced in one write, version, location and history together. A pod gets
   requests only once it is ready, which is when its golden recordings came out right (the ServingRuntime's probe on
   ``/v2/models/spira/ready``), and an old pod goes only then (``maxUnavailable: 0``). Told to go, it answers for ten
   more seconds and closes its connections meanwhile, longer than the cluster takes to send requests elsewhere.
3. *Asked again*, by the users' way. Where pods don't come up, or answer wrongly, the object is put back as it was.

Switching a Service's selector between two InferenceServices would go without the second start, but the Service that
users ask would then be ours beside KServe's own, as would its status and its scaling, and pods that are left behind
would lose requests just so unless they drain.

A location never changes: a version has its own, or the cluster would not see that there is a new one. What anybody
else changes in the object is told by ``status`` and undone by ``apply``, and so are pods that don't run what their
ServingRuntime says by now, such as an older image: not every KServe exchanges them by itself, and one can be told not
to. Every verb may be killed and called again.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from spira.deployment import golden_check
from spira.deployment.kserve import manifests, pods
from spira.deployment.kserve.cluster import ConflictError, ForbiddenError, KubernetesNamespace, Object
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.deployment.version_stack import change, line, versions
from spira.packaging.verify import PackageError

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0

WRITES = 5
"""Attempts to write an object whose state KServe writes too."""


class KServe:
    """The target in a cluster; see :class:`spira.deployment.target.Target`.

    Args:
        cluster: the namespace, where ``manifests/base/serving`` is applied.
        package: the package folder of a version, here: what serves is compared with its golden recordings.
        model: name of the InferenceService.
        runtime: name of the ServingRuntime.
        timeout_seconds: for a version's pods to become ready.
        service_account: that reads the model from its bucket.
        artifacts: beginning of a release's address -> what the cluster finds there instead.
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
    ) -> None:
        self.cluster, self.package = cluster, package
        self.model, self.runtime, self.service_account = model, runtime, service_account
        self.timeout_seconds = timeout_seconds
        self.artifacts = artifacts or {}

    @property
    def candidate(self) -> str:
        """Name of the InferenceService where a version is tried."""
        return f"{self.model}-candidate"

    def status(self) -> Status:
        """See :class:`~spira.deployment.target.Target`; tells drift, and why pods don't answer.

        Raises:
            DeploymentError: the cluster can't be reached, or the history is damaged.
        """
        live = self.cluster.get(self.model)
        history = manifests.history(live)
        version, previous = versions(history)
        if live is None or version is None:
            return Status(None, ready=False, message=f"no version was applied to {self._place}", history=tuple(history))
        deployment = self._deployment()
        ready = manifests.rolled_out(deployment, live)
        drift, unknown = self._drift(live, deployment)
        told = [*(f"{each}; apply version {version} again" for each in drift), *unknown]
        if not ready:
            trouble = pods.explain(live, deployment, self.cluster.pods(self.model))
            told.append(trouble or "its pods are being exchanged")
        return Status(version, previous, ready, "; ".join(told), tuple(history), drifted=bool(drift))

    def plan(self, release: Release) -> Plan:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the release has no location, or the version had another one.
            PackageError: the package is incomplete or was changed.
        """
        release, live = self._placed(release), self.cluster.get(self.model)
        manifests.check(release, manifests.history(live))
        serves, ask = manifests.version(live), "ask it for the golden recordings"
        drift, _ = self._drift(live, self._deployment())
        if serves == release.version and not drift:
            return Plan(release.version, serves, (ask,))
        switch = f"serve version {release.version} instead of {serves or 'nothing'}, pod by pod"
        if serves == release.version:
            switch = "put back: " + "; ".join(drift)
        steps = (f"bring up {self.candidate} from {release.uri}", ask, f"delete {self.candidate}", switch, ask)
        return Plan(release.version, serves, steps)

    def apply(self, release: Release) -> Status:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the version doesn't come up, or the cluster refuses it; what served serves on.
            PackageError: the package was changed, or its probabilities there are not torch's.
        """
        release, live = self._placed(release), self.cluster.get(self.model)
        manifests.check(release, manifests.history(live))
        serves = manifests.version(live)
        drift, _ = self._drift(live, self._deployment())
        if serves != release.version or drift:
            action = "repair" if serves == release.version else "apply"
            self._try(release.version, release.uri, release.package)
            changed = change(release.version, action, uri=release.uri, reason=release.reason)
            self._switch(live, changed, release.package)
        elif live is not None:
            self._wait(live)
            golden_check.largest_difference(self.cluster, self.model, release.version, release.package)
        return self.status()

    def verify(self) -> float:
        """See :class:`~spira.deployment.target.Target`: through the Service of the InferenceService.

        Raises:
            DeploymentError: nothing serves, it doesn't answer, or another version does.
            PackageError: a probability is off.
        """
        version = manifests.version(self.cluster.get(self.model))
        if version is None:
            raise DeploymentError(f"no version was applied to {self._place}: apply one first")
        return golden_check.largest_difference(self.cluster, self.model, version, self.package(version))

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """See :class:`~spira.deployment.target.Target`; tried and switched to as a new version is.

        Raises:
            DeploymentError: there is nothing to go back to, or it doesn't come up; what serves serves on.
            PackageError: the probabilities of what served before are not torch's.
        """
        live = self.cluster.get(self.model)
        history = manifests.history(live)
        now, before = versions(history)
        if bad is not None and now != bad:
            return self.status()
        if before is None:
            raise DeploymentError(f"{self._place}: nothing served before {now or 'now'}: apply a version instead")
        uri, package = line(history)[-2]["uri"], self.package(before)
        self._try(before, uri, package)
        self._switch(live, change(before, "rollback", uri=uri, reason=reason, left=now), package)
        return self.status()

    @property
    def _place(self) -> str:
        return f"InferenceService {self.cluster.namespace}/{self.model}"

    def _placed(self, release: Release) -> Release:
        """With the address at which the cluster finds it."""
        known = next((known for known in self.artifacts if release.uri.startswith(known)), None)
        if known is None:
            return release
        return dataclasses.replace(release, uri=self.artifacts[known] + release.uri.removeprefix(known))

    def _rendered(self, name: str, history: list[Object]) -> Object:
        return manifests.render(name, self.runtime, self.service_account, history)

    def _deployment(self, name: str = "") -> Object | None:
        return self.cluster.deployment(f"{name or self.model}-predictor")

    def _drift(self, live: Object | None, deployment: Object | None) -> tuple[list[str], list[str]]:
        """What isn't as it should be, and what of it isn't known.

        How the object should look the cluster itself tells, by a dry run.
        """
        history = manifests.history(live)
        if live is None or not history:
            return [], []
        wanted = self.cluster.put(self._rendered(f"{self.model}-dry-run", history), None, dry_run=True)
        changed = [f"not as it should be: {each}" for each in manifests.drift(wanted, live)]
        outdated, unknown = self._outdated(live, deployment)
        return changed + outdated, unknown

    def _outdated(self, live: Object, deployment: Object | None) -> tuple[list[str], list[str]]:
        """What the pods do otherwise than their ServingRuntime says by now, and why that isn't known."""
        runtime = f"ServingRuntime {self.runtime}"
        if deployment is None or not manifests.rendered(deployment, live):
            return [], []  # KServe is about to make it of the runtime as it is
        try:
            says = self.cluster.runtime(self.runtime)
        except ForbiddenError as error:
            return [], [f"whether its pods run what {runtime} says isn't known: {error}"]
        if says is None:
            return [], [f"whether its pods run what {runtime} says isn't known: it isn't there"]
        return [f"not what {runtime} says by now: {each}" for each in manifests.outdated(deployment, says)], []

    def _try(self, version: str, uri: str, package: Path) -> None:
        """Ask a version for its golden recordings where no user is."""
        self._clear()
        try:
            log.info("brings up %s of version %s, to ask it for the golden recordings", self.candidate, version)
            tried = self.cluster.put(self._rendered(self.candidate, [change(version, "apply", uri=uri)]), None)
            self._wait(tried)
            golden_check.largest_difference(self.cluster, self.candidate, version, package)
        finally:
            self.cluster.delete(self.candidate)

    def _clear(self) -> None:
        """Make sure that no earlier candidate's pods are taken for those of a new one."""
        end = time.monotonic() + self.timeout_seconds
        self.cluster.delete(self.candidate)
        while self._deployment(self.candidate) or self.cluster.pods(self.candidate):
            if time.monotonic() > end:
                raise DeploymentError(f"an earlier {self.candidate} doesn't go: delete its Deployment and pods by hand")
            time.sleep(POLL_SECONDS)

    def _switch(self, live: Object | None, entry: Object, package: Path) -> None:
        """Make it serve, or put back what did."""
        history = [*manifests.history(live), entry]
        old = {pod["metadata"]["name"] for pod in self.cluster.pods(self.model)}
        log.info("exchanges the pods of %s for those of version %s", self.model, entry["version"])
        written = self._write(self._rendered(self.model, history), live)
        try:
            self._wait(written, old)
            golden_check.largest_difference(self.cluster, self.model, entry["version"], package)
        except (DeploymentError, PackageError):
            self._put_back(live, written)
            raise

    def _put_back(self, live: Object | None, written: Object) -> None:
        log.info("puts %s back as it was", self.model)
        if live is None:
            self.cluster.delete(self.model)
        else:
            self._write(self._rendered(self.model, manifests.history(live)), written)

    def _write(self, wanted: Object, seen: Object | None) -> Object:
        """Replace what was seen.

        Raises:
            DeploymentError: someone else changed it since.
        """
        for _ in range(WRITES):
            live = self.cluster.get(self.model)
            if not manifests.same(seen, live):
                break
            try:
                return self.cluster.put(wanted, live)
            except ConflictError:
                continue  # KServe wrote down its state at that very moment
        raise DeploymentError(f"{self._place}: someone else changed it meanwhile: run the command again")

    def _wait(self, thing: Object, old: Collection[str] = ()) -> None:
        """Until the pods of an InferenceService, as it was written, are ready, and none else is left to answer.

        Args:
            old: names of the pods that are to go.

        Raises:
            DeploymentError: they aren't in time; the message says why.
        """
        name, end = thing["metadata"]["name"], time.monotonic() + self.timeout_seconds
        while True:
            deployment, found = self._deployment(name), self.cluster.pods(name)
            new = [pod for pod in found if pod["metadata"]["name"] not in old]
            if manifests.rolled_out(deployment, thing) and len(new) == len(found):
                return
            if time.monotonic() > end or pods.hopeless(new):
                trouble = pods.explain(self.cluster.get(name), deployment, new) or "it takes too long"
                raise DeploymentError(f"version {manifests.version(thing)} doesn't come up as {name}: {trouble}")
            time.sleep(POLL_SECONDS)
