"""The facade: everything that the command line does is a call here. Never prints."""

from __future__ import annotations

from pipesmith.workspace.results import BuildResult, StageResult, StageState, StatusResult
from pipesmith.workspace.workspace import Workspace

__all__ = ["BuildResult", "StageResult", "StageState", "StatusResult", "Workspace"]
