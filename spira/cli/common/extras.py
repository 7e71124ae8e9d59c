"""The extras of the installation, and which of them a command needs."""

from __future__ import annotations

EXTRAS = {
    "kubeflow": ("kfp", "kfp_server_api", "kubernetes"),
    "deliver": (
        "apprise",
        "babel",
        "boto3",
        "botocore",
        "cryptography",
        "google",
        "jinja2",
        "markupsafe",
        "mlflow",
        "nats",
        "numpy",
        "packaging",
        "pandas",
        "psutil",
        "scipy",
        "soundfile",
        "sqlalchemy",
        "threadpoolctl",
    ),
    "train": (
        "espeakng_loader",
        "librosa",
        "matplotlib",
        "numba",
        "safetensors",
        "sklearn",
        "torch",
        "torchaudio",
    ),
    "serve": ("fastapi", "kserve", "prometheus_client", "starlette", "uvicorn"),
    "av": ("av",),
}
"""Extra of pyproject.toml -> the modules that no earlier one brings, by the names by which they are imported."""
COMMANDS = {"pipeline": "kubeflow", "data": "deliver", "models": "deliver", "deliver": "deliver", "deploy": "deliver"}
"""Command -> the extra that all of its verbs need; every other command needs ``train``."""


def explain_missing(error: ModuleNotFoundError, command: str) -> str | None:
    """Return the line for a module that an extra brings, or None for any other module.

    Args:
        command: Name of the command or group that was called; empty if unknown.
    """
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    if extra is None:
        return None
    # One line for all that the command needs, even if a module of a smaller extra is the first that is missing.
    needed = max(extra, COMMANDS.get(command, "train") if command else extra, key=list(EXTRAS).index)
    return (
        f"spira {command}".strip()
        + f" needs {module}, which is not installed: in the source tree, pip install '.[{needed}]'"
    )
