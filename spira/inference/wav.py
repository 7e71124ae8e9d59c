"""Decoding of WAV bytes to 16 kHz mono samples, with numpy and scipy only.

Training reads recordings with libsndfile and uses :func:`mono` and :func:`resample` of this module; serving uses all
of it. Tests compare :func:`decode` with libsndfile bit for bit.
"""

from __future__ import annotations

import math
import struct
from typing import Dict, Iterator, NamedTuple, Tuple

import numpy as np
from scipy.signal import resample_poly

MAX_SECONDS = 120.0
MAX_CHANNELS = 64
MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 4000, 384000
MAX_RESAMPLING_FACTOR = 48000
"""Largest factor of the resampling, which bounds its cost: the filter has 20 coefficients for each unit.

The factors are the two rates divided by their greatest common divisor. Every rate up to 48 kHz is within the limit, and
88.2, 96, 176.4, 192, 352.8 and 384 kHz; 383,999 Hz is not.
"""

PCM, IEEE_FLOAT, EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
EXTENSIBLE_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Last 14 bytes of the GUID of an extensible format; the first two bytes are the code of the plain format."""


class AudioError(ValueError):
    """Bytes that are not a usable WAV recording; the message names the rule."""


class Format(NamedTuple):
    """Content of a WAV's ``fmt`` chunk."""

    code: int
    channels: int
    sample_rate: int
    bits: int

    @property
    def frame_bytes(self) -> int:
        """Size of a frame: one sample of every channel."""
        return self.channels * self.bits // 8


def decode(content: bytes, max_seconds: float = MAX_SECONDS) -> Tuple[np.ndarray, int]:
    """Decode a WAV file (PCM 8, 16, 24, 32; float 32, 64; plain or extensible) and average its channels.

    Args:
        content: the whole file.
        max_seconds: limit; a longer recording is refused before memory is allocated for it.

    Returns:
        float32 [samples] in [-1, 1], and the sample rate in Hz.

    Raises:
        AudioError: not a WAV file, an unsupported encoding, a header that promises more than the file holds,
            no samples, too many samples, or samples that are NaN or infinity.
    """
    chunks = _chunks(content)
    layout = _format(chunks)
    data = chunks.get(b"data", memoryview(b""))
    frames = len(data) // layout.frame_bytes
    if not frames:
        raise AudioError("the WAV holds no samples")
    if frames > max_seconds * layout.sample_rate:
        raise AudioError("the recording lasts %.1f s, more than %g s" % (frames / layout.sample_rate, max_seconds))
    samples = mono(_to_float(data[: frames * layout.frame_bytes], layout))
    if not np.isfinite(samples).all():
        raise AudioError("the recording holds samples that are not finite numbers (NaN or infinity)")
    return samples, layout.sample_rate


def mono(frames: np.ndarray) -> np.ndarray:
    """Average the channels: float32 [samples, channels] -> float32 [samples]."""
    if frames.shape[1] == 1:
        return frames[:, 0]
    return frames.mean(axis=1, dtype=np.float64).astype(np.float32)


def resample(samples: np.ndarray, rate: int, target: int = 16000) -> np.ndarray:
    """Resample by polyphase filtering: float32 [samples] at ``rate`` Hz -> [ceil(samples * target / rate)].

    Raises:
        AudioError: the resampling would cost too much; the message follows a file's name.
    """
    if rate == target:
        return samples
    divisor = math.gcd(rate, target)
    if max(rate, target) // divisor > MAX_RESAMPLING_FACTOR:
        raise AudioError(
            "has a sample rate of %d Hz, which is too costly to resample: use a multiple of 100 Hz, or at most %d Hz"
            % (rate, MAX_RESAMPLING_FACTOR)
        )
    return resample_poly(samples, target // divisor, rate // divisor).astype(np.float32, copy=False)


def _chunks(content: bytes) -> Dict[bytes, memoryview]:
    """Return the first chunk of each name, as views of the content."""
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise AudioError("not a WAV file: it does not begin with RIFF....WAVE")
    chunks = {}  # type: Dict[bytes, memoryview]
    for name, chunk in _iterate_chunks(memoryview(content)):
        chunks.setdefault(name, chunk)
    return chunks


def _iterate_chunks(content: memoryview) -> Iterator[Tuple[bytes, memoryview]]:
    """Yield the name and the content of each chunk."""
    start = 12
    while start + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, start)
        chunk = content[start + 8 : start + 8 + size]
        if len(chunk) < size and name in (b"fmt ", b"data"):
            raise AudioError(
                "the header promises %d bytes of %s, the file holds %d: the upload is truncated or the header damaged"
                % (size, name.decode().strip(), len(chunk))
            )
        yield name, chunk
        start += 8 + size + size % 2  # chunks begin at even offsets


def _format(chunks: Dict[bytes, memoryview]) -> Format:
    """Read and check the ``fmt`` chunk."""
    chunk = chunks.get(b"fmt ", memoryview(b""))
    if len(chunk) < 16:
        raise AudioError("the WAV has no complete fmt chunk")
    code, channels, sample_rate, _, block_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == EXTENSIBLE and len(chunk) >= 40 and bytes(chunk[26:40]) == EXTENSIBLE_GUID_TAIL:
        code = struct.unpack_from("<H", chunk, 24)[0]
    layout = Format(code, channels, sample_rate, bits)
    if (code, bits) not in READERS:
        raise AudioError(
            "WAV encoding %#06x with %d bits is not supported: use PCM (8, 16, 24, 32 bits) or float (32, 64 bits)"
            % (code, bits)
        )
    if not 1 <= channels <= MAX_CHANNELS or block_bytes != layout.frame_bytes:
        raise AudioError("the WAV header is damaged: %d channels with %d bytes per frame" % (channels, block_bytes))
    if not MIN_SAMPLE_RATE_HZ <= sample_rate <= MAX_SAMPLE_RATE_HZ:
        limits = (MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ)
        raise AudioError("the sample rate %d Hz is outside %d to %d Hz" % (sample_rate, *limits))
    return layout


def _to_float(data: memoryview, layout: Format) -> np.ndarray:
    """Convert bytes to float32 [samples, channels], full scale 1."""
    flat = READERS[layout.code, layout.bits](data)
    return flat.reshape(-1, layout.channels)


def _read_u8(data: memoryview) -> np.ndarray:
    return (np.frombuffer(data, "u1").astype(np.float32) - np.float32(128)) * np.float32(2.0**-7)


def _read_i16(data: memoryview) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32) * np.float32(2.0**-15)


def _read_i24(data: memoryview) -> np.ndarray:
    wide = np.zeros((len(data) // 3, 4), "u1")
    wide[:, 1:] = np.frombuffer(data, "u1").reshape(-1, 3)  # the low byte stays 0: the 24 bits are the upper ones of 32
    return wide.view("<i4")[:, 0].astype(np.float32) * np.float32(2.0**-31)


def _read_i32(data: memoryview) -> np.ndarray:
    return np.frombuffer(data, "<i4").astype(np.float32) * np.float32(2.0**-31)


def _read_f32(data: memoryview) -> np.ndarray:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _read_f64(data: memoryview) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.frombuffer(data, "<f8").astype(np.float32)


READERS = {
    (PCM, 8): _read_u8,
    (PCM, 16): _read_i16,
    (PCM, 24): _read_i24,
    (PCM, 32): _read_i32,
    (IEEE_FLOAT, 32): _read_f32,
    (IEEE_FLOAT, 64): _read_f64,
}
