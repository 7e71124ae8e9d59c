"""The recorded form of a training request: as earlier versions wrote it, and with the keys of newer ones."""

from __future__ import annotations

import json

import pytest

from spira import config
from spira.config import ConfigError
from spira.delivery.training_request import TrainingRequest
from spira.evaluation import gate
from spira.project import Project

REQUEST = TrainingRequest(
    data="gs://voices",
    data_digest="d" * 64,
    config=config.smoke(),
    gate=gate.load(),
    skip_bad=True,
    code_digest="c" * 64,
    git_commit="abc123",
)


def test_a_recorded_request_is_read_back() -> None:
    body = json.loads(json.dumps(REQUEST.to_record()))
    assert TrainingRequest.from_record("run-1", body) == REQUEST.named("run-1")


def test_the_project_is_recorded_with_the_request() -> None:
    request = REQUEST.model_copy(update={"project": Project(owner="A", licence="MIT")})
    body = json.loads(json.dumps(request.to_record()))
    assert TrainingRequest.from_record("run-1", body) == request.named("run-1")


def test_the_recorded_form_is_that_of_earlier_versions() -> None:
    """Configuration and gate are JSON texts, and the name is not part of it."""
    assert REQUEST.to_record() == {
        "data": "gs://voices",
        "data_digest": "d" * 64,
        "config": config.smoke().model_dump_json(),
        "gate": gate.load().model_dump_json(),
        "skip_bad": True,
        "code_digest": "c" * 64,
        "git_commit": "abc123",
    }


def test_a_request_file_of_the_local_runner_is_read() -> None:
    """Earlier versions wrote no commit; other keys of the file are ignored."""
    body = {name: value for name, value in REQUEST.to_record().items() if name != "git_commit"}
    own = {"name": "run-1", "work": "/work", "registry_uri": "", "starts": 1}
    expected = REQUEST.named("run-1").model_copy(update={"git_commit": ""})
    assert TrainingRequest.from_record("run-1", body | own) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"config": '{"training": {"unknown": 1}}'},
        {"config": "{"},
        {"gate": "{}"},
        {"gate": None},
        {"skip_bad": "maybe"},
    ],
)
def test_an_invalid_record_is_refused_by_the_name_of_its_run(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="training request of run run-1: "):
        TrainingRequest.from_record("run-1", REQUEST.to_record() | change)


def test_a_record_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="run-1"):
        TrainingRequest.from_record("run-1", {})
