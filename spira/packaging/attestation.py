"""Signed provenance beside a package, which does not change its digest.

    package.dsse.json        DSSE envelope around an in-toto statement: digest of the package, origin, verdict
    package.model-card.md    the same for readers (:mod:`spira.packaging.card`)

The statement is signed when a version is registered, if ``SPIRA_SIGNING_KEY`` names a private key (Ed25519, PEM). Where
``SPIRA_VERIFY_KEY`` names a public key, a package without a valid signature of it is refused. Without the key the
envelope has no signature, and is a record only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from spira.evaluation.verdict import Verdict
from spira.packaging.verify import PackageError, package_digest

SIGNING_KEY, VERIFY_KEY = "SPIRA_SIGNING_KEY", "SPIRA_VERIFY_KEY"
"""Environment variables with the path of a key."""

ENVELOPE = ".dsse.json"
"""Suffix of the file, after the name of the package's folder."""

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"

Statement = dict[str, Any]
"""An in-toto statement, as it is on the wire."""


def envelope_of(package: Path) -> Path:
    """Return the path of a package's envelope."""
    return package.with_name(package.name + ENVELOPE)


def statement(digest: str, tags: Mapping[str, str], verdict: Verdict, image: str) -> Statement:
    """Return the in-toto statement about a package.

    Args:
        digest: digest of the package.
        tags: lineage (:func:`spira.lineage.tags`).
        verdict: verdict of the gate.
        image: digest of the image that trained; empty outside an image.
    """
    inputs = {name: tags.get(f"{name}_fingerprint", "") for name in ("data", "model", "code")}
    dependencies = [{"name": name, "digest": {"sha256": value}} for name, value in inputs.items() if value]
    if image:
        dependencies.append({"name": "image", "digest": {"sha256": image.removeprefix("sha256:")}})
    decision = {"approved": verdict.approved, "reasons": list(verdict.reasons), "gate": verdict.gate.digest}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "package", "digest": {"sha256": digest}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": "spira/training",
                "externalParameters": {"git_commit": tags.get("git_commit", "")},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": "spira"},
                "metadata": {"invocationId": tags.get("pipeline_run", "")},
                "byproducts": [{"name": "verdict", "annotations": decision}],
            },
        },
    }


def write(folder: Path, name: str, content: Statement) -> None:
    """Write the envelope for a package of a name into a folder; sign if a key is configured.

    Raises:
        PackageError: the configured key cannot be used.
    """
    payload = json.dumps(content, sort_keys=True).encode()
    signatures = []
    if key := _private_key():
        signature = base64.b64encode(key.sign(_pre_authentication(payload))).decode()
        signatures.append({"keyid": key_id(key.public_key()), "sig": signature})
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": signatures,
    }
    (folder / f"{name}{ENVELOPE}").write_text(json.dumps(envelope, indent=1), "utf-8")


def check(package: Path) -> None:
    """Refuse a package without a valid signature, if a public key is configured; else do nothing.

    Raises:
        PackageError: the envelope is missing or malformed, is not signed by the key, or is about another package.
    """
    key = _public_key()
    if key is None:
        return
    payload, signatures = _read(package)
    if not any(_is_valid(key, payload, signature) for signature in signatures):
        raise PackageError(
            f"{package} has no signature of the key in {VERIFY_KEY}: register it again with {SIGNING_KEY} set, and "
            "serve nothing of unknown origin"
        )
    provenance(package)


def provenance(package: Path) -> Statement:
    """Return the statement in a package's envelope, which may be unsigned.

    Raises:
        PackageError: the envelope is missing or malformed, or is about another package.
    """
    payload, _ = _read(package)
    try:
        content: Statement = json.loads(payload)
        subject = content["subject"][0]["digest"]["sha256"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise PackageError(f"{envelope_of(package)} holds no in-toto statement: {error}") from error
    if content.get("_type") != STATEMENT_TYPE or subject != package_digest(package):
        raise PackageError(f"{envelope_of(package)} is about another package than {package}: fetch the version again")
    return content


def signers(file: Path) -> list[str]:
    """Return the ids of the keys by which an envelope is signed, as it names them, without a check.

    Raises:
        PackageError: the file is no envelope.
    """
    try:
        return [str(entry["keyid"]) for entry in json.loads(file.read_text("utf-8"))["signatures"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise PackageError(f"{file} is no DSSE envelope: {error}; fetch the version again") from error


def inputs(content: Statement) -> dict[str, str]:
    """Return the digests of the inputs in a statement, by name: data, model, code and image."""
    try:
        entries = content["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {str(entry["name"]): str(entry["digest"]["sha256"]) for entry in entries}
    except (LookupError, TypeError) as error:
        raise PackageError(f"the provenance names no inputs: {error}; fetch the version again") from error


def _read(package: Path) -> tuple[bytes, list[bytes]]:
    """Return the payload of a package's envelope and its signatures."""
    file = envelope_of(package)
    try:
        envelope = json.loads(file.read_text("utf-8"))
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"the type of its payload is not {PAYLOAD_TYPE}")
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"]]
        return base64.b64decode(envelope["payload"], validate=True), signatures
    except FileNotFoundError:
        raise PackageError(f"{package} has no signature: {file} is missing; fetch the version again") from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise PackageError(f"{file} is no DSSE envelope: {error}; fetch the version again") from error


def _is_valid(key: Ed25519PublicKey, payload: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, _pre_authentication(payload))
    except InvalidSignature:
        return False
    return True


def _pre_authentication(payload: bytes) -> bytes:
    """Return what DSSE signs: type and payload, each with its length."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def make_keys(private: Path, public: Path) -> str:
    """Write a new pair of keys, the private one readable by its owner only; return the key's id.

    Raises:
        PackageError: a file exists already.
    """
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    shared = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for path, content, mode in ((private, secret, 0o600), (public, shared, 0o644)):
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        except FileExistsError:
            raise PackageError(f"{path} exists: a key is not replaced; choose another name") from None
    return key_id(key.public_key())


def _private_key() -> Ed25519PrivateKey | None:
    if not (path := os.environ.get(SIGNING_KEY)):
        return None
    try:
        key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PackageError(f"{SIGNING_KEY}: {path} is no private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PackageError(f"{SIGNING_KEY}: {path} is no Ed25519 key: make one with spira models keygen")
    return key


def _public_key() -> Ed25519PublicKey | None:
    if not (path := os.environ.get(VERIFY_KEY)):
        return None
    try:
        key = serialization.load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PackageError(f"{VERIFY_KEY}: {path} is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise PackageError(f"{VERIFY_KEY}: {path} is no Ed25519 key: make one with spira models keygen")
    return key


def is_required() -> bool:
    """Return whether a public key is configured."""
    return bool(os.environ.get(VERIFY_KEY))
