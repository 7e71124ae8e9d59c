"""SPIRA's own Inference Service: a process a version, switched so that no message is lost and no wrong one answered.

    folder/serving.json, versions/    what serves, and its package: see :mod:`spira.deployment.local`
    folder/processes/0003/            the processes, that which serves among them: see :mod:`.processes`

The service loads its model once, hears every message on its channel beside any other process there, and says nothing
where it fails. Hence a version is switched to in this order:

1. *Alone.* A first process is started on channels of its own, where no user is, asked for every golden recording, and
   stopped. What doesn't start, answers wrongly or not at all ends here: the channels are environment variables, so the
   same model can be tried under other names before a user hears of it.
2. *Beside the old.* A second one is started on the users' channels. From its log line on both processes get every
   message; a user may be answered twice, which the contract allows, but nobody goes without.
3. *One request to both.* The new one's answer must be right. The old one works through its messages in order, so once
   it has answered too, it holds none that came before the new one listened: those would be lost with it.
4. *The pointer moves*, in one rename. Before this a kill leaves the old version serving, after it the new one; each
   verb begins by stopping whatever else was left.
5. *The old one is stopped*, and the new one asked once more, now that it is alone. If it fails, the old one is started
   again, beside it as above, and takes its place.

The process that serves is the newest that lives, was proven right and is pinned to the pointer's version.
"""

from __future__ import annotations

import dataclasses
import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from spira.deployment.inference_service import processes
from spira.deployment.inference_service.contract import WAITING, Service, version_of
from spira.deployment.inference_service.messages import Messages
from spira.deployment.inference_service.processes import Process
from spira.deployment.local import Local
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.errors import SpiraError

log = logging.getLogger(__name__)

ENDED_KEPT = 10
"""Folders of processes that have ended: what they last said may be asked for."""


class InferenceService:
    """The target of a service on this machine; see :class:`spira.deployment.target.Target`.

    Args:
        folder: its state, on a disk of this machine.
        service: how it is started and reached. A process that was started by hand must be stopped by hand.
    """

    name = "inference-service"

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder
        self.service = service
        self.record = Local(folder)
        self.messages = Messages(service)

    def status(self) -> Status:
        """See :class:`~spira.deployment.target.Target`: whether the process lives, and what it was really started with.

        Raises:
            DeploymentError: the pointer is damaged.
        """
        recorded = self.record.status()
        wrong, process = self._trouble(recorded.version), self._serving()
        if wrong or process is None:
            return dataclasses.replace(recorded, ready=False, message=wrong)
        serves = f"process {process.pid} serves {process.environment['model_path']}"
        return dataclasses.replace(recorded, message=f"{serves} on {self.service.channels.receiving}")

    def plan(self, release: Release) -> Plan:
        """See :class:`~spira.deployment.target.Target`.

        Raises:
            DeploymentError: the version is there with other content.
            PackageError: the package is incomplete or was changed.
        """
        self.record.plan(release)
        serves, old = self.record.status().version, self._serving()
        path, channel = self.service.model_path(release.version), self.service.channels.receiving
        ask = f"ask {path} on {channel} for a golden recording"
        if self._runs(release.version):
            return Plan(release.version, serves, (ask,))
        steps = [f"start {path} on {channel}" + (f" beside process {old.pid}" if old else ""), ask]
        if serves != release.version:
            steps.insert(0, f"start {path} on {self.service.probe_channels.receiving}, ask for all of them, stop it")
        if old:
            steps += [f"stop process {old.pid}", ask]
        return Plan(release.version, serves, tuple(steps))

    def apply(self, release: Release) -> Status:
        """See :class:`~spira.deployment.target.Target`; where the version serves already, its process is asked once.

        Raises:
            DeploymentError: the version doesn't start, or doesn't answer rightly; what served serves on.
            PackageError: the package was changed.
        """
        commit = partial(self.record.apply, release)
        with self._changing():
            self.record.plan(release)
            if self._runs(release.version) and self._answers(release.package):
                commit()  # checks the package, and finds it there
            else:
                self._replace(release, commit)
        return self.status()

    def verify(self) -> float:
        """See :class:`~spira.deployment.target.Target`: every golden recording, on the users' channels.

        Raises:
            DeploymentError: nothing serves, or it doesn't answer.
            PackageError: a probability is off.
        """
        package, wrong = self.record.package, self._trouble(self.record.status().version)
        if package is None or wrong:
            raise DeploymentError(f"{self.folder} {wrong}")
        return self.messages.check(package, self.service.channels)

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        """See :class:`~spira.deployment.target.Target`; switched to as a new version is, so that no message is lost.

        Raises:
            DeploymentError: there is nothing to go back to, or it doesn't answer beside what serves, which then serves
                on; or it has stopped answering since.
        """
        commit = partial(self.record.rollback, reason, bad)
        with self._changing():
            now = self.record.status()
            if now.previous is None or (bad is not None and bad != now.version):
                commit()  # refuses, or has nothing to do
            else:
                package = self._package(now.previous)
                self._probe(now.previous, package)
                self._switch(self.service.environment(now.previous, self.service.channels), package, commit)
                self.messages.check(package, self.service.channels, count=1)
        return self.status()

    def _replace(self, release: Release, commit: Callable[[], Any]) -> None:
        """All of the module's steps. What served this very version before is repaired without trying it alone."""
        old = self._serving()
        if self.record.status().version != release.version:
            self._probe(release.version, release.package)
        self._switch(self.service.environment(release.version, self.service.channels), release.package, commit)
        self._confirm(release, old)

    def _probe(self, version: str, package: Path) -> None:
        """Step 1."""
        channels = self.service.probe_channels
        log.info("tries %s on %s", self.service.model_path(version), channels.receiving)
        with self._started(self.service.environment(version, channels)) as process:
            self.messages.check(package, channels)
        process.stop(self.service.stop_seconds)

    def _switch(self, environment: dict[str, str], package: Path, commit: Callable[[], Any]) -> None:
        """Steps 2 to 5, up to the old process's end; ``commit`` moves the pointer."""
        replies = 2 if self._serving() else 1
        log.info("starts %s on %s", environment["model_path"], environment["receiving_channel"])
        with self._started(environment) as process:
            self.messages.check(package, self.service.channels, count=1, replies=replies)
            process.prove()
            commit()
        self._stop_others()

    def _confirm(self, release: Release, old: Process | None) -> None:
        """The rest of step 5: the new process is asked alone, and the old one started again where that fails."""
        try:
            self.messages.check(release.package, self.service.channels, count=1)
        except SpiraError as error:
            told = f"version {release.version} failed once it served alone: {error}"
            words = self._last_words(release.version)
            serves = self._take_back(release.version, old, told) if old else "no other served: roll back, or mend it"
            raise DeploymentError(f"{told}; {serves}{words}") from error

    def _take_back(self, version: str, old: Process, reason: str) -> str:
        """Start what the old process was again, in place of a version; says what serves now."""
        goes_back = version_of(old.environment)
        rollback = partial(self.record.rollback, reason, version)
        self._switch(old.environment, self._package(goes_back), rollback if goes_back != version else lambda: None)
        return f"version {goes_back} serves again"

    @contextmanager
    def _started(self, environment: dict[str, str]) -> Iterator[Process]:
        """A new process that listens; stopped if anything goes wrong with it."""
        process = processes.start(self.folder / "processes", self.service.command, environment)
        try:
            with ExitStack() as undo:
                undo.callback(process.stop, self.service.stop_seconds)
                process.wait_for(WAITING, self.service.start_seconds)
                yield process
                undo.pop_all()
        except SpiraError as error:
            told = f"{environment['model_path']} on {environment['receiving_channel']}: {error}; it was stopped"
            raise DeploymentError(f"{told}{process.last_words()}") from error

    def _answers(self, package: Path) -> bool:
        try:
            self.messages.check(package, self.service.channels, count=1)
        except SpiraError:
            return False
        return True

    def _serving(self) -> Process | None:
        """The process that serves the pointer's version."""
        alive = [process for process in self._proven(self.record.status().version) if process.alive]
        return alive[-1] if alive else None

    def _runs(self, version: str) -> bool:
        """Whether the version serves, with today's settings."""
        process = self._serving()
        if process is None or self.record.status().version != version:
            return False
        return self.service.environment(version, self.service.channels).items() <= process.running_environment.items()

    def _trouble(self, version: str | None) -> str:
        """Why nothing is served as it should be; empty where it is."""
        if version is None:
            return "serves nothing yet: apply a version first"
        process, path = self._serving(), self.service.model_path(version)
        if process is None:
            return f"serves nothing, for the process of {path} has ended: apply it again{self._last_words(version)}"
        runs_with = process.running_environment.get("model_path")
        return "" if runs_with == path else f"process {process.pid} runs with {runs_with}, not {path}: apply it again"

    def _last_words(self, version: str) -> str:
        proven = self._proven(version)
        return proven[-1].last_words() if proven else ""

    def _proven(self, version: str | None) -> list[Process]:
        """The processes that have answered rightly for a version, oldest first."""
        started = processes.listed(self.folder / "processes")
        return [process for process in started if process.proven and version_of(process.environment) == version]

    def _stop_others(self) -> None:
        """Leave the process that serves alone."""
        serving = self._serving()
        for process in processes.listed(self.folder / "processes"):
            if serving is None or process.folder != serving.folder:
                process.stop(self.service.stop_seconds)

    def _package(self, version: str) -> Path:
        return self.folder / "versions" / version

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, the lock goes with its process; what a killed one left running is stopped first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".changing").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._stop_others()
            processes.prune(self.folder / "processes", ENDED_KEPT)
            yield
