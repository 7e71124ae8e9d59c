"""A store in a folder that people move, copy and name as they like."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spira.packaging.verify import package_digest
from spira.registry import Registry, RegistryError, database, local_uri, open_at
from tests.spira.registry.test_registry import LINEAGE, PARAMS, add_version, new_store, write_package
from tests.support.verdicts import make_verdict

__all__ = ["new_store"]
pytestmark = pytest.mark.integration

AWKWARD = [
    "what?x=1",
    "50%20off",
    "a#b",
    "two words",
    "ação",
    "{{$.x}}",
    "a:b",
    "file:x",
    "sqlite:",
    "q'\"\\b",
    "mlartifacts",
]
names = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
)
"""Names that Linux accepts for a folder."""


def tree_digest(folder: Path) -> str:
    """Return a digest of the names and the contents of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, new_store: tuple[Path, str]) -> Path:
    """A work folder with one version."""
    work = tmp_path_factory.mktemp("place") / "original"
    work.mkdir()
    shutil.copy(new_store[0], work)
    registry = Registry(local_uri(work))
    registry.promote(add_version(registry, work, 0.6))
    return work


def locations(work: Path) -> set[str]:
    """Return every location of artifacts that the database has, apart from MLflow's default experiment."""
    with closing(sqlite3.connect(work / "mlflow.db")) as connection:
        rows = [
            row[0]
            for table, column in database.LOCATIONS
            for row in connection.execute(f"SELECT {column} FROM {table}")
        ]
    return {row for row in rows if row and not row.endswith("/0")}


def test_a_moved_store_is_used_in_its_new_place(original: Path, tmp_path: Path) -> None:
    """Fetch, verdict and further versions work there; no record names the old place."""
    work = tmp_path / "moved"
    shutil.copytree(original, tmp_path / "before")
    Registry(local_uri(tmp_path / "before"))  # its records name this place now
    (tmp_path / "before").rename(work)
    registry = Registry(local_uri(work))
    assert package_digest(registry.fetch("champion", tmp_path / "fetched")) == package_digest(work / "package-0.6")
    outcome = registry.outcome("run-1")
    assert outcome is not None
    assert outcome.model_version == 1
    assert add_version(registry, work, 0.7) == 2
    assert Path(registry.show(2).uri).is_dir()
    assert not (tmp_path / "before").exists()
    assert all(location.startswith(str(work)) for location in locations(work))


def test_a_copy_leaves_the_original_as_it_is(original: Path, tmp_path: Path) -> None:
    """A run in the copy writes into the copy only; the tree of the original has the same digest."""
    before = tree_digest(original)
    work = Path(shutil.copytree(original, tmp_path / "copy"))
    registry = open_at(str(work))
    assert add_version(registry, tmp_path, 0.8) == 2
    assert Path(registry.show(2).uri).is_relative_to(work)
    assert tree_digest(original) == before
    assert Registry(local_uri(original)).show(1).version == 1


def test_a_store_in_its_own_place_is_not_written(original: Path) -> None:
    """Opening changes records only after a move."""
    content = (original / "mlflow.db").read_bytes()
    Registry(local_uri(original)).champion()
    assert (original / "mlflow.db").read_bytes() == content


def test_locations_elsewhere_are_kept(original: Path, tmp_path: Path) -> None:
    """Another program's experiment in the same database stays where it is, and a folder with the same beginning."""
    work = Path(shutil.copytree(original, tmp_path / "copy"))
    elsewhere = ["s3://bucket/mlartifacts", "/data/mlartifacts/7", f"{original}/mlartifacts-old/1"]
    registry = Registry(local_uri(work))
    for number, location in enumerate(elsewhere):
        registry._store.client.create_experiment(f"other {number}", artifact_location=location)
    moved = work.rename(tmp_path / "moved")
    Registry(local_uri(moved))
    assert set(elsewhere) <= locations(moved)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names)
def test_any_folder_name_is_used_or_refused(new_store: tuple[Path, str], tmp_path_factory, name: str) -> None:
    """Whatever the name, artifacts lie in the folder and nothing beside it; or one line says what is wrong."""
    parent = tmp_path_factory.mktemp("named")
    work = parent / name
    try:
        work.mkdir()
    except OSError:  # ".", "..", or too long in UTF-8
        return
    shutil.copy(new_store[0], work)
    registry = open_at(str(work))
    run_id = registry.log_run("run", PARAMS, {}, make_verdict(), {}, LINEAGE)
    number = registry.register(write_package(work / "package", 0.5), run_id, make_verdict(), LINEAGE)
    registry.fetch(number, work / "fetched")
    assert [path.name for path in parent.iterdir()] == [name]
    assert (work / "mlartifacts" / run_id / "artifacts" / "verdict.json").is_file()


@pytest.mark.parametrize("name", ["what?x=1", "50%20off", "q'\"b", "a:b {{x}}"])
def test_a_new_store_is_created_where_the_name_says(tmp_path: Path, name: str) -> None:
    """MLflow makes no folder of the escaped name beside it."""
    registry = open_at(str(tmp_path / name))
    assert registry.champion() is None
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "mlflow.db").is_file()


def test_a_name_that_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    """SQLite takes names in UTF-8 only."""
    work = tmp_path / b"caf\xe9".decode(errors="surrogateescape")
    with pytest.raises(RegistryError) as refused:
        open_at(str(work))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("scheme", "driver"), [("postgresql", "psycopg"), ("postgresql+psycopg2", "psycopg2")])
def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str, driver: str) -> None:
    """The refusal is one line, without the password of the URL."""
    monkeypatch.setitem(sys.modules, driver, None)  # as if it were not installed
    with pytest.raises(RegistryError, match=f"the database driver {driver} is not installed: .*begin the URL") as error:
        Registry(f"{scheme}://me:secret@db/mlflow")
    assert "secret" not in str(error.value)
