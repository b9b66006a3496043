"""The JSON schema of pipeline.toml, for editors."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`pipe schema` takes no arguments."""


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.pipeline.schema import json_schema

    out.json(json_schema())
    return 0
