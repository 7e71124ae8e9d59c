"""The local target: the serving package has always passed the golden check."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira.deployment.local import Local
from spira.deployment.target import DeploymentError, Release
from spira.packaging import verify
from spira.packaging.verify import PackageError
from tests.support.packages import make_package

pytestmark = pytest.mark.integration

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two packages with different weights, read-only."""
    folder = tmp_path_factory.mktemp("packages")
    return make_package(folder / "1", seed=1), make_package(folder / "2", seed=2)


@pytest.fixture(scope="module")
def applied(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target folder that served version 1 and serves version 2, read-only."""
    serving = tmp_path_factory.mktemp("applied") / "serving"
    for package, version in zip(packages, ("1", "2"), strict=True):
        Local(serving).apply(Release(version, package))
    return serving


@pytest.fixture
def serving(applied: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(applied, tmp_path / "serving"))


@pytest.fixture
def wrong(packages: tuple[Path, Path], tmp_path: Path) -> Path:
    """A package with valid digests and wrong probabilities."""
    folder = Path(shutil.copytree(packages[0], tmp_path / "wrong"))
    with np.load(folder / "data" / "weights.npz") as file:
        arrays = dict(file)
    np.savez(folder / "data" / "weights.npz", **(arrays | {"head.bias": arrays["head.bias"] + 1}))
    description = json.loads((folder / "package.json").read_text())
    description["files"] = verify.digests(folder)
    (folder / "package.json").write_text(json.dumps(description))
    return folder


def test_before_the_first_apply_verify_and_rollback_are_refused(tmp_path: Path) -> None:
    """The status has no version."""
    serving = tmp_path / "serving"
    assert Local(serving).status().version is None
    with pytest.raises(DeploymentError, match="serves nothing"):
        Local(serving).verify()
    with pytest.raises(DeploymentError, match="nothing served before"):
        Local(serving).rollback("bad")


def test_an_applied_version_serves(applied: Path, packages: tuple[Path, Path]) -> None:
    """Its package is complete and verified, and the previous version is known."""
    status = Local(applied).status()
    assert (status.version, status.previous) == ("2", "1")
    assert verify.is_identical(Local(applied).package, packages[1])
    assert Local(applied).verify() <= 1e-5


@pytest.mark.parametrize("part", ["", "package.json", "data/config.json"])
def test_a_package_that_is_missing_is_not_ready(serving: Path, packages: tuple[Path, Path], part: str) -> None:
    """The pointer alone serves nothing; the message has a remedy that works."""
    lost = Local(serving).package / part
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    status = Local(serving).status()
    assert (status.version, status.ready, status.drifted) == ("2", False, True)
    assert re.search(rf"versions/2-\w+.* {part or 'package.json'} is missing: apply version 2 again", status.message)
    assert "restore version 2" in Local(serving).plan(Release("2", packages[1])).steps[-1]
    repaired = Local(serving).apply(Release("2", packages[1]))
    assert (repaired.ready, repaired.drifted, repaired.previous) == (True, False, "1")
    assert repaired.history[-1].action == "repair"
    assert Local(serving).rollback("bad").version == "1"


@pytest.mark.parametrize("layout", ["by digest", "by version"])
def test_a_package_with_any_changed_file_is_named_and_restored(
    serving: Path, packages: tuple[Path, Path], layout: str
) -> None:
    """One flipped bit in each file in turn, in the folder of this program or of an older one."""
    if layout == "by version":
        as_older_program(serving)
    intact, package = Local(serving).status(), Local(serving).package
    names = sorted(path.relative_to(packages[1]) for path in packages[1].rglob("*") if path.is_file())
    for number, name in enumerate(names):
        for bit in range(8):
            flip_bit(package / name, 5 + number, bit)
            status = Local(serving).status()
            if name == Path("package.json"):  # its list may then differ from another file
                assert status.drifted or layout == "by version"
                flip_bit(package / name, 5 + number, bit)
                continue
            assert (status.version, status.ready, status.drifted) == ("2", False, True), name
            assert str(name) in status.message
            with pytest.raises(PackageError, match=str(name)):
                verify.check_files(package) if layout == "by version" else Local(serving).verify()
            flip_bit(package / name, 5 + number, bit)
    flip_bit(package / names[0], 5)
    Local(serving).apply(Release("2", packages[1]))
    restored = Local(serving).status()
    assert (restored.ready, restored.digest, restored.previous) == (True, intact.digest, "1")


def as_older_program(serving: Path) -> None:
    """Name the folders by version, and leave digests and checksum out, as version 79862e6 did."""
    for folder in (serving / "versions").iterdir():
        folder.rename(folder.with_name(folder.name.partition("-")[0]))
    entries = json.loads((serving / "serving.json").read_text())["history"]
    older = [{key: entry[key] for key in entry if key != "digest"} for entry in entries]
    (serving / "serving.json").write_text(json.dumps({"history": older}, indent=1))


def flip_bit(file: Path, position: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 1 << bit
    file.write_bytes(content)


def test_the_folders_of_an_older_program_are_used(serving: Path, packages: tuple[Path, Path]) -> None:
    """Nothing is copied again, and a rollback goes back to one of them."""
    as_older_program(serving)
    status = Local(serving).status()
    assert (status.version, status.previous, status.ready) == ("2", "1", True)
    assert status.digest == verify.package_digest(packages[1])
    assert Local(serving).apply(Release("2", packages[1])) == status
    assert Local(serving).rollback("bad").digest == verify.package_digest(packages[0])
    assert Local(serving).apply(Release("2", packages[1])).version == "2"
    assert sorted(path.name for path in (serving / "versions").iterdir()) == ["1", "2"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_pointer_never_changes_the_state(serving: Path, position: int, bit: int) -> None:
    """It is reported, or has no effect."""
    pointer = serving / "serving.json"
    content, intact = pointer.read_bytes(), Local(serving).status()
    flip_bit(pointer, position, bit)
    try:
        result: object = Local(serving).status()
    except DeploymentError as error:
        result = str(error)
    pointer.write_bytes(content)
    assert "serving.json is damaged" in result if isinstance(result, str) else result == intact


def test_a_rollback_for_a_bad_version_happens_once(serving: Path) -> None:
    """The previous version serves, the history has the reason, and the call can be repeated for the bad version."""
    status = Local(serving).rollback("too many alarms", bad="2")
    assert (status.version, status.previous) == ("1", None)
    assert [(change.version, change.action) for change in status.history] == [
        ("1", "apply"),
        ("2", "apply"),
        ("1", "rollback"),
    ]
    assert status.history[-1].reason == "too many alarms"
    assert status.history[-1].left == "2"
    assert Local(serving).rollback("too many alarms", bad="2") == status
    with pytest.raises(DeploymentError, match="nothing served before"):
        Local(serving).rollback("again")


def test_apply_again_changes_nothing(serving: Path, packages: tuple[Path, Path]) -> None:
    """A call that was killed after its last effect can be repeated."""
    before = Local(serving).status()
    assert Local(serving).apply(Release("2", packages[1])) == before


def test_a_plan_lists_the_steps_and_changes_nothing(tmp_path: Path, applied: Path, packages: tuple[Path, Path]) -> None:
    """A new version is copied, checked and served; a copied one checked and served; the serving one only checked."""
    first = Local(tmp_path / "serving").plan(Release("1", packages[0]))
    assert [step.split()[0] for step in first.steps] == ["copy", "check", "serve"]
    assert not (tmp_path / "serving").exists()
    assert [step.split()[0] for step in Local(applied).plan(Release("1", packages[0])).steps] == ["check", "serve"]
    assert [step.split()[0] for step in Local(applied).plan(Release("2", packages[1])).steps] == ["check"]


def test_a_package_with_wrong_probabilities_never_serves(
    serving: Path, packages: tuple[Path, Path], wrong: Path
) -> None:
    """The version before keeps serving, and the folder of the refused version does not exist."""
    with pytest.raises(PackageError, match="must not be served"):
        Local(serving).apply(Release("3", wrong))
    assert Local(serving).status().version == "2"
    assert sorted(path.name.partition("-")[0] for path in (serving / "versions").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("layout", ["by digest", "by version"])
def test_another_package_under_the_same_version_serves(
    serving: Path, packages: tuple[Path, Path], tmp_path: Path, layout: str
) -> None:
    """A number is a label: after a loss of the model repository, versions begin again at 1."""
    if layout == "by version":
        as_older_program(serving)
    third = make_package(tmp_path / "3", seed=3)
    assert [step.split()[0] for step in Local(serving).plan(Release("2", third)).steps] == ["copy", "check", "serve"]
    status = Local(serving).apply(Release("2", third))
    assert (status.version, status.digest) == ("2", verify.package_digest(third))
    assert verify.is_identical(Local(serving).package, third)
    back = Local(serving).rollback("bad")
    assert (back.version, back.digest) == ("2", verify.package_digest(packages[1]))
    assert verify.is_identical(Local(serving).package, packages[1])


def test_a_rollback_to_a_damaged_package_is_refused(serving: Path) -> None:
    """The previous version is checked before the pointer moves."""
    (Local(serving).previous_package / "data" / "config.json").write_text("{}")
    with pytest.raises(PackageError, match="was changed"):
        Local(serving).rollback("bad")
    assert Local(serving).status().version == "2"


@pytest.mark.parametrize("version", ["../1", "", "a b", "."])
def test_a_version_with_other_characters_is_refused(serving: Path, packages: tuple[Path, Path], version: str) -> None:
    """A version is the name of a folder."""
    with pytest.raises(DeploymentError, match="letters"):
        Local(serving).apply(Release(version, packages[0]))


@pytest.mark.parametrize("content", ["{", "[]", '{"history": []', '{"history": [{"version": "1"}]}'])
def test_a_damaged_pointer_is_reported(tmp_path: Path, content: str) -> None:
    """It does not count as an empty history."""
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
def test_a_killed_apply_can_be_repeated(serving: Path, packages: tuple[Path, Path], moment: str) -> None:
    """After a kill at any moment the old version serves; the repeated call serves the new one."""
    process = FORK.Process(target=apply_and_die, args=(serving, packages[0], moment))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert Local(serving).status().version == "2"
    assert Local(serving).apply(Release("3", packages[0])).version == "3"
    assert sorted(path.name.partition("-")[0] for path in (serving / "versions").iterdir()) == ["1", "2", "3"]


def apply_and_die(serving: Path, package: Path, moment: str) -> None:
    """Apply version 3, and end this process without cleaning up at the given moment."""
    owner, name = KILLS[moment]
    original: Callable = getattr(owner, name)

    def die(*arguments: object, **options: object) -> None:
        if name == "copytree":
            original(*arguments, **options)
        os._exit(9)

    setattr(owner, name, die)
    Local(serving).apply(Release("3", package))


def test_a_history_of_an_earlier_release_is_read_and_continued(serving: Path) -> None:
    """Entries keep their keys, their order and fields that this release does not know."""
    as_older_program(serving)
    entries = [
        {"version": "1", "action": "apply", "at": "2026-11-24T06:00:00+00:00"},
        {"version": "2", "action": "apply", "at": "2026-11-24T07:00:00+00:00", "reason": "to compare", "note": "n"},
    ]
    (serving / "serving.json").write_text(json.dumps({"history": entries}, indent=1))
    status = Local(serving).rollback("too many alarms")
    assert (status.version, status.previous) == ("1", None)
    written = json.loads((serving / "serving.json").read_text())["history"]
    assert json.dumps(written[:2]) == json.dumps(entries)
    assert list(written[2]) == ["version", "action", "at", "reason", "left"]
