"""Batches: a function of seed, epoch and recording, with the right windows, labels and noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from spira.config import Config, from_dict
from spira.data.corpus import Corpus
from spira.features.batches import Batch, make_batch, noisy_waveform, training_batches, validation_batches
from spira.features.mfcc import mfcc
from spira.features.windows import cut

CPU = torch.device("cpu")
CONFIG = from_dict({"windows": {"window_seconds": 1.0, "step_seconds": 0.5}, "training": {"batch_files": 5}})


def with_batches_of(files: int) -> Config:
    return CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"batch_files": files})})


def epoch_of(corpus: Corpus, seed: int = 42, epoch: int = 1, config: Config = CONFIG) -> list[Batch]:
    return list(training_batches(corpus.split("train"), corpus.noises, config, seed, epoch, CPU))


def by_recording(batches: list[Batch]) -> Iterator[tuple[float, torch.Tensor]]:
    """Yield label and features ``[W, T, F]`` of each recording, in the order of the batches."""
    for batch in batches:
        for file in range(int(batch.files.max()) + 1):
            is_file = batch.files == file
            (label,) = batch.labels[is_file].unique()
            yield float(label), batch.features[is_file]


def are_equal(first: list[Batch], second: list[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a.features.shape == b.features.shape and torch.equal(a.features, b.features) for a, b in pairs)


def test_an_epoch_is_the_same_whenever_it_is_computed(corpus: Corpus) -> None:
    """Earlier epochs and the state of torch's and numpy's global generators do not matter."""
    first = epoch_of(corpus, epoch=3)
    torch.manual_seed(1)
    np.random.seed(1)
    epoch_of(corpus, epoch=1)
    assert are_equal(first, epoch_of(corpus, epoch=3))


def test_another_epoch_or_seed_gives_other_batches(corpus: Corpus) -> None:
    """Order and noise change."""
    first = epoch_of(corpus)
    assert not are_equal(first, epoch_of(corpus, epoch=2))
    assert not are_equal(first, epoch_of(corpus, seed=43))


def test_a_recordings_noise_does_not_depend_on_its_batch(corpus: Corpus) -> None:
    """Batches of 1 and of 5 hold the same recordings with the same noise, in the same order."""
    ones = list(by_recording(epoch_of(corpus, config=with_batches_of(1))))
    fives = list(by_recording(epoch_of(corpus)))
    assert len(ones) == len(corpus.split("train"))
    for (label, features), (other_label, others) in zip(ones, fives, strict=False):
        assert label == other_label
        torch.testing.assert_close(features, others, rtol=0, atol=1e-4)


def test_the_last_incomplete_batch_is_dropped(corpus: Corpus) -> None:
    """12 recordings make two batches of 5; each epoch leaves out another two."""
    batches = epoch_of(corpus)
    assert [int(batch.files.max()) + 1 for batch in batches] == [5, 5]


def test_fewer_recordings_than_a_batch_make_one_batch(corpus: Corpus) -> None:
    """A small data set can still be trained on."""
    (batch,) = epoch_of(corpus, config=with_batches_of(100))
    assert int(batch.files.max()) + 1 == len(corpus.split("train"))


@pytest.mark.parametrize("files", [1, 12])
def test_an_epoch_holds_every_recording_once(corpus: Corpus, files: int) -> None:
    """Each has its own label; recordings are matched by the features of the noisy waveform."""
    train = corpus.split("train")
    config = with_batches_of(files)
    recordings = list(by_recording(epoch_of(corpus, config=config)))
    for index in range(len(train)):
        noisy = noisy_waveform(train, index, corpus.noises, (4, 3), config, [42, 1])
        expected = mfcc(cut(torch.from_numpy(noisy), config.windows), config.features)
        matches = [
            label
            for label, features in recordings
            if features.shape == expected.shape and torch.allclose(features, expected, rtol=0, atol=1e-3)
        ]
        assert matches == [float(train.labels[index])]


def test_a_class_has_its_own_number_of_noises(corpus: Corpus) -> None:
    """With noise for controls alone, patients are unchanged."""
    train = corpus.split("train")
    for index, label in enumerate(train.labels):
        noisy = noisy_waveform(train, index, corpus.noises, (1, 0), CONFIG, [0])
        assert np.array_equal(noisy, train.waveform(index)) == bool(label)


def test_every_recording_has_noise_of_its_own(corpus: Corpus) -> None:
    """No two recordings have noise of the same level."""
    train = corpus.split("train")
    peaks = [
        float((noisy_waveform(train, index, corpus.noises, (1, 1), CONFIG, [42, 1]) - train.waveform(index)).max())
        for index in range(len(train))
    ]
    assert np.diff(np.sort(peaks)).min() > 1e-5


def test_validation_has_the_same_noise_every_time(corpus: Corpus) -> None:
    """Losses of epochs and seeds are therefore comparable. Every recording is included, in order."""
    evaluation = corpus.split("eval")
    runs = [list(validation_batches(evaluation, corpus.noises, with_batches_of(3), CPU)) for _ in range(2)]
    assert are_equal(*runs)
    assert [label for label, _ in by_recording(runs[0])] == list(evaluation.labels)


def test_validation_has_the_trainings_number_of_noises(corpus: Corpus) -> None:
    """A network trained with noise is selected with noise, and one trained without on clean recordings."""
    config = CONFIG.model_copy(
        update={"noise": CONFIG.noise.model_copy(update={"train_controls": 0, "train_patients": 0})}
    )
    evaluation = corpus.split("eval")
    clean = mfcc(cut(torch.tensor(evaluation.waveform(0)), config.windows), config.features)
    (_, quiet), *_ = by_recording(list(validation_batches(evaluation, corpus.noises, config, CPU)))
    (_, noisy), *_ = by_recording(list(validation_batches(evaluation, corpus.noises, CONFIG, CPU)))
    torch.testing.assert_close(quiet, clean, rtol=0, atol=1e-4)
    assert (noisy - clean).abs().max() > 1


def test_a_batch_maps_windows_to_files() -> None:
    """Windows of files of different lengths are in order, with the index and label of their file."""
    waveforms = [np.zeros(int(seconds * 16_000), np.float32) for seconds in (1.2, 3.0, 0.5)]
    batch = make_batch(waveforms, np.array([0, 1, 0]), CONFIG, CPU)
    assert batch.features.shape == (6, 101, 40)
    assert batch.files.tolist() == [0, 1, 1, 1, 1, 2]
    assert batch.labels.tolist() == [0, 1, 1, 1, 1, 0]
    assert batch.labels.dtype == torch.float32
