"""The configuration: defaults, files, settings, refused values, and the digest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from spira.config import Config, ConfigError, from_dict, load, paper, smoke
from spira.delivery import settings
from spira.errors import SpiraError
from spira.evaluation import gate


def test_settings_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    """All other keys keep their defaults."""
    path = tmp_path / "config.yaml"
    path.write_text("training: {max_epochs: 7, batch_files: 3}\nmodel: {dropout: 0.5}\n")
    config = load(path, ("training.max_epochs=9", "training.seeds=[1, 2]"))
    assert (config.training.max_epochs, config.training.batch_files, config.model.dropout) == (9, 3, 0.5)
    assert config.training.seeds == (1, 2)
    assert config.windows == Config().windows


def test_no_file_and_an_empty_file_give_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load() == load(tmp_path / "empty.yaml") == Config()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainning": {}}, "trainning: unknown key"),
        ({"training": {"epochs": 3}}, "training.epochs: unknown key"),
        ({"training": {"max_epochs": 0}}, r"training.max_epochs: .*greater than 0"),
        ({"training": {"learning_rate": float("nan")}}, r"training.learning_rate: .*finite"),
        ({"training": {"learning_rate": float("inf")}}, r"training.learning_rate: .*finite"),
        ({"training": {"seeds": []}}, r"training: .*at least one"),
        ({"training": {"seeds": [1, 1]}}, r"training: .*distinct"),
        ({"training": {"seeds": [-1]}}, r"training.seeds.0: .*greater than or equal to 0"),
        ({"training": {"seeds": [2**32]}}, r"training.seeds.0: .*less than 4294967296"),
        ({"training": 3}, "training: "),
        ({"noise": {"min_peak": 0.2, "max_peak": 0.1}}, "noise: .*min_peak must not be greater than max_peak"),
        ({"noise": {"train_controls": -1}}, "noise.train_controls"),
        ({"features": {"n_mfcc": 41}}, "features: .*n_mfcc must not be greater than n_mels"),
        ({"features": {"win_length": 1202}}, "features: .*win_length must not be greater than n_fft"),
        ({"features": {"win_length": 401}}, r"features.win_length: .*multiple of 2"),
        ({"features": {"hop_length": 0}}, "features.hop_length"),
        ({"model": {"channels": 12}}, r"model.channels: .*multiple of 8"),
        ({"model": {"architecture": "lstm"}}, "model.architecture: .*'conv1d'"),
        ({"windows": {"step_seconds": 1e-9}}, "windows.step_seconds"),
        ({"preprocess": {"min_seconds": 5, "max_seconds": 5}}, "preprocess: .*less than max_seconds"),
        ({"preprocess": {"eval_fraction": 0.5, "test_fraction": 0.5}}, "preprocess: .*leave speakers for training"),
    ],
)
def test_an_unknown_key_or_bad_value_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    """The message names the key and the rule."""
    with pytest.raises(ConfigError, match=message):
        from_dict(values)


def test_all_problems_are_reported_at_once() -> None:
    """One message names all of them, not one per run."""
    with pytest.raises(ConfigError, match=r"model.dropout: .*; training.epochs: unknown key"):
        from_dict({"model": {"dropout": 2}, "training": {"epochs": 3}})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_epochs=3", "section.key=value"),
        ("training.max_epochs", "section.key=value"),
        ("training.a.b=3", "section.key=value"),
        ("training.max_epochs=[1", "cannot be read as YAML"),
        ("training.max_epochs=many", "training.max_epochs"),
        ("training.epochs=3", "training.epochs: unknown key"),
    ],
)
def test_an_invalid_setting_is_refused(setting: str, message: str) -> None:
    """The message gives the expected form, or the key and the rule."""
    with pytest.raises(ConfigError, match=message):
        load(settings=(setting,))


@pytest.mark.parametrize("content", [b"- a list\n", b"training: [", b"\xff\xfe\x00", b"42"])
def test_a_file_that_is_not_a_mapping_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """The file is not YAML, not text, or YAML of another value."""
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load(path)


YAML_VALUES = st.one_of(
    st.text(),
    st.integers(),
    st.floats().map(repr),
    st.sampled_from(
        [
            "2026-13-45", "2026-02-30T25:61:61Z", "1" * 5000, "0x" + "f" * 5000, "[" * 400, "{a: " * 400, "&a [*a]",
            "!!python/object:os.system x", "!!binary x", "!!timestamp x", "!!int x", "!!omap [1]", "!!set 1", "<<: 1",
            "? [a]: b", "*b", "=", "1:99:99", "0o9", ".nan", "-.inf", '"\\ud800"', '"\\x00"', "\x00", "\ufeff",
        ]
    ),
)  # fmt: skip
"""Texts of scalars, and of values that YAML libraries stumble over."""


@pytest.mark.parametrize("read", [load, gate.load, settings.load])
@given(value=YAML_VALUES, place=st.sampled_from(["{}", "training: {}", "training: {{seeds: {}}}", "data: [{}]"]))
def test_any_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, read: Callable[[Path], BaseModel], value: object, place: str
) -> None:
    """The configuration, the gate and the settings of delivery have one reader."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(place.format(value), "utf-8", errors="surrogatepass")
    refusal = ""
    try:
        read(path).model_dump_json()
    except ConfigError as error:
        refusal = str(error) or "an empty message"
    assert not refusal or "any.yaml" in refusal
    assert len(refusal.splitlines()) <= 1


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """It is not parsed: YAML needs a hundred times its size in memory."""
    (tmp_path / "huge.yaml").write_text("#" * 1_000_001)
    with pytest.raises(ConfigError, match=r"huge\.yaml: has 1000001 characters, 1000000 are allowed"):
        load(tmp_path / "huge.yaml")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    """As a SpiraError, like every error that a user can correct."""
    with pytest.raises(SpiraError, match=r"nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")


def test_a_yaml_number_with_an_exponent_is_read_as_a_number() -> None:
    """YAML reads 1e-4 as text; the configuration converts it."""
    assert load(settings=("training.learning_rate=1e-4",)).training.learning_rate == 1e-4


@pytest.mark.parametrize("config", [Config(), paper(), smoke()])
def test_a_resolved_configuration_can_be_saved_as_json(config: Config) -> None:
    """It is read again with the same values and digest, as from a checkpoint."""
    again = from_dict(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    assert again.digest() == config.digest()


def test_the_digest_depends_on_values_and_not_on_notation(tmp_path: Path) -> None:
    """Comments, order and 4 for 4.0 do not change it; another value does."""
    first, second, third = (tmp_path / f"{name}.yaml" for name in "abc")
    first.write_text("windows: {window_seconds: 4}\nmodel: {dropout: 0.4, channels: 8}\n")
    second.write_text("# ours\nmodel:\n  channels: 8\n  dropout: 0.40\n")
    third.write_text("model: {dropout: 0.41, channels: 8}\n")
    assert load(first).digest() == load(second).digest() != load(third).digest()


def test_settings_do_not_change_the_dictionary_that_they_override() -> None:
    """One dictionary can be the base of several configurations."""
    values = {"training": {"max_epochs": 3}}
    assert from_dict(values, ("training.max_epochs=4",)).training.max_epochs == 4
    assert values == {"training": {"max_epochs": 3}}


def test_a_configuration_is_immutable() -> None:
    """Several stages share it."""
    with pytest.raises(ValueError, match="frozen"):
        Config().training.max_epochs = 3  # type: ignore[misc]


def test_paper_is_the_papers_best_experiment() -> None:
    """All values are listed, so that a changed default does not change the paper's configuration."""
    config = paper()
    assert config.model.model_dump(exclude={"channels"}) == {"architecture": "spira_v2", "dropout": 0.7}
    assert config.windows.model_dump() == {
        "mode": "windows", "window_seconds": 4.0, "step_seconds": 1.0, "short_files": "pad"
    }  # fmt: skip
    assert config.features.model_dump() == {
        "n_fft": 1200, "win_length": 400, "hop_length": 160, "n_mels": 40, "n_mfcc": 40, "top_db": 80.0
    }  # fmt: skip
    assert config.noise.model_dump() == {
        "train_controls": 4, "train_patients": 3, "test_controls": 1, "test_patients": 0,
        "min_peak": 0.033474047, "max_peak": 0.19233719,
    }  # fmt: skip
    assert config.training.model_dump(exclude={"precision"}) == {
        "batch_files": 30, "learning_rate": 1e-3, "weight_decay": 0.01, "warmup_steps": 500,
        "max_epochs": 1000, "patience_epochs": 40, "seeds": (42, 43, 46),
    }  # fmt: skip
    assert config.evaluation.threshold == 0.5
