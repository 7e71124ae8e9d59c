"""The state of a run as a display shows it: what each stage and each seed has done so far."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from spira.progress import Line, Record, StageBegan, StageEnded, Steps, Training

PURPOSES = {
    "check": "check folders, space and the model repository",
    "data": "make the synthetic recordings",
    "preprocess": "read and check the recordings",
    "train": "fit one network for each seed",
    "evaluate": "test the networks, decide by the gate",
    "reject": "log the run; nothing is registered",
    "push": "package and register the model",
    "deploy": "serve the model, make it champion",
    "report": "write the report",
}
"""Stage, in the order of a run -> what it does."""
EXCLUSIVE = {"reject": ("push", "deploy"), "push": ("reject",)}
"""Stage -> stages that do not run if it does."""


@dataclass(frozen=True)
class StageState:
    """One stage, which a seed may run each."""

    name: str
    began: float | None = None
    """Time at which it began first, seconds of a monotonic clock; None before."""
    ended: float | None = None
    """Time at which it ended last; None while it runs."""
    ends: int = 0
    """How often it ended."""
    failed: bool = False
    detail: str = ""
    """What it did last."""


@dataclass(frozen=True)
class RunState:
    """A run at one moment. Every change is a new state, so that threads can share it."""

    stages: tuple[StageState, ...]
    seeds: tuple[int, ...]
    training: dict[int, Training] = field(default_factory=dict)
    """Seed -> its training, once it has begun."""
    warnings: tuple[str, ...] = ()

    @classmethod
    def new(cls, seeds: Sequence[int], *, makes_data: bool = False) -> RunState:
        """Return the state before the first stage."""
        first = ("check", "data") if makes_data else ("check",)
        names = (*first, "preprocess", "train", "evaluate", "push", "deploy", "report")
        return cls(tuple(StageState(name) for name in names), tuple(seeds))

    def after(self, record: Record, now: float) -> RunState:
        """Return the state after a record.

        Args:
            now: the time, seconds of a monotonic clock.
        """
        match record:
            case StageBegan(stage=name):
                return self._without_alternatives(name)._changed(name, lambda stage: _begun(stage, now))
            case StageEnded(stage=name, failed=failed):
                expected = len(self.seeds) if name == "train" else 1
                return self._changed(name, lambda stage: _ended(stage, now, failed, expected))
            case Steps(stage=name):
                detail = f"{record.done} of {record.total} {record.unit}"
                return self._changed(name, lambda stage: replace(stage, detail=detail))
            case Training():
                return replace(self, training={**self.training, record.seed: record})
            case Line(level=logging.INFO, stage=name) if name != "train":  # the seeds have lines of their own
                detail = record.text.removeprefix(f"{name}: ")
                return self._changed(name, lambda stage: replace(stage, detail=detail))
            case Line(level=logging.WARNING) if record.text not in self.warnings:
                return replace(self, warnings=(*self.warnings, record.text))
        return self

    @property
    def running(self) -> StageState | None:
        """The stage that runs, or else the one that starts next; None after the last."""
        return next((stage for stage in self.stages if stage.ended is None and not stage.failed), None)

    def _changed(self, name: str, change: Callable[[StageState], StageState]) -> RunState:
        return replace(self, stages=tuple(change(stage) if stage.name == name else stage for stage in self.stages))

    def _without_alternatives(self, name: str) -> RunState:
        """Return the state with the stages of the branch that runs."""
        names = {stage.name for stage in self.stages} - set(EXCLUSIVE.get(name, ())) | {name}
        known = {stage.name: stage for stage in self.stages}
        order = [*PURPOSES, *sorted(names - PURPOSES.keys())]
        return replace(self, stages=tuple(known.get(each, StageState(each)) for each in order if each in names))


def _begun(stage: StageState, now: float) -> StageState:
    return replace(stage, began=now if stage.began is None else stage.began)


def _ended(stage: StageState, now: float, failed: bool, expected: int) -> StageState:
    """Return a stage after one of its expected ends."""
    ends = stage.ends + 1
    return replace(stage, ends=ends, ended=now if ends >= expected else None, failed=stage.failed or failed)
