"""Keyed pseudonyms for recordings and speakers, and the switch that hides their names in messages.

Voices and file names may be in the work folder, the data store and the pipeline's artifact store, nowhere else
(docs/privacy.md). Everything else shows a pseudonym such as ``rec-3f9a1c2b0d4e``.

Key
    HMAC-SHA256 with a secret key makes a pseudonym. SPIRA's file names contain the hospital's record number, which has
    few digits: without a key, anybody could try all numbers. The key is ``SPIRA_PSEUDONYM_KEY``, or a file in the work
    folder. Without both, as in a pod whose Secret has no key, a process has a random key of its own.

Switch
    Messages name files for a person at a terminal. ``SPIRA_HIDE_NAMES=1``, which the images set, or
    :func:`hidden_names` replaces the names in the messages; table, row and rule stay.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from spira import temporary
from spira.data.names import nfc, speaker_key
from spira.errors import SpiraError

KEY_VARIABLE, HIDE_VARIABLE = "SPIRA_PSEUDONYM_KEY", "SPIRA_HIDE_NAMES"
KEY_FILE = "pseudonym-key"
"""Name of the key's file in the work folder; only its owner may read it."""
MIN_KEY_CHARACTERS = 16
DIGITS = 12
"""Hex digits of a pseudonym: among 100,000 recordings the chance that two have the same is 1 in 50,000."""
OWN_FILES = re.compile(
    r"(records|damaged)/\d+\.json|axes/(data|model|code)-[0-9a-f]+\.json|cache/data\.json"
    r"|(SPIRA_Dataset_V2/)?metadata(_train|_eval|_test(_[A-Za-z0-9_-]{1,40})?)?\.csv|noise\.csv|Ruidos-Hospitalares/noise_data\.csv"
)
"""Files whose names this project chooses: of the ledger and of a data set's tables. They are never hidden."""


class Pseudonyms:
    """Pseudonyms under one key, which is loaded at first use.

    Args:
        load_key: returns the key.
    """

    def __init__(self, load_key: Callable[[], str]) -> None:
        self._load_key = load_key

    @cached_property
    def key(self) -> str:
        """The secret key."""
        return self._load_key()

    @cached_property
    def key_id(self) -> str:
        """Name of the key, which does not reveal it: pseudonyms can be compared only under one key."""
        return self._digest("key", "")

    def recording(self, path: str) -> str:
        """Return the pseudonym of a recording."""
        return f"rec-{self._digest('recording', nfc(path))}"

    def file(self, path: str) -> str:
        """Return the pseudonym of a recording, or the path of a file whose name this project chooses."""
        return path if OWN_FILES.fullmatch(path) else self.recording(path)

    def speaker(self, name: str) -> str:
        """Return the pseudonym of a speaker; all spellings of a name have the same one."""
        return f"spk-{self._digest('speaker', speaker_key(name))}"

    def value(self, column: str, value: str) -> str:
        """Return the pseudonym of a value of a column of the tables."""
        return f"val-{self._digest(f'value of {column}', value)}"

    def environment(self) -> dict[str, str]:
        """Return the variables that give a child process this key."""
        return {KEY_VARIABLE: self.key}

    def _digest(self, kind: str, name: str) -> str:
        # a file name that is not UTF-8 has surrogates for its bytes
        content = f"{kind}\0{name}".encode(errors="surrogatepass")
        return hmac.new(self.key.encode(errors="surrogatepass"), content, hashlib.sha256).hexdigest()[:DIGITS]


def in_work(work: Path) -> Pseudonyms:
    """Return the pseudonyms under the environment's key, or else under that of a work folder."""
    return Pseudonyms(lambda: _environment_key() or _file_key(work / KEY_FILE))


def from_environment() -> Pseudonyms:
    """Return the pseudonyms under the environment's key, or else under a random key of this process."""
    return Pseudonyms(lambda: _environment_key() or _RANDOM_KEY)


@contextmanager
def exported(work: Path) -> Iterator[None]:
    """Give the key of a work folder to this process and its children, through the environment."""
    before = os.environ.get(KEY_VARIABLE)
    os.environ.update(in_work(work).environment())
    try:
        yield
    finally:
        if before is None:
            del os.environ[KEY_VARIABLE]
        else:
            os.environ[KEY_VARIABLE] = before


_RANDOM_KEY = secrets.token_hex(32)


def _environment_key() -> str:
    key = os.environ.get(KEY_VARIABLE, "")
    if key and len(key) < MIN_KEY_CHARACTERS:
        raise SpiraError(f"{KEY_VARIABLE} has {len(key)} characters: a key needs {MIN_KEY_CHARACTERS}")
    return key


def _file_key(file: Path) -> str:
    """Return the key in a file, which is made if it does not exist."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with temporary.file(file.parent, file.name, 0o600) as partial:
                partial.write_text(secrets.token_hex(32))
                with suppress(FileExistsError):
                    os.link(partial, file)  # of processes that start at the same time, one makes the key
        key = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpiraError(f"{file} cannot be used: {error}; give the key of pseudonyms in {KEY_VARIABLE}") from error
    if len(key) < MIN_KEY_CHARACTERS:
        raise SpiraError(f"{file} is damaged: restore it, or remove it for a new key (old pseudonyms then differ)")
    return key


_hiding: list[Pseudonyms] = []
"""Active :func:`hidden_names`, for all threads: workers of a pool compose messages too."""


@contextmanager
def hidden_names(pseudonyms: Pseudonyms) -> Iterator[None]:
    """Show pseudonyms instead of names in every message that is composed in the block."""
    _hiding.append(pseudonyms)
    try:
        yield
    finally:
        _hiding.remove(pseudonyms)


def _active() -> Pseudonyms | None:
    if _hiding:
        return _hiding[-1]
    return from_environment() if os.environ.get(HIDE_VARIABLE) == "1" else None


def shown_recording(path: str) -> str:
    """Return the path of a stored file as a message may show it: a recording by its pseudonym if names are hidden."""
    pseudonyms = _active()
    return pseudonyms.file(path) if pseudonyms else path


def shown_speaker(name: str) -> str:
    """Return a speaker's name as a message may show it."""
    pseudonyms = _active()
    return pseudonyms.speaker(name) if pseudonyms else name


def shown_cell(cell: str) -> str:
    """Return a cell of a table as a message may show it: a wrong cell can hold anything, such as a name."""
    return f"{len(cell)} characters" if _active() else repr(cell)


def shown_header(names: Sequence[str]) -> str:
    """Return the names of columns as a message may show them: a table without a header has names of files there."""
    return f"{len(names)} columns" if _active() else ", ".join(names)
