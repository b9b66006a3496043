"""Kinds of compute that installed packages bring: entry points of the group `pipesmith.compute`."""

from __future__ import annotations

__all__ = ["GROUP", "installed_kinds"]

GROUP = "pipesmith.compute"


def installed_kinds() -> dict[str, str]:
    """Return kind to the package that brings it. Looks through all that is installed: for names that need it."""
    from importlib.metadata import entry_points

    return {point.name: point.dist.name if point.dist else point.module for point in entry_points(group=GROUP)}
