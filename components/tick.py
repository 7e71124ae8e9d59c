"""Settings of continuous delivery -> whatever is to be done now."""

from kfp import dsl
from kfp.dsl import Artifact, Metrics, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tick(
    settings: str,
    cluster: str,
    status: Output[Artifact],
    metrics: Output[Metrics],
):
    """Look at data, settings, code, runs and what serves, and do all that is to be done now.

    Args:
        settings: Text of a settings file; its places must outlive the pod.
        cluster: Text of the file of Kubeflow that it calls cluster.yaml; empty for none.

    Returns:
        status: What is going on, JSON.
        metrics: Records of the ledger, things done, seconds.
    """
    from pathlib import Path

    from spira.delivery.recurring_tick import tick

    metrics.metadata.update(tick(settings, cluster, Path(status.path)))
