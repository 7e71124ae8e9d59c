"""The champion alias moves after all targets serve, and targets are restored if it cannot move."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira.deployment.promotion import NotServedError, apply, move_champion
from spira.deployment.target import DeploymentError, Plan, Release, Status
from spira.errors import SpiraError

RELEASE = Release("2", Path("package"))


class RecordingTarget:
    """A target in memory that appends its calls to a list."""

    def __init__(self, name: str, calls: list[str], versions: tuple[str, ...] = ("1",), refuses: str = "") -> None:
        self.name, self.calls, self.refuses = name, calls, refuses
        self.versions = list(versions)

    def status(self) -> Status:
        return Status(self.versions[-1] if self.versions else None)

    def plan(self, release: Release) -> Plan:
        raise AssertionError("a promotion needs no plan")

    def apply(self, release: Release) -> Status:
        if self.refuses == "apply":
            raise DeploymentError(f"{self.name} refuses version {release.version}")
        self.calls.append(f"{self.name} applies {release.version}")
        if self.status().version != release.version:
            self.versions.append(release.version)
        return self.status()

    def verify(self) -> float:
        raise AssertionError("apply includes the golden check")

    def rollback(self, reason: str, bad: str | None = None) -> Status:
        if self.refuses == "rollback":
            raise DeploymentError(f"{self.name} is unreachable")
        assert bad == self.versions.pop()
        self.calls.append(f"{self.name} rolls back: {reason}")
        return self.status()


def serve(target: RecordingTarget) -> str | None:
    return apply(target, RELEASE)


def test_the_alias_moves_after_all_targets_serve() -> None:
    """The check runs before every effect."""
    calls: list[str] = []
    targets = [RecordingTarget("a", calls), RecordingTarget("b", calls)]
    move_champion(targets, serve, lambda: calls.append("champion"), before_effect=lambda: calls.append("check"))
    assert calls == ["check", "a applies 2", "check", "b applies 2", "check", "champion"]


@pytest.mark.parametrize(("try_all", "expected"), [(False, []), (True, ["b applies 2"])])
def test_the_alias_stays_if_a_target_fails(try_all: bool, expected: list[str]) -> None:
    """The other targets serve all the same with ``try_all``."""
    calls: list[str] = []
    targets = [RecordingTarget("a", calls, refuses="apply"), RecordingTarget("b", calls)]
    with pytest.raises(NotServedError, match="a refuses version 2"):
        move_champion(targets, serve, lambda: calls.append("champion"), try_all=try_all)
    assert calls == expected


def test_an_error_of_the_check_stops_the_promotion() -> None:
    """It is not an error of the target, so it keeps its type, and nothing is restored."""
    calls: list[str] = []
    checks = iter(["passes"])

    def check() -> None:
        if next(checks, None) is None:
            raise SpiraError("superseded")

    with pytest.raises(SpiraError, match="superseded") as error:
        move_champion([RecordingTarget("a", calls)], serve, lambda: calls.append("champion"), before_effect=check)
    assert not isinstance(error.value, NotServedError)
    assert calls == ["a applies 2"]


def refuse() -> None:
    raise SpiraError("version 2 is not approved")


def test_targets_are_restored_if_the_alias_cannot_move() -> None:
    """Only those that changed: a target that served the version before, or nothing, stays as it is."""
    calls: list[str] = []
    targets = [
        RecordingTarget("a", calls),
        RecordingTarget("b", calls, versions=("1", "2")),
        RecordingTarget("c", calls, versions=()),
        RecordingTarget("d", calls),
    ]
    with pytest.raises(SpiraError, match=r"^version 2 is not approved$"):
        move_champion(targets, serve, refuse)
    assert calls[4:] == ["d rolls back: version 2 is not approved", "a rolls back: version 2 is not approved"]
    assert [target.status().version for target in targets] == ["1", "2", "2", "1"]


def test_a_target_that_cannot_be_restored_is_reported_with_the_cause() -> None:
    """The message has both errors."""
    target = RecordingTarget("a", [], refuses="rollback")
    message = "version 2 is not approved; target a does not serve version 1 again: a is unreachable"
    with pytest.raises(DeploymentError, match=message):
        move_champion([target], serve, refuse)
