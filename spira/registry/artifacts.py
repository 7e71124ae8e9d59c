"""A package as the artifacts of a model version: an MLflow model of flavour ``python_function``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import mlflow.artifacts
import mlflow.pyfunc
import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME

from spira.packaging.verify import CODE, DESCRIPTION
from spira.registry.store import ModelStore, RegistryError

LOADER = f"{CODE}.pyfunc"
"""Module whose ``_load_pyfunc(path)`` loads the served model from the package's ``data`` folder."""

REQUIREMENTS = ["numpy>=1.24,<3", "scipy>=1.9,<2"]
"""Given, because MLflow infers requirements slowly; the Inference Service has numpy 1.24 and scipy 1.9."""


def upload(store: ModelStore, package: Path, run_id: str, digest: str) -> str:
    """Upload a package to its run and return its URI."""
    run = store.client.get_run(run_id)
    folder = f"packages/{digest[:16]}"  # by digest, so that two packages of one run do not mix
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        mlflow.pyfunc.save_model(
            model,
            loader_module=LOADER,
            data_path=str(package / "data"),
            code_paths=[str(package / "code" / CODE)],
            pip_requirements=REQUIREMENTS,
            mlflow_model=Model(run_id=run_id),
        )
        shutil.copyfile(package / DESCRIPTION, model / DESCRIPTION)
        store.client.log_artifacts(run_id, str(model), folder)
    return f"{run.info.artifact_uri}/{folder}"


def download(store: ModelStore, entity: ModelVersion, temporary: Path) -> Path:
    """Download a version's artifacts into a temporary folder and return the package there.

    Raises:
        RegistryError: the artifacts are not those of a package.
    """
    uri = store.uri(entity)
    model = Path(
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(temporary), tracking_uri=store.tracking_uri)
    )
    try:
        # Not Model.load: it takes a folder with a percent sign in its name for a URL.
        flavors = Model.from_dict(yaml.safe_load((model / MLMODEL_FILE_NAME).read_text("utf-8"))).flavors
        data = flavors["python_function"]["data"]
        package = temporary / "package"
        package.mkdir()
        (model / data).rename(package / "data")
        (model / "code").rename(package / "code")
        (model / DESCRIPTION).rename(package / DESCRIPTION)
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(
            f"version {entity.version} cannot be used: its {MLMODEL_FILE_NAME} and files are not those of a package "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); restore them from a copy, or train again"
        ) from error
    return package
