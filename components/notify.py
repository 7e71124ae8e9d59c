"""The component that reports the end of a run."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(
    status: dsl.PipelineTaskFinalStatus,
    pipeline_run: str,
    job: str,
    notify_url: str,
):
    """Log how the run ended, and send it to a URL if there is one.

    Args:
        status: Final status of the run, over all of its tasks.
        pipeline_run: Name of this run.
        job: Kubeflow's own name of this run, used if pipeline_run is empty, as in the runs of a schedule.
        notify_url: URL that gets run, state and message by POST, as JSON, visible in the dashboard; empty for none.
    """
    from spira.stages.notify import notify

    notify(pipeline_run or job, status.state, status.error_message or "", notify_url)
