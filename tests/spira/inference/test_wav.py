"""Tests of the WAV decoder of a package: libsndfile's numbers, refusal of damaged files, resampling."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from spira.config import Preprocess
from spira.data.decoding import decode as decode_for_training
from spira.inference import wav
from tests.support import bad_datasets as bad_input

SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
WAV = Path(wav.__file__)


def make_samples(channels: int, frames: int = 2_000) -> np.ndarray:
    """Return samples of every level, full scale included: float64 [frames, channels]."""
    samples = np.random.default_rng(channels).uniform(-1, 1, (frames, channels))
    samples[:3] = [[-1.0], [1.0], [0.0]]
    return samples


@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_decoded_samples_equal_those_of_libsndfile(subtype: str, channels: int, container: str, tmp_path: Path) -> None:
    """Every encoding, plain and extensible, is equal bit for bit."""
    content = bad_input.wav_bytes(make_samples(channels), 22_050, format=container, subtype=subtype)
    frames, _ = soundfile.read(save(tmp_path, content), dtype="float32", always_2d=True)
    samples, rate = wav.decode(content)
    assert (samples.dtype, samples.shape, rate) == (np.float32, (2_000,), 22_050)
    np.testing.assert_array_equal(samples, wav.mono(frames))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_serving_decodes_as_training_does(rate: int, tmp_path: Path) -> None:
    """The samples in the corpus and those in serving are equal bit for bit."""
    content = bad_input.wav_bytes(make_samples(2, frames=2 * rate) / 2, rate)
    decoded = decode_for_training(save(tmp_path, content), Preprocess(), max_seconds=10)
    np.testing.assert_array_equal(decoded.samples, wav.resample(*wav.decode(content)))


def save(folder: Path, content: bytes) -> Path:
    """Write a WAV file and return its path."""
    bad_input.write(folder, "sound.wav", content)
    return folder / "sound.wav"


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_resampling_keeps_a_tone(rate: int) -> None:
    """A tone of 440 Hz keeps its length in seconds, its frequency, and its amplitude within 1 %."""
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    resampled = wav.resample(tone, rate)
    assert (len(resampled), resampled.dtype) == (16_000, np.float32)
    spectrum = np.abs(np.fft.rfft(resampled[4_000:12_000] * np.hanning(8_000))) / 2_000
    assert (np.argmax(spectrum) * 2, round(spectrum.max(), 1)) == (440, 1.0)


def test_resampling_does_not_alias() -> None:
    """A tone of 12 kHz, above the Nyquist frequency of 16 kHz, is removed and does not appear at 4 kHz."""
    tone = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000).astype(np.float32)
    assert np.abs(wav.resample(tone, 48_000)[1_000:-1_000]).max() < 0.01


def overwrite(content: bytes, chunk: bytes, offset: int, layout: str, value: int) -> bytes:
    """Overwrite a field at an offset from the name of a chunk."""
    damaged = bytearray(content)
    struct.pack_into(layout, damaged, content.index(chunk) + offset, value)
    return bytes(damaged)


GOOD = bad_input.wav_bytes(bad_input.voice(1))
BAD = {
    "nothing": (b"", "not a WAV"),
    "another format": (bad_input.wav_bytes(bad_input.voice(1), format="FLAC"), "not a WAV"),
    "no chunks": (GOOD[:12], "no complete fmt chunk"),
    "cut in the format": (GOOD[:30], "no complete fmt chunk"),
    "no data chunk": (GOOD[:36], "holds no samples"),
    "no samples": (GOOD[:40] + bytes(4), "holds no samples"),
    "samples before their format": (GOOD[:12] + GOOD[36:] + GOOD[12:36], "no fmt chunk before its samples"),
    "cut in the data": (GOOD[:20_000], "promises 32000 bytes of samples and the file holds 19956"),
    "promises 1 GB": (overwrite(GOOD, b"data", 4, "<I", 2**30), "promises 1073741824 bytes of samples"),
    "other encoding": (overwrite(GOOD, b"fmt ", 8, "<H", 17), "encoding 0x0011 with 16 bits, which is not supported"),
    "no channels": (overwrite(GOOD, b"fmt ", 10, "<H", 0), "0 channels"),
    "65535 channels": (overwrite(GOOD, b"fmt ", 10, "<H", 65_535), "65535 channels"),
    "rate 0": (overwrite(GOOD, b"fmt ", 12, "<I", 0), "sample rate of 0 Hz"),
    "rate 2 GHz": (overwrite(GOOD, b"fmt ", 12, "<I", 2_000_000_000), "sample rate of 2000000000 Hz"),
    "too long": (bad_input.wav_bytes(bad_input.voice(1, seconds=121)), "lasts 121.0 s, more than the 120 s allowed"),
    "NaN": (bad_input.AUDIO["NaN"][0], "not finite"),
    "beyond float32": (bad_input.wav_bytes(np.full(9, 1e300), subtype="DOUBLE"), "not finite"),
    "two chunks of samples": (GOOD + b"data" + struct.pack("<I", 4_000) + GOOD[-4_000:], "more than one recording"),
    "two files": (GOOD + GOOD, "more than one recording"),
    "size in samples": (overwrite(GOOD, b"data", 4, "<I", 16_000), "16000 bytes after its samples"),
    "copied as text": (GOOD.replace(b"\n", b"\r\n"), "copied as text"),
    "24 bits in 4 bytes": (
        overwrite(overwrite(GOOD, b"fmt ", 20, "<H", 4), b"fmt ", 22, "<H", 24),
        "24 bits in 4 bytes",
    ),
    "integers as floats": (bad_input.wav_bytes(np.full(9, 16_000.0), subtype="FLOAT"), "integers stored as floats"),
    "chunks without end": (b"RIFF\0\0\0\0WAVE" + b"note\0\0\0\0" * 50_000, "no complete fmt chunk"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_wav_is_refused(name: str) -> None:
    """The error names the broken rule."""
    content, message = BAD[name]
    with pytest.raises(wav.AudioError, match=message):
        wav.decode(content)


@pytest.mark.parametrize(
    "content",
    [
        overwrite(GOOD, b"fmt ", 16, "<I", 64_000),  # bytes per second
        overwrite(GOOD, b"fmt ", 20, "<H", 4),  # bytes per frame
        overwrite(overwrite(GOOD, b"fmt ", 16, "<I", 64_000), b"fmt ", 20, "<H", 4),  # SPIRA's early recorder
        overwrite(GOOD, b"fmt ", 20, "<H", 0),
        overwrite(GOOD, b"RIFF", 4, "<I", 0),
        overwrite(GOOD, b"RIFF", 4, "<I", 2**32 - 1),
        *(overwrite(GOOD, b"data", 4, "<I", size) for size in (0, 2**31 - 1, 2**31 - 37, 2**31, 2**32 - 1, 2**32 - 45)),
        overwrite(GOOD, b"data", 4, "<I", 32_044),  # counts the header too
    ],
)
def test_fields_that_follow_from_others_are_ignored(content: bytes) -> None:
    """Every sample is there, so the recording is whole; a size that a stream leaves open is that of the file."""
    np.testing.assert_array_equal(wav.decode(content)[0], wav.decode(GOOD)[0])


def test_an_empty_chunk_of_samples_before_another_chunk_stays_empty() -> None:
    """Size 0 means 'to the end of the file' only if what follows is no chunk."""
    with pytest.raises(wav.AudioError, match="holds no samples"):
        wav.decode(GOOD[:40] + bytes(4) + b"LIST\x04\x00\x00\x00INFO")


@pytest.mark.parametrize(
    "content",
    [
        GOOD[:36] + b"data\0\0\0\0" + GOOD[36:],  # an empty chunk first
        GOOD + b"TAG\0" + b"notes" * 25,
        GOOD + b"ID3\4" + b"notes" * 200,
        GOOD + bytes(4096),  # a recorder's block
        GOOD + b"\r\n",
        GOOD + b"LIST\xff\0\0\0INFO",  # cut off after the samples
        GOOD + b"data\0\0\0\0",
        b"BW64" + GOOD[4:],
    ],
)
def test_what_surrounds_the_samples_is_no_reason_to_refuse(content: bytes) -> None:
    """Tags, padding and empty chunks hold no sound."""
    np.testing.assert_array_equal(wav.decode(content)[0], wav.decode(GOOD)[0])


@pytest.mark.parametrize("bits", [12, 20])
def test_samples_that_fill_no_bytes_are_read(bits: int, tmp_path: Path) -> None:
    """Samples of 12 bits lie in the upper bits of 16, as libsndfile reads them."""
    content = bad_input.wav_bytes(make_samples(1), subtype=f"PCM_{bits + 4}")
    content = overwrite(content, b"fmt ", 22, "<H", bits)
    np.testing.assert_array_equal(wav.decode(content)[0], soundfile.read(save(tmp_path, content), dtype="float32")[0])


@pytest.mark.parametrize("subtype", SUBTYPES[1:])
def test_big_endian_files_are_read(subtype: str, tmp_path: Path) -> None:
    """Some studio recorders write RIFX."""
    content = bad_input.wav_bytes(make_samples(2), subtype=subtype, endian="BIG")
    frames, _ = soundfile.read(save(tmp_path, content), dtype="float32", always_2d=True)
    assert content[:4] == b"RIFX"
    np.testing.assert_array_equal(wav.decode(content)[0], wav.mono(frames))


def test_other_chunks_are_skipped() -> None:
    """Unknown chunks before and after the samples change nothing, even with an odd length."""
    extra = b"LIST\x05\x00\x00\x00hello\x00"
    start = GOOD.index(b"data")
    expected, _ = wav.decode(GOOD)
    for padded in (extra, extra[:-1]):  # some programs leave the zero after an odd length out
        np.testing.assert_array_equal(wav.decode(GOOD[:start] + padded + GOOD[start:] + extra)[0], expected)
        np.testing.assert_array_equal(wav.decode(GOOD[:12] + padded + GOOD[12:] + extra)[0], expected)


@settings(max_examples=300)
@given(st.data())
def test_any_bytes_are_decoded_or_refused(data: st.DataObject) -> None:
    """Random bytes and damaged files give valid samples or an AudioError, nothing else."""
    content = data.draw(st.one_of(st.binary(max_size=200), st.just(GOOD[:3_000]), st.just(GOOD)))
    for offset, byte in data.draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4)):
        content = content[:offset] + bytes([byte]) + content[offset + 1 :]
    try:
        samples, rate = wav.decode(content)
    except wav.AudioError:
        return
    assert np.isfinite(samples).all()
    assert 0 < len(samples) <= wav.MAX_SECONDS * rate


def test_the_decoder_imports_only_numpy_and_scipy() -> None:
    """The module loads on its own, without spira, torch or libsndfile."""
    script = (
        f"import sys; sys.path.insert(0, {str(WAV.parent)!r}); import wav\n"
        "print([name for name in ('spira', 'torch', 'soundfile', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=os.sep)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
