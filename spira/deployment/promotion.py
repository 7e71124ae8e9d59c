"""The one way into service: the targets serve a version first, then the champion alias moves to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spira.deployment.target import DeploymentError, Release, Target
from spira.errors import SpiraError


class NotServedError(DeploymentError):
    """A target did not serve the version; the champion alias has not moved."""


def _no_check() -> None:
    """Do nothing before an effect."""


def move_champion(
    targets: Sequence[Target],
    serve: Callable[[Target], str | None],
    set_champion: Callable[[], object],
    *,
    before_effect: Callable[[], None] = _no_check,
    try_all: bool = False,
) -> None:
    """Serve a version on every target, then make it champion.

    Args:
        targets: targets that must all serve the version.
        serve: serves the version on one target, by ``apply`` or ``rollback``, which include the golden check. Returns
            the version to restore if the alias cannot be moved, or None to leave the target as it is.
        set_champion: moves the champion alias in the model repository.
        before_effect: called before each change of a target and of the alias; an exception stops the promotion there.
        try_all: whether the other targets are served too after one has failed.

    Raises:
        NotServedError: a target failed.
        SpiraError: the alias could not be moved; the error is that of ``set_champion``.
    """
    served: list[tuple[Target, str | None]] = []
    errors: list[SpiraError] = []
    for target in targets:
        before_effect()
        try:
            served.append((target, serve(target)))
        except SpiraError as error:
            errors.append(error)
            if not try_all:
                break
    if errors:
        raise NotServedError("; ".join(str(error) for error in errors)) from errors[0]
    before_effect()
    try:
        set_champion()
    except SpiraError as error:
        for target, version in reversed(served):
            if version is not None:
                _restore(target, version, error)
        raise


def apply(target: Target, release: Release) -> str | None:
    """Apply a release to a target; return the version that it replaced, or None if there was no other version."""
    before = target.status().version
    target.apply(release)
    return before if before != release.version else None


def _restore(target: Target, version: str, cause: SpiraError) -> None:
    """Roll a target back to the version that it served before.

    Raises:
        DeploymentError: the rollback failed; the message also has its cause.
    """
    try:
        serving = target.status().version
        if serving != version:
            target.rollback(str(cause), bad=serving)
    except SpiraError as error:
        raise DeploymentError(
            f"{cause}; target {target.name} does not serve version {version} again: {error}"
        ) from error
