"""Registered version -> it answers."""

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
    """Put the version where it is served, check its golden recordings there, and make it champion; or roll back.

    Args:
        package: What push made.
        version: Its number in the registry.
        registry_uri: MLflow URL, or a folder for SQLite.
        target: Where, as JSON, as a target of delivery.yaml; empty to leave serving to continuous delivery.

    Returns:
        metrics: Version, seconds.
    """
    from pathlib import Path

    from spira.stages.deploy import deploy

    result = deploy(
        Path(package.path),
        version,
        target,
        registry_uri=registry_uri,
    )
    metrics.metadata.update(result)
