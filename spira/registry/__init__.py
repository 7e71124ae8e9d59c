"""The model repository: runs, versions and aliases in MLflow. Importing this package takes about 3 s: import it late.

registry = open_at(work)
run_id = registry.log_run("demo", params, histories, verdict, {"report.html": report}, tags)
version = registry.register(package, run_id, verdict, tags)
registry.promote(version)
"""

import logging
import os

# MLflow reads these at import: no telemetry, no progress bars, and a dead server is reported in seconds. Artifacts go
# through the server: otherwise a client sends them to the bucket behind it, which it may be unable to reach.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from spira.registry.evaluations import Evaluation
from spira.registry.registry import FROZEN_TEST_TAG, Difference, Outcome, RegisteredVersion, Registry, open_at
from spira.registry.store import RegistryError, local_uri

__all__ = [
    "FROZEN_TEST_TAG",
    "Difference",
    "Evaluation",
    "Outcome",
    "RegisteredVersion",
    "Registry",
    "RegistryError",
    "local_uri",
    "open_at",
]

logging.getLogger("alembic").setLevel(logging.WARNING)
