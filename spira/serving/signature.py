"""The signature beside a package: a DSSE envelope around an in-toto statement with the package's digest.

The checks are those of :mod:`spira.packaging.attestation`, which this image does not have.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERIFY_KEY = "SPIRA_VERIFY_KEY"
"""Environment variable with the path of the public key; without it no signature is required."""

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class SignatureError(Exception):
    """A missing or wrong signature; the message contains the reason."""


def check(package: Path, digest: str) -> None:
    """Refuse a package without a valid signature, if a public key is configured; else do nothing.

    Args:
        package: its folder; the envelope is ``<folder>.dsse.json`` beside it.
        digest: digest of the package.

    Raises:
        SignatureError: the envelope is missing or malformed, is not signed by the key, or is about another package.
    """
    if not (path := os.environ.get(VERIFY_KEY)):
        return
    key, file = _public_key(path), package.with_name(package.name + ".dsse.json")
    try:
        envelope = json.loads(file.read_text("utf-8"))
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"]]
        signed = b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
        is_signed = envelope["payloadType"] == PAYLOAD_TYPE and any(_is_valid(key, signed, one) for one in signatures)
        subject = json.loads(payload)["subject"][0]["digest"]["sha256"] if is_signed else ""
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise SignatureError(f"{package} has no signature: {error}") from error
    if not is_signed:
        raise SignatureError(f"{package} has no signature of the key in {VERIFY_KEY}")
    if subject != digest:
        raise SignatureError(f"{file} is about another package than {package}")


def _is_valid(key: Ed25519PublicKey, signed: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _public_key(path: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{VERIFY_KEY}: {path} is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{VERIFY_KEY}: {path} is no Ed25519 key")
    return key
