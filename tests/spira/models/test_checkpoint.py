"""Checkpoint folders are complete or refused, and nothing in them is executed."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from spira import digests
from spira.config import Config, from_dict
from spira.errors import SpiraError
from spira.models import checkpoint

CONFIG = from_dict({"model": {"channels": 8}, "windows": {"window_seconds": 1.0}})
IDENTITY = checkpoint.TrainingIdentity.of(CONFIG, 42, "digest of the corpus")
HISTORY = [{"epoch": 1, "train_loss": 0.7, "eval_loss": 0.6}]
FILES = ["weights.safetensors", "config.json", "history.json", "checkpoint.json"]
FLIPS = 10
"""Flipped bits in each file."""


def save(out: Path, config: Config = CONFIG) -> checkpoint.Checkpoint:
    torch.manual_seed(0)
    weights = checkpoint.build_network(config).state_dict()
    return checkpoint.save(
        out, weights, HISTORY, config, checkpoint.CheckpointInfo(**IDENTITY.model_dump(), best_epoch=1)
    )


def write(file: Path, content: str) -> None:
    """Write a file of a checkpoint as if it had been saved so."""
    file.write_text(content)
    digests.record(file.parent, FILES)


@pytest.mark.parametrize("architecture", ["conv1d", "spira_v1", "spira_v2"])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, architecture: str) -> None:
    """Weights are equal bit for bit, as are configuration, history and the origin of the network."""
    config = CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"architecture": architecture})})
    saved, loaded = save(tmp_path, config), checkpoint.load(tmp_path)
    torch.manual_seed(0)
    for name, value in checkpoint.build_network(config).state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)
    assert loaded.config == saved.config == config
    assert loaded.history == HISTORY
    assert loaded.info == saved.info == checkpoint.CheckpointInfo(**IDENTITY.model_dump(), best_epoch=1)
    assert json.loads((tmp_path / "checkpoint.json").read_text()) == IDENTITY.model_dump() | {"best_epoch": 1}
    assert not loaded.network.training


def test_a_checkpoint_is_four_files_and_their_digests(tmp_path: Path) -> None:
    """No temporary file remains."""
    save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, digests.FILE])


@pytest.mark.parametrize("name", [*FILES, digests.FILE])
def test_a_flipped_bit_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """Also in a weight, where no reader would see it; the message says what to do."""
    save(tmp_path)
    before, rng = (tmp_path / name).read_bytes(), random.Random(name)
    for _ in range(FLIPS):
        content = bytearray(before)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SpiraError, match=rf"{name}.*delete the folder and train again"):
            checkpoint.load(tmp_path)
        with pytest.raises(SpiraError, match=rf"{name}.*delete the folder and train again"):
            checkpoint.finished(tmp_path, IDENTITY)


def test_a_checkpoint_without_digests_is_loaded(tmp_path: Path) -> None:
    """Earlier versions wrote none. A checkpoint that is saved over it has its own."""
    saved = save(tmp_path)
    digests.remove(tmp_path)
    loaded = checkpoint.finished(tmp_path, IDENTITY)
    assert loaded is not None
    assert loaded.info == saved.info
    save(tmp_path, CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"channels": 16})}))
    assert checkpoint.load(tmp_path).config.model.channels == 16


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """The message names the folder and the file."""
    save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(SpiraError, match=rf"(?s){tmp_path} is not a complete checkpoint.*{name}"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 200])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, name: str, keep: int) -> None:
    """An interrupted copy leaves such a file."""
    save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: min(keep, len(content) - 2)])
    with pytest.raises(SpiraError, match=name):
        checkpoint.load(tmp_path)


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "executed")


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_a_pickle_in_place_of_the_weights_is_refused_unread(tmp_path: Path, dump: Any) -> None:
    """Nothing in the file is executed, whatever its name."""
    save(tmp_path / "checkpoint")
    with (tmp_path / "checkpoint" / "weights.safetensors").open("wb") as file:
        dump(Trap(tmp_path / "trace"), file)
    with pytest.raises(SpiraError, match=r"weights\.safetensors"):
        checkpoint.load(tmp_path / "checkpoint")
    assert not (tmp_path / "trace").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """The message names the network of the configuration."""
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["channels"] = 16
    write(tmp_path / "config.json", json.dumps(config))
    with pytest.raises(SpiraError, match=r"weights\.safetensors does not fit conv1d"):
        checkpoint.load(tmp_path)


def test_a_configuration_out_of_range_is_refused_by_key(tmp_path: Path) -> None:
    """The message names the key and the rule, as everywhere."""
    save(tmp_path)
    write(tmp_path / "config.json", '{"model": {"layers": 3}}')
    with pytest.raises(SpiraError, match=r"config\.json: model\.layers: unknown key"):
        checkpoint.load(tmp_path)


def test_a_folder_without_its_last_file_is_unfinished(tmp_path: Path) -> None:
    """checkpoint.json is written last, so that a training killed while saving does not count as finished."""
    save(tmp_path)
    assert checkpoint.finished(tmp_path, IDENTITY) is not None
    (tmp_path / "checkpoint.json").unlink()
    assert checkpoint.finished(tmp_path, IDENTITY) is None


@pytest.mark.parametrize("changed", [{"seed": 43}, {"corpus_digest": "other"}, {"config_digest": "other"}])
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A folder with another seed, data or configuration is not overwritten."""
    save(tmp_path)
    with pytest.raises(SpiraError, match="another training"):
        checkpoint.finished(tmp_path, IDENTITY.model_copy(update=changed))


def test_keys_of_other_versions_are_ignored(tmp_path: Path) -> None:
    """A checkpoint with a key that this version does not have can be loaded."""
    save(tmp_path)
    info = json.loads((tmp_path / "checkpoint.json").read_text())
    write(tmp_path / "checkpoint.json", json.dumps(info | {"colour": "blue"}))
    assert checkpoint.read_info(tmp_path).seed == 42


def test_an_origin_without_a_seed_is_refused(tmp_path: Path) -> None:
    """The message names the file and the key."""
    save(tmp_path)
    write(tmp_path / "checkpoint.json", "{}")
    with pytest.raises(SpiraError, match=r"checkpoint\.json: seed: Field required"):
        checkpoint.load(tmp_path)
