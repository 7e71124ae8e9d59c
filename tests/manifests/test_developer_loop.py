"""Tests that skaffold, the CI workflow and the scripts refer only to files and targets that exist."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.support import ROOT

SKAFFOLD = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())
TRAIN = next(profile for profile in SKAFFOLD["profiles"] if profile["name"] == "train")
ARTIFACTS = {
    artifact["image"]: artifact
    for artifact in [*SKAFFOLD["build"]["artifacts"], *(patch["value"] for patch in TRAIN["patches"])]
}
STEPS = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]


def images(overlay: str) -> dict[str, dict[str, str]]:
    """Return the images in a kustomization, by name."""
    listed = yaml.safe_load((ROOT / "manifests" / overlay / "kustomization.yaml").read_text())["images"]
    return {image["name"]: image for image in listed}


@pytest.mark.parametrize("image", ARTIFACTS)
def test_skaffold_refers_to_existing_dockerfiles(image: str):
    """Each image has a Dockerfile with its stage and its build arguments."""
    docker: dict[str, Any] = ARTIFACTS[image]["docker"]
    text = (ROOT / docker["dockerfile"]).read_text()
    assert "target" not in docker or f"AS {docker['target']}\n" in text
    aliases = {required["alias"] for required in ARTIFACTS[image].get("requires", ())}
    for argument in [*docker.get("buildArgs", ()), *aliases]:
        assert f"ARG {argument}=" in text
    assert {required["image"] for required in ARTIFACTS[image].get("requires", ())} <= set(ARTIFACTS)


def test_skaffold_builds_every_deployed_image():
    """Each of the project's images in the kind overlay is built, so none is outdated."""
    assert set(images("kind")) == {artifact["image"] for artifact in SKAFFOLD["build"]["artifacts"]}


def test_skaffold_replaces_the_image_of_the_runtime():
    """It searches custom resources only if ``resourceSelector`` allows them."""
    (allowed,) = SKAFFOLD["resourceSelector"]["allow"]
    runtime = yaml.safe_load((ROOT / "manifests/base/serving/runtime.yaml").read_text())
    assert allowed["groupKind"] == f"{runtime['kind']}.{runtime['apiVersion'].partition('/')[0]}"


def test_push_records_the_digest_of_every_image():
    """The GKE overlay lists the images that manifests/gke/push writes."""
    pushed = re.search(r"for name in (.*); do", (ROOT / "manifests/gke/push").read_text())
    assert pushed is not None
    assert (
        {f"spira/{name}" for name in pushed[1].split()}
        == set(images("gke/images"))
        == set(ARTIFACTS) - {"spira/dependencies"}
    )
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"]) for image in images("gke/images").values())


def test_the_workflow_refers_to_existing_targets_and_files():
    """Each target exists in the Makefile, and each script and overlay in the repository."""
    targets = {target for step in STEPS for target in re.findall(r"\bmake ([\w-]+)", step)}
    assert {"test", "e2e", "kind-up", "kind-down"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    paths = {path for step in STEPS for path in re.findall(r"\b(?:manifests|tests)/[\w/.-]+", step)}
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    "script", ["manifests/gke/push", "manifests/kserve/install", "tests/e2e/run", "tests/e2e/images/load"]
)
def test_scripts_are_executable_shell(script: str):
    """A shell parses them, and they have the executable bit."""
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["sh", "-n", path], capture_output=True).returncode == 0
