"""Settings of continuous delivery: the watched data, the runner and the targets, in one file.

    data: recordings            # folder, gs:// or s3:// prefix
    config: model.yaml          # training settings that differ from the defaults
    targets: [{kind: local}]

Relative paths start at the folder of the file.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from spira import project as projects
from spira.config import ConfigError, FrozenModel, explain, read_yaml
from spira.delivery.decide import Policy
from spira.delivery.links import Links
from spira.deployment.targets import AnyTarget, InferenceServiceTarget, LocalTarget
from spira.language import Language

DEFAULT = Path("delivery.yaml")
PATHS = ("data", "config", "gate", "project", "work", "ledger", "registry", "kubeflow", "verify_key")
"""Settings that hold a path or a URI."""


class NoticeSettings(FrozenModel):
    """Notices to a team. Their addresses are secrets, so they are not in this file."""

    urls_file: str = ""
    """File with one apprise URL a line; empty for the environment variable ``SPIRA_NOTICE_URLS`` alone."""
    lasting_minutes: float = Field(30.0, ge=0)
    """Time after which a problem is worth a notice."""


class LinkSettings(FrozenModel):
    """Addresses of pages for people, in notices and on the status page."""

    mlflow: str = Field("", pattern=r"^(https?://\S+)?$")
    """Address at which people open MLflow; empty for ``registry`` if that is a URL."""
    page: str = Field("", pattern=r"^(https?://\S+)?$")
    """Address at which people open the status page; empty if it is not served."""


class Settings(FrozenModel):
    """Content of the settings file."""

    data: str
    """Folder, ``gs://`` or ``s3://`` prefix of the watched data set."""
    config: str = ""
    """YAML file with the training settings that differ from the defaults."""
    set: tuple[str, ...] = ()
    """Training settings ``section.key=value``, applied after the file."""
    gate: str = ""
    """Gate file; empty for ``spira/evaluation/gate.yaml``."""
    project: str = ""
    """File with owner, contact, licence and language; empty for ``project.yaml`` beside the settings or in the work
    folder."""
    skip_bad: bool = False
    """Leave bad recordings out instead of refusing the data set."""
    work: str = Field("work", min_length=1)
    """Folder of local runs, downloaded models and, if ``registry`` is empty, MLflow."""
    ledger: str = ""
    """Folder, ``gs://`` or ``s3://`` prefix of the ledger; empty for ``ledger`` in the work folder."""
    registry: str = ""
    """MLflow URL, or a folder for SQLite; empty for the work folder."""
    kubeflow: str = ""
    """File with the settings of the Kubeflow that trains (:mod:`pipelines.kubeflow.settings`); empty: this machine."""
    verify_key: str = ""
    """File with the public key by which every served version must be signed; empty for ``SPIRA_VERIFY_KEY``, if set."""
    targets: tuple[AnyTarget, ...] = (LocalTarget(),)
    """Deployment targets of approved versions; see :mod:`spira.deployment.targets`."""
    attempts: int = Field(Policy.attempts, gt=0)
    """Number of runs of one input that may fail."""
    backoff_seconds: float = Field(Policy.backoff_seconds, ge=0)
    """Wait before the second attempt; each further wait is four times as long."""
    quiet_seconds: float = Field(Policy.quiet_seconds, ge=0)
    """Time for which a change must stay the same before it is trained, because an upload may be incomplete."""
    approval: bool = Policy.approval
    """Whether an operator must approve a version before it is served."""
    every_seconds: float = Field(60.0, gt=0)
    """Interval between two ticks of ``spira deliver watch``."""
    resource: str = Field("", pattern=r"^([a-z0-9-]+/[a-z0-9.-]+)?$")
    """``namespace/name`` of the ``Delivery`` resource that shows the status on a cluster; empty for none."""

    notices: NoticeSettings = NoticeSettings()
    """See :mod:`spira.delivery.notices`."""
    links: LinkSettings = LinkSettings()
    """Addresses of MLflow and of the status page."""

    @field_validator("targets")
    @classmethod
    def _distinct(cls, targets: tuple[AnyTarget, ...]) -> tuple[AnyTarget, ...]:
        kinds = [target.kind for target in targets]
        if repeated := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            # The kind is also the name of the target in the ledger and on the command line.
            raise ValueError(f"only one target of each kind is possible: there is more than one {', '.join(repeated)}")
        return targets

    @property
    def policy(self) -> Policy:
        return Policy(self.attempts, self.backoff_seconds, self.quiet_seconds, self.approval)

    @property
    def language(self) -> Language:
        """Language of pages and notices: that of the project file.

        It is English while the file cannot be read: an observation reports that, and pages and notices go on.
        """
        try:
            return projects.load(Path(self.project) if self.project else None).language
        except ConfigError:
            return Language.ENGLISH

    @property
    def addresses(self) -> Links:
        """Addresses of pages for people."""
        is_url = self.registry.startswith(("http://", "https://"))
        return Links(self.links.mlflow or (self.registry if is_url else ""), self.links.page)


def load(path: Path = DEFAULT) -> Settings:
    """Read the settings file.

    Raises:
        ConfigError: the file does not exist, or has an unknown key or an invalid value.
    """
    if not path.exists():
        advice = "write one with spira deliver init --data DIR, or name another with --settings"
        raise ConfigError(f"{path} does not exist: {advice}")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping with at least data: FOLDER")
    try:
        return absolute(Settings.model_validate(values), path.parent.resolve())
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from None


def absolute(settings: Settings, folder: Path) -> Settings:
    """Return the settings with absolute paths, and with the defaults of empty ones."""
    work = _absolute_path(settings.work, folder)
    project_file = projects.find(None, folder, Path(work))
    defaults = {"ledger": f"{work}/ledger", "registry": work, "project": str(project_file or "")}
    paths = {name: _absolute_path(getattr(settings, name) or defaults.get(name, ""), folder) for name in PATHS}
    targets = tuple(_absolute_target(target, folder, work) for target in settings.targets)
    notices = settings.notices.model_copy(update={"urls_file": _absolute_path(settings.notices.urls_file, folder)})
    return settings.model_copy(update={**paths, "targets": targets, "notices": notices})


def _absolute_path(path: str, folder: Path) -> str:
    return path if not path or "://" in path else str((folder / path).resolve())


def _absolute_target(target: AnyTarget, folder: Path, work: str) -> AnyTarget:
    if isinstance(target, LocalTarget):
        serving = _absolute_path(target.serving, folder) or f"{work}/serving"
        return target.model_copy(update={"serving": serving})
    if isinstance(target, InferenceServiceTarget):
        state = _absolute_path(target.folder, folder) or f"{work}/inference-service"
        return target.model_copy(update={"folder": state})
    return target


def example(data: str) -> str:
    """Return a commented settings file that watches ``data``."""
    return f"""\
# Watched data set. A change in the data, in the training settings or in the code is trained, evaluated and delivered.
data: {json.dumps(data, ensure_ascii=False)}
# config: model.yaml        # training settings that differ from the defaults (spira config prints the defaults)
# gate: gate.yaml           # criteria for approval; default: spira/evaluation/gate.yaml
# project: project.yaml     # owner, licence, language of pages and notices; default: project.yaml beside this file
work: work                  # runs, models, MLflow, the ledger and the served model
# registry: http://mlflow:5000
# kubeflow: cluster.yaml    # cluster that trains; default: this machine
# verify_key: verify.pem    # public key (spira models keygen): a version without its signature is not served
targets:
  - kind: local             # kserve, inference-service: docs/delivery.md
quiet_seconds: 10           # wait until a change has stayed the same this long, in case an upload is not complete
approval: false             # true: an operator approves a version before it is served (spira deliver approve)
every_seconds: 60           # interval between two ticks of spira deliver watch
# notices:                  # Slack, Teams, e-mail, webhooks: one URL a line, or in SPIRA_NOTICE_URLS (docs/delivery.md)
#   urls_file: notice-urls
# links: {{mlflow: https://mlflow.example.org}}    # for links to reports
# resource: spira-delivery/spira    # on a cluster: kubectl get deliveries (manifests/base/delivery)
"""
