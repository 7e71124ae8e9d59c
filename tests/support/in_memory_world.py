"""Dependencies of the reconciler in memory, which a test can make unreachable, kill or delay at any effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from spira.config import Config, Training
from spira.data.storage import Entry, MissingError, StorageError
from spira.delivery.decide import ChampionStatus, Policy
from spira.delivery.history.events import VersionId
from spira.delivery.history.ledger import Ledger
from spira.delivery.history.state import DeliveryState, state_of
from spira.delivery.observation.fingerprints import Axes, InvalidInput, axis_of
from spira.delivery.reconcile import Dependencies, Observation, Reconciler
from spira.delivery.runner import Run, RunnerError
from spira.delivery.training_request import TrainingRequest
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.evaluation import gate

START = datetime(2026, 11, 24, tzinfo=UTC)
GATE = gate.load()


class KilledError(BaseException):
    """Stands for the end of the process; the code under test does not catch it."""


class Effects:
    """Counter of all effects; a test can interfere before and after one of them."""

    def __init__(self) -> None:
        self.remaining: int | None = None
        self.interfere: Callable[[str], None] = lambda when: None

    def plan(self, after: int, interfere: Callable[[str], None]) -> None:
        """Call ``interfere("before")`` and ``interfere("after")`` around the effect that follows ``after`` others."""
        self.remaining, self.interfere = after, interfere

    def do(self, effect: Callable[[], object]) -> object:
        is_planned = self.remaining == 0
        if self.remaining is not None:
            self.remaining = None if is_planned else self.remaining - 1
        if is_planned:
            self.interfere("before")
        result = effect()
        if is_planned:
            self.interfere("after")
        return result


@dataclass
class MemoryStore:
    """A :class:`spira.data.storage.Store` in a dictionary."""

    effects: Effects
    files: dict[str, bytes] = field(default_factory=dict)
    reachable: bool = True
    tear: bool = False
    """Whether the next record is half-written and its writer killed."""
    uri: str = "memory"

    def list(self) -> list[Entry]:
        self._check_reachable()
        return [Entry(path, len(content), "") for path, content in sorted(self.files.items())]

    def read(self, path: str, generation: str | None = None) -> bytes:
        self._check_reachable()
        if path not in self.files:
            raise MissingError(f"{path}: not found")
        return self.files[path]

    def create(self, path: str, data: bytes) -> bool:
        self._check_reachable()
        return bool(self.effects.do(lambda: self._create(path, data)))

    def write(self, path: str, data: bytes) -> None:
        self._check_reachable()
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

    def _check_reachable(self) -> None:
        if not self.reachable:
            raise StorageError("the ledger's store is unreachable")


@dataclass
class MemoryRunner:
    """Runs whose outcome a test sets."""

    effects: Effects
    runs: dict[str, Run] = field(default_factory=dict)
    requests: dict[str, TrainingRequest] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    reachable: bool = True
    ends_late: bool = False
    """Whether a cancelled run goes on for a while, as on a cluster."""

    def find(self, name: str) -> Run | None:
        self._check_reachable()
        return self.runs.get(name)

    def start(self, request: TrainingRequest) -> None:
        self._check_reachable()
        self.effects.do(lambda: self._start(request))

    def cancel(self, name: str) -> None:
        self._check_reachable()
        self.effects.do(lambda: self._cancel(name))

    def _cancel(self, name: str) -> None:
        if name in self.runs and self.runs[name].state == "running" and not self.ends_late:
            self.runs[name] = Run("interrupted")

    def _start(self, request: TrainingRequest) -> None:
        run = self.runs.get(request.name)
        if run is None or run.state == "interrupted":
            self.starts[request.name] += run is None
            self.requests[request.name] = request
            self.runs[request.name] = Run("running")

    def _check_reachable(self) -> None:
        if not self.reachable:
            raise RunnerError("the runner is unreachable")


@dataclass
class MemoryRepository:
    """Number of versions, and the champion; by number, as MLflow has them."""

    effects: Effects
    champion: str | None = None
    previous: str | None = None
    rolled_back: set[str] = field(default_factory=set)
    versions: int = 0
    losses: int = 0
    """Number of times that the repository was lost: the packages after each have other digests."""
    reachable: bool = True

    def lose(self) -> None:
        """Begin again with an empty repository."""
        self.champion, self.previous, self.versions = None, None, 0
        self.rolled_back.clear()
        self.losses += 1

    def id_of(self, number: str) -> VersionId:
        return VersionId(number, f"package {number} after {self.losses} losses")

    def champion_status(self) -> ChampionStatus:
        self._check_reachable()
        return ChampionStatus(
            self.id_of(self.champion) if self.champion else None,
            frozenset(map(self.id_of, self.rolled_back)),
            {str(number): self.id_of(str(number)).digest for number in range(1, self.versions + 1)},
        )

    def release(self, version: VersionId) -> Release:
        self._check_reachable()
        number = self._number(version)
        # No in-memory target reads the package.
        return Release(number, None, digest=self.id_of(number).digest)  # type: ignore[arg-type]

    def promote(self, version: VersionId, reason: str) -> None:
        self._check_reachable()
        number = self._number(version)
        if number in self.rolled_back and not reason:
            raise DeploymentError(f"version {number} was rolled back")
        self.effects.do(lambda: self._set_champion(number, reason))

    def roll_back(self, version: VersionId, reason: str) -> None:
        self._check_reachable()
        number = self._number(version)
        if self.champion == number and self.previous:
            self.effects.do(lambda: self._restore_previous(number))

    def run_page(self, run: str) -> str:
        self._check_reachable()
        return f"experiments/1/runs/{run}"

    def _number(self, version: VersionId) -> str:
        if int(version.number) > self.versions or not version.is_same(self.id_of(version.number)):
            raise DeploymentError(f"version {version} is not in the model repository")
        return version.number

    def _set_champion(self, version: str, reason: str) -> None:
        if reason:
            self.rolled_back.discard(version)
        if self.champion != version:
            self.champion, self.previous = version, self.champion

    def _restore_previous(self, version: str) -> None:
        self.rolled_back.add(version)
        self.champion, self.previous = self.previous, None

    def _check_reachable(self) -> None:
        if not self.reachable:
            raise DeploymentError("the model repository is unreachable")


@dataclass
class MemoryTarget:
    """A target that can refuse versions or be unreachable."""

    name: str
    effects: Effects
    version: str | None = None
    digest: str = ""
    reachable: bool = True
    refuses: set[str] = field(default_factory=set)
    served: list[str] = field(default_factory=list)
    """Every version that was applied, in order."""

    def status(self) -> Status:
        self._check_reachable()
        return Status(self.version, digest=self.digest)

    def plan(self, release: Release) -> Plan:
        return Plan(release.version, self.version, ())

    def apply(self, release: Release) -> Status:
        self._check_reachable()
        if release.version in self.refuses:
            raise DeploymentError(f"version {release.version} returns wrong probabilities")
        self.effects.do(lambda: self._serve(release))
        return self.status()

    def _serve(self, release: Release) -> None:
        self.version, self.digest = release.version, release.digest
        self.served.append(release.version)

    def verify(self) -> float:
        return 0.0

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        raise AssertionError("delivery never rolls a target back: it applies the wanted version")

    def _check_reachable(self) -> None:
        if not self.reachable:
            raise DeploymentError(f"{self.name} is unreachable")


class InMemoryWorld:
    """The input, the dependencies in memory, and new reconcilers on them."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy(attempts=2, backoff_seconds=60)
        self.effects = Effects()
        self.store = MemoryStore(self.effects)
        self.runner = MemoryRunner(self.effects)
        self.repository = MemoryRepository(self.effects)
        self.targets = [MemoryTarget(name, self.effects) for name in ("local", "kserve")]
        self.data, self.model, self.code = "0", "0", "0"
        self.problem = ""
        self.now = START

    def observed(self) -> Axes | InvalidInput:
        if self.problem:
            return InvalidInput(self.problem)
        return Axes(*(axis_of({"part": part}) for part in (self.data, self.model, self.code)))

    @property
    def config(self) -> Config:
        """Training configuration that changes with ``model``."""
        return Config(training=Training(seeds=(int(self.model),)))

    def observe(self) -> Observation:
        observed = self.observed()
        if isinstance(observed, InvalidInput):
            return Observation(observed)
        request = TrainingRequest(
            data="gs://voices",
            data_digest=observed.data.digest,
            config=self.config,
            gate=GATE,
            code_digest=observed.code.digest,
            git_commit=self.code,
        )
        return Observation(observed, request)

    def reconciler(self, skew: float = 0.0) -> Reconciler:
        """Return a new reconciler whose clock is wrong by ``skew`` seconds."""
        ledger = Ledger(self.store, "test")

        def clock() -> datetime:
            return self.now + timedelta(seconds=skew)

        dependencies = Dependencies(self.observe, ledger, self.runner, self.repository, self.targets, clock)
        return Reconciler(dependencies, self.policy)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, "operator")

    @property
    def state(self) -> DeliveryState:
        return state_of(self.ledger.read())

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def end_run(self, verdict: str) -> None:
        """End the active run: approved, rejected or failed."""
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
        """Tick, end the run with this verdict, tick again."""
        self.reconciler().tick()
        self.end_run(verdict)
        self.reconciler().tick()

    @property
    def serving(self) -> set[VersionId | None]:
        return {VersionId(target.version, target.digest) if target.version else None for target in self.targets}

    @property
    def serving_numbers(self) -> set[str | None]:
        return {target.version for target in self.targets}
