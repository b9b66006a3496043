"""The command line: arguments in, text or JSON out. Knows no rule of a build."""

from __future__ import annotations

from pipesmith.cli.main import run

__all__ = ["run"]
