"""Signed provenance beside a package, which does not change its digest.

    package.dsse.json        DSSE envelope around an in-toto statement: digest of the package, origin, verdict
    package.model-card.md    the same for readers (:mod:`spira.packaging.card`)

The statement is signed when a version is registered, if ``SPIRA_SIGNING_KEY`` names a private key (Ed25519, PEM).
Without the key the envelope has no signature, and is a record only. :mod:`spira.signature` checks it, where a public
key is configured.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from spira import signature
from spira.evaluation.verdict import Verdict
from spira.packaging.verify import PackageError, package_digest
from spira.signature import ENVELOPE, PAYLOAD_TYPE, STATEMENT_TYPE, VERIFY_KEY, SignatureError, Statement, envelope_of

__all__ = ["ENVELOPE", "VERIFY_KEY", "Statement", "envelope_of"]  # with the names below: all about an attestation

SIGNING_KEY = "SPIRA_SIGNING_KEY"
"""Environment variable with the path of the private key."""

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"


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
        signed = base64.b64encode(key.sign(signature.pre_authentication(payload))).decode()
        signatures.append({"keyid": key_id(key.public_key()), "sig": signed})
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": signatures,
    }
    (folder / f"{name}{ENVELOPE}").write_text(json.dumps(envelope, indent=1), "utf-8")


def check(package: Path, key: str = "") -> None:
    """Refuse a package without a valid signature, if a public key is configured; else do nothing.

    Args:
        package: its folder.
        key: path of the public key; by default that in the environment.

    Raises:
        PackageError: the envelope is missing or malformed, is not signed by the key, or is about another package.
    """
    if not signature.is_required(key):
        return
    try:
        signature.check(package, package_digest(package), key)
    except SignatureError as error:
        raise PackageError(str(error)) from error


def provenance(package: Path) -> Statement:
    """Return the statement in a package's envelope, which may be unsigned.

    Raises:
        PackageError: the envelope is missing or malformed, or is about another package.
    """
    try:
        return signature.statement(package, package_digest(package))
    except SignatureError as error:
        raise PackageError(str(error)) from error


def is_approved(package: Path) -> bool:
    """Return whether the verdict in a package's provenance is an approval.

    Raises:
        PackageError: the envelope is missing or malformed, or is about another package.
    """
    try:
        return provenance(package)["predicate"]["runDetails"]["byproducts"][0]["annotations"]["approved"] is True
    except (LookupError, TypeError) as error:
        raise PackageError(f"the provenance of {package} has no verdict: {error}; fetch the version again") from error


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
