"""Run that has ended, well or not -> notice."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(
    status: dsl.PipelineTaskFinalStatus,
    pipeline_run: str,
    job: str,
    notify_url: str,
):
    """Say how the run ended: in the log, and to a URL if there is one.

    Args:
        status: Of all tasks together.
        pipeline_run: Name of this run.
        job: Kubeflow's name of this run, where it has no other: a schedule's.
        notify_url: Gets run, state and message by POST, as JSON; empty for none. It shows in the dashboard.
    """
    from spira.stages.notify import notify

    notify(pipeline_run or job, status.state, status.error_message or "", notify_url)
