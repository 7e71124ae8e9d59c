"""Decoding of any format: what training accepts, ``spira predict`` and the server answer, and the same is refused."""

from __future__ import annotations

import io
import re
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spira import audio
from spira.config import Preprocess
from spira.data.decoding import check, decode
from spira.inference import wav
from spira.inference.model import Model
from spira.inference.wav import AudioError
from spira.packaging.verify import predict_with_package
from spira.serving.detector import Detector
from spira.serving.errors import RequestError
from tests.support import bad_datasets
from tests.support.packages import make_package

RATE = 16_000
VOICE = bad_datasets.voice(3, seconds=2.0)

LIBSNDFILE = [
    *(("WAV", subtype) for subtype in soundfile.available_subtypes("WAV") if subtype != "MPEG_LAYER_III"),
    *(("WAVEX", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW")),
    *((container, "PCM_16") for container in ("FLAC", "AIFF", "AU", "CAF", "W64", "RF64")),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
FFMPEG = [("mp4", "aac"), ("webm", "libopus"), ("adts", "aac")]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package, shared by the tests: do not change it."""
    return make_package(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def detector(package: Path) -> Detector:
    """Return what the server computes predictions with."""
    loaded = Detector("spira", package, "", threads=1)
    loaded.load()
    return loaded


@cache
def encoded(container: str, codec: str, rate: int = RATE) -> bytes:
    """Return the voice in a container, written by FFmpeg's libraries."""
    av = pytest.importorskip("av", reason="PyAV, an extra, is not installed")
    content = io.BytesIO()
    with av.open(content, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(VOICE[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(part))
    return content.getvalue()


def answer_of_training(content: bytes, folder: Path) -> np.ndarray | str:
    """Return the samples that enter the corpus, or the rule that the recording breaks."""
    bad_datasets.write(folder, "recording", content)
    limits = Preprocess()
    try:
        return check(decode(folder / "recording", limits, limits.max_seconds), limits).samples
    except AudioError as error:
        return str(error)


def answer_of_server(content: bytes, detector: Detector) -> float | str:
    """Return the server's probability, or the rule that the recording breaks."""
    try:
        return detector.predict_one(content, 0).probability
    except RequestError as error:
        assert error.status == 422  # noqa: PT017
        return error.message.removeprefix("recording 0: ").removesuffix("; correct the recording and send it again")


def assert_same_answer(content: bytes, folder: Path, detector: Detector) -> None:
    """Check that the server judges what training accepts, by the same samples, and refuses the rest in its words."""
    trained, served = answer_of_training(content, folder), answer_of_server(content, detector)
    if isinstance(trained, str):
        assert served == trained or trained.startswith("is clipped")  # a model judges a clipped recording, training not
    else:
        assert detector.package is not None
        model: Model = detector.package.model
        assert served == float(np.mean(model.window_probabilities(trained)))


@pytest.mark.parametrize(("container", "subtype"), LIBSNDFILE)
def test_the_server_answers_every_format_of_libsndfile(
    container: str, subtype: str, tmp_path: Path, detector: Detector
) -> None:
    """Training and the server compute with the same samples."""
    rate = 8_000 if subtype.startswith(("NMS", "G72")) else RATE
    content = bad_datasets.wav_bytes(VOICE[: 2 * rate], rate, format=container, subtype=subtype)
    assert isinstance(answer_of_training(content, tmp_path), np.ndarray)
    assert_same_answer(content, tmp_path, detector)


@pytest.mark.parametrize(("container", "codec"), FFMPEG)
def test_formats_of_telephones_and_browsers_are_read_with_pyav(
    container: str, codec: str, tmp_path: Path, detector: Detector
) -> None:
    """MPEG-4, WebM and AAC keep the recording's length within its coder's frames."""
    content = encoded(container, codec, 48_000)
    samples = answer_of_training(content, tmp_path)
    assert isinstance(samples, np.ndarray)
    assert abs(len(samples) / RATE - 2.0) < 0.15
    assert_same_answer(content, tmp_path, detector)


@pytest.mark.parametrize(("container", "codec"), FFMPEG)
def test_without_pyav_the_refusal_names_format_and_remedies(
    container: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedies are the extra to install, and the command that converts the recording."""
    content = encoded(container, codec, 48_000)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"is a.* (MPEG-4|WebM|AAC).*install spira\[av\].*ffmpeg -i IN OUT.wav"):
        audio.decode(io.BytesIO(content), 120)


@pytest.mark.parametrize("content", [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile a\n"])
def test_a_playlist_is_not_followed(content: bytes) -> None:
    """FFmpeg would open the files and addresses that it names."""
    with pytest.raises(AudioError, match="is text"):
        audio.decode(io.BytesIO(content), 120)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_cut_off_mpeg_4_recording_is_refused(cut: float) -> None:
    """Its index is at its end."""
    content = encoded("mp4", "aac", 48_000)
    with pytest.raises(AudioError, match="cannot be decoded"):
        audio.decode(io.BytesIO(content[: int(len(content) * cut)]), 120)


def with_size(content: bytes, name: bytes, distance: int, layout: str, size: int) -> bytes:
    """Overwrite a size field at a distance from the name of a chunk."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, changed.index(name) + distance, size)
    return bytes(changed)


STREAMED = {
    "AIFF of size 0": ("AIFF", b"SSND", 4, ">I", 0),
    "AIFF of unknown size": ("AIFF", b"SSND", 4, ">I", 2**32 - 1),
    "AU of size 0": ("AU", b".snd", 8, ">I", 0),
    "AU of unknown size": ("AU", b".snd", 8, ">I", 2**32 - 1),
    "W64 of size 0": ("W64", b"data", 16, "<Q", 0),
    "W64 of unknown size": ("W64", b"data", 16, "<Q", 2**63 - 1),
    "CAF of unknown size": ("CAF", b"data\0\0\0\0", 4, ">q", -1),
    "RF64 of unknown size": ("RF64", b"ds64", 16, "<Q", 0),
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_streamed_header_of_another_container_is_read_to_the_end(name: str) -> None:
    """Programs that write into a pipe leave the size open."""
    container, chunk, distance, layout, size = STREAMED[name]
    content = bad_datasets.wav_bytes(VOICE, format=container)
    expected = audio.decode(io.BytesIO(content), 120).samples
    streamed = audio.decode(io.BytesIO(with_size(content, chunk, distance, layout, size)), 120).samples
    np.testing.assert_array_equal(streamed, expected)


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"])
@pytest.mark.parametrize("size", [0, 2**31 - 1, 2**32 - 1, 2**32 - 45])
def test_a_streamed_header_of_a_compressed_wav_is_read_to_the_end(subtype: str, size: int) -> None:
    """libsndfile alone takes 0 for an empty file."""
    content = bad_datasets.wav_bytes(VOICE, subtype=subtype)
    expected = audio.decode(io.BytesIO(content), 120).samples
    streamed = audio.decode(io.BytesIO(with_size(content, b"data", 4, "<I", size)), 120).samples
    np.testing.assert_array_equal(streamed, expected)


def varying_voice() -> np.ndarray:
    """Return 10 s of silence, tones and noise, which an encoder of varying bit rate gives different rates."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 5 * RATE).astype(np.float32)
    return np.concatenate([np.zeros(RATE, np.float32), VOICE, noise, VOICE])


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_mp3_without_a_header_is_read_whole(mode: str, rate: int) -> None:
    """A stream has no Xing header; libsndfile alone drops the end of a varying bit rate, or takes it for cut off."""
    file = io.BytesIO()
    soundfile.write(file, varying_voice(), rate, format="MP3", bitrate_mode=mode)
    content = file.getvalue()
    whole = audio.decode(io.BytesIO(content), 120).samples
    stream = content[content.index(content[:2], 4) :]
    for streamed in (stream, b"ID3\4\0\0\0\0\0\4abcd" + stream, stream + b"TAG" + bytes(125)):
        samples = audio.decode(io.BytesIO(streamed), 120).samples
        assert 0 <= len(samples) - len(whole) < 0.2 * RATE  # the header also counts what the encoder added


def refusal(content: bytes) -> str:
    """Return the rule that a recording breaks."""
    with pytest.raises(AudioError) as refused:
        audio.decode(io.BytesIO(content), 120)
    return str(refused.value)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("container", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_a_cut_off_stream_is_refused(container: str, subtype: str, cut: float) -> None:
    """It ends within a page or a frame; libsndfile alone returns what is there."""
    content = bad_datasets.wav_bytes(VOICE, format=container, subtype=subtype)
    if container == "MP3":
        content = content[content.index(content[:2], 4) :]  # without the header that counts the frames
    assert "cut off" in refusal(content[: int(len(content) * cut)])


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_cut_off_webm_is_refused(cut: float) -> None:
    """It ends within an element."""
    content = encoded("webm", "libopus", 48_000)
    assert "is cut off" in refusal(content[: int(len(content) * cut)])


def test_a_streamed_flac_is_read() -> None:
    """A program that writes into a pipe leaves the number of samples open, and libsndfile cannot seek then."""
    content = bytearray(bad_datasets.wav_bytes(VOICE, format="FLAC"))
    content[21] &= 0xF0  # 36 bits: the number of samples
    content[22:26] = bytes(4)
    assert len(audio.decode(io.BytesIO(content), 120).samples) == len(VOICE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>404</html>", "is text, not a recording"),
        ("João fala devagar. ".encode() * 300, "is text, not a recording"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "git lfs pull"),
        (b"PK\3\4" + bytes(99), "is a zip archive: unpack it"),
        (b"\x1f\x8b" + bytes(99), "is a gzip archive: unpack it"),
        (bytes.fromhex("0005160700020000") + b"Mac OS X", "a Mac's notes about a file"),
        (bytes(5_000), "holds zeros instead of a recording"),
        (b"RIFF\x04\0\0\0AVI LIST" + bytes(99), "convert it with 'ffmpeg"),
    ],
)
def test_a_file_that_is_no_recording_is_named(content: bytes, words: str) -> None:
    """Copying or converting it would not help."""
    assert words in refusal(content)


def test_an_encoding_that_libsndfile_lacks_is_named() -> None:
    """Its header is sound, though libsndfile's log calls it malformed."""
    content = bytearray(bad_datasets.wav_bytes(VOICE))
    struct.pack_into("<H", content, 20, 0x028F)  # G.722
    assert "WAV encoding 0x028f" in refusal(bytes(content))


UNCHECKED = [
    *((name, "ffmpeg") for name in ("AVR", "IRCAM", "PVF", "SDS", "SVX", "VOC")),
    *((name, "the program that made it") for name in ("HTK", "MAT4", "MAT5", "MPC2K", "PAF", "WVE", "XI")),
]


@pytest.mark.parametrize(("container", "remedy"), UNCHECKED)
def test_a_container_whose_end_cannot_be_checked_is_refused(container: str, remedy: str) -> None:
    """A cut-off file of it would be accepted as a whole recording."""
    content = bad_datasets.wav_bytes(VOICE, format=container)
    assert f"is a recording in {container}, of which" in refusal(content)
    assert remedy in refusal(content)


def test_mpeg_layer_2_is_refused() -> None:
    """It has no header with the number of its frames, and libsndfile estimates it from the size of the file."""
    assert "in MPEG_LAYER_II, of which it cannot be checked that it is whole" in refusal(encoded("mp2", "mp2"))


@pytest.mark.parametrize("cut", [0.3, 0.9])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW", "ALAW"])
def test_a_cut_off_sphere_file_is_refused(subtype: str, cut: float) -> None:
    """Its header gives the number of samples; libsndfile alone returns what is there."""
    content = bad_datasets.wav_bytes(VOICE, format="NIST", subtype=subtype)
    assert len(audio.decode(io.BytesIO(content), 120).samples) == len(VOICE)
    assert "is cut off: its header promises" in refusal(content[: int(len(content) * cut)])
    assert "does not give the number of its samples" in refusal(content.replace(b"sample_count", b"simple_count"))


def test_a_macs_file_in_the_current_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libsndfile takes a file ``._`` there for a part of an MP3; one named like the recording changes nothing."""
    monkeypatch.chdir(tmp_path)
    content = bad_datasets.wav_bytes(VOICE, format="MP3", subtype="MPEG_LAYER_III")
    bad_datasets.write(tmp_path, "._x.mp3", content)
    bad_datasets.write(tmp_path, "x.mp3", content)
    for name in ("._x.mp3", "x.mp3"):
        with audio.open_recording(tmp_path / name) as recording:
            assert len(audio.decode(recording, 120).samples) == len(VOICE)
    bad_datasets.write(tmp_path, "._", "")
    assert "while a file named ._ is in the current folder: delete that file" in refusal(content)


def wav_of(code: int, bits: int, samples: np.ndarray, extension: bytes = b"", frame_bytes: int = 0) -> bytes:
    """Return a mono WAV with a header of any content."""
    frame_bytes = frame_bytes or bits // 8
    layout = struct.pack("<HHIIHH", code, 1, RATE, RATE * frame_bytes, frame_bytes, bits) + extension
    content = samples.tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(body)) + body


I16, I32 = (VOICE * 2**15).astype("<i2"), (VOICE * 2**23).astype("<i4")
NO_GUID = struct.pack("<HHI", 22, 16, 4) + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        wav_of(0xFFFE, 16, I16, NO_GUID),
        wav_of(0xFFFE, 16, I16, struct.pack("<H", 0)),
        wav_of(0xFFFE, 16, I16),  # a chunk that ends before the extension
        wav_of(0, 16, I16),
        wav_of(3, 16, VOICE.astype("<f2")),
    ],
)
def test_a_header_that_leaves_one_reading_is_read(content: bytes) -> None:
    """Samples of 16 bits are PCM unless the header names floats."""
    np.testing.assert_allclose(audio.decode(io.BytesIO(content), 120).samples, VOICE, atol=1e-3)


UNCLEAR = {
    "floats without a name": wav_of(0xFFFE, 32, VOICE, NO_GUID),
    "24 bits in the upper bytes": wav_of(1, 24, I32 << 8, frame_bytes=4),
    "24 bits in the lower bytes": wav_of(1, 24, I32, frame_bytes=4),
    "cut off": wav_of(1, 16, I16)[:-1_000],
    "too small a size": with_size(wav_of(1, 16, I16), b"data", 4, "<I", 1_000),
    "SPHERE without a number": bad_datasets.wav_bytes(VOICE, format="NIST").replace(b"sample_count", b"simple_count"),
    "AVR": bad_datasets.wav_bytes(VOICE, format="AVR"),
}


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", UNCLEAR)
def test_the_last_command_of_a_refusal_converts_the_recording(name: str, tmp_path: Path) -> None:
    """Pasted with the names of two files, it makes a recording that is accepted."""
    content = UNCLEAR[name]
    commands = re.findall("'(ffmpeg [^']+)'", refusal(content))
    command = commands[0 if name == "24 bits in the upper bytes" else -1]
    (tmp_path / "IN").write_bytes(content)
    subprocess.run([*command.split(), "-loglevel", "quiet"], cwd=tmp_path, check=False)
    with audio.open_recording(tmp_path / "OUT.wav") as recording:
        samples = audio.decode(recording, 120).samples
    np.testing.assert_allclose(samples, VOICE[: len(samples)], atol=1e-3)
    assert len(samples) > 0.9 * len(VOICE)


@pytest.mark.parametrize("right", [-1.0, -0.9])
def test_of_channels_that_cancel_the_first_is_taken(right: float, tmp_path: Path, detector: Detector) -> None:
    """Both wires of a microphone with a balanced output carry the voice, one of them with the opposite sign."""
    content = bad_datasets.wav_bytes(np.stack([VOICE, right * VOICE], axis=1), subtype="FLOAT")
    np.testing.assert_array_equal(answer_of_training(content, tmp_path), VOICE)
    np.testing.assert_array_equal(wav.decode(content)[0], VOICE)
    assert_same_answer(content, tmp_path, detector)


@pytest.mark.parametrize(
    "frames",
    [
        np.stack([VOICE, -0.5 * VOICE], axis=1),
        np.stack([VOICE, 0 * VOICE], axis=1),
        np.random.default_rng(0).normal(0, 0.05, (RATE, 64)).astype(np.float32),
        np.stack([0 * VOICE + 0.3, 0 * VOICE - 0.3], axis=1),  # a constant offset is no sound
    ],
)
def test_other_channels_are_averaged(frames: np.ndarray) -> None:
    """Neither a channel that is silent nor independent noise cancels another channel."""
    samples = wav.decode(bad_datasets.wav_bytes(frames, subtype="FLOAT"))[0]
    np.testing.assert_allclose(samples, frames.mean(axis=1), atol=1e-7)


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    """A WAV named ``.raw`` or ``.mp3`` is read; a folder full of an error's words changes nothing."""
    for name in ("voice.raw", "voice.mp3", "truncated 10 should be 2/voice.wav"):
        bad_datasets.write(tmp_path, name, bad_datasets.wav_bytes(VOICE))
        with audio.open_recording(tmp_path / name) as recording:
            assert len(audio.decode(recording, 120).samples) == len(VOICE)


@pytest.mark.parametrize("name", [name for name in bad_datasets.AUDIO if name not in ("clipped", "integers as floats")])
def test_the_server_refuses_what_training_refuses(name: str, tmp_path: Path, detector: Detector) -> None:
    """The words are the same. (The limit of 120 s is the product's, so "too long" is accepted by both.)"""
    assert_same_answer(bad_datasets.AUDIO[name][0], tmp_path, detector)


def test_predict_gives_a_row_for_each_recording(package: Path, detector: Detector, tmp_path: Path) -> None:
    """A probability equal to the server's, or the reason of the refusal; the order is kept."""
    contents = {
        "good.wav": bad_datasets.wav_bytes(VOICE),
        "silent.wav": bad_datasets.wav_bytes(np.full(RATE, 0.3, np.float32)),
        "good.mp3": bad_datasets.wav_bytes(VOICE, format="MP3"),
        "empty.ogg": b"",
        "cut.wav": bad_datasets.wav_bytes(VOICE)[:9_000],
        "adpcm.wav": bad_datasets.wav_bytes(VOICE, subtype="IMA_ADPCM"),
        "short.flac": bad_datasets.wav_bytes(VOICE[:3_200], format="FLAC"),
        "long.flac": bad_datasets.wav_bytes(np.tile(VOICE, 65), format="FLAC"),
    }
    for name, content in contents.items():
        bad_datasets.write(tmp_path, name, content)
    rows = predict_with_package(package, [*(tmp_path / name for name in contents), tmp_path / "missing.wav"])
    assert [Path(row["file"]).name for row in rows] == [*contents, "missing.wav"]
    served = {name: answer_of_server(content, detector) for name, content in contents.items()}
    assert {Path(row["file"]).name: row.get("error", row.get("probability")) for row in rows} == {
        **served,
        "missing.wav": "cannot be read: No such file or directory",
    }


ENCODINGS = sorted(wav.READERS)
SIZES = st.sampled_from([0, 2**31 - 1, 2**31 - 37, 2**31, 2**32 - 1, 2**32 - 37, 2**32 - 45])
NOTE = b"LIST" + struct.pack("<I", 5) + b"hello\0"


@st.composite
def wav_files(draw: st.DrawFn) -> bytes:
    """Draw a WAV file as programs write them: any encoding and header, extra chunks, a size left open, a cut."""
    code, bits = draw(st.sampled_from(ENCODINGS))
    channels, rate = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([8_000, 16_000, 44_100]))
    seconds = draw(st.sampled_from([0.2, 0.7, 0.7]))
    subtype = {1: f"PCM_{bits}" if bits > 8 else "PCM_U8", 3: "FLOAT" if bits == 32 else "DOUBLE", 6: "ALAW", 7: "ULAW"}
    frames = np.repeat(bad_datasets.voice(5, seconds, rate)[:, None], channels, axis=1)
    frames[:, 1:] *= draw(st.sampled_from([1, 0.5, -1]))
    content = bad_datasets.wav_bytes(frames, rate, subtype=subtype[code])
    samples = content[content.index(b"data") + 8 :][: len(frames) * channels * bits // 8]
    if (code, bits) == (wav.IEEE_FLOAT, 16):  # libsndfile does not write it
        samples = frames.astype("<f2").tobytes()
    rate_field, block_field = draw(st.sampled_from([0, 1, 64_000])), draw(st.sampled_from([0, 1, 2, 4]))
    layout = struct.pack("<HHIIHH", code, channels, rate, rate_field, block_field, bits)
    if draw(st.booleans()):
        guid = struct.pack("<H", code) + draw(st.sampled_from(wav.EXTENSIBLE_GUID_TAILS))
        layout = struct.pack("<H", 0xFFFE) + layout[2:] + struct.pack("<HHI", 22, bits, 0) + guid
    promised = draw(st.one_of(st.just(len(samples)), SIZES))
    before, between, after = (NOTE * draw(st.integers(0, 2)) for _ in range(3))
    if promised != len(samples):
        after = b""  # what is open goes to the end of the file
    body = before + b"fmt " + struct.pack("<I", len(layout)) + layout + between
    body += b"data" + struct.pack("<I", promised) + samples + after
    riff = draw(st.one_of(st.just(len(body) + 4), SIZES))
    whole = b"RIFF" + struct.pack("<I", riff) + b"WAVE" + body
    return whole[: draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))]


@pytest.mark.integration
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(wav_files())
@example(b"")
@example(b"RIFF")
def test_any_wav_gets_the_same_answer_everywhere(
    tmp_path_factory: pytest.TempPathFactory, detector: Detector, content: bytes
) -> None:
    """Training, the server and, for what it reads, the package on its own agree: the same samples or a refusal."""
    folder = tmp_path_factory.mktemp("wav")
    assert_same_answer(content, folder, detector)
    trained = answer_of_training(content, folder)
    try:
        samples, rate = wav.decode(content)
    except AudioError as error:
        if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
            assert str(error) == trained  # noqa: PT017
        assert isinstance(trained, str)
        return
    if isinstance(trained, np.ndarray):
        np.testing.assert_array_equal(wav.resample(samples, rate), trained)
