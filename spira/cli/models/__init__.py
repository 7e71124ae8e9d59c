"""The verbs of ``spira models``."""

from spira.cli.models.commands import app

__all__ = ["app"]
