"""The rules of a component: it is typed and documented, and has no defaults and no logic."""

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
    """A component; its file has the same name."""
    return getattr(importlib.import_module(f"components.{request.param}"), request.param)


def test_every_stage_has_a_component():
    """Notify and tick have one too."""
    assert NAMES == ["deploy", "evaluate", "notify", "preprocess", "push", "reject", "tick", "train"]


def test_nothing_is_installed_when_a_task_starts(component: dsl.PythonComponent):
    """A cluster may have no access to the internet, so the image has every package."""
    container = component.component_spec.implementation.container
    assert "pip install" not in " ".join(container.command + container.args)


def test_every_input_and_output_is_described(component: dsl.PythonComponent):
    """The docstring names each of them under Args or Returns."""
    spec = component.component_spec
    docstring = inspect.getdoc(component.python_func)
    args, _, returns = docstring.partition("Returns:")
    assert [name for name in spec.inputs or {} if f"{name}: " not in args.partition("Args:")[2]] == []
    assert [name for name in spec.outputs or {} if name != "Output" and f"{name}: " not in returns] == []


def test_no_default_is_repeated(component: dsl.PythonComponent):
    """Only spira.config has defaults."""
    parameters = inspect.signature(component.python_func).parameters.values()
    assert [parameter.name for parameter in parameters if parameter.default is not parameter.empty] == []


def test_a_component_has_no_logic(component: dsl.PythonComponent):
    """It has no branch, loop or try; code that needs tests is in spira."""
    source = inspect.getsource(component.python_func)
    logic = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.FunctionDef, ast.Lambda)
    (function,) = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    assert [node for node in ast.walk(function) if isinstance(node, logic) and node is not function] == []
