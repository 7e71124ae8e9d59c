"""The pipeline, on this machine and on a cluster.

    spira pipeline run --data DIR --work WORK
    spira pipeline compile --image IMAGE@sha256:…
    spira pipeline submit --cluster cluster.yaml --data gs://… --image IMAGE@sha256:…
    spira pipeline schedule --cluster cluster.yaml --data gs://… --cron "0 30 3 * * *"
    spira pipeline schedule-delivery --cluster cluster.yaml --settings delivery.yaml --image IMAGE@sha256:…
    spira pipeline status --cluster cluster.yaml

Exit code 2 for what is refused, and where Kubeflow can't be asked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from components import IMAGE
from pipelines.training import COMPILED, CompileOptions, compile_pipeline
from spira.cli.console import out, say
from spira.cli.options import ConfigFile, ConfigValues, GateFile, Json, Seeds, SkipBad, resolve_config

if TYPE_CHECKING:
    from pipelines.kubeflow.schedules import Schedule
    from pipelines.kubeflow.server import Server
    from pipelines.kubeflow.settings import KubeflowSettings
    from pipelines.kubeflow.versions import PipelineVersion
    from spira.config import Config
    from spira.delivery.training_request import TrainingRequest
    from spira.registry import Outcome

app = typer.Typer(no_args_is_help=True, help=__doc__)

ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="YAML: host, registry_uri, claim, gpu_count … (pipelines/kubeflow/settings.py)."),
]
On = Annotated[list[str], typer.Option("--on", metavar="KEY=VALUE", help="Over the cluster file, such as gpu_count=1.")]
Host = Annotated[
    str, typer.Option("--host", envvar="KF_PIPELINES_ENDPOINT", help="URL of Kubeflow Pipelines, over the file's.")
]
Data = Annotated[str, typer.Option("--data", help="Data set: gs:// prefix, or a folder in the claim, /state/….")]
Digest = Annotated[
    str, typer.Option("--data-digest", help="What the data must be: only with it, earlier results are used again.")
]
Image = Annotated[
    str,
    typer.Option("--image", help="name@sha256:…: upload these sources with it. If not given, the latest uploaded."),
]
TagOk = Annotated[bool, typer.Option("--tag-ok", help="Take an image by its tag: kind's nodes know no digests.")]


@app.command("compile")
def compile_(
    to: Annotated[Path, typer.Option("--out", help="YAML file to write.")] = COMPILED,
    image: Annotated[str, typer.Option("--image", help="Of the components: name@sha256:…")] = IMAGE,
    tag_ok: TagOk = False,
    claim: Annotated[str, typer.Option("--claim", help="PersistentVolumeClaim for the state of trainings.")] = "",
    uncached: Annotated[bool, typer.Option("--uncached", help="For schedules whose data isn't pinned.")] = False,
    notify: Annotated[bool, typer.Option(help="An exit handler says how the run ended.")] = True,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Resources Pipeline and PipelineVersion, for kubectl and GitOps.")
    ] = False,
    namespace: Annotated[str, typer.Option("--namespace", help="Of these resources.")] = "",
) -> None:
    """Write the pipeline for Kubeflow; the same sources give the same bytes."""
    from pipelines.kubeflow import versions

    if image != IMAGE:
        versions.check_image(image, tag_ok)
    form = CompileOptions(claim=claim, cached=not uncached, notified=notify)
    compile_pipeline(to, image, form, versions.manifest(image, form, namespace) if kubernetes else None)
    typer.echo(to)


@app.command()
def submit(
    data: Data,
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006 (typer makes a new list)
    host: Host = "",
    data_digest: Digest = "",
    name: Annotated[str, typer.Option("--name", help="Of the run; made of what is trained if not given.")] = "",
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006
    seed: Seeds = [],  # noqa: B006
    gate: GateFile = None,
    skip_bad: SkipBad = False,
    image: Image = "",
    tag_ok: TagOk = False,
) -> None:
    """Run the pipeline on a cluster; a run of the same name is never begun twice."""
    from pipelines.kubeflow import overview
    from pipelines.kubeflow.runner import Kubeflow, runs_of

    request = request_of(name, data, data_digest, resolve_config(config, setting, seed), gate, skip_bad)
    place, server = connected(cluster, on, host)
    version = version_of(server, image, tag_ok, place.form())
    request = named(request, version)
    with server.asked("runs can't be listed"):
        is_there = bool(runs_of(server, request.name))
    Kubeflow(server, place, lambda: version, lambda name: None).start(request)
    (begun,) = overview.runs(server, [request.name])
    if is_there:
        say(f"it is there already, {begun.state}; to run the same once more, give it another --name")
    else:
        say(f"begun on {version.name}; to follow it: spira pipeline status {request.name}")
    typer.echo(request.name)


@app.command()
def schedule(
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006
    host: Host = "",
    name: Annotated[str, typer.Option("--name", help="Of the schedule.")] = "spira",
    cron: Annotated[str, typer.Option("--cron", help="Six fields, seconds first, UTC: '0 30 3 * * *'.")] = "",
    data: Data = "",
    check: Annotated[bool, typer.Option("--check", help="Only say what is out of date; exit code 1 if it is.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the schedule of this name; runs stay.")] = False,
    data_digest: Digest = "",
    config: ConfigFile = None,
    setting: ConfigValues = [],  # noqa: B006
    seed: Seeds = [],  # noqa: B006
    gate: GateFile = None,
    skip_bad: SkipBad = False,
    image: Image = "",
    tag_ok: TagOk = False,
) -> None:
    """Make a schedule as it is described, on the latest version; to be run again after an upload or a change."""
    from pipelines.kubeflow import schedules

    place, server = connected(cluster, on, host)
    if remove:
        say(f"schedules of name {name} deleted: {schedules.remove(server, name)}")
        return
    request = request_of("", data, data_digest, resolve_config(config, setting, seed), gate, skip_bad)
    version = version_of(server, image, tag_ok, place.form(cached=bool(data_digest)), look=check)
    wanted = schedules.Schedule(name, cron, version, place.arguments(request, version))
    show_schedule(server, wanted, check)


@app.command("schedule-delivery")
def schedule_delivery(
    settings: Annotated[Path, typer.Option("--settings", help="Of spira deliver; its places outlive a pod.")],
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006
    host: Host = "",
    name: Annotated[str, typer.Option("--name", help="Of the schedule.")] = "spira-delivery",
    cron: Annotated[str, typer.Option("--cron", help="Six fields, seconds first, UTC.")] = "0 */5 * * * *",
    image: Annotated[str, typer.Option("--image", help="Of Dockerfile.base, name@sha256:….")] = "",
    tag_ok: TagOk = False,
    claim: Annotated[str, typer.Option("--claim", help="PersistentVolumeClaim, where settings name /state.")] = "",
    account: Annotated[str, typer.Option("--service-account", help="Of its pods.")] = "spira-delivery",
    check: Annotated[bool, typer.Option("--check", help="Only say what is out of date; exit code 1 if it is.")] = False,
) -> None:
    """Continuous delivery as a recurring run, at the version that these sources make; again after any change."""
    from pipelines.kubeflow import schedules, versions
    from pipelines.kubeflow.delivery import CompileOptions as DeliveryCompileOptions

    versions.check_image(image, tag_ok)
    texts = {"settings": settings.read_text(), "cluster": cluster.read_text() if cluster else ""}
    _, server = connected(cluster, on, host)
    version = (versions.find if check else versions.upload)(server, image, DeliveryCompileOptions(claim))
    show_schedule(server, schedules.Schedule(name, cron, version, texts, account), check)


@app.command()
def status(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="The latest ten if none.")] = None,
    cluster: ClusterFile = None,
    on: On = [],  # noqa: B006
    host: Host = "",
    mlflow: Annotated[str, typer.Option("--mlflow", metavar="URL", help="As this machine reaches it.")] = "",
    as_json: Json = False,
) -> None:
    """Runs on a cluster, the latest first, and why one failed or doesn't get on."""
    from pipelines.kubeflow import overview
    from pipelines.kubeflow.pods import Pods

    place, server = connected(cluster, on, host)
    verdict = (lambda name: outcome(mlflow, name)) if mlflow else None
    lines = overview.runs(server, names or [], verdict, Pods.here(place.namespace))
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
        return
    table = Table("run", "state", "begun", "")
    for line in lines:
        table.add_row(line.name, line.state, line.begun, line.message)
    out.print(table if lines else "no runs yet: spira pipeline submit")


def show_schedule(server: Server, wanted: Schedule, check: bool) -> None:
    """Put a schedule right, or only look, and say what was out of date; exit code 1 where it stays so."""
    from pipelines.kubeflow import schedules

    differences = (schedules.check if check else schedules.put)(server, wanted)
    for difference in differences:
        typer.echo(difference)
    state = ("is out of date" if check else "is put right") if differences else "is as it should be"
    say(f"schedule {wanted.name} {state}: {wanted.cron}, on {wanted.version.name}")
    if check and differences:
        raise typer.Exit(1)


def connected(path: Path | None, settings: list[str], host: str) -> tuple[KubeflowSettings, Server]:
    """The cluster of the options, and its server."""
    from pipelines.kubeflow import settings as cluster
    from pipelines.kubeflow.server import connect

    place = cluster.load(path, settings)
    return place, connect(host or place.host, place.experiment)


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


def version_of(server: Server, image: str, tag_ok: bool, form: CompileOptions, look: bool = False) -> PipelineVersion:
    """These sources with an image, or the latest version where none is given; only looked for, or uploaded."""
    from pipelines.kubeflow import versions

    if not image:
        return versions.latest(server)
    versions.check_image(image, tag_ok)
    return (versions.find if look else versions.upload)(server, image, form)


def outcome(mlflow: str, name: str) -> Outcome | None:
    """What MLflow knows of a run."""
    from spira.registry import Registry

    return Registry(mlflow).outcome(name)
