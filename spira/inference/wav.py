"""Decoding of WAV files to 16 kHz mono samples, with numpy and scipy only.

The structure of a file decides what it holds, not its size fields alone:

- The fields for bytes per second and for bytes per frame follow from the others, so they are ignored. Browser recorders
  write them for two channels in every mono file.
- A size written by a program that cannot go back to its header (:data:`STREAMED_SIZES`) means the rest of the file.
- Any other size that the file does not hold is that of a cut-off file, which is refused.
- A file that holds more than one recording, or bytes that belong to no chunk, is refused: a part would be dropped.

Training, ``spira predict``, the KServe server and the Inference Service all read WAV files with this module
(:mod:`spira.audio` adds other formats for the first three). Tests compare it with libsndfile bit for bit. The message
of an :class:`AudioError` is written to follow the file's name.
"""

from __future__ import annotations

import io
import math
import struct
from typing import BinaryIO, Iterable, Iterator, List, NamedTuple, Optional, Tuple

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

BLOCK_SAMPLES = 1 << 18
"""Samples over all channels that are read at once."""
FULL_SCALE = 0.999
"""Amplitude from which a sample counts as clipped."""

UNNAMED, PCM, IEEE_FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 0x0000, 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
EXTENSIBLE_GUID_TAILS = (bytes.fromhex("000000001000800000aa00389b71"), bytes(14))
"""Last 14 bytes of the GUID of an extensible format; the first two bytes are the code of the plain format.

Some programs write zeros instead, or a chunk that ends before the GUID."""

PADDED_PCM = 0x10000
"""PCM of 17 to 24 bits in 4 bytes each; no code of a WAV, which has 16 bits."""

BYTE_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
"""First four bytes of a WAV file -> byte order, as numpy and struct name it."""

STREAMED_SIZES = (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Sizes written by a program that cannot go back to the header: ffmpeg, sox and arecord into a pipe. Also these less
the length of the header. Likewise 0, which a recorder leaves that ended before it could write the size."""
MAX_HEADER_BYTES = 4096
"""Largest length of a header that a program subtracts from one of the streamed sizes."""
MAX_CHUNKS = 10000
"""Number of chunks after which a file is damaged, not merely rich in notes."""
SIZE_SLACK_BYTES = 64
"""Some programs count a part of the header in the size of the samples: at most this many bytes are accepted."""

UNCLAIMED_SHARE = 0.001
"""Bytes after the samples that belong to no chunk, as a share of the samples, from which a file is refused."""
TAGS = (b"TAG", b"APETAGEX", b"ID3", b"LYRICS")
"""First bytes of notes that some programs append without a chunk."""
MAX_AMPLITUDE = 100.0
"""Full scale is 1, and a float recording may exceed it. Beyond this limit its samples are integers."""
MAX_CANCELLED_SHARE = 0.01
"""Power of the average of the channels, as a share of the power of one channel, below which they cancel each other.

Independent noise on 64 channels leaves 1/64. Only channels of opposite sign leave less, such as the two wires of a
microphone with a balanced output."""
MIN_POWER = 1e-10
"""Power of a channel (-100 dBFS) below which it is silent."""


class AudioError(ValueError):
    """Bytes that are not a usable recording; the message names the rule."""


class Format(NamedTuple):
    """Content of a WAV's ``fmt`` chunk."""

    code: int
    channels: int
    sample_rate: int
    bits: int
    """Bits of a sample, in whole bytes: samples of 12 bits lie in the upper bits of 16."""
    byte_order: str

    @property
    def frame_bytes(self) -> int:
        """Size of a frame: one sample of every channel."""
        return self.channels * self.bits // 8

    @property
    def is_supported(self) -> bool:
        """Return whether :func:`read_blocks` reads the encoding."""
        return (self.code, self.bits) in READERS


class Chunk(NamedTuple):
    """A part of a file: its name, where its content begins, and the size that its header promises."""

    name: bytes
    start: int
    size: int


class Wav(NamedTuple):
    """The format of a WAV file, and where its samples are."""

    format: Format
    start: int
    """Offset of the first sample, in bytes."""
    size: int
    """Bytes of samples that the file holds."""
    streamed: bool
    """Whether the header does not hold the size."""

    @property
    def frames(self) -> int:
        """Number of whole frames, of a supported encoding."""
        return self.size // self.format.frame_bytes


def decode(content: bytes, max_seconds: float = MAX_SECONDS) -> Tuple[np.ndarray, int]:
    """Decode a WAV file to mono: PCM of 8, 16, 24, 32 bits, float of 16, 32, 64, mu-law, A-law; plain or extensible.

    Args:
        content: the whole file.
        max_seconds: limit; a longer recording is refused before memory is allocated for it.

    Returns:
        float32 [samples] in [-1, 1], and the sample rate in Hz.

    Raises:
        AudioError: not a WAV file, an unsupported encoding, a cut-off file, no samples, too many samples, or samples
            that are NaN or infinity.
    """
    file = io.BytesIO(content)
    wav = locate(file)
    layout = wav.format
    if not layout.is_supported:
        raise AudioError(
            "has the WAV encoding %#06x with %d bits, which is not supported here: use PCM (8, 16, 24, 32 bits), "
            "float (16, 32, 64 bits), mu-law or A-law" % (layout.code, layout.bits)
        )
    check_sample_rate(layout.sample_rate)
    samples, _ = collect(read_blocks(file, wav), layout.sample_rate, wav.frames, max_seconds)
    return samples, layout.sample_rate


def check_sample_rate(rate: int, low: int = MIN_SAMPLE_RATE_HZ, high: int = MAX_SAMPLE_RATE_HZ) -> None:
    """Refuse a sample rate that is too low for speech, or that only a damaged header can hold.

    Raises:
        AudioError: the rate, in Hz, is outside the limits.
    """
    if not low <= rate <= high:
        raise AudioError("has a sample rate of %d Hz, outside %d to %d Hz" % (rate, low, high))


def collect(
    blocks: Iterable[np.ndarray], rate: int, frames: Optional[int], max_seconds: float
) -> Tuple[np.ndarray, float]:
    """Join the blocks of a recording to mono.

    Args:
        blocks: float32 [frames, channels] each.
        rate: sample rate, Hz.
        frames: number of frames that the header promises, or None.
        max_seconds: limit; a longer recording is refused before memory is allocated for it.

    Returns:
        float32 [samples], and the share of the samples at full scale, over all channels. The samples are the average of
        the channels, or the first channel if they cancel each other.

    Raises:
        AudioError: no samples, too many samples, or samples that are NaN or infinity.
    """
    if frames is not None and frames > max_seconds * rate:
        raise AudioError("lasts %.1f s, more than the %g s allowed" % (frames / rate, max_seconds))
    parts: List[np.ndarray] = []
    firsts: List[np.ndarray] = []
    sums = squares = np.zeros(1)
    count = total = clipped = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError("holds samples that are not finite numbers (NaN or infinity)")
        if np.abs(block).max(initial=0.0) > MAX_AMPLITUDE:
            raise AudioError(
                "is clipped: its samples reach %.0f times full scale, so they are integers stored as floats; export it "
                "again as PCM" % np.abs(block).max()
            )
        count += len(block)
        if count > max_seconds * rate:
            raise AudioError("lasts more than the %g s allowed" % max_seconds)
        total += block.size
        clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        parts.append(mono(block))
        if block.shape[1] > 1:
            firsts.append(block[:, 0].copy())
            sums = sums + block.sum(axis=0, dtype=np.float64)
            squares = squares + np.square(block, dtype=np.float64).sum(axis=0)
    if not count:
        raise AudioError("is empty: it holds no samples")
    samples = np.concatenate(parts)
    power = float(np.mean(squares / count - np.square(sums / count)))  # without the mean: an offset is no sound
    if power > MIN_POWER and np.var(samples, dtype=np.float64) < MAX_CANCELLED_SHARE * power:
        samples = np.concatenate(firsts)
    return samples, clipped / total


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


def is_wav(head: bytes) -> bool:
    """Return whether a file that begins with these 12 bytes is a WAV file."""
    return head[:4] in BYTE_ORDERS and head[8:12] == b"WAVE"


def locate(file: BinaryIO) -> Wav:
    """Return the format of a WAV file of any encoding, and where its samples are.

    Raises:
        AudioError: not a WAV file, a damaged header, no samples, or a cut-off file.
    """
    file.seek(0)
    head = file.read(12)
    if not is_wav(head):
        raise AudioError("is not a WAV file: it does not begin with RIFF....WAVE")
    byte_order = BYTE_ORDERS[head[:4]]
    layout, long_size = None, None
    found: Optional[Wav] = None
    for chunk in iterate_chunks(file, 12, byte_order):
        if found:
            _refuse_second(file, found, chunk)
            if not _is_name(chunk.name):
                break
        elif chunk.name == b"ds64":  # RF64: the sizes that need more than 32 bits
            long_size = _long_data_size(file, chunk)
        elif chunk.name == b"fmt " and layout is None:
            layout = _format(file, chunk, byte_order)
        elif chunk.name == b"data":
            if layout is None:
                raise AudioError("has no fmt chunk before its samples: the header is damaged; export it again as WAV")
            _refuse_unclear(layout, chunk.start)
            if chunk.size == 0xFFFFFFFF and long_size:
                chunk = chunk._replace(size=long_size)
            size, streamed = held_size(file, chunk, byte_order)
            if streamed:
                return Wav(layout, chunk.start, size, streamed)
            if size:  # some programs write an empty chunk before that of the samples
                found = Wav(layout, chunk.start, size, streamed)
    if found:
        return found
    if layout is None:
        raise _incomplete_fmt()
    raise AudioError("is empty: it holds no samples")


def _refuse_second(file: BinaryIO, samples: Wav, chunk: Chunk) -> None:
    """Refuse a chunk after the samples that holds more sound, or that is none.

    Raises:
        AudioError: a part of the recording would be dropped.
    """
    if chunk.name in BYTE_ORDERS or (chunk.name == b"data" and chunk.size):
        raise AudioError(
            "holds more than one recording: sound follows the end of its samples; export each as a WAV file of its own"
        )
    rest = file_size(file) - (chunk.start - 8)
    if _is_name(chunk.name) or rest <= max(SIZE_SLACK_BYTES, UNCLAIMED_SHARE * samples.size):
        return
    file.seek(chunk.start - 8)
    content = file.read(rest)
    if any(content) and not content.startswith(TAGS):
        raise AudioError(
            "holds %d bytes after its samples that are no part of a WAV file: it was copied as text, or its header "
            "promises too few samples; copy it again in binary mode, or keep what the header promises with "
            "'ffmpeg -i IN OUT.wav', or all with 'ffmpeg -ignore_length 1 -i IN OUT.wav'" % rest
        )


def held_size(file: BinaryIO, samples: Chunk, byte_order: str) -> Tuple[int, bool]:
    """Return the number of bytes of samples that a file holds, and whether its header leaves the number open.

    Args:
        file: a file that consists of chunks.
        samples: the chunk of the samples.
        byte_order: of its size fields.

    Raises:
        AudioError: the file is cut off.
    """
    held = file_size(file) - samples.start
    if samples.size == 0 and held > 0 and not _is_chunks(file, samples.start, byte_order):
        return held, True
    if samples.size <= held:
        return samples.size, False
    if is_streamed(samples.size):
        return held, True
    refuse_cut_off(samples.size, held)
    return held, False


def is_streamed(size: int) -> bool:
    """Return whether a program writes this size when it does not know the size."""
    return any(limit - MAX_HEADER_BYTES <= size <= limit for limit in STREAMED_SIZES)


def refuse_cut_off(promised: int, held: int) -> None:
    """Refuse a file that holds fewer bytes of samples than its header promises.

    Raises:
        AudioError: the file is cut off.
    """
    if promised > held + SIZE_SLACK_BYTES:
        raise AudioError(
            "is cut off: its header promises %d bytes of samples and the file holds %d; copy it again, or, if the "
            "original is cut off too, keep what is there with 'ffmpeg -i IN OUT.wav'" % (promised, held)
        )


def iterate_chunks(file: BinaryIO, start: int, byte_order: str) -> Iterator[Chunk]:
    """Yield the chunks of a file from an offset on. The content of the last one may be cut off."""
    end = file_size(file)
    for _ in range(MAX_CHUNKS):
        if start + 8 > end:
            return
        file.seek(start)
        name, size = struct.unpack(byte_order + "4sI", file.read(8))
        yield Chunk(name, start + 8, size)
        start += 8 + size
        if size % 2:  # chunks begin at even offsets, but some programs leave the zero between them out
            file.seek(start)
            following = file.read(4)
            start += 0 if following[:1] != b"\0" and _is_name(following) else 1


def file_size(file: BinaryIO) -> int:
    """Return the size of a file in bytes."""
    return file.seek(0, io.SEEK_END)


def read_blocks(file: BinaryIO, wav: Wav) -> Iterator[np.ndarray]:
    """Yield the samples of a supported encoding, float32 [frames, channels] with full scale 1."""
    layout = wav.format
    convert = READERS[layout.code, layout.bits]
    remaining = wav.frames
    file.seek(wav.start)
    while remaining > 0:
        frames = min(remaining, BLOCK_SAMPLES // layout.channels)
        flat = convert(file.read(frames * layout.frame_bytes), layout.byte_order)
        yield flat.reshape(-1, layout.channels)
        remaining -= frames


def _is_chunks(file: BinaryIO, start: int, byte_order: str) -> bool:
    """Return whether the rest of a file consists of whole chunks, not of samples."""
    end = file_size(file)
    last = start
    for chunk in iterate_chunks(file, start, byte_order):
        last = chunk.start + chunk.size
        if not _is_name(chunk.name) or last > end:
            return False
    return last > start


def _is_name(name: bytes) -> bool:
    """Return whether four bytes can be the name of a chunk: printable ASCII."""
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _long_data_size(file: BinaryIO, chunk: Chunk) -> int:
    """Return the size of the samples in a ``ds64`` chunk; 0 if it is not known."""
    file.seek(chunk.start)
    sizes = file.read(16)
    size: int = struct.unpack("<Q", sizes[8:])[0] if len(sizes) == 16 else 0
    return size if size < 1 << 62 else 0


def _format(file: BinaryIO, chunk: Chunk, byte_order: str) -> Format:
    """Read and check the ``fmt`` chunk."""
    file.seek(chunk.start)
    content = file.read(min(chunk.size, 40))
    if len(content) < 16:
        raise _incomplete_fmt()
    code, channels, sample_rate, _, frame_bytes, bits = struct.unpack_from(byte_order + "HHIIHH", content)
    guid = content[24:40].ljust(16, b"\0")
    if code == EXTENSIBLE and guid[2:] in EXTENSIBLE_GUID_TAILS:
        code = struct.unpack(byte_order + "H", guid[:2])[0]
    if code == UNNAMED and bits in (16, 24):
        code = PCM  # WAV files of these sizes hold nothing else
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            "has %d channels, outside 1 to %d: the header is damaged; copy the file again, or export it again as WAV"
            % (channels, MAX_CHANNELS)
        )
    if code == PCM and 16 < bits <= 24 and frame_bytes == 4 * channels:
        # Programs disagree about which three of the four bytes hold the sample.
        code, bits = PADDED_PCM, 32
    return Format(code, channels, sample_rate, (bits + 7) // 8 * 8, byte_order)


def _incomplete_fmt() -> AudioError:
    return AudioError(
        "has no complete fmt chunk: the header is damaged or cut off; copy the file again, or export it again as WAV"
    )


def _refuse_unclear(layout: Format, start: int) -> None:
    """Refuse samples whose encoding does not follow from the header.

    Args:
        layout: the format.
        start: offset of the first sample, in bytes.

    Raises:
        AudioError: the message has the command of a conversion for which the user names the encoding.
    """
    command = "ffmpeg -f %%s -ar %d -ac %d -skip_initial_bytes %d -i IN OUT.wav" % (
        layout.sample_rate,
        layout.channels,
        start,
    )
    order = "le" if layout.byte_order == "<" else "be"
    if layout.code == PADDED_PCM:
        loud = (command % ("s32" + order)).replace("OUT.wav", "-af volume=256 OUT.wav")
        raise AudioError(
            "has samples of 24 bits in 4 bytes each, and its header does not say in which three: export it again as "
            "PCM of 16 bits, or convert it with '%s', and, if the result is silent, with '%s'"
            % (command % ("s32" + order), loud)
        )
    if layout.code == UNNAMED:
        named = {8: "u8", 32: "f32" + order, 64: "f64" + order}.get(layout.bits)
        convert = ", or, if you know that it is %s, convert it with '%s'" % (named, command % named) if named else ""
        raise AudioError(
            "has a header that does not name the encoding of its samples (%d bits each): export it again as PCM of 16 "
            "bits%s" % (layout.bits, convert)
        )


def _read_u8(data: bytes, byte_order: str) -> np.ndarray:
    return (np.frombuffer(data, "u1").astype(np.float32) - np.float32(128)) * np.float32(2.0**-7)


def _read_i16(data: bytes, byte_order: str) -> np.ndarray:
    return np.frombuffer(data, byte_order + "i2").astype(np.float32) * np.float32(2.0**-15)


def _read_i24(data: bytes, byte_order: str) -> np.ndarray:
    wide = np.zeros((len(data) // 3, 4), "u1")
    first = 1 if byte_order == "<" else 0  # the low byte stays 0: the 24 bits are the upper ones of 32
    wide[:, first : first + 3] = np.frombuffer(data, "u1").reshape(-1, 3)
    return wide.view(byte_order + "i4")[:, 0].astype(np.float32) * np.float32(2.0**-31)


def _read_i32(data: bytes, byte_order: str) -> np.ndarray:
    return np.frombuffer(data, byte_order + "i4").astype(np.float32) * np.float32(2.0**-31)


def _read_f16(data: bytes, byte_order: str) -> np.ndarray:
    return np.frombuffer(data, byte_order + "f2").astype(np.float32)


def _read_f32(data: bytes, byte_order: str) -> np.ndarray:
    return np.frombuffer(data, byte_order + "f4").astype(np.float32)


def _read_f64(data: bytes, byte_order: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.frombuffer(data, byte_order + "f8").astype(np.float32)


def _read_mu_law(data: bytes, byte_order: str) -> np.ndarray:
    return MU_LAW_VALUES[np.frombuffer(data, "u1")]


def _read_a_law(data: bytes, byte_order: str) -> np.ndarray:
    return A_LAW_VALUES[np.frombuffer(data, "u1")]


def _mu_law_values() -> np.ndarray:
    """Return the amplitude of each byte of mu-law (ITU-T G.711), float32 [256]."""
    code = ~np.arange(256, dtype=np.uint8)  # all bits are inverted
    exponent, mantissa = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    magnitude = ((2 * mantissa + 33) << exponent) - 33
    return (np.where(code & 0x80, -magnitude, magnitude) * 2.0**-13).astype(np.float32)


def _a_law_values() -> np.ndarray:
    """Return the amplitude of each byte of A-law (ITU-T G.711), float32 [256]."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55  # every other bit is inverted
    exponent, mantissa = (code >> 4 & 7).astype(int), (code & 15).astype(int)
    magnitude = np.where(exponent == 0, 2 * mantissa + 1, (2 * mantissa + 33) << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) * 2.0**-12).astype(np.float32)


MU_LAW_VALUES, A_LAW_VALUES = _mu_law_values(), _a_law_values()

READERS = {
    (PCM, 8): _read_u8,
    (PCM, 16): _read_i16,
    (PCM, 24): _read_i24,
    (PCM, 32): _read_i32,
    (IEEE_FLOAT, 16): _read_f16,
    (IEEE_FLOAT, 32): _read_f32,
    (IEEE_FLOAT, 64): _read_f64,
    (MU_LAW, 8): _read_mu_law,
    (A_LAW, 8): _read_a_law,
}
