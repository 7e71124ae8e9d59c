"""Parameters that several stages share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spira import config
from spira.config import ConfigError
from spira.errors import SpiraError
from spira.evaluation import gate
from spira.stages.inputs import read_config, read_gate, read_preprocess, read_project, state_folder
from tests.support.gatefiles import LENIENT


def test_both_parts_make_the_configuration():
    """Its digest is that of the configuration from which the parts were taken; 40 does not become 40.0."""
    whole = config.from_dict({}, ["preprocess.max_seconds=9", "training.max_epochs=3"])
    parts = whole.model_dump_json(exclude={"preprocess"}), whole.preprocess.model_dump_json()
    assert read_config(*parts) == whole
    assert read_config(*parts).digest() == whole.digest()
    assert read_preprocess(parts[1]) == whole.preprocess


@pytest.mark.parametrize("empty", ["", "{}"])
def test_empty_texts_are_the_defaults(empty: str):
    """A run from the dashboard's form has no others."""
    assert read_config(empty, empty) == config.Config()
    assert read_preprocess(empty) == config.Preprocess()
    assert read_gate("") == gate.load()
    assert read_gate(gate.load(LENIENT).model_dump_json()) == gate.load(LENIENT)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: read_config("{", "{}"), "config is not JSON: Expecting"),
        (lambda: read_config("[]", "{}"), "config: give a JSON object"),
        (lambda: read_config('{"training": {"epochs": 1}}', ""), "training.epochs: unknown key"),
        (lambda: read_config('{"preprocess": {}}', ""), "give it as preprocess_config"),
        (lambda: read_config("", "nonsense"), "preprocess_config is not JSON"),
        (lambda: read_preprocess('{"max_seconds": -1}'), "preprocess.max_seconds: "),
        (lambda: read_preprocess("null"), "preprocess_config: give a JSON object"),
        (lambda: read_gate("lenient"), "gate is not JSON"),
        (lambda: read_project("MIT"), "project is not JSON"),
        (lambda: read_project('{"license": "MIT"}'), "project: license: unknown key"),
        (lambda: read_gate("{}"), "gate: minimum: Field required"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_by_name(read: Callable[[], object], message: str):
    """A person types it into a form; the message is one line."""
    with pytest.raises(ConfigError) as error:
        read()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("uri", ["gs://bucket/state", "s3://x"])
def test_state_must_be_a_folder(uri: str):
    """A bucket supports neither locks nor renames."""
    with pytest.raises(SpiraError, match="must be a folder"):
        state_folder(uri)


def test_an_empty_parameter_means_no_state_folder():
    assert state_folder("") is None
