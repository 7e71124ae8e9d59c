"""What builds, deploys and checks names things that are there: skaffold, the workflow, the script that pushes."""

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
    """Our images that an overlay, or a part of one, gives a tag or digest."""
    listed = yaml.safe_load((ROOT / "manifests" / overlay / "kustomization.yaml").read_text())["images"]
    return {image["name"]: image for image in listed}


@pytest.mark.parametrize("image", ARTIFACTS)
def test_what_skaffold_builds_can_be_built(image: str):
    """By a Dockerfile that is there, with its stage and its arguments."""
    docker: dict[str, Any] = ARTIFACTS[image]["docker"]
    text = (ROOT / docker["dockerfile"]).read_text()
    assert "target" not in docker or f"AS {docker['target']}\n" in text
    aliases = {required["alias"] for required in ARTIFACTS[image].get("requires", ())}
    for argument in [*docker.get("buildArgs", ()), *aliases]:
        assert f"ARG {argument}=" in text
    assert {required["image"] for required in ARTIFACTS[image].get("requires", ())} <= set(ARTIFACTS)


def test_skaffold_builds_what_is_deployed():
    """Each image of ours in the overlay of kind, so that none is an old one."""
    assert set(images("kind")) == {artifact["image"] for artifact in SKAFFOLD["build"]["artifacts"]}


def test_skaffold_finds_the_image_of_the_runtime():
    """In a resource that is not Kubernetes' own it looks only where it is told to."""
    (allowed,) = SKAFFOLD["resourceSelector"]["allow"]
    runtime = yaml.safe_load((ROOT / "manifests/base/serving/runtime.yaml").read_text())
    assert allowed["groupKind"] == f"{runtime['kind']}.{runtime['apiVersion'].partition('/')[0]}"


def test_the_digests_that_are_recorded_are_of_all_images():
    """The overlay of GKE reads what manifests/gke/push writes."""
    pushed = re.search(r"for name in (.*); do", (ROOT / "manifests/gke/push").read_text())
    assert pushed is not None
    assert (
        {f"spira/{name}" for name in pushed[1].split()}
        == set(images("gke/images"))
        == set(ARTIFACTS) - {"spira/dependencies"}
    )
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"]) for image in images("gke/images").values())


def test_the_workflow_runs_what_is_there():
    """Targets of the Makefile, scripts and overlays of this repository."""
    made = {target for step in STEPS for target in re.findall(r"\bmake ([\w-]+)", step)}
    assert {"test", "e2e", "kind-up", "kind-down"} <= made
    for target in made:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
    named = {path for step in STEPS for path in re.findall(r"\b(?:manifests|tests)/[\w/.-]+", step)}
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    "script", ["manifests/gke/push", "manifests/kserve/install", "tests/e2e/run", "tests/e2e/images/load"]
)
def test_scripts_are_scripts(script: str):
    """A shell reads them, and they may be executed."""
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["sh", "-n", path], capture_output=True).returncode == 0
