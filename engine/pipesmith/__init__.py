"""pipesmith: a Git-driven build system for ML pipelines."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["BuildResult", "Workspace", "__version__"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipesmith.workspace import BuildResult, Workspace


def __getattr__(name: str) -> object:
    """Return `Workspace` or `BuildResult`, imported when first asked for: the command's hot path imports this package
    too."""
    if name in ("Workspace", "BuildResult"):
        from pipesmith import workspace

        return getattr(workspace, name)
    raise AttributeError(f"module 'pipesmith' has no attribute {name!r}")
