"""The component that does one tick of continuous delivery."""

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
    """Observe data, settings, code, runs and targets once, and do all that is due.

    Args:
        settings: Text of the settings file (delivery.yaml); its folders and URLs must outlive the pod.
        cluster: Text of the cluster file (cluster.yaml), which names the Kubeflow that trains; empty for none.

    Returns:
        status: Status of the delivery, JSON.
        metrics: Numbers of records in the ledger and of actions, and time in seconds.
    """
    from dataclasses import asdict
    from pathlib import Path

    from spira.delivery.recurring_tick import tick

    metrics.metadata.update(asdict(tick(settings, cluster, Path(status.path))))
