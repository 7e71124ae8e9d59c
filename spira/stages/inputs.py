"""Parameters of the stages: configuration, gate, state folder, cache key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from spira.config import Config, ConfigError, Preprocess, explain, from_dict
from spira.errors import SpiraError

if TYPE_CHECKING:
    from spira.evaluation.gate import Gate
    from spira.language import Language

PREPROCESS = "preprocess"
"""Section of the configuration that is a parameter of its own, so that other settings leave the corpus cached."""


def read_preprocess(text: str) -> Preprocess:
    """Return the settings of preprocess, from a full or partial JSON object.

    Raises:
        ConfigError: the text is no JSON object, a key is unknown, or a value is out of range.
    """
    return from_dict({PREPROCESS: _read_object("preprocess_config", text)}).preprocess


def read_config(text: str, preprocess: str) -> Config:
    """Return the whole configuration.

    Args:
        text: the configuration without its section ``preprocess``, a full or partial JSON object.
        preprocess: that section, a full or partial JSON object.

    Raises:
        ConfigError: a text is no JSON object, a key is unknown, or a value is out of range.
    """
    values = _read_object("config", text)
    if PREPROCESS in values:
        raise ConfigError(f"config: the section {PREPROCESS} has a parameter of its own: give it as preprocess_config")
    return from_dict(values | {PREPROCESS: _read_object("preprocess_config", preprocess)})


def read_gate(text: str) -> Gate:
    """Return the gate of a JSON object, or the project's own if the text is empty.

    Raises:
        ConfigError: the text is no JSON object, or a key is missing, unknown or out of range.
    """
    from spira.evaluation.gate import Gate, load

    if not text.strip():
        return load()
    try:
        return Gate.model_validate(_read_object("gate", text))
    except ValidationError as error:
        raise ConfigError(f"gate: {explain(error)}") from None


def read_language(tag: str) -> Language:
    """Return the language of a tag such as ``pt-BR``; English if it is empty.

    Raises:
        ConfigError: there is no such language.
    """
    from spira.language import Language

    try:
        return Language(tag or Language.ENGLISH)
    except ValueError:
        raise ConfigError(f"language: give one of {', '.join(Language)}, not {tag!r}") from None


def _read_object(name: str, text: str) -> dict[str, Any]:
    """Return the JSON object that a parameter holds; an empty text is an empty object."""
    try:
        values = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: give a JSON object such as {{}}, not {text}")
    return values


def state_folder(uri: str) -> Path | None:
    """Return the folder that outlives a task, or None for an empty parameter.

    Raises:
        SpiraError: the parameter is a URL.
    """
    if "://" in uri:
        raise SpiraError(f"state {uri}: must be a folder, for example of a mounted volume")
    return Path(uri) if uri else None


def cache_key(*parts: str) -> str:
    """Return 16 hex digits that identify a result by everything it was computed from."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
