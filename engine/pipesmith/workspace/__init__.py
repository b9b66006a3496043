"""The facade: everything that the command line does is a call here. Never prints."""

from __future__ import annotations

__all__ = ["BuildResult", "StageResult", "StageState", "StatusResult", "Workspace"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipesmith.workspace.results import BuildResult, StageResult, StageState, StatusResult
    from pipesmith.workspace.workspace import Workspace


def __getattr__(name: str) -> object:
    """Return a class of the facade, imported when first asked for: a push is judged without most of them."""
    if name == "Workspace":
        from pipesmith.workspace.workspace import Workspace

        return Workspace
    if name in __all__:
        from pipesmith.workspace import results

        return getattr(results, name)
    raise AttributeError(f"module 'pipesmith.workspace' has no attribute {name!r}")
