"""What this machine and repository can and can't."""

from __future__ import annotations

import argparse

from pipesmith.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`pipe doctor` takes no arguments."""


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace.doctor import examine

    findings = examine(".")
    if out.json_mode:
        out.json({"checks": [finding.as_json() for finding in findings]})
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            mark = out.style("ok  ", "green") if finding.ok else out.style("note", "yellow")
            out.line(f"{mark} {finding.name:{width}}  {finding.text}")
    return 0
