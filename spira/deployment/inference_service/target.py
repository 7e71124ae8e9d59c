"""The target for SPIRA's Inference Service: one process per version, switched without losing or mis-answering messages.

Files
-----
    folder/serving.json, versions/    version that serves, and its package: see :mod:`spira.deployment.local`
    folder/models/3/                  read-only copy of a version that its processes load: see :mod:`.models`
    folder/processes/0003/            processes and their supervisors: see :mod:`.processes` and :mod:`.supervisor`

Steps of a change
-----------------
The service loads its model once, receives every message on its channel even if other processes listen there too, and
does not answer a request that fails. A version is therefore switched to in these steps:

1. *Probe.* A first process starts on probe channels without clients, must answer all golden recordings, and is
   stopped. A version that does not start or answers wrongly ends here, before any client can reach it: the channels
   are environment variables, so the same model runs under other names.
2. *Overlap.* A second process starts on the clients' channels. From its log line on, both processes receive every
   message. A client may get two answers, which the contract allows, but none is lost.
3. *One request to both.* The new process must answer correctly. The old one handles its messages in order: once it
   has answered, it holds no message that arrived before the new one listened, and such a message would be lost.
4. *The pointer moves* in one rename. A kill before it leaves the old version serving, a kill after it the new one;
   every method first stops the processes that a killed one left.
5. *The old process stops*, and the new one must answer once more, now alone. If it fails, the old one starts again,
   with the same overlap, and replaces it.

The serving process is the newest that is active, verified and pinned to the pointer's version. It has a
supervisor since its golden check, which starts it again after a crash and is stopped before it. A supervisor that has
ended is started again by the next apply.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from spira import files
from spira.deployment.inference_service import processes
from spira.deployment.inference_service.contract import Service, version_of
from spira.deployment.inference_service.messages import Messages
from spira.deployment.inference_service.models import Models
from spira.deployment.inference_service.processes import Process
from spira.deployment.local import Local
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.errors import SpiraError
from spira.packaging import attestation, verify

log = logging.getLogger(__name__)

MAX_ENDED_PROCESSES = 10
"""Folders of ended processes to keep, for their logs."""


class InferenceService:
    """The target of a service on this machine; see :class:`spira.deployment.target.Target`.

    Args:
        folder: state folder on a local disk.
        service: command and addresses of the service. A process that was started by hand must be stopped by hand.
        verify_key: path of the public key of signatures; see :mod:`spira.signature`.
    """

    name = "inference-service"

    def __init__(self, folder: Path, service: Service, verify_key: str = "") -> None:
        self.folder = folder
        self.service = service
        self.record = Local(folder, verify_key)
        self.messages = Messages(service)
        self.models = Models(folder / "models")

    def status(self) -> Status:
        """See :class:`~spira.deployment.target.Target`; reads the environment of the running process.

        Raises:
            DeploymentError: the pointer is damaged.
        """
        recorded = self.record.status()
        problem, process = self._problem(recorded.version), self._serving()
        if problem or process is None:
            return dataclasses.replace(recorded, ready=False, message=problem)
        model = f"process {process.pid} serves {process.environment['model_path']}"
        messages = [f"{model} on {self.service.channels.receiving}"]
        if recorded.drifted:  # a damaged package is repaired; the process has its own copy in memory, and serves
            messages.append(recorded.message)
        if not process.is_supervised:
            messages.append("its supervisor has ended: apply it again, or it is not restarted after a crash")
        drifted = recorded.drifted or not process.is_supervised
        return dataclasses.replace(recorded, ready=True, message="; ".join(messages), drifted=drifted)

    def plan(self, release: Release) -> Plan:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            PackageError: the package is incomplete or was modified.
        """
        self.record.plan(release)
        status, old = self.record.status(), self._serving()
        serving = status.version
        path, channel = self.models.folder(release.version), self.service.channels.receiving
        check = f"check {path} on {channel} with one golden recording"
        if process := self._runs(release):
            supervise = () if process.is_supervised else (f"start a supervisor of process {process.pid}",)
            return Plan(release.version, serving, (check, *supervise))
        steps = [f"start {path} on {channel}" + (f" beside process {old.pid}" if old else ""), check]
        if not status.serves(release):
            probe_channel = self.service.probe_channels.receiving
            steps.insert(0, f"start {path} on {probe_channel}, check all golden recordings, stop it")
        if old:
            steps += [f"stop process {old.pid}", check]
        return Plan(release.version, serving, tuple(steps))

    def apply(self, release: Release) -> Status:
        """See :class:`~spira.deployment.target.Target`; a version that already serves gets one request.

        Raises:
            DeploymentError: the version does not start or answers wrongly; the version before keeps serving.
            PackageError: the package was modified.
        """
        commit = partial(self.record.apply, release)
        with self._exclusive():
            self.record.plan(release)
            if serving := self._serving():
                serving.wait_for_restart(self.service.start_seconds)
            process = self._runs(release)
            if process and self._answers(release.package):
                commit()  # the pointer stays; this verifies the stored package, or restores it
                process.supervise(self.service.command)
            else:
                self._replace(release, commit)
        return self.status()

    def verify(self) -> float:
        """See :class:`~spira.deployment.target.Target`; sends all golden recordings on the clients' channels.

        Raises:
            DeploymentError: no version serves, or it does not answer.
            PackageError: a probability differs.
        """
        package, problem = self.record.package, self._problem(self.record.status().version)
        if package is None or problem:
            raise DeploymentError(f"{self.folder} {problem}")
        return self.messages.check(package, self.service.channels)

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """See :class:`~spira.deployment.target.Target`; the previous version takes the same steps as a new one.

        Raises:
            DeploymentError: there is no previous version, or it does not answer beside the current one, which then
                keeps serving; or it answered then but not alone.
        """
        commit = partial(self.record.rollback, reason, bad)
        with self._exclusive():
            status, package = self.record.status(), self.record.previous_package
            if status.previous is None or package is None or (bad is not None and bad != status.version):
                commit()  # raises an error, or has nothing to do
            else:
                verify.check_files(package)
                attestation.check(package, self.record.verify_key)
                self._probe(status.previous, package)
                self._switch(self._environment(status.previous, package), package, commit)
                self.messages.check(package, self.service.channels, count=1)
        return self.status()

    def _replace(self, release: Release, commit: Callable[[], object]) -> None:
        """Take all steps of the module; a repair of the version that already serves needs no probe."""
        old, is_new = self._serving(), not self.record.status().serves(release)
        if is_new:
            self._probe(release.version, release.package)
        self._switch(self._environment(release.version, release.package), release.package, commit)
        self._confirm(release, old, is_new)

    def _probe(self, version: str, package: Path) -> None:
        """Take step 1."""
        channels = self.service.probe_channels
        log.info("checking version %s on %s", version, channels.receiving)
        with self._started(self.service.environment(self.models.provide(version, package), channels)) as process:
            self.messages.check(package, channels)
        process.stop(self.service.stop_seconds)

    def _switch(self, environment: dict[str, str], package: Path, commit: Callable[[], object]) -> None:
        """Take steps 2 to 5, up to the end of the old process; ``commit`` moves the pointer."""
        replies = 2 if self._serving() else 1
        log.info("starting %s on %s", environment["model_path"], environment["receiving_channel"])
        with self._started(environment) as process:
            self.messages.check(package, self.service.channels, count=1, replies=replies)
            process.mark_verified()
            process.supervise(self.service.command)
            commit()
        self._stop_others()

    def _confirm(self, release: Release, old: Process | None, has_moved: bool) -> None:
        """Take the rest of step 5: check the new process alone; start the old version again if the check fails."""
        try:
            self.messages.check(release.package, self.service.channels, count=1)
        except SpiraError as error:
            message = f"version {release.version} failed once it served alone: {error}"
            log_quote = self._log_quote(release.version)
            outcome = (
                self._restore(release.version, old, message, has_moved) if old else "no other version served before"
            )
            raise DeploymentError(f"{message}; {outcome}{log_quote}") from error

    def _restore(self, version: str, old: Process, reason: str, has_moved: bool) -> str:
        """Start the version of the old process again in place of ``version``; return the outcome for a message.

        Args:
            has_moved: whether the pointer has moved to ``version``; not so after a repair.
        """
        package = self.record.previous_package if has_moved else self.record.package
        if package is None:
            return "no other version served before"
        # Two packages may have one number after a loss of the repository; the folder then has the newer one.
        self.models.provide(version_of(old.environment), package)
        rollback = partial(self.record.rollback, reason, version)
        self._switch(old.environment, package, rollback if has_moved else lambda: None)
        return f"version {version_of(old.environment)} serves again"

    @contextmanager
    def _started(self, environment: dict[str, str]) -> Iterator[Process]:
        """Start a process and wait until it listens; stop it if the block raises an error."""
        process = processes.start(self.folder / "processes", self.service.command, environment)
        try:
            with ExitStack() as undo:
                undo.callback(process.stop, self.service.stop_seconds)
                process.wait_until_listening(self.service.start_seconds)
                yield process
                undo.pop_all()
        except SpiraError as error:
            message = f"{environment['model_path']} on {environment['receiving_channel']}: {error}; it was stopped"
            raise DeploymentError(f"{message}{process.quote_log()}") from error

    def _answers(self, package: Path) -> bool:
        try:
            self.messages.check(package, self.service.channels, count=1)
        except SpiraError:
            return False
        return True

    def _serving(self) -> Process | None:
        """Return the process that serves the pointer's version, or that its supervisor starts again."""
        active = [process for process in self._verified(self.record.status().version) if process.is_active]
        return active[-1] if active else None

    def _runs(self, release: Release) -> Process | None:
        """Return the process that serves the release with the present settings, or None."""
        process = self._serving()
        if process is None or not self.record.status().serves(release):
            return None
        wanted = self.service.environment(self.models.folder(release.version), self.service.channels)
        return process if wanted.items() <= process.running_environment.items() else None

    def _problem(self, version: str | None) -> str:
        """Return why the recorded version does not serve; empty if it does."""
        if version is None:
            return "serves nothing yet: apply a version first"
        process, path = self._serving(), str(self.models.folder(version))
        if process is None:
            return f"serves nothing: the process of {path} has ended: apply it again{self._log_quote(version)}"
        if process.is_restarting:
            return f"the process of {path} has ended, and its supervisor starts it again{process.quote_log()}"
        running = process.running_environment.get("model_path")
        if running == path:
            return ""
        return f"process {process.pid} runs with {running}, not {path}: apply it again"

    def _log_quote(self, version: str) -> str:
        verified = self._verified(version)
        return verified[-1].quote_log() if verified else ""

    def _verified(self, version: str | None) -> list[Process]:
        """Return the processes of a version that have passed the golden check, oldest first."""
        started = processes.find_all(self.folder / "processes")
        return [process for process in started if process.is_verified and version_of(process.environment) == version]

    def _stop_others(self) -> None:
        """Stop all processes except the serving one."""
        serving = self._serving()
        for process in processes.find_all(self.folder / "processes"):
            if serving is None or process.folder != serving.folder:
                process.stop(self.service.stop_seconds)

    def _environment(self, version: str, package: Path) -> dict[str, str]:
        """Return the environment of a process on the clients' channels, with a model verified just now."""
        return self.service.environment(self.models.provide(version, package), self.service.channels)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Allow one change at a time; first stop the processes that a killed call left."""
        with files.lock(self.folder / ".changing"):
            self._stop_others()
            processes.prune(self.folder / "processes", MAX_ENDED_PROCESSES)
            yield
