"""The settings of continuous delivery: one file that says what is watched, who trains, and where it serves.

    data: recordings            # folder or gs:// prefix
    config: model.yaml          # training settings, a partial file over the defaults
    targets: [{kind: local}]

Paths are relative to the file.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, field_validator

from spira.config import ConfigError, FrozenModel, explain
from spira.delivery.decide import Policy
from spira.deployment.targets import AnyTarget, InferenceServiceTarget, LocalTarget

PATHS = ("data", "config", "gate", "work", "ledger", "registry", "kubeflow")
DEFAULT = Path("delivery.yaml")


class Settings(FrozenModel):
    """All of it; see the module."""

    data: str
    """Folder or ``gs://`` prefix of the data set that is watched."""
    config: str = ""
    """Training settings, a partial YAML over the defaults."""
    set: tuple[str, ...] = ()
    """``section.key=value`` settings over the file."""
    gate: str = ""
    """Gate file; the project's own if empty."""
    skip_bad: bool = False
    """Leave bad recordings out, rather than refuse the data set."""
    work: str = "work"
    """Folder of local runs, fetched models and, where ``registry`` is empty, MLflow."""
    ledger: str = ""
    """Folder or ``gs://`` prefix of the ledger; ``ledger`` in the work folder if empty."""
    registry: str = ""
    """MLflow URL, or a folder for SQLite; the work folder if empty."""
    kubeflow: str = ""
    """Cluster file (:mod:`pipelines.kubeflow.settings`) of the Kubeflow that trains; this machine trains if empty."""
    targets: tuple[AnyTarget, ...] = (LocalTarget(),)
    """Where what is approved serves; see :mod:`spira.deployment.targets`."""
    attempts: int = Field(Policy.attempts, gt=0)
    """Runs of one change that may fail."""
    backoff_seconds: float = Field(Policy.backoff_seconds, ge=0)
    """Before the second attempt; four times as long before each further one."""
    quiet_seconds: float = Field(Policy.quiet_seconds, ge=0)
    """A change must stand still for so long before it is trained on."""
    approval: bool = Policy.approval
    """Whether a person must approve a version before it serves."""
    every_seconds: float = Field(60.0, gt=0)
    """Between two ticks of ``watch``."""
    resource: str = Field("", pattern=r"^([a-z0-9-]+/[a-z0-9.-]+)?$")
    """``namespace/name`` of the ``Delivery`` that tells the status on a cluster; none if empty."""

    @field_validator("targets")
    @classmethod
    def _distinct(cls, targets: tuple[AnyTarget, ...]) -> tuple[AnyTarget, ...]:
        kinds = [target.kind for target in targets]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"one of a kind, for it is called by that: there is more than one {', '.join(twice)}")
        return targets

    @property
    def policy(self) -> Policy:
        return Policy(self.attempts, self.backoff_seconds, self.quiet_seconds, self.approval)


def load(path: Path = DEFAULT) -> Settings:
    """Read the file.

    Raises:
        ConfigError: it isn't there, or a key or value is refused.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} isn't there: write one (spira deliver init --data DIR), or name it") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: can't be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping, with at least data: FOLDER")
    try:
        return _absolute(Settings.model_validate(values), path.parent.resolve())
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None


def _absolute(settings: Settings, folder: Path) -> Settings:
    """Paths from the file's folder; what is empty where it belongs."""
    work = _place(settings.work, folder)
    defaults = {"ledger": f"{work}/ledger", "registry": work}
    places = {name: _place(getattr(settings, name) or defaults.get(name, ""), folder) for name in PATHS}
    targets = tuple(_placed(target, folder, work) for target in settings.targets)
    return settings.model_copy(update={**places, "targets": targets})


def _place(path: str, folder: Path) -> str:
    return path if not path or "://" in path else str((folder / path).resolve())


def _placed(target: AnyTarget, folder: Path, work: str) -> AnyTarget:
    """With its folder where it belongs."""
    if isinstance(target, LocalTarget):
        return target.model_copy(update={"serving": _place(target.serving, folder) or f"{work}/serving"})
    if isinstance(target, InferenceServiceTarget):
        return target.model_copy(update={"folder": _place(target.folder, folder) or f"{work}/inference-service"})
    return target


def example(data: str) -> str:
    """A settings file to begin with."""
    return f"""\
# What is watched: a change in the data, in the training settings or in the code is trained, judged and delivered.
data: {json.dumps(data, ensure_ascii=False)}
# config: model.yaml        # training settings, a partial file over the defaults (spira config prints them)
# gate: gate.yaml           # what a model must show; the project's own if not given
work: work                  # runs, models, MLflow, the ledger and what serves
# registry: http://mlflow:5000
# kubeflow: cluster.yaml    # who trains: this machine if not given
targets:
  - kind: local             # kserve, inference-service: docs/delivery.md
quiet_seconds: 10           # a change must stand still for so long: an upload may be under way
approval: false             # true: a person approves a version before it serves (spira deliver approve)
every_seconds: 60           # between two ticks of spira deliver watch
# resource: spira-delivery/spira    # on a cluster: kubectl get deliveries (manifests/base/delivery)
"""
