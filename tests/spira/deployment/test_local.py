"""The local target: what serves, and that it always is a checked package."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spira.deployment.local import Local
from spira.deployment.target import DeploymentError, Release
from spira.packaging import verify
from spira.packaging.verify import PackageError
from tests.support.packages import make_package

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two packages of different weights; to read only."""
    folder = tmp_path_factory.mktemp("packages")
    return make_package(folder / "1", seed=1), make_package(folder / "2", seed=2)


@pytest.fixture(scope="module")
def applied(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has served version 1 and serves version 2; to read only."""
    serving = tmp_path_factory.mktemp("applied") / "serving"
    for package, version in zip(packages, ("1", "2"), strict=True):
        Local(serving).apply(Release(version, package))
    return serving


@pytest.fixture
def serving(applied: Path, tmp_path: Path) -> Path:
    """The same, to change."""
    return Path(shutil.copytree(applied, tmp_path / "serving"))


@pytest.fixture
def wrong(packages: tuple[Path, Path], tmp_path: Path) -> Path:
    """A package whose files are in order, but not its probabilities."""
    folder = Path(shutil.copytree(packages[0], tmp_path / "wrong"))
    with np.load(folder / "data" / "weights.npz") as file:
        arrays = dict(file)
    np.savez(folder / "data" / "weights.npz", **(arrays | {"head.bias": arrays["head.bias"] + 1}))
    described = json.loads((folder / "package.json").read_text())
    described["files"] = verify.digests(folder)
    (folder / "package.json").write_text(json.dumps(described))
    return folder


def test_nothing_serves_before_the_first_apply(tmp_path: Path) -> None:
    """Status says so, verify and rollback refuse."""
    serving = tmp_path / "serving"
    assert Local(serving).status().version is None
    with pytest.raises(DeploymentError, match="serves nothing"):
        Local(serving).verify()
    with pytest.raises(DeploymentError, match="nothing served before"):
        Local(serving).rollback("bad")


def test_what_is_applied_serves(applied: Path, packages: tuple[Path, Path]) -> None:
    """Whole, checked, and the one before it known."""
    status = Local(applied).status()
    assert (status.version, status.previous) == ("2", "1")
    assert verify.is_identical(Local(applied).package, packages[1])
    assert Local(applied).verify() <= 1e-5


def test_rollback_goes_back(serving: Path) -> None:
    """To what served before, with its reason in the history; once, even if it is called again for the same."""
    status = Local(serving).rollback("too many alarms", bad="2")
    assert (status.version, status.previous) == ("1", None)
    assert [(entry["version"], entry["action"]) for entry in status.history] == [
        ("1", "apply"),
        ("2", "apply"),
        ("1", "rollback"),
    ]
    assert status.history[-1]["reason"] == "too many alarms"
    assert status.history[-1]["left"] == "2"
    assert Local(serving).rollback("too many alarms", bad="2") == status
    with pytest.raises(DeploymentError, match="nothing served before"):
        Local(serving).rollback("again")


def test_apply_again_changes_nothing(serving: Path, packages: tuple[Path, Path]) -> None:
    """A verb that was killed after it was done runs again."""
    before = Local(serving).status()
    assert Local(serving).apply(Release("2", packages[1])) == before


def test_plan_tells_and_changes_nothing(tmp_path: Path, applied: Path, packages: tuple[Path, Path]) -> None:
    """Copy, check, switch at first; switch for a version that is there; only the check for what serves."""
    first = Local(tmp_path / "serving").plan(Release("1", packages[0]))
    assert [step.split()[0] for step in first.steps] == ["copy", "check", "serve"]
    assert not (tmp_path / "serving").exists()
    assert [step.split()[0] for step in Local(applied).plan(Release("1", packages[0])).steps] == ["check", "serve"]
    assert [step.split()[0] for step in Local(applied).plan(Release("2", packages[1])).steps] == ["check"]


def test_a_package_with_wrong_probabilities_never_serves(
    serving: Path, packages: tuple[Path, Path], wrong: Path
) -> None:
    """What served goes on, and its version's place stays free for a right package."""
    with pytest.raises(PackageError, match="must not be served"):
        Local(serving).apply(Release("3", wrong))
    assert Local(serving).status().version == "2"
    assert sorted(path.name for path in (serving / "versions").iterdir()) == ["1", "2"]


def test_a_version_never_changes(applied: Path, packages: tuple[Path, Path]) -> None:
    """Another package under the same number is refused, by plan too."""
    for verb in (Local(applied).plan, Local(applied).apply):
        with pytest.raises(DeploymentError, match="another package"):
            verb(Release("1", packages[1]))


def test_rollback_refuses_what_was_damaged(serving: Path) -> None:
    """The previous version is checked before the pointer moves."""
    (serving / "versions" / "1" / "data" / "config.json").write_text("{}")
    with pytest.raises(PackageError, match="was changed"):
        Local(serving).rollback("bad")
    assert Local(serving).status().version == "2"


@pytest.mark.parametrize("version", ["../1", "", "a b", "."])
def test_a_version_is_a_plain_name(serving: Path, packages: tuple[Path, Path], version: str) -> None:
    """It is the name of a folder."""
    with pytest.raises(DeploymentError, match="letters"):
        Local(serving).apply(Release(version, packages[0]))


@pytest.mark.parametrize("content", ["{", "[]", '{"history": []'])
def test_a_damaged_pointer_is_said(tmp_path: Path, content: str) -> None:
    """Rather than taken for an empty one."""
    (tmp_path / "serving.json").write_text(content)
    with pytest.raises(DeploymentError, match="damaged"):
        Local(tmp_path).status()


KILLS: dict[str, tuple[object, str]] = {
    "while copying": (shutil, "copytree"),
    "while checking": (verify, "verify"),
    "before renaming the copy": (Path, "rename"),
    "before replacing the pointer": (Path, "replace"),
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_apply_runs_again(serving: Path, packages: tuple[Path, Path], moment: str) -> None:
    """Killed at any moment the old version serves; called again the new one does."""
    process = FORK.Process(target=apply_and_die, args=(serving, packages[0], moment))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert Local(serving).status().version == "2"
    assert Local(serving).apply(Release("3", packages[0])).version == "3"
    assert sorted(path.name for path in (serving / "versions").iterdir()) == ["1", "2", "3"]


def apply_and_die(serving: Path, package: Path, moment: str) -> None:
    """Apply version 3 in a process that ends, without any clearing up, when it comes to the moment."""
    place, name = KILLS[moment]
    original: Callable = getattr(place, name)

    def die(*arguments: object, **options: object) -> None:
        if name == "copytree":
            original(*arguments, **options)
        os._exit(9)

    setattr(place, name, die)
    Local(serving).apply(Release("3", package))
