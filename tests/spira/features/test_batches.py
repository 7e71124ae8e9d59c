"""Batches: a function of (seed, epoch, recording), with the right windows, labels and noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from spira.config import Config, from_dict
from spira.data.corpus import Corpus
from spira.features.batches import Batch, compose, noisy_waveform, training_batches, validation_batches
from spira.features.mfcc import mfcc
from spira.features.windows import cut

CPU = torch.device("cpu")
CONFIG = from_dict({"windows": {"window_seconds": 1.0, "step_seconds": 0.5}, "training": {"batch_files": 5}})


def with_batches_of(files: int) -> Config:
    return CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"batch_files": files})})


def epoch_of(corpus: Corpus, seed: int = 42, epoch: int = 1, config: Config = CONFIG) -> list[Batch]:
    return list(training_batches(corpus.split("train"), corpus.noises, config, seed, epoch, CPU))


def by_recording(batches: list[Batch]) -> Iterator[tuple[float, torch.Tensor]]:
    """Label and features ``[W, T, F]`` of each recording, in the order of the batches."""
    for batch in batches:
        for number in range(int(batch.files.max()) + 1):
            mine = batch.files == number
            (label,) = batch.labels[mine].unique()
            yield float(label), batch.features[mine]


def equal(first: list[Batch], second: list[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a.features.shape == b.features.shape and torch.equal(a.features, b.features) for a, b in pairs)


def test_an_epoch_is_the_same_whenever_it_is_asked_for(corpus: Corpus) -> None:
    """Also after other epochs and with torch's and numpy's global generators elsewhere."""
    first = epoch_of(corpus, epoch=3)
    torch.manual_seed(1)
    np.random.seed(1)
    epoch_of(corpus, epoch=1)
    assert equal(first, epoch_of(corpus, epoch=3))


def test_another_epoch_or_seed_gives_other_batches(corpus: Corpus) -> None:
    """Order and noise are drawn anew."""
    first = epoch_of(corpus)
    assert not equal(first, epoch_of(corpus, epoch=2))
    assert not equal(first, epoch_of(corpus, seed=43))


def test_a_recordings_noise_does_not_depend_on_its_batch(corpus: Corpus) -> None:
    """Batches of 1 and of 5 hold the same recordings with the same noise, in the same order."""
    ones = list(by_recording(epoch_of(corpus, config=with_batches_of(1))))
    fives = list(by_recording(epoch_of(corpus)))
    assert len(ones) == len(corpus.split("train"))
    for (label, features), (other_label, others) in zip(ones, fives, strict=False):
        assert label == other_label
        torch.testing.assert_close(features, others, rtol=0, atol=1e-4)


def test_the_last_incomplete_batch_is_dropped(corpus: Corpus) -> None:
    """12 recordings are two batches of 5; which two are left out changes with the epoch."""
    batches = epoch_of(corpus)
    assert [int(batch.files.max()) + 1 for batch in batches] == [5, 5]


def test_fewer_recordings_than_a_batch_are_one_batch(corpus: Corpus) -> None:
    """A small data set still trains, on all of it at once."""
    (batch,) = epoch_of(corpus, config=with_batches_of(100))
    assert int(batch.files.max()) + 1 == len(corpus.split("train"))


@pytest.mark.parametrize("files", [1, 12])
def test_an_epoch_holds_every_recording_once(corpus: Corpus, files: int) -> None:
    """Each recording's windows, with its own label: matched to the noisy waveform by content."""
    train = corpus.split("train")
    config = with_batches_of(files)
    seen = list(by_recording(epoch_of(corpus, config=config)))
    for index in range(len(train)):
        noisy = noisy_waveform(train, index, corpus.noises, (4, 3), config, [42, 1])
        expected = mfcc(cut(torch.from_numpy(noisy), config.windows), config.features)
        matches = [
            label
            for label, features in seen
            if features.shape == expected.shape and torch.allclose(features, expected, rtol=0, atol=1e-3)
        ]
        assert matches == [float(train.labels[index])]


def test_a_class_gets_its_number_of_noises(corpus: Corpus) -> None:
    """With noise for controls alone, patients stay as they were recorded."""
    train = corpus.split("train")
    for index, label in enumerate(train.labels):
        noisy = noisy_waveform(train, index, corpus.noises, (1, 0), CONFIG, [0])
        assert np.array_equal(noisy, train.waveform(index)) == bool(label)


def test_every_recording_has_noise_of_its_own(corpus: Corpus) -> None:
    """No two recordings get noise at the same level, so none share a draw."""
    train = corpus.split("train")
    peaks = [
        float((noisy_waveform(train, index, corpus.noises, (1, 1), CONFIG, [42, 1]) - train.waveform(index)).max())
        for index in range(len(train))
    ]
    assert np.diff(np.sort(peaks)).min() > 1e-5


def test_validation_is_the_same_draw_every_time(corpus: Corpus) -> None:
    """Epochs and seeds are compared on equal terms; every recording is there, in order, the last batch too."""
    evaluation = corpus.split("eval")
    runs = [list(validation_batches(evaluation, corpus.noises, with_batches_of(3), CPU)) for _ in range(2)]
    assert equal(*runs)
    assert [label for label, _ in by_recording(runs[0])] == list(evaluation.labels)


def test_validation_hears_the_trainings_number_of_noises(corpus: Corpus) -> None:
    """A network trained under noise is selected under noise; without noise in training, on clean recordings."""
    config = CONFIG.model_copy(
        update={"noise": CONFIG.noise.model_copy(update={"train_controls": 0, "train_patients": 0})}
    )
    evaluation = corpus.split("eval")
    clean = mfcc(cut(torch.tensor(evaluation.waveform(0)), config.windows), config.features)
    (_, quiet), *_ = by_recording(list(validation_batches(evaluation, corpus.noises, config, CPU)))
    (_, noisy), *_ = by_recording(list(validation_batches(evaluation, corpus.noises, CONFIG, CPU)))
    torch.testing.assert_close(quiet, clean, rtol=0, atol=1e-4)
    assert (noisy - clean).abs().max() > 1


def test_a_batch_says_which_windows_belong_to_which_file() -> None:
    """Files of different lengths: windows in order, with their file's place and label."""
    waveforms = [np.zeros(int(seconds * 16_000), np.float32) for seconds in (1.2, 3.0, 0.5)]
    batch = compose(waveforms, np.array([0, 1, 0]), CONFIG, CPU)
    assert batch.features.shape == (6, 101, 40)
    assert batch.files.tolist() == [0, 1, 1, 1, 1, 2]
    assert batch.labels.tolist() == [0, 1, 1, 1, 1, 0]
    assert batch.labels.dtype == torch.float32
