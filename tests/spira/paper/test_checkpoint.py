"""Import of the paper's checkpoints: same output, clear refusals, and no code of the file runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spira.errors import SpiraError
from spira.features.mfcc import mfcc
from spira.models import checkpoint
from spira.paper.checkpoint import convert
from tests.support.paper_network import PaperNetwork, trained_looking

DATASET = {"split_wav_using_overlapping": True, "window_len": 4, "step": 1, "padding_with_max_lenght": False}
AUDIO = {"feature": "mfcc", "num_mels": 40, "num_mfcc": 40, "n_fft": 1200, "hop_length": 160, "win_length": 400}


def save(path: Path, network: PaperNetwork, **others: Any) -> Path:
    """Save a checkpoint as the paper's program does, with the configuration printed as Python values."""
    config = {"model_name": "spiraconv_v2", "seed": 43, "dataset": DATASET | {"max_seq_len": None}, "audio": AUDIO}
    content = {
        "model": network.state_dict(),
        "optimizer": torch.optim.Adam(network.parameters()).state_dict(),
        "step": 1500,
        "config_str": str(config),
    }
    torch.save(content | others, path)
    return path


def drop(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the weights without one parameter."""
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.integration
@pytest.mark.parametrize("group_norm", [False, True])
@pytest.mark.parametrize("frames", [301, 401])
def test_an_imported_network_has_the_papers_output(tmp_path: Path, group_norm: bool, frames: int) -> None:
    """V1 and V2 with windows of 3 s and 4 s have the same probabilities within 1e-6, loaded from the folder on disk."""
    paper = trained_looking(frames, group_norm)
    convert(save(tmp_path / "best_checkpoint.pt", paper), tmp_path / "out")
    imported = checkpoint.load(tmp_path / "out")
    assert imported.config.model.architecture == ("spira_v2" if group_norm else "spira_v1")
    assert imported.config.windows.window_seconds == (frames - 1) / 100
    sound = 0.1 * torch.randn(6, (frames - 1) * 160, generator=torch.Generator().manual_seed(0))
    features = mfcc(sound * torch.logspace(-3, 0, 6)[:, None], imported.config.features)  # [6, frames, 40]
    with torch.inference_mode():
        expected, actual = paper(features).squeeze(1), imported.network(features).sigmoid()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-3


def test_the_weights_equal_those_of_the_file_bit_for_bit(tmp_path: Path) -> None:
    """Batch statistics are equal too."""
    paper = trained_looking(group_norm=False)
    imported = convert(save(tmp_path / "v1.pt", paper), tmp_path / "out")
    assert imported.network.state_dict().keys() == paper.state_dict().keys()
    for name, value in imported.network.state_dict().items():
        assert torch.equal(value, paper.state_dict()[name]), name


def test_the_folder_records_its_origin(tmp_path: Path) -> None:
    """File name, digest, step and seed. The file has no history."""
    imported = convert(save(tmp_path / "best_checkpoint.pt", trained_looking()), tmp_path / "out")
    assert imported.info.imported_from == "best_checkpoint.pt"
    assert (imported.info.step, imported.info.seed) == (1500, 43)
    assert len(imported.info.imported_sha256) == 64
    assert imported.info.config_digest == imported.config.digest()
    assert imported.history == []
    json.loads((tmp_path / "out" / "checkpoint.json").read_text())


@pytest.mark.parametrize("config_str", ["", "not values", "[1, 2]", "{'audio': 3, 'dataset': []}", None, 7])
def test_a_checkpoint_without_configuration_is_imported(tmp_path: Path, config_str: object) -> None:
    """Without a readable configuration, windows are 4 s every second, and features are the paper's."""
    imported = convert(save(tmp_path / "v2.pt", trained_looking(), config_str=config_str), tmp_path / "out")
    assert imported.config.windows.window_seconds == 4.0
    assert imported.config.windows.step_seconds == 1.0


@pytest.mark.parametrize(("max_seq_len", "seconds"), [(1203, 12.02), (None, 12.0)])
def test_a_network_of_whole_files_has_their_length(tmp_path: Path, max_seq_len: int | None, seconds: float) -> None:
    """Experiments 1.1 and 2.1 have the frames in the file's configuration, or a length that fits the weights."""
    dataset = {"split_wav_using_overlapping": False, "padding_with_max_lenght": True, "max_seq_len": max_seq_len}
    config_str = str({"dataset": dataset})
    imported = convert(save(tmp_path / "1.1.pt", trained_looking(1203), config_str=config_str), tmp_path / "out")
    assert imported.config.windows.mode == "whole"
    assert imported.config.windows.window_seconds == pytest.approx(seconds)


def test_settings_override_the_configuration_of_the_file(tmp_path: Path) -> None:
    """Needed for settings that the file does not have, such as the treatment of short files."""
    path = save(tmp_path / "v2.pt", trained_looking())
    imported = convert(path, tmp_path / "out", ("windows.short_files=refuse", "windows.step_seconds=2"))
    assert (imported.config.windows.short_files, imported.config.windows.step_seconds) == ("refuse", 2.0)
    with pytest.raises(SpiraError, match=r"fc1\.weight is \[100, 6880\] and must be \[100, "):
        convert(path, tmp_path / "other", ("windows.window_seconds=5",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: drop(weights, "conv.5.bias"), r"conv\.5\.bias is missing"),
        (lambda weights: drop(weights, "fc1.weight"), r"fc1\.weight is missing"),
        (lambda weights: weights | {"lstm.weight": torch.zeros(3)}, r"lstm\.weight is unknown"),
        (lambda weights: weights | {"fc2.bias": torch.zeros(2)}, r"fc2\.bias is \[2\] and must be \[1\]"),
        (lambda weights: weights | {"fc1.weight": torch.zeros(100, 161)}, r"fc1\.weight takes 161 numbers"),
        (lambda weights: weights | {"fc1.weight": torch.tensor(0.0)}, r"fc1\.weight is \[\]"),
        (lambda weights: list(weights), "no 'model'"),
        (lambda weights: None, "no 'model'"),
        (lambda weights: {"fc1.weight": 3}, "no 'model'"),
    ],
)
def test_another_networks_file_is_refused_by_parameter(tmp_path: Path, change: Any, message: str) -> None:
    """No folder is written."""
    paper = trained_looking()
    path = save(tmp_path / "other.pt", paper, model=change(dict(paper.state_dict())))
    with pytest.raises(SpiraError, match=message):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_feature_is_refused_by_name(tmp_path: Path) -> None:
    """The paper's programs support spectrograms too. The network would load, with meaningless output."""
    config_str = str({"audio": AUDIO | {"feature": "melspectrogram"}})
    path = save(tmp_path / "mel.pt", trained_looking(), config_str=config_str)
    with pytest.raises(SpiraError, match="melspectrogram: only mfcc"):
        convert(path, tmp_path / "out")


class Trap:
    """Object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "executed")


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    """Although its weights are valid; the message gives the reason."""
    path = save(tmp_path / "evil.pt", trained_looking(), optimizer=Trap(tmp_path / "trace"))
    with pytest.raises(SpiraError, match=r"evil\.pt is refused: .*could run code"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "trace").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "trace").exists()  # the trap works


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", b"\x80\x04K\x01."])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """An empty file, text, a truncated archive, a pickle of another value."""
    (tmp_path / "damaged.pt").write_bytes(content)
    with pytest.raises(SpiraError, match=r"damaged\.pt"):
        convert(tmp_path / "damaged.pt", tmp_path / "out")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    """The error is a SpiraError."""
    with pytest.raises(SpiraError, match=r"nowhere\.pt cannot be read"):
        convert(tmp_path / "nowhere.pt", tmp_path / "out")


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    """It may be a checkpoint that took days."""
    path = save(tmp_path / "v2.pt", trained_looking())
    convert(path, tmp_path / "out")
    with pytest.raises(SpiraError, match="exists: choose another folder"):
        convert(path, tmp_path / "out")
