"""What every component keeps to: typed, described, without defaults, and nothing but a call."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from kfp import dsl

import components

NAMES = sorted(path.stem for path in Path(components.__file__).parent.glob("[a-z]*.py"))


@pytest.fixture(params=NAMES)
def component(request: pytest.FixtureRequest) -> dsl.PythonComponent:
    """Each component in turn; a file is named after its one component."""
    return getattr(importlib.import_module(f"components.{request.param}"), request.param)


def test_there_is_a_component_a_stage():
    """No stage of the flow lacks one."""
    assert NAMES == ["deploy", "evaluate", "notify", "preprocess", "push", "reject", "tick", "train"]


def test_nothing_is_installed_when_a_task_starts(component: dsl.PythonComponent):
    """A cluster may have no network: the image holds everything."""
    container = component.component_spec.implementation.container
    assert "pip install" not in " ".join(container.command + container.args)


def test_every_input_and_output_is_described(component: dsl.PythonComponent):
    """Its docstring names each of them, under Args and Returns."""
    spec = component.component_spec
    described = inspect.getdoc(component.python_func)
    args, _, returns = described.partition("Returns:")
    assert [name for name in spec.inputs or {} if f"{name}: " not in args.partition("Args:")[2]] == []
    assert [name for name in spec.outputs or {} if name != "Output" and f"{name}: " not in returns] == []


def test_no_default_is_repeated(component: dsl.PythonComponent):
    """Defaults stand in spira.config alone."""
    parameters = inspect.signature(component.python_func).parameters.values()
    assert [parameter.name for parameter in parameters if parameter.default is not parameter.empty] == []


def test_no_logic(component: dsl.PythonComponent):
    """No branch, no loop, no try: what needs testing is in spira."""
    source = inspect.getsource(component.python_func)
    logic = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.FunctionDef, ast.Lambda)
    (function,) = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    assert [node for node in ast.walk(function) if isinstance(node, logic) and node is not function] == []
