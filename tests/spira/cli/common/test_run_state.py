"""The state of a run follows from its records."""

from __future__ import annotations

import logging

from spira.cli.common.run_state import RunState
from spira.progress import Line, Record, StageBegan, StageEnded, Steps, Training

FIRST = ("preprocess", "train", "evaluate")


def after(state: RunState, *records: Record) -> RunState:
    """Return the state after some records, one second apart."""
    for now, record in enumerate(records):
        state = state.after(record, float(now))
    return state


def names(state: RunState) -> list[str]:
    return [stage.name for stage in state.stages]


def test_a_stage_runs_from_its_begin_to_its_end() -> None:
    """The next one is then the one that runs, as its process is starting."""
    checked = after(RunState.new([1]), StageBegan(stage="check"), StageEnded(stage="check"))
    state = after(checked, StageBegan(stage="preprocess"))
    assert state.running is not None
    assert (state.running.name, state.running.began) == ("preprocess", 0.0)
    state = state.after(StageEnded(stage="preprocess"), 5.0)
    assert state.running is not None
    assert (state.running.name, state.running.began) == ("train", None)


def test_training_ends_with_its_last_seed() -> None:
    """Each seed is a task of its own; the first begin and the last end count."""
    state = RunState.new([1, 2])
    state = after(state, StageBegan(stage="train"), StageBegan(stage="train"), StageEnded(stage="train"))
    (train,) = [stage for stage in state.stages if stage.name == "train"]
    assert (train.began, train.ended) == (0.0, None)
    state = state.after(StageEnded(stage="train"), 9.0)
    (train,) = [stage for stage in state.stages if stage.name == "train"]
    assert (train.began, train.ended) == (0.0, 9.0)


def test_the_branch_that_does_not_run_disappears() -> None:
    """A rejected run has neither push nor deploy, and reject stands before the report."""
    assert names(RunState.new([1])) == ["check", *FIRST, "push", "deploy", "report"]
    rejected = after(RunState.new([1]), StageBegan(stage="reject"))
    assert names(rejected) == ["check", *FIRST, "reject", "report"]
    approved = after(RunState.new([1]), StageBegan(stage="push"))
    assert names(approved) == ["check", *FIRST, "push", "deploy", "report"]


def test_a_stage_that_is_not_known_is_shown_at_the_end() -> None:
    """A later version can have more stages."""
    assert names(after(RunState.new([1], makes_data=True), StageBegan(stage="notify")))[-1] == "notify"


def test_a_failed_stage_is_marked() -> None:
    """The stages after it never run."""
    state = after(RunState.new([1]), StageBegan(stage="preprocess"), StageEnded(stage="preprocess", failed=True))
    assert [stage.name for stage in state.stages if stage.failed] == ["preprocess"]


def test_lines_and_steps_are_the_detail_of_their_stage() -> None:
    """The stage's own name before a line is left out; the lines of seeds have rows of their own."""
    state = after(RunState.new([1]), Steps(stage="preprocess", done=3, total=8, unit="recordings"))
    assert state.stages[1].detail == "3 of 8 recordings"
    state = after(state, Line(stage="preprocess", level=logging.INFO, text="preprocess: 8 test recordings"))
    assert state.stages[1].detail == "8 test recordings"
    state = after(state, Line(stage="train", level=logging.INFO, text="seed 1: epoch 2"))
    assert state.stages[2].detail == ""


def test_a_warning_is_kept_once() -> None:
    """Every seed can log the same one."""
    warning = Line(stage="train", level=logging.WARNING, text="the GPU cannot be used")
    assert after(RunState.new([1, 2]), warning, warning).warnings == ("the GPU cannot be used",)


def test_the_training_of_a_seed_is_its_last_record() -> None:
    """An earlier state stays as it is: another thread may draw it."""
    first = after(RunState.new([1]), Training(seed=1, epochs=1, max_epochs=9))
    second = after(first, Training(seed=1, epochs=2, max_epochs=9))
    assert (first.training[1].epochs, second.training[1].epochs) == (1, 2)
