"""The project file: who answers for the models of a project, and on what terms they may be used.

    owner: SPIRA project, University of São Paulo
    contact: spira@example.org
    licence: CC BY-NC 4.0
    ethics_approval: CAAE 00000000.0.0000.0000
    citation: Casanova and others (2021), doi:10.18653/v1/2021.findings-acl.55
    language: pt-BR

Every key is optional. The values stand in reports, model cards and dossiers. They are no input of a training: a
change of them trains nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from spira.config import ConfigError, FrozenModel, read_yaml
from spira.language import Language

FILE = "project.yaml"
"""Name of the file beside the settings or in the work folder."""
MAX_CHARACTERS = 300
"""Length of a value."""
PAPER = (
    "Casanova and others (2021). Deep Learning against COVID-19: Respiratory Insufficiency Detection in Brazilian "
    "Portuguese Speech. Findings of ACL-IJCNLP 2021, 625-633. https://doi.org/10.18653/v1/2021.findings-acl.55"
)
"""Citation of the method, as in CITATION.cff; how to cite the models of a project that names no citation."""


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    if "{{$" in text:
        raise ValueError("must not contain {{$, which Kubeflow replaces")
    return text.strip()


Line = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_one_line)]


class Project(FrozenModel):
    """Content of the project file."""

    owner: Line = ""
    """Person or group that answers for the models."""
    contact: Annotated[Line, Field(pattern=r"^(\S+@\S+|https?://\S+)?$")] = ""
    """E-mail address or URL for questions and reports of errors."""
    licence: Line = ""
    """Terms on which the models may be used, such as an SPDX identifier."""
    ethics_approval: Line = ""
    """Number of the approval of an ethics board, such as a CAAE."""
    citation: Line = ""
    """How to cite the models; the project's paper if empty."""
    language: Language = Language.ENGLISH
    """Language of pages and notices: en or pt-BR. Logs, files for programs and the command line are in English."""

    @property
    def is_empty(self) -> bool:
        """Whether the file is absent or has no value."""
        return self == UNKNOWN


UNKNOWN = Project()
"""A project without a file."""


def find(given: Path | None, *folders: Path) -> Path | None:
    """Return the given path, or else that of the first project file in the folders; None if there is none."""
    return given or next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)


def load(path: Path | None) -> Project:
    """Read a project file; without one nothing is known.

    Raises:
        ConfigError: the file cannot be read, or a key or value is refused; the message has file, line and rule.
    """
    if path is None:
        return UNKNOWN
    values = read_yaml(path)
    if values is None:
        return UNKNOWN
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping, such as owner: NAME")
    lines = _lines(path)
    try:
        return Project.model_validate(values)
    except ValidationError as error:
        refused = [(str(problem["loc"][0]), _rule(problem["type"], problem["msg"])) for problem in error.errors()]
        problems = [f"line {lines.get(key, 1)}: {key}: {rule}" for key, rule in refused]
        raise ConfigError(f"{path} {'; '.join(problems)}") from None


def _lines(path: Path) -> dict[str, int]:
    """Return the line of each key, from 1.

    Raises:
        ConfigError: a key occurs twice; YAML itself would use the second silently.
    """
    import yaml  # here, because settings import this module and the help of commands imports settings

    lines: dict[str, int] = {}
    mapping = yaml.compose(path.read_text("utf-8"), yaml.SafeLoader)
    for key, _ in mapping.value if mapping else ():
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            raise ConfigError(f"{path} line {line}: {name}: occurs a second time; first in line {lines[name]}")
        lines[name] = line
    return lines


def _rule(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown key; known are {', '.join(Project.model_fields)}"
    if kind == "string_pattern_mismatch":
        return "must be an e-mail address or a URL"
    return message.removeprefix("Value error, ")
