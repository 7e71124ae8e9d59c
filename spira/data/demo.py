"""A SYNTHETIC data set in SPIRA's layout: espeak-ng reads the paper's sentence in Brazilian Portuguese.

No person was recorded and nothing here has clinical meaning; the data set shows that the system runs. A control
reads in long breath groups over near silence. A patient reads slower and flatter, in short groups that fall in
loudness, with longer pauses and inhalations, over synthetic ward noise: a shortcut, as in the paper. One number, the
severity, controls everything but the ward noise. The severities of the two classes overlap.
"""

from __future__ import annotations

import csv
import ctypes
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

from spira import temporary
from spira.config import SAMPLE_RATE_HZ, Noise
from spira.errors import SpiraError
from spira.features.noise import insert
from spira.files import replace_folder

RECIPE = 3
"""Raise it when the same seed gives other bytes: existing demo sets are then generated again."""
PIECES = ("O amor", "ao próximo", "ajuda a enfrentar", "essa fase", "com a força", "que a gente", "precisa")
"""The sentence of the paper's protocol, cut where a reader may take breath."""
VARIANTS = {"F": 5, "M": 8}
"""Number of espeak-ng's voice variants: f1 to f5 and m1 to m8."""
EVAL_FRACTION, TEST_FRACTION = 0.15, 0.25
MIN_SPEAKERS = 6
NOISES = 8
MIN_SECONDS = 5.1
"""Shortest recording: a shorter reading is followed by silence. The slowest last about 11 s."""
FORMATS = {3: (44_100, 2), 5: (8_000, 1)}
"""Position among twelve recordings of a class -> sample rate (Hz) and channels; the others are 16 kHz mono."""
SYNTHETIC = "SYNTHETIC: made by a computer for demonstration, no person was recorded, no clinical meaning"
README = f"""{SYNTHETIC}.

Speech by espeak-ng (voice pt-br); pauses, inhalations and ward noise by spira.data.demo, from demo.json's numbers.
Class 0 (control): long breath groups, near silence. Class 1 (patient): short breath groups, long pauses with
inhalations, falling loudness, slower, over ward noise. Sentence: {" ".join(PIECES)}.
sex is the synthetic voice's; age is a random number. No speaker is in two splits.
"""


class DemoError(SpiraError):
    """The demo set cannot be generated here; the message names the reason and the remedy."""


@dataclass(frozen=True)
class Speaker:
    """A synthetic voice and its severity of breathlessness."""

    name: str
    label: int  # 0 control, 1 patient
    split: str
    sex: str
    age: int
    variant: str  # of espeak-ng's voice
    pitch: int  # 0 to 99, in espeak-ng's unit
    tract: float  # playback rate, which moves the formants: this gives more voices than variants
    severity: float  # 0 at ease, 1 very short of breath


@dataclass(frozen=True)
class Reading:
    """One recording: its breath groups and the manner of speech."""

    speaker: Speaker
    file_path: str
    severity: float
    groups: tuple[str, ...]
    rate_wpm: int
    pitch_range: int

    def phrases(self) -> list[tuple[str, int, int, int, str]]:
        """Return voice, words per minute, pitch, pitch range and text of each breath group."""
        voice = f"pt-br+{self.speaker.variant}"
        return [(voice, self.rate_wpm, self.speaker.pitch, self.pitch_range, text) for text in self.groups]


def make_demo(
    root: Path,
    seed: int = 0,
    speakers: int = 96,
    recordings_per_speaker: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Generate the synthetic data set in ``root``, unless it holds the one of the same numbers already.

    Recordings last 5 to 11 s and noises 20 to 30 s, as 16-bit PCM: mostly 16 kHz mono, a few 44.1 kHz stereo or
    8 kHz. The same numbers give the same bytes. ``root`` appears complete, by a rename.

    Args:
        root: folder to create; an older demo set there is replaced, anything else is refused.
        speakers: number of synthetic voices, half of them patients; no voice is in two splits.
        progress: called with the number of files written and their total.

    Returns:
        ``root``.

    Raises:
        DemoError: the numbers or the folder are refused, or espeak-ng does not run on this platform.
    """
    root = Path(root).absolute()
    recipe = _recipe(seed, speakers, recordings_per_speaker)
    if _is_current(root, recipe):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with temporary.folder(root.parent, root.name) as work:
        staged = work / "demo"
        _write_data_set(staged, work, recipe, progress or (lambda done, total: None))
        replace_folder(staged, root)
    return root


@dataclass(frozen=True)
class Recipe:
    """Content of ``demo.json``, from which the same data set can be made again."""

    synthetic: bool
    recipe: int
    seed: int
    speakers: int
    recordings_per_speaker: int


def _recipe(seed: int, speakers: int, recordings_per_speaker: int) -> Recipe:
    if seed < 0:
        raise DemoError(f"seed {seed}: must not be negative")
    if speakers < MIN_SPEAKERS:
        raise DemoError(f"{speakers} speakers: each split needs one of each class, ask for {MIN_SPEAKERS}")
    if recordings_per_speaker < 1:
        raise DemoError(f"{recordings_per_speaker} recordings per speaker: must be at least 1")
    return Recipe(True, RECIPE, seed, speakers, recordings_per_speaker)


def _is_current(root: Path, recipe: Recipe) -> bool:
    marker = root / "demo.json"
    if not marker.is_file():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DemoError(f"{root} exists and is not a demo data set: name another folder, or empty it")
        return False
    files = recipe.speakers * recipe.recordings_per_speaker + NOISES
    return marker.read_text() == _json(recipe) and len(list(root.rglob("*.wav"))) == files


def _json(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe), indent=2) + "\n"


def _write_data_set(root: Path, work: Path, recipe: Recipe, progress: Callable[[int, int], None]) -> None:
    seed = recipe.seed
    readings = _readings(_speakers(recipe.speakers, seed), recipe.recordings_per_speaker, seed)
    phrases = iter(_synthesize([phrase for reading in readings for phrase in reading.phrases()], seed, work))
    total, written = len(readings) + NOISES, {0: 0, 1: 0}  # by class
    for index, reading in enumerate(readings):
        rng = np.random.default_rng([seed, 3, index])
        waveform = _record(reading, [next(phrases) for _ in reading.groups], rng)
        label = reading.speaker.label
        _write_wav(root / reading.file_path, waveform, *FORMATS.get(written[label] % 12, (SAMPLE_RATE_HZ, 1)))
        written[label] += 1
        progress(index + 1, total)
    for index in range(NOISES):
        rng = np.random.default_rng([seed, 4, index])
        ward = _ward(int(rng.uniform(20, 30) * SAMPLE_RATE_HZ), rng)
        _write_wav(root / f"noise/ward_{index}.wav", 0.5 * ward, SAMPLE_RATE_HZ, 1)
        progress(len(readings) + index + 1, total)
    _write_tables(root, readings)
    (root / "README.txt").write_text(README, encoding="utf-8")
    (root / "demo.json").write_text(_json(recipe))


def _write_tables(root: Path, readings: list[Reading]) -> None:
    for split in ("train", "eval", "test"):
        rows = [
            (reading.file_path, speaker.label, speaker.name, speaker.sex, speaker.age)
            for reading in readings
            if (speaker := reading.speaker).split == split
        ]
        _write_csv(root / f"metadata_{split}.csv", ("file_path", "class", "speaker", "sex", "age"), rows)
    _write_csv(root / "noise.csv", ("file_path",), [(f"noise/ward_{index}.wav",) for index in range(NOISES)])


def _write_csv(path: Path, names: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])


def _write_wav(path: Path, waveform: np.ndarray, rate_hz: int, channels: int) -> None:
    """Write 16 kHz float [samples] as a 16-bit WAV with a comment that it is synthetic."""
    if rate_hz != SAMPLE_RATE_HZ:
        waveform = _resample(waveform, SAMPLE_RATE_HZ, rate_hz)
    frames = np.stack([waveform, 0.9 * waveform][:channels], axis=1)  # [samples, channels]
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", rate_hz, channels, "PCM_16") as file:
        file.comment = SYNTHETIC
        file.write(frames)


# Speakers and manner of speech


def _speakers(count: int, seed: int) -> list[Speaker]:
    """Return the speakers by split. Classes alternate, and sexes within a class, so every split has both."""
    rng = np.random.default_rng([seed, 1])
    speakers = [_speaker(index, count, rng) for index in range(count)]
    return sorted(speakers, key=lambda speaker: ("train", "eval", "test").index(speaker.split))


def _speaker(index: int, count: int, rng: np.random.Generator) -> Speaker:
    label, position = index % 2, index // 2  # position within the class
    sex = "FM"[position % 2]
    return Speaker(
        name=f"voice{index + 1:03d}",
        label=label,
        split=_split(position, (count + 1 - label) // 2),
        sex=sex,
        age=int(rng.integers(20, 81)),
        variant=f"{sex.lower()}{rng.integers(VARIANTS[sex]) + 1}",
        pitch=int(rng.integers(30, 66)) - 5 * label,
        tract=rng.uniform(0.94, 1.08),
        severity=rng.uniform(0.5, 1.0) if label else rng.uniform(0.0, 0.35),
    )


def _split(position: int, speakers: int) -> str:
    tests, evals = max(1, round(TEST_FRACTION * speakers)), max(1, round(EVAL_FRACTION * speakers))
    return "test" if position < tests else "eval" if position < tests + evals else "train"


def _readings(speakers: list[Speaker], recordings_per_speaker: int, seed: int) -> list[Reading]:
    rng = np.random.default_rng([seed, 2])
    return [_reading(speaker, number, rng) for speaker in speakers for number in range(recordings_per_speaker)]


def _reading(speaker: Speaker, number: int, rng: np.random.Generator) -> Reading:
    severity = float(np.clip(speaker.severity + rng.normal(0, 0.08), 0, 1))
    breaths = int(np.clip(np.rint(5 * severity + rng.normal(-0.3, 0.6)), 0, 5))
    cuts = [0, *sorted(rng.choice(np.arange(1, len(PIECES)), breaths, replace=False)), len(PIECES)]
    groups = [" ".join(PIECES[start:end]) for start, end in pairwise(cuts)]
    return Reading(
        speaker=speaker,
        file_path=f"recordings/{speaker.split}/{speaker.name}_{number}.wav",
        severity=severity,
        groups=(*(f"{group}," for group in groups[:-1]), f"{groups[-1]}."),
        rate_wpm=int(np.clip(rng.normal(180 - 25 * severity, 7), 150, 195)),
        pitch_range=int(rng.normal(60 - 30 * severity, 6)),
    )


# Recorded sound


def _record(reading: Reading, phrases: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return breath groups and pauses over room or ward noise: float [samples] at 16 kHz."""
    severity = reading.severity
    parts = [_silence(rng.uniform(0.2, 0.6))]
    for index, phrase in enumerate(phrases):
        if index:
            parts.append(_breath(rng.uniform(0.2, 0.4) + 0.5 * severity, 0.02 + 0.12 * severity, rng))
        fall_db = 9 * severity + rng.uniform(0, 3)  # over one breath
        voice = _voice(phrase, reading.speaker.tract)
        parts.append(voice * np.logspace(0, -fall_db / 20, len(voice)))
    speech = np.concatenate([*parts, _silence(rng.uniform(0.2, 0.6))])
    missing_seconds = MIN_SECONDS + rng.uniform(0.0, 0.4) - len(speech) / SAMPLE_RATE_HZ
    speech = np.concatenate([speech, _silence(max(0.0, missing_seconds))])
    speech *= rng.uniform(0.35, 0.7) / np.abs(speech).max()
    speech += rng.uniform(0.0003, 0.001) * rng.standard_normal(len(speech))  # noise of the microphone
    wards = [_ward(len(speech), rng)] if reading.speaker.label else []
    return insert(speech, wards, len(wards), Noise(), rng)


def _silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ))


def _voice(phrase: np.ndarray, tract: float) -> np.ndarray:
    """Return espeak-ng's 22.05 kHz at 16 kHz with peak 1 and no silent ends; ``tract`` moves formants and pitch."""
    played_hz = 50 * round(Espeak.SAMPLE_RATE_HZ / 50 * tract)
    voice = _resample(phrase / 32768, played_hz, SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(voice) > 0.01)
    voice = voice[loud[0] : loud[-1] + 1]
    return voice / np.abs(voice).max()


def _breath(seconds: float, peak: float, rng: np.random.Generator) -> np.ndarray:
    """Return a pause with an inhalation that swells and stops."""
    samples = int(seconds * SAMPLE_RATE_HZ)
    swell = np.sin(np.pi * np.linspace(0, 1, samples) ** 1.5) ** 2
    inhalation = swell * _band_noise(samples, 400, 4000, rng)
    return peak * inhalation / np.abs(inhalation).max()


def _ward(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return mains hum, ventilator, monitor beeps, far voices and hiss in random shares; peak 1."""
    time = np.arange(samples) / SAMPLE_RATE_HZ
    hum = sum(np.sin(2 * np.pi * 60 * k * time + rng.uniform(0, 6)) / k for k in range(1, 6))
    stroke = np.sin(2 * np.pi * rng.uniform(0.2, 0.4) * time + rng.uniform(0, 6))
    ventilator = np.maximum(stroke, 0.1) ** 2 * _band_noise(samples, 200, 2500, rng)
    beeping = (time + rng.uniform(0, 1)) % rng.uniform(0.7, 1.4) < 0.12
    tone = np.sin(2 * np.pi * rng.uniform(600, 1200) * time)
    beeps = np.convolve(beeping, np.hanning(160) / 80, "same") * tone
    syllables = np.abs(_band_noise(samples, 1, 5, rng))
    voices = syllables * _band_noise(samples, 150, 1200, rng)
    hiss = _band_noise(samples, 50, 7500, rng)
    sources = np.stack([hum / 2, ventilator, beeps, voices, hiss])  # [sources, samples]
    ward = rng.uniform([0.1, 0.2, 0.2, 0.2, 0.05], [0.5, 1, 1, 1, 0.25]) @ sources
    return ward / np.abs(ward).max()


# Filters by spectrum rather than scipy.signal, which takes a second to import. Lengths are whole seconds: their FFT is
# fast.


def _band_noise(samples: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise of standard deviation 1 in a band with slopes of 12 dB per octave, float [samples]."""
    length = math.ceil(samples / SAMPLE_RATE_HZ) * SAMPLE_RATE_HZ
    spectrum = np.fft.rfft(rng.standard_normal(length))  # [length // 2 + 1]
    hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE_HZ) + 1e-9
    noise = np.fft.irfft(spectrum / np.sqrt((1 + (low_hz / hz) ** 4) * (1 + (hz / high_hz) ** 4)))[:samples]
    return noise / noise.std()


def _resample(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resample float [samples] -> float [samples * to_hz / from_hz]."""
    seconds = math.ceil(len(waveform) / from_hz)
    spectrum = np.fft.rfft(waveform, seconds * from_hz)  # [seconds * from_hz // 2 + 1]
    resampled = np.fft.irfft(spectrum, seconds * to_hz) * (to_hz / from_hz)
    return resampled[: round(len(waveform) * to_hz / from_hz)]


# espeak-ng


def _synthesize(phrases: list[tuple[str, int, int, int, str]], seed: int, work: Path) -> list[np.ndarray]:
    """Return each phrase as int16 [samples] at 22.05 kHz.

    A fresh process does it: espeak-ng carries state from phrase to phrase that no call resets.
    """
    phrases_file, speech_file = work / "phrases.json", work / "speech.npz"
    phrases_file.write_text(json.dumps(phrases))
    command = [sys.executable, "-m", "spira.data.demo", str(phrases_file), str(speech_file), str(seed)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise DemoError(
            "the demo data set was not generated: espeak-ng, which makes its speech, does not run here "
            f"(exit {process.returncode}): {process.stderr.strip() or 'no message'}; give your own recordings instead"
        )
    with np.load(speech_file) as speech:
        return [speech[f"arr_{index}"] for index in range(len(phrases))]


def _synthesize_file(phrases_file: str, speech_file: str, seed: str) -> None:
    espeak = Espeak(int(seed))
    phrases = json.loads(Path(phrases_file).read_text())
    np.savez(speech_file, *[espeak.synthesize(*phrase) for phrase in phrases])


class Espeak:
    """espeak-ng's library with output to memory; see its speak_lib.h for the calls and numbers."""

    SYNCHRONOUS, DONT_EXIT, UTF8 = 2, 0x8000, 1
    RATE, PITCH, RANGE = 1, 3, 4
    SAMPLE_RATE_HZ = 22_050

    def __init__(self, seed: int) -> None:
        try:
            import espeakng_loader

            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        except (ImportError, OSError) as error:
            raise DemoError(f"espeakng-loader has no library for this platform ({error})") from error
        os.chdir(Path(espeakng_loader.get_data_path()).parent)  # espeak-ng refuses paths of 160 bytes
        rate_hz = self._library.espeak_Initialize(self.SYNCHRONOUS, 0, b".", self.DONT_EXIT)
        if rate_hz != self.SAMPLE_RATE_HZ:
            raise DemoError(f"espeak-ng did not start: espeak_Initialize returned {rate_hz}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._chunks: list[bytes] = []
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = callback(self._append_samples)  # a reference, or it is freed while the library calls it
        self._library.espeak_SetSynthCallback(self._callback)
        unsigned, size, pointer = ctypes.c_uint, ctypes.c_size_t, ctypes.c_void_p
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, size, unsigned, ctypes.c_int, unsigned, unsigned, pointer, pointer
        ]  # fmt: skip

    def synthesize(self, voice: str, rate_wpm: int, pitch: int, pitch_range: int, text: str) -> np.ndarray:
        """Return a phrase as int16 [samples] at 22.05 kHz."""
        self._chunks.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise DemoError(f"espeak-ng has no voice {voice}")
        for parameter, value in ((self.RATE, rate_wpm), (self.PITCH, pitch), (self.RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        content = text.encode() + b"\0"
        if self._library.espeak_Synth(content, len(content), 0, 1, 0, self.UTF8, None, None):
            raise DemoError(f"espeak-ng could not synthesize {text!r}")
        return np.frombuffer(b"".join(self._chunks), np.int16)

    def _append_samples(self, samples: int | None, count: int, events: int | None) -> int:
        if samples and count:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0


if __name__ == "__main__":
    try:
        _synthesize_file(*sys.argv[1:])
    except DemoError as error:
        sys.exit(str(error))
