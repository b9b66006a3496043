"""Computes: list them, ask how they are, warm them up, give back what they keep, wait for them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pipesmith.cli.output import Output
from pipesmith.cli.wait_command import seconds_of
from pipesmith.pipeline.units import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipesmith.workspace.computes import ComputeState, GpuInfo

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("ls", "status", "up", "down", "wait"))
    parser.add_argument("names", metavar="NAME", nargs="*", help="default: all of pipeline.toml")
    parser.add_argument("--timeout", metavar="T", help="of `wait`, such as 30s or 5m; default: 5m")


def run(arguments: argparse.Namespace, out: Output) -> int:
    from pipesmith.workspace import Workspace
    from pipesmith.workspace import computes as calls

    timeout_s = seconds_of(arguments.timeout, "--timeout") if arguments.timeout is not None else 300.0
    if arguments.action in ("up", "down"):
        from pipesmith.workspace.build import refuse_inside_a_stage

        refuse_inside_a_stage(f"pipe compute {arguments.action}")
    workspace = Workspace.open(".")
    if arguments.action == "up":
        states = calls.warm_up(workspace, arguments.names, out.note)
    elif arguments.action == "down":
        states = calls.give_back(workspace, arguments.names, out.note)
    elif arguments.action == "wait":
        states = calls.wait_for(workspace, arguments.names, timeout_s)
    else:
        states = calls.compute_states(workspace, arguments.names)
    if out.json_mode:
        out.json({"computes": [state.as_json() for state in states]})
        return _exit_code(arguments.action, states)
    if arguments.action == "ls":
        out.table(
            [(each.name, each.kind, each.state, each.where) for each in states], ("compute", "kind", "state", "where")
        )
    else:
        _print_free(states, out)
    for state in states:
        if state.error:
            out.warn(state.error)
    return _exit_code(arguments.action, states)


def _exit_code(action: str, states: Sequence[ComputeState]) -> int:
    """Return 1 where what was asked for needs a compute that is down: not of a look at them."""
    return 1 if action not in ("ls", "status") and any(state.state == "down" for state in states) else 0


def _print_free(states: Sequence[ComputeState], out: Output) -> None:
    rows = [
        (
            state.name,
            state.kind,
            state.state,
            str(state.nodes),
            f"{state.cpus.free:g}/{state.cpus.total:g}",
            f"{size_text(int(state.memory.free))}/{size_text(int(state.memory.total))}",
            f"{state.gpus.free:g}/{state.gpus.total:g}",
            str(state.queue),
        )
        for state in states
    ]
    out.table(rows, ("compute", "kind", "state", "nodes", "cpus free", "memory free", "gpus free", "jobs"))
    for device in dict.fromkeys(device for state in states for device in state.devices):
        out.line(_gpu_text(device))


def _gpu_text(gpu: GpuInfo) -> str:
    """Return one line of a GPU: `GPU 0 (NVIDIA H100), 4.0 GB of 85.0 GB used, 20 % busy: free`."""
    parts = [f"GPU {gpu.index}{f' ({gpu.name})' if gpu.name else ''}"]
    if gpu.memory is not None and gpu.used is not None:
        parts.append(f"{size_text(gpu.used)} of {size_text(gpu.memory)} used")
    if gpu.percent is not None:
        parts.append(f"{gpu.percent} % busy")
    state = f"shared, {size_text(gpu.promised or 0)} given out" if gpu.state == "shared" else gpu.state
    return f"{', '.join(parts)}: {state}" + "".join(f"; {each}" for each in gpu.processes)
