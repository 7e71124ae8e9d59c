"""Files planted in a package or in its registered folder: refused, or inert, and never executed."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow.artifacts
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira.deployment.local import Local
from spira.deployment.target import Release
from spira.errors import SpiraError
from spira.packaging import verify
from spira.packaging.verify import PackageError, check_files, predict_with_package
from spira.registry import Registry, local_uri
from spira.serving import package as serving
from tests.support import ROOT
from tests.support.packages import LINEAGE, VERDICT, make_package

pytestmark = pytest.mark.integration

CODE = "code/spira_inference"
STEMS = ("model", "networks", "pyfunc", "golden", "mfcc", "numpy", "json", "sitecustomize", "usercustomize", "__init__")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package, to read only."""
    return make_package(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File that planted code writes."""
    return tmp_path_factory.mktemp("marker") / "executed"


def payload(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()\n"


def byte_code(marker: Path) -> bytes:
    """Return byte code that Python runs without a look at the source: its header says that nothing is checked."""
    code = compile(payload(marker), "planted", "exec")
    return importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code)


def plant_byte_code(folder: Path, marker: Path) -> None:
    cache = folder / CODE / "__pycache__"
    cache.mkdir()
    for stem in STEMS:
        (cache / f"{stem}.{sys.implementation.cache_tag}.pyc").write_bytes(byte_code(marker))


def plant_link_to_code(folder: Path, marker: Path) -> None:
    outside = marker.with_name("outside")
    outside.mkdir(exist_ok=True)
    (outside / "networks.py").write_text(payload(marker))
    (folder / CODE / "linked").symlink_to(outside, target_is_directory=True)


def plant_link_in_place(folder: Path, marker: Path) -> None:
    """Replace a file by a link to the same content, which can change later."""
    file = folder / CODE / "networks.py"
    outside = Path(shutil.copy(file, marker.with_name("networks.py")))
    file.unlink()
    file.symlink_to(outside)


def change_loader(folder: Path, marker: Path) -> None:
    model = yaml.safe_load((folder / "MLmodel").read_text())
    model["flavors"]["python_function"]["loader_module"] = "planted"
    (folder / "MLmodel").write_text(yaml.safe_dump(model))
    (folder / "code" / "planted.py").write_text(payload(marker))


def change_requirements(folder: Path, marker: Path) -> None:
    (folder / "requirements.txt").write_text("numpy-with-a-surprise\n")


def plant_source(name: str) -> Callable[[Path, Path], None]:
    def plant(folder: Path, marker: Path) -> None:
        (folder / name).write_text(payload(marker))

    return plant


PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "byte code": plant_byte_code,
    "a link to a folder of code": plant_link_to_code,
    "a link in place of a file": plant_link_in_place,
    "another loader": change_loader,
    "other requirements": change_requirements,
    "a module": plant_source(f"{CODE}/more.py"),
    "a changed module": plant_source(f"{CODE}/networks.py"),
    "a shared library": plant_source(f"{CODE}/networks.cpython-311-x86_64-linux-gnu.so"),
    "sitecustomize": plant_source("code/sitecustomize.py"),
    "a path file": plant_source("code/planted.pth"),
    "a module among the data": plant_source("data/numpy.py"),
    "a module beside the data": plant_source("numpy.py"),
    "a file without a suffix": plant_source("data/golden/notes"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_package_with_a_planted_file_is_refused_everywhere(
    made: Path, marker: Path, tmp_path: Path, planted: str
) -> None:
    """By the check, a prediction, the local target and the server; the planted code does not run."""
    folder = Path(shutil.copytree(made, tmp_path / "package"))
    PLANTED[planted](folder, marker)
    recording = made / "data" / "golden" / "noise.wav"
    for use in (
        lambda: verify.verify(folder),
        lambda: predict_with_package(folder, [recording]),
        lambda: Local(tmp_path / "serving").apply(Release("1", folder)),
    ):
        with pytest.raises(PackageError):
            use()
    with pytest.raises(serving.PackageError):
        serving.load(folder)
    assert not marker.exists()


@pytest.fixture(scope="module")
def registry(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A repository with the package as version 1."""
    registry = Registry(local_uri(tmp_path_factory.mktemp("work")))
    run_id = registry.log_run("test", {}, {}, VERDICT, {}, LINEAGE)
    registry.register(made, run_id, VERDICT, LINEAGE)
    return registry


def test_the_registered_folder_is_the_package(made: Path, registry: Registry) -> None:
    """File by file, ``MLmodel`` included: nothing in it is outside the digests."""
    assert verify.is_identical(Path(registry.show(1).uri), made)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_version_with_a_planted_file_in_the_artifact_store_is_refused(
    registry: Registry, marker: Path, tmp_path: Path, planted: str
) -> None:
    """The version cannot be fetched, so nothing evaluates, predicts with, or deploys it."""
    stored = Path(registry.show(1).uri)
    saved = Path(shutil.copytree(stored, tmp_path / "saved"))
    try:
        PLANTED[planted](stored, marker)
        with pytest.raises(SpiraError):
            registry.fetch(1, tmp_path / "out" / "package")
        assert list((tmp_path / "out").iterdir()) == []
    finally:
        shutil.rmtree(stored)
        saved.rename(stored)
    assert not marker.exists()


@pytest.mark.parametrize("planted", PLANTED)
def test_a_fetched_copy_with_a_planted_file_is_refused(
    registry: Registry, marker: Path, tmp_path: Path, planted: str
) -> None:
    """The copy in the work folder is checked at each use."""
    out = registry.fetch(1, tmp_path / "package")
    PLANTED[planted](out, marker)
    with pytest.raises(SpiraError):
        registry.fetch(1, out)
    assert not marker.exists()


def test_a_downloaded_version_is_verified_by_its_own_list(registry: Registry, tmp_path: Path) -> None:
    """A client that reads the artifacts without SPIRA's registry gets the whole package."""
    uri = registry.show(1).uri
    check_files(Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path))))


FOLDERS = ("", "code", CODE, f"{CODE}/__pycache__", "data", "data/golden", "__pycache__", "new", "data/data", "package")
NAMES = st.one_of(
    st.builds(
        "{}{}".format,
        st.sampled_from(STEMS),
        st.sampled_from((".py", ".pyc", ".so", f".{sys.implementation.cache_tag}.pyc", ".pth", ".pyi", "")),
    ),
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=20),
    st.binary(min_size=1, max_size=20).map(lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_"))),
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(folder=st.sampled_from(FOLDERS), name=NAMES, as_byte_code=st.booleans(), as_link=st.booleans())
def test_no_planted_name_is_accepted(
    made: Path,
    marker: Path,
    tmp_path_factory: pytest.TempPathFactory,
    folder: str,
    name: str,
    as_byte_code: bool,
    as_link: bool,
) -> None:
    """Whatever its name and folder; the message can be printed."""
    copied = Path(shutil.copytree(made, tmp_path_factory.mktemp("planted") / "copied"))
    planted = copied / folder / name
    if planted.exists():
        return
    planted.parent.mkdir(parents=True, exist_ok=True)
    content = byte_code(marker) if as_byte_code else payload(marker).encode()
    if as_link:
        marker.with_name("linked").write_bytes(content)
        planted.symlink_to(marker.with_name("linked"))
    else:
        planted.write_bytes(content)
    for check, error in ((verify.verify, PackageError), (serving.load, serving.PackageError)):
        with pytest.raises(error) as refused:
            check(copied)
        assert str(refused.value).isprintable()
    assert not marker.exists()
    shutil.rmtree(copied)


def test_the_server_never_imports_from_a_package(made: Path, marker: Path, tmp_path: Path) -> None:
    """Code that the digests cover does not run in a process of ours either."""
    folder = Path(shutil.copytree(made, tmp_path / "package"))
    for file in (folder / "code").rglob("*.py"):
        file.write_text(payload(marker))
    description = (folder / "package.json").read_text()
    (folder / "package.json").write_text(json.dumps(json.loads(description) | {"files": verify.digests(folder)}))
    script = (
        "import sys; from pathlib import Path; from spira.serving import package; from spira.packaging import verify;"
        "folder = Path(sys.argv[1]); package.load(folder); verify.verify(folder);"
        "print(sorted(name for name in sys.modules if 'spira_inference' in name), str(folder / 'code') in sys.path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["[]", "False"]
    assert not marker.exists()
