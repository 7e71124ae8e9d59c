"""The whole pipeline on one machine: both gate outcomes, failures, kills."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipelines import local
from pipelines.summary import RunSummary
from spira import config
from spira.cli.main import app
from spira.data.corpus import Corpus
from spira.delivery.training_request import TrainingRequest
from spira.deployment.local import Local
from spira.evaluation import gate
from spira.models.checkpoint import WEIGHTS
from spira.registry import FROZEN_TEST_TAG, Registry, local_uri
from tests.support.gatefiles import LENIENT

pytestmark = pytest.mark.integration


def request(data: Path, resolved: config.Config | None = None) -> TrainingRequest:
    """A request that the lenient gate judges; a smoke run if no configuration is given."""
    return TrainingRequest(data=str(data), config=resolved or config.smoke(), gate=gate.load(LENIENT))


def folder_of(summary: RunSummary) -> Path:
    """Return the run's folder."""
    return Path(summary.paths.log).parent


def test_an_approved_model_is_registered_and_serves(runs):
    """Registry, served package and summary have the same version."""
    summary = runs.approved
    champion = Registry(local_uri(runs.work)).champion()
    assert (summary.approved, summary.reasons, summary.model_version) == (True, (), 1)
    assert champion.version == 1
    assert Local(runs.work / "serving").status().version == "1"
    assert champion.tags["data_fingerprint"] == Corpus.open(Path(summary.paths.corpus)).digest
    assert champion.tags[FROZEN_TEST_TAG] == Corpus.open(Path(summary.paths.corpus)).test_digest
    assert champion.tags["model_fingerprint"] == config.smoke().digest()
    assert champion.tags["pipeline_run"].startswith("spira-training-")


def test_a_rejected_model_changes_neither_champion_nor_serving(runs):
    """It is not registered, and the summary has the reasons."""
    summary = runs.rejected
    assert (summary.approved, summary.model_version) == (False, None)
    assert any("accuracy" in reason for reason in summary.reasons)
    versions = Registry(local_uri(runs.work)).list_versions()
    assert [version.version for version in versions] == [1]
    assert "champion" in versions[0].aliases
    assert Local(runs.work / "serving").status().version == "1"


def test_the_evaluations_of_the_test_are_counted(runs):
    """The second run of the work folder is the second evaluation, whatever the verdicts; MLflow has the number."""
    assert (runs.approved.test_evaluations, runs.rejected.test_evaluations) == (1, 2)
    registry = Registry(local_uri(runs.work))
    digest = runs.rejected.data.digest
    assert digest
    assert registry.evaluations(digest, runs.rejected.lineage["data_fingerprint"]) == 2
    assert registry.champion().metrics["test/evaluations"] == 1
    assert "Evaluations of this test set so far, this one included: <b>2</b>" in (runs.work / "report.html").read_text()


def test_the_work_folder_has_the_summary_of_the_last_run(runs):
    """summary.json and report.html are those of the second run; the first run keeps its own in its folder."""
    assert RunSummary.model_validate_json((runs.work / "summary.json").read_text()) == runs.rejected
    first = (folder_of(runs.approved) / "summary.json").read_text()
    assert RunSummary.model_validate_json(first) == runs.approved
    page = (runs.work / "report.html").read_text()
    assert "The model failed its gate" in page or "There is not enough data for a decision" in page


def test_every_stage_is_timed(runs):
    """The summary has the seconds of each task and of the pipeline."""
    expected = {"preprocess", "train seed 42", "evaluate", "push", "deploy", "pipeline"}
    assert set(runs.approved.stages) == expected
    assert set(runs.rejected.stages) == expected - {"push", "deploy"} | {"reject"}
    assert all(seconds > 0 for seconds in runs.approved.stages.values())


def test_a_finished_training_is_not_repeated(runs):
    """The second run has the same data, settings and code, so it trains nothing."""
    assert sum("epoch" in line and line.startswith("seed 42") for line in runs.progress) == 1
    assert runs.rejected.stages["train seed 42"] > 0


def test_the_candidate_is_compared_with_the_champion(runs):
    """The champion of the second run is the version of the first."""
    verdict = json.loads(Path(runs.rejected.paths.verdict).read_text())
    assert verdict["champion"]["name"] == "version 1"
    assert verdict["champion"]["difference"]["value"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("approved", "ran"),
    [
        (True, set()),
        (True, {"reject"}),
        (True, {"push"}),
        (False, set()),
        (False, {"push", "deploy"}),
        (False, {"reject", "push"}),
        (None, {"reject"}),
    ],
)
def test_a_branch_that_contradicts_the_verdict_is_an_error(approved: bool | None, ran: set[str]):
    """kfp skips a branch whose condition it cannot read, and reports success; such a run must fail."""
    with pytest.raises(local.RunError, match="counts as failed"):
        local.check_branch(approved, ran | {"preprocess", "train", "evaluate"})


def test_without_deployment_an_approved_run_ends_after_push():
    """Continuous delivery deploys the version; a task that deploys contradicts it."""
    local.check_branch(True, {"evaluate", "push"}, deploys=False)
    with pytest.raises(local.RunError, match="counts as failed"):
        local.check_branch(True, {"push", "deploy"}, deploys=False)


def test_a_run_with_a_skipped_branch_fails(runs, tmp_path: Path):
    """The outputs of push are missing, and all others are there."""
    shutil.copytree(folder_of(runs.approved), tmp_path / "run")
    (path,) = (tmp_path / "run").rglob("push/executor_output.json")
    path.unlink()
    with pytest.raises(local.RunError, match="counts as failed"):
        local.gather(tmp_path / "run", runs.work, 1.0, "sqlite:///mlflow.db")


def test_a_run_whose_condition_cannot_be_read_fails(runs, demo: Path, tmp_path: Path, monkeypatch):
    """The condition of the compiled pipeline reads a value that does not exist; kfp reports success."""

    def compile_broken(out: Path, **options: Any) -> None:
        local_compile(out, **options)
        out.write_text(out.read_text().replace("['pipelinechannel--evaluate-Output']\n", "['lost']\n"))
        out.write_text(out.read_text().replace("[''pipelinechannel--evaluate-Output'']\n", "[''lost'']\n"))
        assert out.read_text().count("lost") == 2

    local_compile = local.compile_pipeline
    monkeypatch.setattr(local, "compile_pipeline", compile_broken)
    shutil.copytree(runs.work / "state", tmp_path / "state")
    with pytest.raises(local.RunError, match="nothing ran after it"):
        local.run(request(demo), tmp_path, progress=lambda line: None)
    assert not (tmp_path / "summary.json").exists()


def test_a_failure_has_its_cause(runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """The message has the error of the stage and nothing of kfp; the summary of an earlier run is deleted."""
    (tmp_path / "summary.json").write_text('{"approved": true}')
    with pytest.raises(local.RunError) as failure:
        local.run(request(tmp_path / "nowhere"), tmp_path, progress=lambda line: None)
    assert "nowhere" in str(failure.value)
    assert "Inner task failed" not in str(failure.value)
    assert not (tmp_path / "summary.json").exists()
    assert capfd.readouterr().out == ""


def test_a_failure_without_an_error_of_the_stage_has_its_exception(tmp_path: Path):
    """After a fault of the program, the message has the last exception in the log; after a kill there is none."""
    log = tmp_path / "log.txt"
    output = local._OutputSplitter(log.open("w"), lambda line: None)
    error = "Pipeline 'x' finished with status FAILURE. Inner task failed: \033[96m'train'\033[0m inside 'y'."
    output.write('    Traceback (most recent call last):\n      File "x"\n    MemoryError: 8 GB\n')
    assert local._cause(output, error, log) == f"train failed: MemoryError: 8 GB (log: {log})"
    log.write_text("")
    assert "ended without an error message" in local._cause(output, error, log)


def test_progress_has_the_lines_of_stages_and_the_log_has_all_lines(tmp_path: Path):
    """kfp's own lines are no progress; its indentation is removed."""
    progress: list[str] = []
    output = local._OutputSplitter((tmp_path / "log.txt").open("w"), progress.append)
    for text in ("12:00 - INFO - Executing task\n", "    ", "spira: epoch 1\n", "        spira warning: few\n"):
        output.write(text)
    assert progress == ["epoch 1", "warning: few"]
    assert "Executing task" in (tmp_path / "log.txt").read_text()


def test_two_runs_do_not_share_a_work_folder(tmp_path: Path):
    """The second is refused until the first has ended."""
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(local.RunError, match="another run"):
            local.run(request(Path("data")), tmp_path, progress=lambda line: None)


def test_a_killed_run_resumes_and_ends_with_the_same_weights(demo: Path, runs, tmp_path: Path, monkeypatch):
    """It is killed in an epoch and run again; its weights equal those of an uninterrupted training."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = ["model.channels=8", "training.batch_files=4", "training.max_epochs=12", "training.seeds=[7]"]
    work, resolved = tmp_path / "work", config.load(None, settings)
    options = [f"--set={setting}" for setting in settings]
    kill_at_line(["run", "--data", str(demo), "--work", str(work), *options], "epoch   3/")
    assert not (work / "summary.json").exists()
    progress: list[str] = []
    summary = local.run(request(demo, resolved), work, progress=progress.append)
    assert any("resumes after epoch" in line for line in progress)
    corpus = Corpus.open(Path(summary.paths.corpus))
    resumed = load_file(Path(summary.paths.checkpoint) / WEIGHTS)
    train_in_process(corpus, resolved, tmp_path / "uninterrupted")
    for name, weights in load_file(tmp_path / "uninterrupted" / WEIGHTS).items():
        assert resumed[name].equal(weights), name


def kill_at_line(arguments: list[str], text: str) -> None:
    """Start spira, wait for a line with this text on standard error, and kill the process with SIGKILL."""
    command = [sys.executable, "-m", "spira", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for line in process.stderr:
            if text in line:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def train_in_process(corpus: Corpus, settings: config.Config, out: Path) -> None:
    """Train with seed 7 in a process of its own, as the pipeline does; a process sets its threads at its start."""
    code = (
        "import sys; from pathlib import Path; from spira import config; from spira.training import train\n"
        "from spira.data.corpus import Corpus\n"
        "train.train(Corpus.open(Path(sys.argv[1])), config.Config.model_validate_json(sys.argv[2]), 7, "
        "Path(sys.argv[3]))"
    )
    arguments = [str(corpus.path), settings.model_dump_json(), str(out)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


@pytest.fixture
def spira(runs) -> Callable[..., Any]:
    """Function that runs a command in the work folder of the finished runs."""
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments), "--work", str(runs.work)])


def test_predict_uses_the_champion(spira, demo: Path):
    """JSON has a probability for each recording."""
    recordings = sorted(demo.rglob("*.wav"))[:2]
    result = spira("predict", *recordings, "--json")
    answers = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [answer["file"] for answer in answers] == [str(path) for path in recordings]
    assert all(0 <= answer["probability"] <= 1 for answer in answers)


def test_predict_names_the_recording_that_it_refuses(spira, tmp_path: Path):
    """It refuses an empty file with exit code 2."""
    (tmp_path / "empty.wav").touch()
    result = spira("predict", tmp_path / "empty.wav", "--model", "1")
    assert result.exit_code == 2
    assert "empty.wav" in result.output


def test_models_are_listed_shown_and_fetched(spira, tmp_path: Path):
    """The commands read the model repository."""
    (listed,) = json.loads(spira("models", "list", "--json").stdout)
    assert (listed["version"], listed["aliases"]) == (1, ["champion"])
    assert json.loads(spira("models", "show", "champion", "--json").stdout)["tags"]["approved"] == "true"
    assert spira("models", "fetch", "1", "--out", tmp_path / "package").exit_code == 0
    assert (tmp_path / "package" / "package.json").exists()


def test_an_unknown_version_is_refused(spira):
    """The message has the versions that exist."""
    result = spira("models", "show", "9")
    assert result.exit_code == 2
    assert "versions: 1" in result.stderr
