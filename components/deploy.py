"""The component that deploys a registered version."""

from kfp import dsl
from kfp.dsl import Input, Metrics, Model, Output

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def deploy(
    package: Input[Model],
    version: int,
    registry_uri: str,
    target: str,
    metrics: Output[Metrics],
):
    """Deploy a version, check its golden recordings on the target, and make it champion; or keep what served before.

    Args:
        package: Package of the version, an output of push.
        version: Number of the version in the registry.
        registry_uri: URL of the MLflow server, or a folder for SQLite.
        target: Deployment target, JSON, written as in delivery.yaml; empty to leave deployment to continuous delivery.

    Returns:
        metrics: Version, and time in seconds.
    """
    from pathlib import Path

    from spira.stages.deploy import deploy

    result = deploy(
        Path(package.path),
        version,
        target,
        registry_uri=registry_uri,
    )
    metrics.metadata.update(result.metrics())
