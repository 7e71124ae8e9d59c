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
else changes in the object is told by ``status`` and undone by ``apply``. Every verb may be killed and called again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from spira.deployment import DeploymentError, Plan, Release, Status, asking, kserve_object, pods
from spira.deployment.cluster import Cluster, ConflictError, Object
from spira.proof import PackageError

POLL_SECONDS = 1.0

WRITES = 5
"""Attempts to write an object whose state KServe writes too."""


class KServe:
    """The target in a cluster; see :class:`spira.deployment.Target`.

    Args:
        cluster: the namespace, where ``manifests/base/serving`` is applied.
        package: the package folder of a version, here: what serves is compared with its golden recordings.
        model: name of the InferenceService.
        runtime: name of the ServingRuntime.
        timeout_seconds: for a version's pods to become ready.
    """

    name = "kserve"

    def __init__(
        self,
        cluster: Cluster,
        package: Callable[[str], Path],
        model: str = "spira",
        runtime: str = "spira",
        timeout_seconds: float = 300.0,
    ) -> None:
        self.cluster, self.package = cluster, package
        self.model, self.runtime = model, runtime
        self.timeout_seconds = timeout_seconds

    @property
    def candidate(self) -> str:
        """Name of the InferenceService where a version is tried."""
        return f"{self.model}-candidate"

    def status(self) -> Status:
        """See :class:`~spira.deployment.Target`; tells drift, and why pods don't answer.

        Raises:
            DeploymentError: the cluster can't be reached, or the history is damaged.
        """
        live = self.cluster.get(self.model)
        history = kserve_object.history(live)
        line = kserve_object.line(history)
        if not line:
            return Status(None, ready=False, message=f"no version was applied to {self._place}", history=tuple(history))
        version, previous = line[-1]["version"], line[-2]["version"] if len(line) > 1 else None
        deployment = self.cluster.deployment(f"{self.model}-predictor")
        ready = live is not None and kserve_object.rolled_out(deployment, live)
        drift = self._drift(live)
        told = [f"changed by someone else: {change}; apply version {version} again" for change in drift]
        if not ready:
            trouble = pods.explain(live, deployment, self.cluster.pods(self.model))
            told.append(trouble or "its pods are being exchanged")
        return Status(version, previous, ready, "; ".join(told), tuple(history), drifted=bool(drift))

    def plan(self, release: Release) -> Plan:
        """See :class:`~spira.deployment.Target`.

        Raises:
            DeploymentError: the release has no location, or the version had another one.
            PackageError: the package is incomplete or was changed.
        """
        live = self.cluster.get(self.model)
        kserve_object.check(release, kserve_object.history(live))
        serves, ask = kserve_object.version(live), "ask it for the golden recordings"
        drift = self._drift(live)
        if serves == release.version and not drift:
            return Plan(release.version, serves, (ask,))
        change = f"serve version {release.version} instead of {serves or 'nothing'}, pod by pod"
        if serves == release.version:
            change = "put back what someone else changed: " + "; ".join(drift)
        steps = (f"bring up {self.candidate} from {release.uri}", ask, f"delete {self.candidate}", change, ask)
        return Plan(release.version, serves, steps)

    def apply(self, release: Release) -> Status:
        """See :class:`~spira.deployment.Target`.

        Raises:
            DeploymentError: the version doesn't come up, or the cluster refuses it; what served serves on.
            PackageError: the package was changed, or its probabilities there are not torch's.
        """
        live = self.cluster.get(self.model)
        kserve_object.check(release, kserve_object.history(live))
        serves = kserve_object.version(live)
        if serves != release.version or self._drift(live):
            action = "repair" if serves == release.version else "apply"
            self._try(release.version, release.uri, release.package)
            self._switch(live, kserve_object.entry(release.version, action, release.uri), release.package)
        elif live is not None:
            self._wait(live)
            asking.largest_difference(self.cluster, self.model, release.version, release.package)
        return self.status()

    def verify(self) -> float:
        """See :class:`~spira.deployment.Target`: through the Service of the InferenceService.

        Raises:
            DeploymentError: nothing serves, it doesn't answer, or another version does.
            PackageError: a probability is off.
        """
        version = kserve_object.version(self.cluster.get(self.model))
        if version is None:
            raise DeploymentError(f"no version was applied to {self._place}: apply one first")
        return asking.largest_difference(self.cluster, self.model, version, self.package(version))

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """See :class:`~spira.deployment.Target`; tried and switched to as a new version is.

        Raises:
            DeploymentError: there is nothing to go back to, or it doesn't come up; what serves serves on.
            PackageError: the probabilities of what served before are not torch's.
        """
        live = self.cluster.get(self.model)
        line = kserve_object.line(kserve_object.history(live))
        now = line[-1]["version"] if line else None
        if bad is not None and now != bad:
            return self.status()
        if len(line) < 2:
            raise DeploymentError(f"{self._place}: nothing served before {now or 'now'}: apply a version instead")
        version, uri = line[-2]["version"], line[-2]["uri"]
        package = self.package(version)
        self._try(version, uri, package)
        self._switch(live, kserve_object.entry(version, "rollback", uri, reason=reason, left=now), package)
        return self.status()

    @property
    def _place(self) -> str:
        return f"InferenceService {self.cluster.namespace}/{self.model}"

    def _drift(self, live: Object | None) -> list[str]:
        """What the live object says otherwise than it should; the cluster itself tells what that is, by a dry run."""
        history = kserve_object.history(live)
        if live is None or not history:
            return []
        wanted = kserve_object.render(f"{self.model}-dry-run", self.runtime, history)
        return kserve_object.drift(self.cluster.put(wanted, None, dry_run=True), live)

    def _try(self, version: str, uri: str, package: Path) -> None:
        """Ask a version for its golden recordings where no user is."""
        self._clear()
        try:
            history = [kserve_object.entry(version, "apply", uri)]
            tried = self.cluster.put(kserve_object.render(self.candidate, self.runtime, history), None)
            self._wait(tried)
            asking.largest_difference(self.cluster, self.candidate, version, package)
        finally:
            self.cluster.delete(self.candidate)

    def _clear(self) -> None:
        """Make sure that no earlier candidate's pods are taken for those of a new one."""
        end = time.monotonic() + self.timeout_seconds
        self.cluster.delete(self.candidate)
        while self.cluster.deployment(f"{self.candidate}-predictor") or self.cluster.pods(self.candidate):
            if time.monotonic() > end:
                raise DeploymentError(f"an earlier {self.candidate} doesn't go: delete its Deployment and pods by hand")
            time.sleep(POLL_SECONDS)

    def _switch(self, live: Object | None, entry: Object, package: Path) -> None:
        """Make it serve, or put back what did."""
        history = [*kserve_object.history(live), entry]
        old = {pod["metadata"]["name"] for pod in self.cluster.pods(self.model)}
        written = self._write(kserve_object.render(self.model, self.runtime, history), live)
        try:
            self._wait(written, old)
            asking.largest_difference(self.cluster, self.model, entry["version"], package)
        except (DeploymentError, PackageError):
            self._put_back(live, written)
            raise

    def _put_back(self, live: Object | None, written: Object) -> None:
        if live is None:
            self.cluster.delete(self.model)
        else:
            self._write(kserve_object.render(self.model, self.runtime, kserve_object.history(live)), written)

    def _write(self, wanted: Object, seen: Object | None) -> Object:
        """Replace what was seen.

        Raises:
            DeploymentError: someone else changed it since.
        """
        for _ in range(WRITES):
            live = self.cluster.get(self.model)
            if not kserve_object.same(seen, live):
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
            deployment, found = self.cluster.deployment(f"{name}-predictor"), self.cluster.pods(name)
            new = [pod for pod in found if pod["metadata"]["name"] not in old]
            if kserve_object.rolled_out(deployment, thing) and len(new) == len(found):
                return
            if time.monotonic() > end or pods.hopeless(new):
                trouble = pods.explain(self.cluster.get(name), deployment, new) or "it takes too long"
                raise DeploymentError(f"version {kserve_object.version(thing)} doesn't come up as {name}: {trouble}")
            time.sleep(POLL_SECONDS)
