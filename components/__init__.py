"""Pipeline components: a typed signature, what it means, and one call of a stage.

The work and its defaults are in ``spira.stages``. Here annotations are objects, as kfp reads them: no file
of this package may postpone them (``from __future__ import annotations``).
"""

IMAGE = "spira-train"
"""Stands in the components for the image of a deployment; ``spira pipeline compile --image`` replaces it."""
