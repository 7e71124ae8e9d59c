"""Decoding of one recording: any format becomes 16 kHz mono, bad ones are refused, good ones are measured."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spira.config import Preprocess
from spira.data.decoding import DecodedAudio, check, decode, frame_levels, measure
from spira.inference.wav import AudioError
from tests.support import bad_datasets

SETTINGS = Preprocess(max_seconds=10)


@pytest.mark.parametrize(
    ("rate", "channels"), [(8_000, 1), (11_025, 2), (16_000, 6), (22_050, 1), (48_000, 2), (96_000, 1)]
)
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "FLAC", "OGG", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_formats_rates_and_channels_are_decoded(container: str, rate: int, channels: int, tmp_path: Path) -> None:
    """Each gives the same second of sound at 16 kHz mono."""
    file = tmp_path / "voice"
    time = np.arange(rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    soundfile.write(file, np.repeat(tone[:, None], channels, axis=1), rate, format=container)
    audio = decode(file, SETTINGS, max_seconds=10)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert (audio.sample_rate, audio.channels, len(audio.samples)) == (rate, channels, 16_000)
    assert np.abs(audio.samples - expected)[1_000:-1_000].max() < (0.02 if container == "OGG" else 2e-3)


def test_mp3_is_decoded(tmp_path: Path) -> None:
    """Its coder adds and shifts a few hundredths of a second."""
    bad_datasets.write(tmp_path, "voice", bad_datasets.wav_bytes(bad_datasets.voice(1, seconds=2.0), format="MP3"))
    assert abs(len(decode(tmp_path / "voice", SETTINGS, 10).samples) / 16_000 - 2.0) < 0.1


@pytest.mark.parametrize("name", bad_datasets.AUDIO)
def test_bad_audio_is_refused(name: str, tmp_path: Path) -> None:
    """The message is written to follow the name of the file."""
    content, words = bad_datasets.AUDIO[name]
    bad_datasets.write(tmp_path, "voice", content)
    with pytest.raises(AudioError) as error:
        check(decode(tmp_path / "voice", SETTINGS, max_seconds=10), SETTINGS)
    assert words in str(error.value)


def test_levels_are_in_dbfs_for_each_frame() -> None:
    """A full-scale sine is at -3 dBFS in every 20 ms frame, silence at -120; an incomplete last frame is ignored."""
    sine = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    np.testing.assert_allclose(frame_levels(np.append(sine, sine[:100])), [-3.01] * 50, atol=0.01)
    assert frame_levels(np.zeros(320, np.float32)).tolist() == [-120]


def test_measures_separate_speech_from_background() -> None:
    """The recording is half speech and half a background 40 dB below it."""
    sine = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    measures = measure(DecodedAudio(np.concatenate([sine, 0.01 * sine]), 44_100, 2, clipped=0.25))
    assert (measures.seconds, measures.sample_rate, measures.channels) == (2.0, 44_100, 2)
    assert (measures.speech_fraction, measures.clipped_fraction) == (0.5, 0.25)
    levels = [measures.peak_dbfs, measures.rms_dbfs, measures.background_dbfs]
    np.testing.assert_allclose(levels, [0, -6.02, -43.01], atol=0.01)


def test_a_constant_offset_changes_no_level() -> None:
    """The levels of speech, background and the whole stay; the peak is that of the samples."""
    sine = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    voice = np.concatenate([0.5 * sine, 0.005 * sine, np.zeros(1_000, np.float32)])
    plain, offset = (measure(DecodedAudio(voice + add, 16_000, 1, 0.0)) for add in (0.0, np.float32(0.3)))
    levels = attrgetter("rms_dbfs", "background_dbfs", "speech_fraction")
    np.testing.assert_allclose(levels(offset), levels(plain), atol=1e-3)
    assert offset.peak_dbfs > plain.peak_dbfs


def test_the_path_of_a_recording_is_not_mistaken_for_an_error(tmp_path: Path) -> None:
    """libsndfile's log begins with the path, which may contain the words of an error."""
    folder = tmp_path / "truncated 10 should be 2"
    folder.mkdir()
    soundfile.write(folder / "voice.wav", bad_datasets.voice(seed=0), bad_datasets.RATE)
    assert len(decode(folder / "voice.wav", SETTINGS, max_seconds=10).samples) == bad_datasets.RATE
