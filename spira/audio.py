"""Decoding of a recording of any format to 16 kHz mono: the one policy of training, ``spira predict`` and the server.

========================================= ============================
WAV of the encodings that numpy can read  :mod:`spira.inference.wav`
AIFF, AU, CAF, W64, FLAC, Ogg, MP3, NIST  :func:`_libsndfile`; also the other encodings of WAV
MPEG-4, WebM, AMR, Windows Media, AAC     :func:`_ffmpeg`, if PyAV is installed
========================================= ============================

Whether a file is complete follows from its own structure. libsndfile only notes it in its log, whose words also stand
there for whole files. A refused recording raises :class:`spira.inference.wav.AudioError`, whose message is written to
follow the file's name.
"""

from __future__ import annotations

import codecs
import io
import itertools
import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
from scipy.io import wavfile

from spira.inference import wav
from spira.inference.wav import AudioError

SAMPLE_RATE_HZ = 16_000
MIN_SAMPLES_SHARE = 0.99
"""Share of the samples promised by the header below which a recording is cut off."""
MAX_KNOWN_FRAMES = 1 << 40
"""libsndfile gives a larger number of frames if the header leaves it open."""
MP3_SAMPLE_RATES_HZ = (44_100, 48_000, 32_000)
"""Of MPEG-1; MPEG-2 has half of them, MPEG-2.5 a quarter."""
MP3_KBIT_PER_SECOND = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Whether it is MPEG-1 -> bit rates of layer III, from index 1 on."""
MAX_PARTS = 100_000
"""Number of pages or elements after which a file is no longer followed: two minutes have fewer than 20,000."""
MATROSKA_PARENTS = (bytes.fromhex("18538067"), bytes.fromhex("1f43b675"))
"""Names of the elements that hold the others: segment and cluster."""
WAV_ENCODINGS = {wav.PCM: "PCM", wav.IEEE_FLOAT: "float", wav.MU_LAW: "mu-law", wav.A_LAW: "A-law"}
"""Encodings of a WAV that numpy can read, so that the Inference Service reads them too."""
HEAD_BYTES = 16
TEXT_BYTES = 4096
"""Bytes from which text is recognized."""
CHECKED_FORMATS = ("WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF", "W64", "FLAC", "OGG", "NIST", "MP3")
"""Containers of libsndfile whose end can be checked here."""
FFMPEG_FORMATS = ("AVR", "IRCAM", "MP3", "PVF", "SDS", "SVX", "VOC")
"""Other containers of libsndfile that FFmpeg reads; MP3 stands for MPEG layers I and II."""
RESOURCE_FORK = Path("._")
"""A file that libsndfile, in the folder of this name, takes for a part of a recording without a name."""
OTHER_FILES = {
    b"PK\3\4": "a zip archive: unpack it",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"version https://git-lfs": "a pointer of Git LFS, not the recording: fetch it with 'git lfs pull'",
    b"\0\5\x16\7": "a Mac's notes about a file, not the recording: name the file without '._'",
}
"""First bytes of files that are no recordings -> what they are, and the remedy."""


class Container(NamedTuple):
    """A container that libsndfile does not read."""

    name: str
    offset: int
    """Offset of the bytes that identify it."""
    magic: bytes
    demuxer: str
    """FFmpeg's name."""


CONTAINERS = (
    *(Container("MPEG-4 (m4a, mp4, 3gp)", 4, magic, "mov") for magic in (b"ftyp", b"moov", b"mdat", b"wide", b"free")),
    Container("WebM or Matroska", 0, bytes.fromhex("1a45dfa3"), "matroska"),
    Container("AMR", 0, b"#!AMR", "amr"),
    Container("Windows Media (wma)", 0, bytes.fromhex("3026b2758e66cf11"), "asf"),
    *(Container("AAC", 0, bytes.fromhex(magic), "aac") for magic in ("fff1", "fff9", "fff0", "fff8")),
)


@dataclass(frozen=True)
class DecodedAudio:
    """One decoded recording."""

    samples: np.ndarray
    """float32 [samples], 16 kHz mono."""
    sample_rate: int
    """Sample rate as recorded, Hz."""
    channels: int
    clipped: float
    """Share of the samples at full scale, over all channels."""
    encoding: str = ""
    """Format as recorded, such as ``WAV PCM`` or ``FLAC PCM_16``."""


class Source(NamedTuple):
    """An opened recording, not decoded yet."""

    encoding: str
    sample_rate: int
    channels: int
    frames: int | None
    """Number of frames that the header promises, or None."""
    blocks: Iterator[np.ndarray]
    """float32 [frames, channels] each, full scale 1."""


class SizeField(NamedTuple):
    """The field of a header that promises the size of the samples."""

    offset: int
    layout: str
    """As :mod:`struct` names it."""
    start: int
    """Offset of the first sample."""
    promised: int
    """Bytes of samples."""
    extra: int
    """Bytes that the field counts beside the samples."""
    streamed: bool
    """Whether the header leaves the size open."""


def decode(
    file: BinaryIO,
    max_seconds: float,
    min_sample_rate_hz: int = wav.MIN_SAMPLE_RATE_HZ,
    max_sample_rate_hz: int = wav.MAX_SAMPLE_RATE_HZ,
) -> DecodedAudio:
    """Decode a recording block by block and resample it.

    Raises:
        AudioError: the recording is damaged, cut off, empty or too long, its sample rate is outside the limits, or no
            decoder reads its format.
    """
    with _opened(file) as source:
        wav.check_sample_rate(source.sample_rate, min_sample_rate_hz, max_sample_rate_hz)
        samples, clipped = wav.collect(source.blocks, source.sample_rate, source.frames, max_seconds)
        if len(samples) < MIN_SAMPLES_SHARE * (source.frames or 0):
            raise AudioError(
                f"is cut off: its header promises {source.frames} samples and {len(samples)} can be decoded; copy it "
                "again, or, if the original is cut off too, keep what is there with 'ffmpeg -i IN OUT.wav'"
            )
    resampled = wav.resample(samples, source.sample_rate, SAMPLE_RATE_HZ)
    return DecodedAudio(resampled, source.sample_rate, source.channels, clipped, source.encoding)


def as_wav(file: BinaryIO, max_seconds: float) -> bytes:
    """Return a recording of any format as a WAV file that every package reads: 16 kHz, mono, float32.

    Raises:
        AudioError: see :func:`decode`.
    """
    return to_wav(decode(file, max_seconds))


def to_wav(recording: DecodedAudio) -> bytes:
    """Return a decoded recording as a WAV file that every package reads: 16 kHz, mono, float32."""
    content = io.BytesIO()
    wavfile.write(content, SAMPLE_RATE_HZ, recording.samples)
    return content.getvalue()


def open_recording(path: Path) -> BinaryIO:
    """Open a file without a name, because soundfile prefers the ending of a name to the content of the file."""
    return open(os.open(path, os.O_RDONLY), "rb")


def is_read_by_package(encoding: str) -> bool:
    """Return whether a package on its own, as in the Inference Service, reads an encoding of :class:`DecodedAudio`."""
    return encoding in {f"WAV {name}" for name in WAV_ENCODINGS.values()}


def needs_pyav(encoding: str) -> bool:
    """Return whether only FFmpeg's libraries read an encoding of :class:`DecodedAudio`."""
    return encoding.startswith(tuple(container.name for container in CONTAINERS))


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Source]:
    """Choose the decoder of a recording by its first bytes."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise AudioError("is empty: 0 bytes")
    if wav.is_wav(head):
        located = wav.locate(file)
        if located.format.is_supported:
            yield _wav(file, located)
            return
    container = next((each for each in CONTAINERS if head[each.offset :].startswith(each.magic)), None)
    with _ffmpeg(file, container) if container else _libsndfile(file, head) as source:
        yield source


def _wav(file: BinaryIO, located: wav.Wav) -> Source:
    layout = located.format
    encoding = f"WAV {WAV_ENCODINGS[layout.code]}"
    return Source(encoding, layout.sample_rate, layout.channels, located.frames, wav.read_blocks(file, located))


@contextmanager
def _libsndfile(file: BinaryIO, head: bytes) -> Iterator[Source]:
    """Open a recording with libsndfile, after its completeness is judged by its structure."""
    try:
        with _SoundFile(_complete(file, head)) as source:
            _refuse_unchecked(source)
            frames = source.frames if source.frames < MAX_KNOWN_FRAMES else None
            yield Source(f"{source.format} {source.subtype}", source.samplerate, source.channels, frames, _read(source))
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: formats without a header
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise _undecodable(file, head, reason) from error


def _refuse_unchecked(source: soundfile.SoundFile) -> None:
    """Refuse a container whose end is not checked here: a cut-off file of it would be accepted as whole.

    Raises:
        AudioError: it is one.
    """
    is_layer_3 = source.format != "MP3" or source.subtype == "MPEG_LAYER_III"
    if source.format in CHECKED_FORMATS and is_layer_3:
        return
    remedy = "with 'ffmpeg -i IN OUT.wav'" if source.format in FFMPEG_FORMATS else "with the program that made it"
    raise AudioError(
        f"is a recording in {source.format if is_layer_3 else source.subtype}, of which it cannot be checked that it "
        f"is whole: convert it to WAV {remedy}"
    )


def _undecodable(file: BinaryIO, head: bytes, reason: str) -> AudioError:
    """Return the error for a file that libsndfile does not read: what the file is, if that is known, and the remedy."""
    file.seek(0)
    content = file.read(TEXT_BYTES)
    kind = next((kind for magic, kind in OTHER_FILES.items() if content.startswith(magic)), None)
    if kind:
        return AudioError(f"is {kind}")
    if not any(content):
        return AudioError("holds zeros instead of a recording: it was not copied whole; copy it again")
    if b"\0" not in content and _is_text(content):
        return AudioError("is text, not a recording (such as a web page, or base64): fetch the recording itself")
    if RESOURCE_FORK.exists():
        return AudioError(
            f"cannot be decoded ({reason}) while a file named {RESOURCE_FORK} is in the current folder: delete that "
            "file, a Mac's notes, or start the command in another folder"
        )
    remedy = "convert it with 'ffmpeg -i IN OUT.wav', or, if that fails, export it again as WAV"
    if wav.is_wav(head):
        encoding = wav.locate(file).format
        reason = f"WAV encoding {encoding.code:#06x} with {encoding.bits} bits, which libsndfile does not read"
        if encoding.code in (wav.PCM, wav.IEEE_FLOAT, wav.EXTENSIBLE):  # nor does FFmpeg, in these sizes
            remedy = "export it again as PCM of 16 bits"
    return AudioError(f"cannot be decoded ({reason}): copy it again if it is cut off or damaged, or {remedy}")


def _is_text(content: bytes) -> bool:
    """Return whether bytes are UTF-8; the last character may be cut off."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return False
    return True


class _SoundFile(soundfile.SoundFile):
    """A sound file that is read from its beginning to its end."""

    def seekable(self) -> bool:
        """Return whether soundfile may seek; libsndfile cannot in a streamed FLAC, whose length is not known."""
        return bool(super().seekable()) and self.frames < MAX_KNOWN_FRAMES


def _read(source: soundfile.SoundFile) -> Iterator[np.ndarray]:
    frames = wav.BLOCK_SAMPLES // source.channels or 1
    while len(block := source.read(frames, dtype="float32", always_2d=True)):
        yield block


class Mp3Frame(NamedTuple):
    """The header of a frame of an MP3 file."""

    is_mpeg_1: bool
    samples: int
    """Of each channel."""
    size: int
    """Bytes, with the header."""


def _mp3_frame(content: bytes, start: int) -> Mp3Frame | None:
    """Return the frame at an offset, or None if there is none."""
    if start + 4 > len(content):
        return None
    (header,) = struct.unpack_from(">I", content, start)
    version, layer, rate, sample_rate = header >> 19 & 3, header >> 17 & 3, header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or sample_rate == 3 or rate in (0, 15):
        return None
    is_mpeg_1 = version == 3
    samples = 1152 if is_mpeg_1 else 576
    bits_per_second = MP3_KBIT_PER_SECOND[is_mpeg_1][rate - 1] * 1000
    rate_hz = MP3_SAMPLE_RATES_HZ[sample_rate] // {3: 1, 2: 2, 0: 4}[version]
    return Mp3Frame(is_mpeg_1, samples, samples // 8 * bits_per_second // rate_hz + (header >> 9 & 1))


def _with_xing_header(content: bytes) -> bytes:
    """Return an MP3 with the number of its frames in a Xing header, if it has none and its frames can be counted.

    A stream has no such header. libsndfile then takes the bit rate of the first frame for that of all, and either drops
    the end of a recording of varying bit rate or takes it for cut off.
    """
    start = 0
    if content[:3] == b"ID3" and len(content) >= 10:  # notes before the sound; their size has 7 bits a byte
        start = 10 + sum(byte << 7 * (3 - place) for place, byte in enumerate(content[6:10]))
    first = _mp3_frame(content, start)
    if first is None or any(name in content[start : start + first.size] for name in (b"Xing", b"Info", b"VBRI")):
        return content
    end, count = start, 0
    while (frame := _mp3_frame(content, end)) and end + frame.size <= len(content):
        end, count = end + frame.size, count + 1
    if frame and end > start:
        raise _cut_off("a frame")
    if len(content) - end > first.size and content[end : end + 3] not in (b"TAG", b"APE", b"LYR"):
        return content  # there is a gap between the frames, after which libsndfile searches for more
    rate = 5 if first.is_mpeg_1 else 8  # 64 kbit/s: room for the longest header
    head = bytearray(content[start : start + 4])
    head[1] |= 1  # without a checksum
    head[2] = rate << 4 | head[2] & 0x0C
    described = _mp3_frame(bytes(head), 0)
    assert described is not None  # only the bit rate differs from that of a frame
    is_mono = head[3] >> 6 == 3
    side_bytes = (17 if is_mono else 32) if first.is_mpeg_1 else (9 if is_mono else 17)
    header = bytes(head) + bytes(side_bytes) + struct.pack(">4sII", b"Xing", 1, count)
    return header.ljust(described.size, b"\0") + content[start:end]


def _cut_off(part: str) -> AudioError:
    return AudioError(
        f"is cut off within {part}: copy it again, or, if the original is cut off too, keep what is there "
        "with 'ffmpeg -i IN OUT.wav'"
    )


def _refuse_cut_ogg(file: BinaryIO) -> None:
    """Refuse an Ogg file that ends within a page: 27 bytes, the sizes of its segments, and these.

    Raises:
        AudioError: it is cut off.
    """
    start, end = 0, wav.file_size(file)
    for _ in range(MAX_PARTS):
        if start >= end:
            return
        file.seek(start)
        page = file.read(27 + 255)
        if not b"OggS".startswith(page[:4]):
            return  # notes after the sound, or damage, which libsndfile finds
        sizes = page[27 : 27 + page[26]] if len(page) >= 27 else b""
        if len(page) < 27 or len(sizes) < page[26] or start + 27 + len(sizes) + sum(sizes) > end:
            raise _cut_off("a page")
        start += 27 + len(sizes) + sum(sizes)


def _refuse_cut_matroska(file: BinaryIO) -> None:
    """Refuse a Matroska or WebM file that ends within an element: its name, its size, and its content.

    Raises:
        AudioError: it is cut off.
    """
    start, end = 0, wav.file_size(file)
    for _ in range(MAX_PARTS):
        if start >= end:
            return
        file.seek(start)
        head = file.read(12)
        name_bytes = 9 - head[0].bit_length()  # the first one in a number's bits gives its length
        first = head[name_bytes] if name_bytes < len(head) else 0
        size_bytes = 9 - first.bit_length()
        size = head[name_bytes : name_bytes + size_bytes]
        if head[0] == 0 or first == 0 or len(size) < size_bytes:
            return  # damage, which FFmpeg finds
        value = int.from_bytes(size) & ((1 << 7 * size_bytes) - 1)
        start += name_bytes + size_bytes
        is_open = value == (1 << 7 * size_bytes) - 1
        if not is_open and start + value > end:
            raise _cut_off("an element")
        if not is_open and head[:name_bytes] not in MATROSKA_PARENTS:
            start += value


def _complete(file: BinaryIO, head: bytes) -> BinaryIO:
    """Return a file whose header holds the size of its samples: the file itself, or a repaired copy of a streamed one.

    Raises:
        AudioError: the file is cut off.
    """
    find = next((find for magic, find in SIZE_FIELDS.items() if head.startswith(magic)), None)
    if head.startswith(b"ID3") or _mp3_frame(head, 0):
        file.seek(0)
        return io.BytesIO(_with_xing_header(file.read()))
    if head.startswith(b"OggS"):
        _refuse_cut_ogg(file)
    field = find(file) if find else None
    if field:
        held = wav.file_size(file) - field.start
        if field.streamed:
            file.seek(0)
            content = bytearray(file.read())
            struct.pack_into(field.layout, content, field.offset, held + field.extra)
            file = io.BytesIO(content)
        else:
            wav.refuse_cut_off(field.promised, held)
    file.seek(0)
    return file


def _riff_size(file: BinaryIO) -> SizeField | None:
    file.seek(0)
    if not wav.is_wav(file.read(12)):
        return None  # another kind of RIFF, such as AVI
    located = wav.locate(file)  # refuses a file that is cut off
    layout = f"{located.format.byte_order}I"
    return SizeField(located.start - 4, layout, located.start, located.size, 0, located.streamed)


def _aiff_size(file: BinaryIO) -> SizeField | None:
    for chunk in wav.iterate_chunks(file, 12, ">"):
        if chunk.name == b"SSND":
            size, streamed = wav.held_size(file, chunk, ">")
            return SizeField(chunk.start - 4, ">I", chunk.start, size, 0, streamed)
    return None


def _au_size(file: BinaryIO) -> SizeField:
    file.seek(4)
    start, size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
    streamed = wav.is_streamed(size) or (size == 0 and wav.file_size(file) > start)
    return SizeField(8, ">I", start, size, 0, streamed)


def _w64_size(file: BinaryIO) -> SizeField | None:
    """Find the samples of a Sony Wave64: 16 bytes of name and 8 of size, which counts both, at multiples of 8 bytes."""
    start, end = 40, wav.file_size(file)
    for _ in range(wav.MAX_CHUNKS):
        if start + 24 > end:
            return None
        file.seek(start)
        name, size = struct.unpack("<16sQ", file.read(24))
        if name[:4] == b"data":
            streamed = size <= 24 or size >= 1 << 62 or wav.is_streamed(size)
            return SizeField(start + 16, "<Q", start + 24, size - 24, 24, streamed)
        start += max(24, -(-size // 8) * 8)
    return None


def _caf_size(file: BinaryIO) -> SizeField | None:
    """Find the samples of a Core Audio file: 4 bytes of name, 8 of size, 4 of edit count, then the samples."""
    start, end = 8, wav.file_size(file)
    for _ in range(wav.MAX_CHUNKS):
        if start + 12 > end:
            return None
        file.seek(start)
        name, size = struct.unpack(">4sq", file.read(12))
        if name == b"data":
            return SizeField(start + 4, ">q", start + 16, size - 4, 4, streamed=size <= 0)
        start += 12 + max(0, size)
    return None


def _nist_size(file: BinaryIO) -> SizeField:
    """Find the samples of a SPHERE file: lines of text such as ``sample_count -i 32000``, filled up to a given size.

    Raises:
        AudioError: the header does not give the number of samples.
    """
    file.seek(8)
    start = file.read(8).strip()
    file.seek(0)
    lines = file.read(int(start) if start.isdigit() else 0).split(b"\n")
    values = {words[0]: words[2] for line in lines if len(words := line.split()) == 3}  # name, type and value
    sizes = [values.get(name, b"") for name in (b"sample_count", b"sample_n_bytes", b"channel_count")]
    if not all(size.isdigit() for size in sizes):
        raise AudioError(
            "is a recording in NIST SPHERE whose header does not give the number of its samples, so that it cannot be "
            "checked that it is whole: copy it again, or convert it to WAV with 'ffmpeg -i IN OUT.wav'"
        )
    return SizeField(0, "", int(start), math.prod(map(int, sizes)), 0, streamed=False)


SIZE_FIELDS: dict[bytes, Callable[[BinaryIO], SizeField | None]] = {
    b"RIFF": _riff_size,
    b"RIFX": _riff_size,
    b"FORM": _aiff_size,
    b".snd": _au_size,
    b"riff": _w64_size,
    b"caff": _caf_size,
    b"NIST": _nist_size,
}
"""First bytes of a file -> function that finds the size of its samples. Other formats are checked during reading."""


@contextmanager
def _ffmpeg(file: BinaryIO, container: Container) -> Iterator[Source]:
    """Open a recording with FFmpeg's libraries, as the container that its first bytes name and no other.

    FFmpeg alone would also open playlists, which refer to other files and addresses.
    """
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"is a recording in {container.name}: install spira[av] to read it here, or convert it with "
            "'ffmpeg -i IN OUT.wav'"
        ) from error
    if container.demuxer == "matroska":
        _refuse_cut_matroska(file)
    file.seek(0)
    try:
        with av.open(file, "r", format=container.demuxer, metadata_errors="replace") as opened:
            if not opened.streams.audio:
                raise AudioError(f"is a file in {container.name} without sound: choose the recording again")
            stream = opened.streams.audio[0]
            frames = opened.decode(stream)
            first = next(frames, None)  # only a decoded frame has the sample rate of AAC with spectral band replication
            if first is None:
                raise AudioError("is empty: it holds no samples")
            seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            yield Source(
                f"{container.name} {stream.codec_context.name}",
                first.sample_rate,
                len(first.layout.channels),
                round(seconds * first.sample_rate) or None,
                _to_float(first, frames),
            )
    except av.FFmpegError as error:
        raise AudioError(
            f"is a recording in {container.name} that cannot be decoded ({error.strerror}): copy it again if it is cut "
            "off or damaged"
        ) from error


def _to_float(first: Any, frames: Iterator[Any]) -> Iterator[np.ndarray]:
    """Yield the samples of FFmpeg's frames."""
    import av

    resampler = av.AudioResampler(format="fltp", layout=first.layout, rate=first.sample_rate)
    for frame in itertools.chain([first], frames, [None]):  # None flushes
        for converted in resampler.resample(frame):
            yield converted.to_ndarray().T
