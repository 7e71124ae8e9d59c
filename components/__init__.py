"""Pipeline components: each has a typed signature, its documentation, and one call of a stage.

The stages in ``spira.stages`` do the work and have the defaults. kfp reads annotations as objects, so no file of this
package may use ``from __future__ import annotations``.
"""

IMAGE = "spira-train"
"""Placeholder of the image; ``spira pipeline compile --image`` replaces it."""
