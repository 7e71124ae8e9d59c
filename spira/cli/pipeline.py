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
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from components import IMAGE
from pipelines.training import COMPILED, CompileOptions, compile_pipeline
from spira.cli.common.console import out, print_json, say
from spira.cli.common.options import (
    ConfigFile,
    ConfigValues,
    GateFile,
    Json,
    Seeds,
    SkipBad,
    resolve_config,
    resolve_project,
)
from spira.errors import SpiraError

if TYPE_CHECKING:
    from pipelines.kubeflow import schedules
    from pipelines.kubeflow.overview import Line
    from pipelines.kubeflow.schedules import Schedule
    from pipelines.kubeflow.server import Server
    from pipelines.kubeflow.settings import KubeflowSettings
    from pipelines.kubeflow.versions import PipelineVersion
    from spira.config import Config
    from spira.delivery.training_request import TrainingRequest
    from spira.registry import Outcome

ClusterProject = Annotated[
    Path | None,
    typer.Option(
        "--project",
        help="Owner, contact and licence; project.yaml beside --config or in the current folder by default.",
    ),
]
MAX_DATA_NAME = 30
"""Number of characters of a data set's name in the name of a run."""

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
    cached: Annotated[
        bool,
        typer.Option(
            "--cached/--uncached", help="Let the cache answer tasks; each run must then pin its data by a digest."
        ),
    ] = False,
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006 (typer makes a new list)
    kubernetes: Annotated[
        bool,
        typer.Option("--kubernetes", help="Write the resources Pipeline and PipelineVersion, for kubectl and GitOps."),
    ] = False,
    namespace: Annotated[str, typer.Option("--namespace", help="Namespace of these resources.")] = "",
) -> None:
    """Write a pipeline as YAML for Kubeflow; the same sources give the same bytes.

    Claim, sizes of pods, target and notify_url of the cluster file are fixed in the pipeline. Its registry_uri,
    node_selector and tolerations become defaults.
    """
    from pipelines.kubeflow import delivery as delivery_pipeline
    from pipelines.kubeflow import settings as cluster_file
    from pipelines.kubeflow import versions

    if delivery and (secret or cached or kubernetes or namespace or cluster or on):
        raise SpiraError("--delivery: only --out, --image, --tag-ok and --claim apply to this pipeline")
    if image != IMAGE:
        versions.check_image(image, tag_ok)
    if delivery:
        path = path or delivery_pipeline.COMPILED
        delivery_pipeline.compile_delivery(path, image, claim)
    else:
        path = path or COMPILED
        options = cluster_file.load(cluster, on).compile_options(cached)
        options = replace(options, claim=claim or options.claim, secret=secret or options.secret)
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
    project: ClusterProject = None,
    skip_bad: SkipBad = False,
    image: Image = "",
    tag_ok: TagOk = False,
) -> None:
    """Start a run on a cluster, and print its name; a run of the same name is not started twice."""
    from pipelines.kubeflow import overview
    from pipelines.kubeflow.runner import Kubeflow, list_runs

    request = request_of(name, data, data_digest, resolve_config(config, setting, seed), gate, skip_bad)
    request = request.model_copy(update={"project": resolve_project(project, config, Path())})
    loaded, server = connected(cluster, on, host)
    version = version_of(server, image, tag_ok, loaded.compile_options(cached=bool(data_digest)))
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
    remove: Annotated[
        bool,
        typer.Option(
            "--remove",
            help="Disable the schedule of this name, and delete it unless a run of it is active; repeat then.",
        ),
    ] = False,
    data_digest: Digest = "",
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006
    seed: Seeds = [],  # noqa: B006
    gate: GateFile = None,
    project: ClusterProject = None,
    skip_bad: SkipBad = False,
    image: Image = "",
    tag_ok: TagOk = False,
) -> None:
    """Create a schedule whose runs follow the latest version, or replace one that differs; repeat after a change.

    An upload needs no change of the schedule. A schedule that is replaced is disabled; its active run goes on.
    """
    from pipelines.kubeflow import schedules, versions

    loaded, server = connected(cluster, on, host)
    if remove:
        change = schedules.remove(server, name)
        say(f"deleted {change.deleted} schedule(s) of name {name}{retained(change)}")
        return
    request = request_of("", data, data_digest, resolve_config(config, setting, seed), gate, skip_bad)
    request = request.model_copy(update={"project": resolve_project(project, config, Path())})
    options = loaded.compile_options()
    if not check:
        version_of(server, image, tag_ok, options)  # uploads that of the image
    version = versions.latest(server)
    differences = check_latest(server, image, options, version) if image else []
    if differences and not check:
        raise SpiraError(
            f"{differences[0]}: a schedule follows the latest version; delete {version.name} in Kubeflow, or give its "
            "image"
        )
    wanted = schedules.Schedule(name, cron, version, loaded.arguments(request, version))
    show_schedule(server, wanted, check, differences)


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
    verify_config_map: Annotated[
        str, typer.Option("--verify-config-map", help="ConfigMap with verify.pem, the public key of signatures.")
    ] = "",
    account: Annotated[
        str, typer.Option("--service-account", help="Service account of the schedule's pods.")
    ] = "spira-delivery",
    check: Check = False,
) -> None:
    """Create or replace a schedule of continuous delivery, on these sources; repeat after any change.

    A schedule that is replaced is disabled; its active tick goes on, and a later call deletes the schedule.
    """
    from pipelines.kubeflow import schedules, versions
    from pipelines.kubeflow.delivery import DeliveryCompileOptions

    versions.check_image(image, tag_ok)
    texts = {"settings": settings.read_text(), "cluster": cluster.read_text() if cluster else ""}
    _, server = connected(cluster, on, host)
    options = DeliveryCompileOptions(claim, verify_config_map)
    version = (versions.find if check else versions.upload)(server, image, options)
    show_schedule(server, schedules.Schedule(name, cron, version, texts, account, pinned=True), check)


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


def show_schedule(server: Server, wanted: Schedule, check: bool, known: Sequence[str] = ()) -> None:
    """Replace a schedule that differs, or only compare it, and print the differences.

    Args:
        check: Only compare; exit with code 1 if there are differences.
        known: Differences that were found before.
    """
    from pipelines.kubeflow import schedules

    change = schedules.Change(schedules.check(server, wanted), 0, 0) if check else schedules.put(server, wanted)
    differences = [*known, *change.differences]
    for difference in differences:
        typer.echo(difference)
    state = ("is out of date" if check else "was replaced") if differences else "is up to date"
    version = wanted.version.name if wanted.pinned else f"the latest version, now {wanted.version.name}"
    say(f"schedule {wanted.name} {state}: {wanted.cron}, on {version}{retained(change)}")
    if check and differences:
        raise typer.Exit(1)


def retained(change: schedules.Change) -> str:
    """Return the end of a message about schedules that remain because a run of theirs is active."""
    if not change.retained:
        return ""
    return f"; {change.retained} is disabled while its run goes on: repeat this command later to delete it"


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
    data = re.sub(r"[^a-z0-9]+", "-", request.data.rstrip("/").rpartition("/")[2].lower()).strip("-")[:MAX_DATA_NAME]
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return request.named("-".join(filter(None, ["spira", data.strip("-"), digest])))


def version_of(server: Server, image: str, tag_ok: bool, options: CompileOptions) -> PipelineVersion:
    """Return the version of these sources with an image, or the latest version if the image is empty.

    The version is uploaded if it is not on the server, in both of its forms.
    """
    from pipelines.kubeflow import versions

    if not image:
        return versions.latest(server, options.cached)
    versions.check_image(image, tag_ok)
    return versions.upload_both(server, image, options)


def check_latest(server: Server, image: str, options: CompileOptions, latest: PipelineVersion) -> list[str]:
    """Return the difference between the version of an image and the latest one, which a schedule follows, if any."""
    from pipelines.kubeflow import versions

    wanted = versions.find(server, image, options)
    if wanted.name == latest.name:
        return []
    return [f"version: the latest is {latest.name}, wanted {wanted.name!r} ({wanted.version_id})"]


def outcome(mlflow: str, name: str) -> Outcome | None:
    """Return the outcome of a run from MLflow, or None if there is none."""
    from spira.registry import Registry

    return Registry(mlflow).outcome(name)
