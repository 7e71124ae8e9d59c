"""The compiled pipeline: the same bytes again, and none of the shapes that a runner gets wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.training import COMPILED, compile_pipeline


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The compiled pipeline, of an image of one's own."""
    out = tmp_path_factory.mktemp("compiled") / "training.yaml"
    compile_pipeline(out, "registry.example/spira@sha256:0123")
    return yaml.safe_load(out.read_text())


def dags(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The root and every sub-DAG, each with inputDefinitions and dag."""
    yield spec["root"]
    yield from (component for component in spec["components"].values() if "dag" in component)


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task of every DAG, by name."""
    return {name: task for dag in dags(spec) for name, task in dag["dag"]["tasks"].items()}


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_compiling_gives_the_golden_file_byte_for_byte(hash_seed: str, tmp_path: Path):
    """In a process of its own, whatever the order of its hashes; else: python -m pipelines compile."""
    command = [sys.executable, "-m", "pipelines", "compile", "--out", str(tmp_path / "training.yaml")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed}, cwd=COMPILED.parents[1])
    assert (tmp_path / "training.yaml").read_bytes() == COMPILED.read_bytes()


def test_the_image_is_that_of_the_deployment(spec: dict[str, Any]):
    """Every executor's; on a cluster by digest."""
    executors = spec["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {"registry.example/spira@sha256:0123"}
    assert len(executors) == 6


def test_the_gate_is_read_from_a_single_return_value_and_has_both_branches(spec: dict[str, Any]):
    """A named output can't be read locally, and without an else an unread condition would pass for an end."""
    conditions = {task["triggerPolicy"]["condition"] for task in tasks(spec).values() if "triggerPolicy" in task}
    value = "inputs.parameter_values['pipelinechannel--evaluate-Output'] == true"
    assert conditions == {value, f"!({value})"}
    assert list(spec["components"]["comp-evaluate"]["outputDefinitions"]["parameters"]) == ["Output"]


def test_no_branch_ends_in_one_of(spec: dict[str, Any]):
    """OneOf fails on a cache hit, and for artifacts locally."""
    assert "OneOf" not in yaml.safe_dump(spec)
    assert [dag["dag"]["outputs"] for dag in dags(spec) if "condition" in str(dag) and "outputs" in dag["dag"]] == []


@pytest.mark.parametrize("name", ["evaluate", "push", "deploy", "reject"])
def test_what_has_effects_or_reads_the_registry_is_never_cached(spec: dict[str, Any], name: str):
    """A client's enable_caching=False reaches root tasks only: it is set on the tasks."""
    assert tasks(spec)[name]["cachingOptions"] == {}


@pytest.mark.parametrize("name", ["preprocess", "train"])
def test_what_follows_from_its_inputs_alone_is_cached(spec: dict[str, Any], name: str):
    """The data's digest is among the inputs, as a cache never looks at content."""
    assert tasks(spec)[name]["cachingOptions"] == {"enableCache": True}
    assert "data_digest" in tasks(spec)["preprocess"]["inputs"]["parameters"]


def test_seeds_are_whole_numbers(spec: dict[str, Any]):
    """With a bare list a cluster hands a seed over as a string."""
    (loop,) = (task for task in tasks(spec).values() if "parameterIterator" in task)
    item = loop["parameterIterator"]["itemInput"]
    inner = spec["components"][loop["componentRef"]["name"]]["inputDefinitions"]["parameters"]
    assert inner[item]["parameterType"] == "NUMBER_INTEGER"
    assert spec["components"]["comp-train"]["inputDefinitions"]["parameters"]["seed"] == {
        "description": "Decides initial weights, order, noise and dropout.",
        "parameterType": "NUMBER_INTEGER",
    }


def test_settings_travel_as_text(spec: dict[str, Any]):
    """In a dictionary a 40 would arrive as 40.0."""
    types = {name: each["parameterType"] for name, each in spec["root"]["inputDefinitions"]["parameters"].items()}
    assert (types["config"], types["gate"]) == ("STRING", "STRING")
    assert "STRUCT" not in types.values()


def test_every_parameter_that_a_sub_dag_reads_is_handed_down(spec: dict[str, Any]):
    """A pipeline parameter that is no task's input doesn't reach a sub-DAG."""
    for dag in dags(spec):
        known = set(dag.get("inputDefinitions", {}).get("parameters", {}))
        for name, task in dag["dag"]["tasks"].items():
            read = task.get("inputs", {}).get("parameters", {}).values()
            missing = {each["componentInputParameter"] for each in read if "componentInputParameter" in each} - known
            assert not missing, name


def test_no_default_is_repeated(spec: dict[str, Any]):
    """Defaults stand in spira.config alone."""
    assert "defaultValue" not in yaml.safe_dump(spec)
