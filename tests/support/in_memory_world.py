"""A world in memory for the reconciler: everything it reaches, quick to break and to mend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from spira.config import Config, Training
from spira.data.storage import Entry, MissingError, StorageError
from spira.delivery.decide import ChampionStatus, Policy
from spira.delivery.fingerprints import Axes, InvalidInput, axis_of
from spira.delivery.ledger import Ledger
from spira.delivery.reconcile import Dependencies, Observation, Reconciler
from spira.delivery.runner import Run, RunnerError
from spira.delivery.state import DeliveryState, state_of
from spira.delivery.training_request import TrainingRequest
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.evaluation import gate

START = datetime(2026, 11, 24, tzinfo=UTC)
GATE = gate.load()


class KilledError(BaseException):
    """The process is gone: nobody handles it."""


class Effects:
    """Everything that changes the world passes here; the next so-many-th effect may be interfered with."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.interfere: Callable[[str], None] = lambda when: None

    def plan(self, after: int, interfere: Callable[[str], None]) -> None:
        """Interfere with the effect that comes after so many others."""
        self.left, self.interfere = after, interfere

    def do(self, effect: Callable[[], object]) -> object:
        now = self.left == 0
        if self.left is not None:
            self.left = None if now else self.left - 1
        if now:
            self.interfere("before")
        result = effect()
        if now:
            self.interfere("after")
        return result


@dataclass
class MemoryStore:
    """A :class:`spira.data.storage.Store` of a dictionary."""

    effects: Effects
    files: dict[str, bytes] = field(default_factory=dict)
    reachable: bool = True
    tear: bool = False
    """Whether the next record is half-written, its writer dying of it."""
    uri: str = "memory"

    def list(self) -> list[Entry]:
        self._reach()
        return [Entry(path, len(content), "") for path, content in sorted(self.files.items())]

    def read(self, path: str, generation: str | None = None) -> bytes:
        self._reach()
        if path not in self.files:
            raise MissingError(f"{path}: not found")
        return self.files[path]

    def create(self, path: str, data: bytes) -> bool:
        self._reach()
        return bool(self.effects.do(lambda: self._create(path, data)))

    def write(self, path: str, data: bytes) -> None:
        self._reach()
        self.files[path] = data

    def _create(self, path: str, data: bytes) -> bool:
        if path in self.files:
            return False
        if self.tear:
            self.tear = False
            self.files[path] = data[: len(data) // 2]
            raise KilledError
        self.files[path] = data
        return True

    def _reach(self) -> None:
        if not self.reachable:
            raise StorageError("the ledger's store can't be reached")


@dataclass
class MemoryRunner:
    """Runs that end as they are told to."""

    effects: Effects
    runs: dict[str, Run] = field(default_factory=dict)
    requests: dict[str, TrainingRequest] = field(default_factory=dict)
    begun: Counter[str] = field(default_factory=Counter)
    reachable: bool = True

    def find(self, name: str) -> Run | None:
        self._reach()
        return self.runs.get(name)

    def start(self, request: TrainingRequest) -> None:
        self._reach()
        self.effects.do(lambda: self._start(request))

    def _start(self, request: TrainingRequest) -> None:
        run = self.runs.get(request.name)
        if run is None or run.state == "interrupted":
            self.begun[request.name] += run is None
            self.requests[request.name] = request
            self.runs[request.name] = Run("running")

    def _reach(self) -> None:
        if not self.reachable:
            raise RunnerError("the runner can't be reached")


@dataclass
class MemoryRepository:
    """Versions and who is champion."""

    effects: Effects
    champion: str | None = None
    before: str | None = None
    rolled_back: set[str] = field(default_factory=set)
    versions: int = 0
    reachable: bool = True

    def champion_status(self) -> ChampionStatus:
        self._reach()
        return ChampionStatus(self.champion, frozenset(self.rolled_back))

    def release(self, version: str) -> Release:
        self._reach()
        return Release(version, None)  # type: ignore[arg-type]  # nothing here reads it

    def promote(self, version: str, reason: str) -> None:
        self._reach()
        if version in self.rolled_back and not reason:
            raise DeploymentError(f"version {version} was rolled back")
        self.effects.do(lambda: self._setchampion(version, reason))

    def roll_back(self, bad: str, reason: str) -> None:
        self._reach()
        if self.champion == bad and self.before:
            self.effects.do(lambda: self._hold(bad))

    def _setchampion(self, version: str, reason: str) -> None:
        if reason:
            self.rolled_back.discard(version)
        if self.champion != version:
            self.champion, self.before = version, self.champion

    def _hold(self, bad: str) -> None:
        self.rolled_back.add(bad)
        self.champion, self.before = self.before, None

    def _reach(self) -> None:
        if not self.reachable:
            raise DeploymentError("the model repository can't be reached")


@dataclass
class MemoryTarget:
    """Serves a version; may refuse some, or be away."""

    name: str
    effects: Effects
    version: str | None = None
    reachable: bool = True
    refuses: set[str] = field(default_factory=set)
    served: list[str] = field(default_factory=list)
    """All that it was made to serve, in order."""

    def status(self) -> Status:
        self._reach()
        return Status(self.version)

    def plan(self, release: Release) -> Plan:
        return Plan(release.version, self.version, ())

    def apply(self, release: Release) -> Status:
        self._reach()
        if release.version in self.refuses:
            raise DeploymentError(f"version {release.version} answers wrongly")
        self.effects.do(lambda: self._serve(release.version))
        return self.status()

    def _serve(self, version: str) -> None:
        self.version = version
        self.served.append(version)

    def verify(self) -> float:
        return 0.0

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        raise AssertionError("delivery applies what is wanted")

    def _reach(self) -> None:
        if not self.reachable:
            raise DeploymentError(f"{self.name} can't be reached")


class World:
    """What there is, and a reconciler for it whenever one is wanted."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy(attempts=2, backoff_seconds=60)
        self.effects = Effects()
        self.store = MemoryStore(self.effects)
        self.runner = MemoryRunner(self.effects)
        self.repository = MemoryRepository(self.effects)
        self.targets = [MemoryTarget(name, self.effects) for name in ("local", "kserve")]
        self.data, self.model, self.code = "0", "0", "0"
        self.unfit = ""
        self.now = START

    def observed(self) -> Axes | InvalidInput:
        if self.unfit:
            return InvalidInput(self.unfit)
        return Axes(*(axis_of({"part": part}) for part in (self.data, self.model, self.code)))

    @property
    def config(self) -> Config:
        """A configuration that differs with ``model``."""
        return Config(training=Training(seeds=(int(self.model),)))

    def look(self) -> Observation:
        seen = self.observed()
        if isinstance(seen, InvalidInput):
            return Observation(seen)
        request = TrainingRequest(
            data="gs://voices",
            data_digest=seen.data.digest,
            config=self.config,
            gate=GATE,
            code_digest=seen.code.digest,
            git_commit=self.code,
        )
        return Observation(seen, request)

    def reconciler(self, skew: float = 0.0) -> Reconciler:
        """One whose clock is off by so many seconds."""
        ledger = Ledger(self.store, "test")

        def clock() -> datetime:
            return self.now + timedelta(seconds=skew)

        dependencies = Dependencies(self.look, ledger, self.runner, self.repository, self.targets, clock)
        return Reconciler(dependencies, self.policy)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, "person")

    @property
    def state(self) -> DeliveryState:
        return state_of(self.ledger.read())

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def end_run(self, verdict: str) -> None:
        """The run that is on ends: approved, rejected or failed."""
        for name, run in self.runner.runs.items():
            if run.state in ("running", "interrupted"):
                self.runner.runs[name] = self._ended(verdict)

    def _ended(self, verdict: str) -> Run:
        if verdict == "failed":
            return Run("failed", "out of memory")
        if verdict == "rejected":
            return Run("succeeded", reasons=("accuracy is too low",))
        self.repository.versions += 1
        return Run("succeeded", approved=True, model_version=self.repository.versions)

    def deliver(self, verdict: str = "approved") -> None:
        """Tick, have the run end so, tick."""
        self.reconciler().tick()
        self.end_run(verdict)
        self.reconciler().tick()

    @property
    def serving(self) -> set[str | None]:
        return {target.version for target in self.targets}
