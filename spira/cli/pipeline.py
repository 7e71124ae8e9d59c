"""Commands for the pipeline on Kubeflow: compile, submit, schedule, status.

    spira pipeline compile --image IMAGE@sha256:…
    spira pipeline submit --cluster cluster.yaml --data gs://… --image IMAGE@sha256:…
    spira pipeline schedule --cluster cluster.yaml --data gs://… --cron "0 30 3 * * *"
    spira pipeline schedule-delivery --cluster cluster.yaml --settings delivery.yaml --image IMAGE@sha256:…
    spira pipeline status --cluster cluster.yaml

Exit code 2 for refused input, and where Kubeflow cannot be reached.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from components import IMAGE
from pipelines.training import COMPILED, CompileOptions, compile_pipeline
from spira.cli.console import out, print_json, say
from spira.cli.options import ConfigFile, ConfigValues, GateFile, Json, Seeds, SkipBad, resolve_config
from spira.errors import SpiraError

if TYPE_CHECKING:
    from pipelines.kubeflow.overview import Line
    from pipelines.kubeflow.schedules import Schedule
    from pipelines.kubeflow.server import Server
    from pipelines.kubeflow.settings import KubeflowSettings
    from pipelines.kubeflow.versions import PipelineVersion
    from spira.config import Config
    from spira.delivery.training_request import TrainingRequest
    from spira.registry import Outcome

app = typer.Typer(no_args_is_help=True, help=__doc__)

MAX_NAME_WIDTH = 30
"""Width of a run's name in the table, in characters; a longer name is cut."""

ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="Cluster file, YAML: host, registry_uri, claim, gpu_count and others."),
]
On = Annotated[
    list[str],
    typer.Option(
        "--on", metavar="KEY=VALUE", help="One setting over the cluster file, such as gpu_count=1; repeatable."
    ),
]
Host = Annotated[
    str,
    typer.Option("--host", envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines, over the cluster file's."),
]
Data = Annotated[
    str, typer.Option("--data", help="Data set: gs:// or s3:// prefix, or a folder of the mounted claim, /state/….")
]
Digest = Annotated[
    str,
    typer.Option(
        "--data-digest",
        help="SHA-256 digest that the data set must have. Only with it, the cache may answer preprocess and train.",
    ),
]
Image = Annotated[
    str,
    typer.Option(
        "--image",
        help="Image of the components, name@sha256:…; uploads these sources. If not given, the latest version runs.",
    ),
]
TagOk = Annotated[
    bool, typer.Option("--tag-ok", help="Accept an image by its tag, for nodes that have images by tag only (kind).")
]
Check = Annotated[
    bool, typer.Option("--check", help="Change nothing; list the differences, and exit with code 1 if there are any.")
]


@app.command("compile")
def compile_(
    delivery: Annotated[
        bool, typer.Option("--delivery", help="Write the pipeline of continuous delivery, instead of the training's.")
    ] = False,
    path: Annotated[
        Path | None,
        typer.Option("--out", help="YAML file to write; if not given, the compiled file in this source tree."),
    ] = None,
    image: Annotated[str, typer.Option("--image", help="Image of the components, name@sha256:….")] = IMAGE,
    tag_ok: TagOk = False,
    claim: Annotated[
        str, typer.Option("--claim", help="PersistentVolumeClaim, mounted at /state, for the state of trainings.")
    ] = "",
    secret: Annotated[
        str, typer.Option("--secret", help="Secret with address and keys of the S3 store that has the data set.")
    ] = "",
    uncached: Annotated[
        bool, typer.Option("--uncached", help="Never answer tasks from the cache, for data that no digest pins.")
    ] = False,
    notify: Annotated[bool, typer.Option(help="Add an exit handler that reports how the run ended.")] = True,
    kubernetes: Annotated[
        bool,
        typer.Option("--kubernetes", help="Write the resources Pipeline and PipelineVersion, for kubectl and GitOps."),
    ] = False,
    namespace: Annotated[str, typer.Option("--namespace", help="Namespace of these resources.")] = "",
) -> None:
    """Write a pipeline as YAML for Kubeflow; the same sources give the same bytes."""
    from pipelines.kubeflow import delivery as delivery_pipeline
    from pipelines.kubeflow import versions

    if delivery and (secret or uncached or kubernetes or namespace or not notify):
        raise SpiraError("--delivery: only --out, --image, --tag-ok and --claim apply to this pipeline")
    if image != IMAGE:
        versions.check_image(image, tag_ok)
    if delivery:
        path = path or delivery_pipeline.COMPILED
        delivery_pipeline.compile_delivery(path, image, claim)
    else:
        path = path or COMPILED
        options = CompileOptions(claim=claim, secret=secret, cached=not uncached, notifies=notify)
        compile_pipeline(path, image, options, versions.manifest(image, options, namespace) if kubernetes else None)
    typer.echo(path)


@app.command()
def submit(
    data: Data,
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006 (typer makes a new list)
    host: Host = "",
    data_digest: Digest = "",
    name: Annotated[
        str, typer.Option("--name", help="Name of the run; if not given, made from data, settings and version.")
    ] = "",
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006
    seed: Seeds = [],  # noqa: B006
    gate: GateFile = None,
    skip_bad: SkipBad = False,
    image: Image = "",
    tag_ok: TagOk = False,
) -> None:
    """Start a run on a cluster, and print its name; a run of the same name is not started twice."""
    from pipelines.kubeflow import overview
    from pipelines.kubeflow.runner import Kubeflow, list_runs

    request = request_of(name, data, data_digest, resolve_config(config, setting, seed), gate, skip_bad)
    loaded, server = connected(cluster, on, host)
    version = version_of(server, image, tag_ok, loaded.compile_options())
    request = named(request, version)
    with server.explain_errors("runs cannot be listed"):
        exists = bool(list_runs(server, request.name))
    Kubeflow(server, loaded, lambda: version, lambda name: None).start(request)
    (line,) = overview.runs(server, [request.name])
    if exists:
        say(f"the run exists already and is {line.state}; give another --name to run the same again")
    else:
        say(f"started on {version.name}; follow it with spira pipeline status {request.name}")
    typer.echo(request.name)


@app.command()
def schedule(
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006
    host: Host = "",
    name: Annotated[str, typer.Option("--name", help="Name of the schedule.")] = "spira",
    cron: Annotated[
        str, typer.Option("--cron", help="Times in six fields, seconds first, UTC, such as '0 30 3 * * *'.")
    ] = "",
    data: Data = "",
    check: Check = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the schedule of this name; its runs stay.")] = False,
    data_digest: Digest = "",
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006
    seed: Seeds = [],  # noqa: B006
    gate: GateFile = None,
    skip_bad: SkipBad = False,
    image: Image = "",
    tag_ok: TagOk = False,
) -> None:
    """Create or replace a schedule of runs on the latest version; repeat after an upload or a change."""
    from pipelines.kubeflow import schedules

    loaded, server = connected(cluster, on, host)
    if remove:
        say(f"deleted {schedules.remove(server, name)} schedule(s) of name {name}")
        return
    request = request_of("", data, data_digest, resolve_config(config, setting, seed), gate, skip_bad)
    version = version_of(server, image, tag_ok, loaded.compile_options(cached=bool(data_digest)), look=check)
    wanted = schedules.Schedule(name, cron, version, loaded.arguments(request, version))
    show_schedule(server, wanted, check)


@app.command("schedule-delivery")
def schedule_delivery(
    settings: Annotated[
        Path, typer.Option("--settings", help="Settings of delivery, YAML; its folders and URLs must outlive a pod.")
    ],
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006
    host: Host = "",
    name: Annotated[str, typer.Option("--name", help="Name of the schedule.")] = "spira-delivery",
    cron: Annotated[
        str, typer.Option("--cron", help="Times in six fields, seconds first, UTC, such as '0 */5 * * * *'.")
    ] = "0 */5 * * * *",
    image: Annotated[str, typer.Option("--image", help="Image of Dockerfile.base, name@sha256:….")] = "",
    tag_ok: TagOk = False,
    claim: Annotated[
        str, typer.Option("--claim", help="PersistentVolumeClaim mounted at /state, for settings that name folders.")
    ] = "",
    account: Annotated[
        str, typer.Option("--service-account", help="Service account of the schedule's pods.")
    ] = "spira-delivery",
    check: Check = False,
) -> None:
    """Create or replace a schedule of continuous delivery, on these sources; repeat after any change."""
    from pipelines.kubeflow import schedules, versions
    from pipelines.kubeflow.delivery import DeliveryCompileOptions

    versions.check_image(image, tag_ok)
    texts = {"settings": settings.read_text(), "cluster": cluster.read_text() if cluster else ""}
    _, server = connected(cluster, on, host)
    version = (versions.find if check else versions.upload)(server, image, DeliveryCompileOptions(claim))
    show_schedule(server, schedules.Schedule(name, cron, version, texts, account), check)


@app.command()
def status(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Names of runs; if none is given, the latest ten.")
    ] = None,
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006
    host: Host = "",
    mlflow: Annotated[
        str,
        typer.Option(
            "--mlflow",
            metavar="URL",
            envvar="MLFLOW_TRACKING_URI",
            help="MLflow server, reachable from this machine; shows versions and the reasons of rejections.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """List runs on a cluster, the latest first, with the verdict or the reason why a run failed or waits.

    One run alone is shown with all of its causes.
    """
    from pipelines.kubeflow import overview
    from pipelines.kubeflow.pods import Pods

    loaded, server = connected(cluster, on, host)
    find_outcome = (lambda name: outcome(mlflow, name)) if mlflow else None
    lines = overview.runs(server, names or [], find_outcome, Pods.here(loaded.namespace))
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    if not lines:
        out.print("no runs yet; start one with: spira pipeline submit")
        return
    out.print(status_table(lines))
    if len(lines) == 1:
        out.print(lines[0].message, markup=False, highlight=False)


def status_table(lines: list[Line]) -> Table:
    """Return a table of runs with one row of the screen each; one run alone leaves its message out."""
    is_alone = len(lines) == 1
    table = Table("run", "state", "started", *([] if is_alone else ["message"]))
    table.columns[0].max_width = MAX_NAME_WIDTH
    for column in table.columns:
        column.no_wrap = True
    if not is_alone:
        table.expand, table.columns[-1].ratio = True, 1  # the message gets the width that the other columns leave
    for line in lines:
        message = line.message.replace("\n", "; ")
        table.add_row(*(Text(cell) for cell in (line.name, line.state, line.begun, *([] if is_alone else [message]))))
    return table


def show_schedule(server: Server, wanted: Schedule, check: bool) -> None:
    """Replace a schedule that differs, or only compare it, and print the differences.

    Args:
        check: Only compare; exit with code 1 if there are differences.
    """
    from pipelines.kubeflow import schedules

    differences = (schedules.check if check else schedules.put)(server, wanted)
    for difference in differences:
        typer.echo(difference)
    state = ("is out of date" if check else "was replaced") if differences else "is up to date"
    say(f"schedule {wanted.name} {state}: {wanted.cron}, on {wanted.version.name}")
    if check and differences:
        raise typer.Exit(1)


def connected(path: Path | None, settings: list[str], host: str) -> tuple[KubeflowSettings, Server]:
    """Return the settings of the cluster that the options name, and a connection to its server."""
    from pipelines.kubeflow import settings as cluster
    from pipelines.kubeflow.server import connect

    loaded = cluster.load(path, settings)
    return loaded, connect(host or loaded.host, loaded.experiment)


def request_of(
    name: str, data: str, data_digest: str, config: Config, gate: Path | None, skip_bad: bool
) -> TrainingRequest:
    """Return the training request of the options."""
    from spira.delivery.training_request import TrainingRequest
    from spira.evaluation import gate as gates

    return TrainingRequest(
        name=name, data=data, data_digest=data_digest, config=config, gate=gates.load(gate), skip_bad=skip_bad
    )


def named(request: TrainingRequest, version: PipelineVersion) -> TrainingRequest:
    """Return the request with a name; without one of its own it is named by its content, so that it is one run."""
    if request.name:
        return request
    body = {name: value for name, value in request.to_record().items() if name != "git_commit"}
    content = json.dumps([body | {"name": ""}, version.name], sort_keys=True)
    return request.named(f"spira-{hashlib.sha256(content.encode()).hexdigest()[:12]}")


def version_of(
    server: Server, image: str, tag_ok: bool, options: CompileOptions, look: bool = False
) -> PipelineVersion:
    """Return the version of these sources with an image, or the latest version if the image is empty.

    Args:
        look: Never upload the version, even if it is not on the server.
    """
    from pipelines.kubeflow import versions

    if not image:
        return versions.latest(server)
    versions.check_image(image, tag_ok)
    return (versions.find if look else versions.upload)(server, image, options)


def outcome(mlflow: str, name: str) -> Outcome | None:
    """Return the outcome of a run from MLflow, or None if there is none."""
    from spira.registry import Registry

    return Registry(mlflow).outcome(name)
