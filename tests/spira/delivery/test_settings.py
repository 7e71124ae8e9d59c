"""The settings file: relative paths, defaults, and refusals by file, key and rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from spira.config import ConfigError
from spira.delivery import settings as settings_file
from spira.delivery.decide import Policy
from spira.delivery.links import Links
from spira.delivery.settings import NoticeSettings, load
from spira.deployment.targets import InferenceServiceTarget, KServeTarget, LocalTarget
from spira.language import Language
from tests.support import ROOT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "delivery.yaml"


def test_paths_are_relative_to_the_file(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The working directory does not matter; absolute paths stay."""
    monkeypatch.chdir(tmp_path)
    file.write_text("data: voices\nconfig: ../model.yaml\ngate: /etc/gate.yaml\nledger: records\n")
    loaded, folder = load(Path("folder/delivery.yaml")), file.parent
    assert loaded.data == str(folder / "voices")
    assert loaded.config == str(tmp_path / "model.yaml")
    assert loaded.gate == "/etc/gate.yaml"
    assert loaded.ledger == str(folder / "records")
    assert loaded.work == loaded.registry == str(folder / "work")


def test_defaults_are_in_the_work_folder(file: Path) -> None:
    """This holds for the ledger, MLflow and the local target; config and gate stay empty."""
    file.write_text("data: voices\nwork: elsewhere\n")
    loaded, work = load(file), file.parent / "elsewhere"
    assert (loaded.ledger, loaded.registry) == (f"{work}/ledger", str(work))
    assert [target.serving for target in loaded.targets] == [f"{work}/serving"]
    assert (loaded.config, loaded.gate) == ("", "")
    assert loaded.policy == Policy()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("language: pt-BR", Language.PORTUGUESE),
        ("owner: SPIRA", Language.ENGLISH),
        ("language: fr", Language.ENGLISH),
        ("owner: [", Language.ENGLISH),
    ],
)
def test_the_language_of_pages_and_notices_is_that_of_the_project(file: Path, text: str, language: Language) -> None:
    """One that cannot be read is a problem of the observation, and neither a page nor a notice fails by it."""
    file.write_text("data: voices\n")
    assert load(file).language == Language.ENGLISH
    (file.parent / "project.yaml").write_text(text)
    assert load(file).language == language
    (file.parent / "team.yaml").write_text("language: pt-BR")
    file.write_text("data: voices\nproject: team.yaml\n")
    assert load(file).language == Language.PORTUGUESE


def test_uris_are_not_paths(file: Path) -> None:
    file.write_text("data: gs://bucket/voices\nledger: gs://bucket/ledger\nregistry: http://mlflow:5000\n")
    loaded = load(file)
    assert (loaded.data, loaded.ledger) == ("gs://bucket/voices", "gs://bucket/ledger")
    assert loaded.registry == "http://mlflow:5000"


def test_the_folder_of_a_target_is_relative_to_the_file(file: Path) -> None:
    file.write_text("data: voices\nwork: deep/work\ntargets: [{kind: local, serving: ward}]\n")
    assert [target.serving for target in load(file).targets] == [str(file.parent / "ward")]


def test_the_policy_comes_from_the_file(file: Path) -> None:
    file.write_text("data: voices\nattempts: 2\nbackoff_seconds: 5\nquiet_seconds: 7\napproval: true\n")
    assert load(file).policy == Policy(attempts=2, backoff_seconds=5, quiet_seconds=7, approval=True)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("data: [", "cannot be read as YAML"),
        ("- data", "must be a mapping with at least data: FOLDER"),
        ("", "must be a mapping with at least data: FOLDER"),
        ("work: work", "data: Field required"),
        ("data: voices\nquite_seconds: 3", "quite_seconds: unknown key"),
        ("data: voices\nwork: ''", "work: String should have at least 1 character"),
        ("data: voices\nattempts: 0", "attempts: Input should be greater than 0"),
        ("data: voices\nevery_seconds: 0", "every_seconds: Input should be greater than 0"),
        ("data: voices\nbackoff_seconds: -1", "backoff_seconds: Input should be greater than or equal to 0"),
        ("data: voices\nevery_seconds: .inf", "every_seconds: Input should be a finite number"),
        ("data: voices\ntargets: [{kind: lunar}]", "targets.0"),
        (
            "data: voices\ntargets: [{kind: local}, {kind: local, serving: b}]",
            "targets: Value error, only one",
        ),
        ("data: voices\nartifacts: {a: b}", "artifacts: unknown key"),
        ("data: voices\nnotices: {urls: [slack://a]}", "notices.urls: unknown key"),
        ("data: voices\nlinks: {mlflow: javascript:alert(1)}", "links.mlflow"),
    ],
)
def test_an_invalid_file_is_refused(file: Path, text: str, refusal: str) -> None:
    """The message names the file, the key and the rule."""
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert refusal in str(refused.value)


def test_a_missing_file_is_refused_with_advice(file: Path) -> None:
    """A folder of this name cannot be read."""
    with pytest.raises(ConfigError, match="does not exist: write one with spira deliver init --data DIR"):
        load(file)
    with pytest.raises(ConfigError, match=r"cannot be read: .*Is a directory"):
        load(file.parent)


def test_links_lead_to_where_people_open_mlflow(file: Path) -> None:
    """The registry's address is one only if it is a URL; a cluster's own may be unknown outside of it."""
    file.write_text("data: voices\n")
    assert load(file).addresses == Links()
    file.write_text("data: voices\nregistry: http://mlflow:5000\n")
    assert load(file).addresses == Links("http://mlflow:5000")
    file.write_text("data: voices\nregistry: http://mlflow:5000\nlinks: {mlflow: https://m, page: https://p}\n")
    assert load(file).addresses == Links("https://m", "https://p")


def test_the_file_of_addresses_is_relative_to_the_settings(file: Path) -> None:
    file.write_text("data: voices\nnotices: {urls_file: urls, lasting_minutes: 5}\n")
    assert load(file).notices == NoticeSettings(urls_file=str(file.parent / "urls"), lasting_minutes=5)


def test_every_key_is_documented() -> None:
    page = (ROOT / "docs" / "delivery.md").read_text()
    kinds = (LocalTarget, KServeTarget, InferenceServiceTarget)
    kinds = (*kinds, settings_file.NoticeSettings, settings_file.LinkSettings)
    keys = {key for settings in (settings_file.Settings, *kinds) for key in settings.model_fields}
    assert len(keys) > 25
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_the_example_is_valid(file: Path) -> None:
    """It is valid also with its commented settings, and watches the given data."""
    file.write_text(settings_file.example("/data/voices"))
    assert load(file).data == "/data/voices"
    file.write_text(settings_file.example("voices").replace("# config", "config").replace("# registry", "registry"))
    assert load(file).config == str(file.parent / "model.yaml")
    text = settings_file.example("voices")
    for commented in ("# notices:", "#   urls_file:", "# links:"):
        assert commented in text
        text = text.replace(commented, commented[2:] if commented[2] != " " else f"  {commented[4:]}")
    file.write_text(text)
    assert load(file).notices.urls_file == str(file.parent / "notice-urls")
    assert load(file).addresses.mlflow == "https://mlflow.example.org"
    file.write_text(settings_file.example("voices").replace("# config", "config").replace("# registry", "registry"))
    assert load(file).registry == "http://mlflow:5000"


@pytest.mark.parametrize("data", ["/data/voices #2", "/data/a: b", "/data/'x'", "/data/[1]", "0123", "gs://b/p"])
def test_the_example_accepts_any_folder_name(file: Path, data: str) -> None:
    file.write_text(settings_file.example(data))
    assert Path(load(file).data).name == Path(data).name
