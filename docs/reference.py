"""MkDocs hook that generates three pages: the settings, the components, and the command line from typer."""

from __future__ import annotations

import json
import re
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines import catalogue
from spira.cli.main import app
from spira.config import Config
from spira.delivery.settings import Settings
from spira.evaluation.gate import Gate, load


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    files.append(File.generated(config, "configuration.md", content=configuration_page()))
    files.append(File.generated(config, "cli.md", content=cli_page()))
    files.append(File.generated(config, "components.md", content=components_page()))
    return files


def configuration_page() -> str:
    """Return every setting of a training, of the gate and of continuous delivery, with default, limits and meaning."""
    parts = [
        "# Configuration\n",
        "This page is generated from the docstrings of the settings.\n",
        "## Training\n",
        "`spira config` prints these settings as YAML. A file given with `--config` holds the sections and keys that "
        "differ from the defaults; `--set section.key=value` changes one key.\n",
    ]
    for name, field in Config.model_fields.items():
        parts.append(_section(f"`{name}`", field.default))
    parts.append("## Gate\n")
    parts.append(
        "The project's own file is `spira/evaluation/gate.yaml`; `--gate` names another. See [The gate](gate.md).\n"
    )
    rules = load()
    parts.append(_table(Gate, rules))
    for name in Gate.model_fields:
        value = getattr(rules, name)
        if isinstance(value, BaseModel):
            parts.append(_section(f"`{name}`", value))
    parts.append("## Continuous delivery\n")
    parts.append("The keys of `delivery.yaml`. See [Continuous delivery](delivery.md).\n")
    parts.append(_table(Settings, None))
    return "\n".join(parts)


def _section(title: str, model: BaseModel) -> str:
    """Return one settings model as a heading, its docstring and a table."""
    return f"### {title}\n\n{_plain(type(model).__doc__ or '')}\n\n{_table(type(model), model)}"


def _table(model: type[BaseModel], values: BaseModel | None) -> str:
    rows = ["| key | default | limits | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if isinstance(getattr(values, name, None), BaseModel):
            continue  # a section of its own
        value = getattr(values, name) if values is not None else field.get_default(call_default_factory=True)
        rows.append(f"| `{name}` | {_default(field, value)} | {_limits(field)} | {_plain(field.description or '')} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo, value: Any) -> str:
    if field.is_required() and type(value).__name__ == "PydanticUndefinedType":
        return "required"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, tuple):
        value = [one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in value]
    return f"`{json.dumps(value, default=str)}`"


def _limits(field: FieldInfo) -> str:
    """Return the limits of a number, or the values of a choice."""
    signs = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ ", "multiple_of": "multiple of "}
    limits = [
        f"{sign}{getattr(rule, name)}" for rule in field.metadata for name, sign in signs.items() if hasattr(rule, name)
    ]
    choices = getattr(field.annotation, "__args__", ()) if "Literal" in str(field.annotation) else ()
    return ", ".join(limits) or " \\| ".join(f"`{choice}`" for choice in choices)


def _plain(docstring: str) -> str:
    """Return a docstring in one line of Markdown."""
    text = " ".join(docstring.split())
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`").replace("|", "\\|")


def components_page() -> str:
    """Return every component with its metadata, inputs and outputs."""
    parts = [
        "# Components\n",
        "This page is generated from the components' signatures and docstrings, and from `components/metadata.toml`.\n",
        "Import one in a pipeline of your own: `from components.train import train`. All of them run in the image of "
        "`Dockerfile.train`, which `spira pipeline compile --image` names.\n",
        "| component | owner | stability | verified with kfp | on |",
        "|---|---|---|---|---|",
    ]
    entries = catalogue.load()
    parts += [
        f"| [`{name}`](#{name}) | {one.owner} | {one.stability} | {one.kfp} | {one.verified} |"
        for name, one in entries.items()
    ]
    for name in entries:
        spec = catalogue.component(name).component_spec
        parts += [f"\n## `{name}`\n", f"{_plain(spec.description or '')}\n"]
        for title, values in (("input", spec.inputs), ("output", spec.outputs)):
            if values:
                parts += [f"| {title} | type | meaning |", "|---|---|---|"]
                parts += [
                    f"| `{part}` | {str(value.type).removeprefix('system.').partition('@')[0]} "
                    f"| {_plain(value.description or '')} |"
                    for part, value in values.items()
                ]
                parts.append("")
    return "\n".join(parts) + "\n"


def cli_page() -> str:
    """Return every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts = [
        "# Command line\n",
        "This page is generated from the commands' own help.\n",
        _plain(root.help or "") + "\n",
    ]
    context = root.make_context("spira", [], resilient_parsing=True)
    for name in root.list_commands(context):
        parts += _command(root.get_command(context, name), f"spira {name}", 2)
    return "\n".join(parts)


def _command(command: Any, name: str, level: int) -> list[str]:
    if command.hidden:
        return []
    parts = [f"{'#' * level} `{name}`\n", _help(command.help or "") + "\n"]
    rows = [_row(parameter) for parameter in command.params if parameter.name not in ("help", "install_completion")]
    if rows:
        parts.append("\n".join(["| argument or option | default | meaning |", "|---|---|---|", *rows]) + "\n")
    if hasattr(command, "commands"):
        context = command.make_context(name, [], resilient_parsing=True)
        for verb in command.list_commands(context):
            parts += _command(command.get_command(context, verb), f"{name} {verb}", level + 1)
    return parts


def _help(text: str) -> str:
    """Return a help text as Markdown: paragraphs as they are, indented commands as a code block."""
    return "\n\n".join(
        f"```\n{block.replace(chr(8), '').strip(chr(10))}\n```"
        if block.lstrip("\b\n").startswith("    ")
        else _plain(block)
        for block in text.split("\n\n")
    )


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = (parameter.metavar or parameter.name.upper()) if is_argument else ", ".join(parameter.opts)
    default = parameter.default() if callable(parameter.default) else parameter.default
    shown = "" if default in (None, "", False, [], ()) or "UNSET" in str(default).upper() else f"`{default}`"
    if parameter.required:
        shown = "required"
    return f"| `{name}` | {shown} | {_plain(getattr(parameter, 'help', None) or '')} |"
