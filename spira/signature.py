"""The signature beside a package: a DSSE envelope around an in-toto statement, checked here for everyone who reads it.

    package.dsse.json    beside the folder ``package``

A public key is configured by a setting or by ``SPIRA_VERIFY_KEY``. Where one is, a package without a valid signature of
it is refused. :mod:`spira.packaging.attestation` signs; this module needs nothing of spira, so the server has it too.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERIFY_KEY = "SPIRA_VERIFY_KEY"
"""Environment variable with the path of the public key, where no setting names one."""

ENVELOPE = ".dsse.json"
"""Suffix of the envelope's file, after the name of the package's folder."""

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"

MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Exceptions that an envelope of a wrong form can cause."""

Statement = dict[str, Any]
"""An in-toto statement, as it is on the wire."""


class SignatureError(Exception):
    """A missing or wrong signature; the message contains the reason and what to do."""


@dataclass(frozen=True)
class Envelope:
    """Content of an envelope, not yet verified."""

    payload: bytes
    signatures: tuple[bytes, ...]


def envelope_of(package: Path) -> Path:
    """Return the path of a package's envelope."""
    return package.with_name(package.name + ENVELOPE)


def is_required(key: str = "") -> bool:
    """Return whether a public key is configured, by the setting ``key`` or the environment."""
    return bool(key or os.environ.get(VERIFY_KEY))


def check(package: Path, digest: str, key: str = "") -> None:
    """Refuse a package without a valid signature, if a public key is configured; else do nothing.

    Args:
        package: its folder.
        digest: digest of the package.
        key: path of the public key; by default that in the environment.

    Raises:
        SignatureError: the envelope is missing or malformed, is not signed by the key, or is about another package; or
            the key is none.
    """
    path = key or os.environ.get(VERIFY_KEY, "")
    if not path:
        return
    source = "the setting verify_key" if key else VERIFY_KEY
    public_key, envelope = _public_key(path, source), read(package)
    if not any(_is_valid(public_key, envelope.payload, signature) for signature in envelope.signatures):
        raise SignatureError(
            f"{package} has no signature of the key in {source}: register it again with SPIRA_SIGNING_KEY set, and "
            "serve nothing of unknown origin"
        )
    statement(package, digest)


def statement(package: Path, digest: str) -> Statement:
    """Return the statement in a package's envelope, which may be unsigned.

    Raises:
        SignatureError: the envelope is missing or malformed, or is about another package.
    """
    try:
        content: Statement = json.loads(read(package).payload)
        subject = content["subject"][0]["digest"]["sha256"]
        is_about_it = content["_type"] == STATEMENT_TYPE and subject == digest
    except MALFORMED as error:
        raise SignatureError(f"{envelope_of(package)} holds no in-toto statement: {error!r}") from error
    if not is_about_it:
        raise SignatureError(f"{envelope_of(package)} is about another package than {package}: fetch the version again")
    return content


def read(package: Path) -> Envelope:
    """Return the envelope beside a package.

    Raises:
        SignatureError: it is missing or malformed.
    """
    file = envelope_of(package)
    try:
        content = json.loads(file.read_text("utf-8"))
        if content["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"the type of its payload is not {PAYLOAD_TYPE}")
        signatures = tuple(base64.b64decode(entry["sig"], validate=True) for entry in content["signatures"])
        return Envelope(base64.b64decode(content["payload"], validate=True), signatures)
    except FileNotFoundError:
        raise SignatureError(f"{package} has no signature: {file} is missing; fetch the version again") from None
    except MALFORMED as error:
        raise SignatureError(f"{package} has no signature: {file} is no DSSE envelope: {error}") from error


def pre_authentication(payload: bytes) -> bytes:
    """Return the bytes that DSSE signs: type and payload, each with its length."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _is_valid(key: Ed25519PublicKey, payload: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, pre_authentication(payload))
    except InvalidSignature:
        return False
    return True


def _public_key(path: str, source: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{source}: {path} is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{source}: {path} is no Ed25519 key: make one with spira models keygen")
    return key
