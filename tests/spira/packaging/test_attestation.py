"""Signatures: made at registration, required wherever a public key is configured."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spira.cli.main import app
from spira.deployment.local import Local
from spira.deployment.target import Release
from spira.packaging import attestation
from spira.packaging.verify import PackageError, package_digest
from spira.registry import Registry, RegistryError, local_uri
from spira.serving import package as serving
from tests.support.packages import LINEAGE, VERDICT, make_package

pytestmark = pytest.mark.integration

IMAGE = "sha256:" + "1" * 64


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        attestation.make_keys(folder / f"{name}.key", folder / f"{name}.pub")
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def registry(package: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A repository with a signed version 1 and a version 2 without a signature."""
    registry = Registry(local_uri(tmp_path_factory.mktemp("work")))
    run_id = registry.log_run("test", {}, {}, VERDICT, {}, LINEAGE)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(attestation.SIGNING_KEY, str(keys / "ours.key"))
        environment.setenv("SPIRA_IMAGE_DIGEST", IMAGE)
        assert registry.register(package, run_id, VERDICT, LINEAGE) == 1
    unsigned = make_package(tmp_path_factory.mktemp("unsigned"), seed=1)
    assert registry.register(unsigned, run_id, VERDICT, LINEAGE) == 2
    return registry


@pytest.fixture
def signed(registry: Registry, tmp_path: Path) -> Path:
    """The fetched package of version 1, with its envelope beside it."""
    return registry.fetch(1, tmp_path / "fetched" / "package")


@pytest.fixture
def required(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(attestation.VERIFY_KEY, str(keys / "ours.pub"))


def test_a_signed_version_is_fetched_deployed_and_served(
    registry: Registry, required: None, tmp_path: Path, keys: Path
) -> None:
    """The envelope is removed from the artifact store, the fetched copy and the folder of the target."""
    fetched = registry.fetch(1, tmp_path / "package")
    assert registry.fetch(1, fetched) == fetched
    target = Local(tmp_path / "serving")
    assert target.apply(Release("1", fetched)).ready
    for folder in (Path(registry.show(1).uri).parent, fetched, target.package):
        assert serving.load(folder).difference <= 1e-5


def test_what_stands_beside_a_package_does_not_change_its_digest(signed: Path, package: Path) -> None:
    """The statement names the inputs, the image and the verdict; only the provenance has the image."""
    assert package_digest(signed) == package_digest(package)
    content = attestation.provenance(signed)
    assert attestation.inputs(content) == {"data": LINEAGE["data_fingerprint"], "image": "1" * 64}
    assert content["predicate"]["runDetails"]["byproducts"][0]["annotations"]["approved"] is True
    assert "1" * 64 not in (signed / "package.json").read_text()


def public_key(file: Path) -> Ed25519PublicKey:
    key = serialization.load_pem_public_key(file.read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    return key


def test_a_version_has_a_model_card(registry: Registry, keys: Path) -> None:
    """It stands beside the package and is the description of the version; it names the key that signed."""
    card = Path(registry.show(1).uri).with_name("package.model-card.md").read_text()
    assert "approved by its gate" in card
    assert LINEAGE["data_fingerprint"] in card
    assert card.startswith("# Detector of respiratory insufficiency in speech, version 1\n")
    assert attestation.key_id(public_key(keys / "ours.pub")) in card
    assert registry._store.client.get_model_version("spira", "1").description == card
    unsigned = Path(registry.show(2).uri).with_name("package.model-card.md").read_text()
    assert "signature: none" in unsigned


def test_a_version_without_a_signature_is_refused(registry: Registry, required: None, tmp_path: Path) -> None:
    """Nothing of it is fetched; without a configured key it is."""
    with pytest.raises(PackageError, match="no signature of the key in SPIRA_VERIFY_KEY"):
        registry.fetch(2, tmp_path / "package")
    with pytest.raises(serving.PackageError, match="no signature of the key"):
        serving.load(Path(registry.show(2).uri).parent)


def test_without_a_key_no_signature_is_required(registry: Registry, tmp_path: Path) -> None:
    assert serving.load(registry.fetch(2, tmp_path / "package")).difference <= 1e-5


def sign(envelope: dict[str, Any], key: Path) -> None:
    """Replace the signature by that of a key."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    envelope["signatures"] = [{"keyid": "", "sig": base64.b64encode(private.sign(signed)).decode()}]


def with_other_subject(envelope: dict[str, Any], keys: Path) -> None:
    payload = base64.b64decode(envelope["payload"]).replace(b'"subject"', b'"subjects"')
    envelope["payload"] = base64.b64encode(payload).decode()


def of_another_package(envelope: dict[str, Any], keys: Path) -> None:
    """Sign a statement about another package with the right key."""
    content = json.loads(base64.b64decode(envelope["payload"]))
    content["subject"][0]["digest"]["sha256"] = "0" * 64
    envelope["payload"] = base64.b64encode(json.dumps(content).encode()).decode()
    sign(envelope, keys / "ours.key")


def as_another_statement(envelope: dict[str, Any], keys: Path) -> None:
    """Sign something else about the package with the right key."""
    content = json.loads(base64.b64decode(envelope["payload"])) | {"_type": "https://example.org/Review/v1"}
    envelope["payload"] = base64.b64encode(json.dumps(content).encode()).decode()
    sign(envelope, keys / "ours.key")


def as_another_type(envelope: dict[str, Any], keys: Path) -> None:
    envelope["payloadType"] = "text/plain"
    sign(envelope, keys / "ours.key")


FORGED: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "another key": lambda envelope, keys: sign(envelope, keys / "theirs.key"),
    "no signature": lambda envelope, keys: envelope.update(signatures=[]),
    "a changed payload": with_other_subject,
    "a statement about another package": of_another_package,
    "another payload type": as_another_type,
    "another type of statement": as_another_statement,
    "signatures that are no list": lambda envelope, keys: envelope.update(signatures=7),
    "no base64": lambda envelope, keys: envelope.update(payload="?"),
    "a signature of another length": lambda envelope, keys: envelope.update(signatures=[{"sig": "AAAA"}]),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_signature_is_refused(signed: Path, keys: Path, required: None, tmp_path: Path, forged: str) -> None:
    """The check of a package, the local target and the server refuse it."""
    file = attestation.envelope_of(signed)
    envelope = json.loads(file.read_text())
    FORGED[forged](envelope, keys)
    file.write_text(json.dumps(envelope))
    with pytest.raises(PackageError):
        attestation.check(signed)
    with pytest.raises(PackageError):
        Local(tmp_path / "serving").apply(Release("1", signed))
    with pytest.raises(serving.PackageError):
        serving.load(signed)


def test_the_key_of_a_setting_is_used_without_the_environment(
    registry: Registry, signed: Path, keys: Path, tmp_path: Path
) -> None:
    """The model repository and the local target refuse an unsigned version and a version that another key signed."""
    ours, theirs = str(keys / "ours.pub"), str(keys / "theirs.pub")
    assert registry.fetch(1, tmp_path / "ours" / "package", ours).is_dir()
    with pytest.raises(PackageError, match="no signature of the key in the setting verify_key"):
        registry.fetch(1, tmp_path / "theirs" / "package", theirs)
    with pytest.raises(PackageError, match="no signature of the key in the setting verify_key"):
        registry.fetch(2, tmp_path / "unsigned" / "package", ours)
    assert Local(tmp_path / "serving", ours).apply(Release("1", signed)).ready
    for verb in (Local(tmp_path / "serving", theirs).plan, Local(tmp_path / "other", theirs).apply):
        with pytest.raises(PackageError, match="no signature of the key in the setting verify_key"):
            verb(Release("1", signed))


def test_a_rollback_to_an_unsigned_version_is_refused(
    registry: Registry, signed: Path, keys: Path, tmp_path: Path
) -> None:
    """It served before a key was configured."""
    unsigned = registry.fetch(2, tmp_path / "unsigned" / "package")
    Local(tmp_path / "serving").apply(Release("2", unsigned))
    target = Local(tmp_path / "serving", str(keys / "ours.pub"))
    target.apply(Release("1", signed))
    with pytest.raises(PackageError, match="no signature"):
        target.rollback("test")
    assert target.status().version == "1"


def test_a_served_package_that_is_signed_later_gets_its_signature(signed: Path, keys: Path, tmp_path: Path) -> None:
    """A server of the folder that requires one then starts."""
    envelope = attestation.envelope_of(signed).rename(tmp_path / "envelope")
    Local(tmp_path / "serving").apply(Release("1", signed))
    shutil.copyfile(envelope, attestation.envelope_of(signed))
    target = Local(tmp_path / "serving", str(keys / "ours.pub"))
    target.apply(Release("1", signed))
    assert target.package is not None
    attestation.check(target.package, str(keys / "ours.pub"))


def test_a_changed_approval_in_the_repository_is_refused(registry: Registry, keys: Path, tmp_path: Path) -> None:
    """Whoever can write to MLflow cannot approve a version: the verdict is signed. Without a key the tag counts."""
    ours, run_id = str(keys / "ours.pub"), registry.show(1).run_id
    rejected = VERDICT.model_copy(update={"approved": False, "reasons": ("recall is too low",)})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(attestation.SIGNING_KEY, str(keys / "ours.key"))
        number = registry.register(make_package(tmp_path / "made", seed=5), run_id, rejected, LINEAGE)
    cached = registry.fetch(number, tmp_path / "cached" / "package", ours)
    registry._store.tag(registry._store.find(number), {"approved": "true"})
    words = f"version {number} is not approved in its signed verdict, and approved in the model repository"
    for out in (cached, tmp_path / "new" / "package"):
        with pytest.raises(RegistryError, match=words):
            registry.fetch(number, out, ours)
    assert registry.fetch(number, tmp_path / "unchecked" / "package").is_dir()


def test_a_later_verdict_about_a_package_is_downloaded(registry: Registry, keys: Path, tmp_path: Path) -> None:
    """The copy in the cache has the signature of the earlier one."""
    ours, run_id, package = str(keys / "ours.pub"), registry.show(1).run_id, make_package(tmp_path / "made", seed=6)
    rejected = VERDICT.model_copy(update={"approved": False, "reasons": ("recall is too low",)})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(attestation.SIGNING_KEY, str(keys / "ours.key"))
        number = registry.register(package, run_id, rejected, LINEAGE)
        cached = registry.fetch(number, tmp_path / "cached" / "package", ours)
        assert not attestation.is_approved(cached)
        assert registry.register(package, run_id, VERDICT, LINEAGE) == number
    assert attestation.is_approved(registry.fetch(number, cached, ours))


def test_the_server_refuses_another_package_than_the_deployed_one(signed: Path) -> None:
    """Its package.json was replaced with everything else, so only the digest of the deployment differs."""
    assert serving.load(signed, package_digest(signed)).difference <= 1e-5
    with pytest.raises(serving.PackageError, match=f"is package {package_digest(signed)[:12]}, and 0{{12}} was"):
        serving.load(signed, "0" * 64)


def test_the_delivery_settings_name_the_key(registry: Registry, keys: Path, tmp_path: Path) -> None:
    """The command line deploys the signed version only, and says why it refuses the other."""
    work = Path(registry.show(1).uri.removeprefix("file://")).parents[5]
    shutil.copyfile(keys / "ours.pub", tmp_path / "verify.pem")
    text = f"data: none\nwork: work\nregistry: {work}\nverify_key: verify.pem\n"
    (tmp_path / "delivery.yaml").write_text(text)
    file = str(tmp_path / "delivery.yaml")
    refused = CliRunner().invoke(app, ["deploy", "apply", "2", "--settings", file])
    assert (refused.exit_code, "no signature of the key in the setting verify_key" in refused.output) == (2, True)
    applied = CliRunner().invoke(app, ["deploy", "apply", "1", "--settings", file])
    assert applied.exit_code == 0, applied.output
    (tmp_path / "delivery.yaml").write_text(text.replace("verify.pem", "lost.pem"))
    lost = CliRunner().invoke(app, ["deploy", "apply", "1", "--settings", file])
    assert (lost.exit_code, "lost.pem is no public key" in lost.output) == (2, True)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(("payload", "payloadType", "signatures", "sig")), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_other_envelope_is_refused_in_one_line(signed: Path, required: None, content: bytes) -> None:
    """Whatever its bytes, by both checks."""
    attestation.envelope_of(signed).write_bytes(content)
    with pytest.raises(PackageError):
        attestation.check(signed)
    with pytest.raises(serving.PackageError):
        serving.load(signed)


def test_a_missing_envelope_is_refused(signed: Path, required: None) -> None:
    attestation.envelope_of(signed).unlink()
    with pytest.raises(PackageError, match="no signature"):
        attestation.check(signed)
    with pytest.raises(serving.PackageError, match="no signature"):
        serving.load(signed)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\n"])
def test_a_key_that_is_none_refuses_everything(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """A wrong setting does not switch the check off."""
    (tmp_path / "bad.pub").write_bytes(content)
    monkeypatch.setenv(attestation.VERIFY_KEY, str(tmp_path / "bad.pub"))
    with pytest.raises(PackageError, match=r"bad\.pub is no public key"):
        attestation.check(signed)
    with pytest.raises(serving.PackageError, match=r"bad\.pub is no public key"):
        serving.load(signed)


def test_a_wrong_signing_key_registers_nothing(
    registry: Registry, tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file."""
    monkeypatch.setenv(attestation.SIGNING_KEY, str(keys / "ours.pub"))
    package = make_package(tmp_path, seed=3)
    versions = len(registry.list_versions())
    with pytest.raises((PackageError, RegistryError), match="is no private key"):
        registry.register(package, registry.show(1).run_id, VERDICT, LINEAGE)
    assert len(registry.list_versions()) == versions


def test_keys_are_private_and_not_replaced(keys: Path, tmp_path: Path) -> None:
    """A second call does not overwrite a key."""
    assert (keys / "ours.key").stat().st_mode & 0o777 == 0o600
    before = Path(shutil.copy(keys / "ours.key", tmp_path / "key")).read_bytes()
    with pytest.raises(PackageError, match="exists"):
        attestation.make_keys(tmp_path / "key", tmp_path / "pub")
    assert (tmp_path / "key").read_bytes() == before
