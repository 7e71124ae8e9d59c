"""The component that reports the end of a run."""

from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def notify(
    status: dsl.PipelineTaskFinalStatus,
    pipeline_run: str,
    registry_uri: str,
    notify_url: str,
):
    """Log how the run ended and its verdict, and send them to a URL.

    Args:
        status: Final status of the run, over all of its tasks.
        pipeline_run: Name of this run, under which MLflow has its verdict.
        registry_uri: URL of the MLflow server, or a folder for SQLite.
        notify_url: URL that gets run, state and message by POST, as JSON, visible in the dashboard; empty for none.
    """
    from spira.stages.notify import notify

    notify(pipeline_run, status.state, status.error_message or "", notify_url, registry_uri=registry_uri)
