"""`graph`: the stage graph as text, mermaid, dot, JSON or SVG, coloured by state."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from pipesmith.errors import UserError
from pipesmith.pipeline.graph import edges
from pipesmith.pipeline.graph import order as topological

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["FORMATS", "draw"]

FORMATS = ("text", "mermaid", "dot", "json", "svg")
_COLORS = {"fresh": "#c8e6c9", "restorable": "#b2ebf2", "stale": "#ffe0b2", "pending": "#fff9c4"}


def draw(workspace: Workspace, format: str = "text") -> str:
    """Return the graph of the workspace's stages. Raises UserError for an unknown format."""
    pipeline = workspace.session().pipeline
    states = {stage.name: stage.state for stage in workspace.status().stages}
    before = edges(pipeline)
    order = topological(pipeline)
    drawers = {"text": _text, "mermaid": _mermaid, "dot": _dot, "json": _json, "svg": _svg}
    if format not in drawers:
        raise UserError(f"no format `{format}`", f"one of {', '.join(FORMATS)}")
    return drawers[format]({name: before[name] for name in order}, states)


def _text(before: Mapping[str, tuple[str, ...]], states: Mapping[str, str]) -> str:
    width = max((len(name) for name in before), default=0)
    lines = []
    for name, earlier in before.items():
        arrow = f"  <- {', '.join(earlier)}" if earlier else ""
        lines.append(f"{name:{width}}  {states[name]:10}{arrow}".rstrip())
    return "\n".join(lines) + "\n" if lines else ""


def _ids(before: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: f"s{index}" for index, name in enumerate(before)}


def _mermaid(before: Mapping[str, tuple[str, ...]], states: Mapping[str, str]) -> str:
    ids = _ids(before)
    lines = ["flowchart TD"]
    lines += [f'    {ids[name]}["{name}"]:::{states[name]}' for name in before]
    lines += [f"    {ids[earlier]} --> {ids[name]}" for name, all_earlier in before.items() for earlier in all_earlier]
    lines += [f"    classDef {state} fill:{color}" for state, color in _COLORS.items()]
    return "\n".join(lines) + "\n"


def _dot(before: Mapping[str, tuple[str, ...]], states: Mapping[str, str]) -> str:
    def quoted(name: str) -> str:
        return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'

    lines = ["digraph pipeline {", "  node [shape=box, style=filled];"]
    lines += [f'  {quoted(name)} [fillcolor="{_COLORS[states[name]]}"];' for name in before]
    lines += [
        f"  {quoted(earlier)} -> {quoted(name)};" for name, all_earlier in before.items() for earlier in all_earlier
    ]
    return "\n".join([*lines, "}"]) + "\n"


def _json(before: Mapping[str, tuple[str, ...]], states: Mapping[str, str]) -> str:
    document = {
        "stages": [{"name": name, "state": states[name]} for name in before],
        "edges": [{"from": earlier, "to": name} for name, all_earlier in before.items() for earlier in all_earlier],
    }
    return json.dumps(document, indent=2) + "\n"


def _svg(before: Mapping[str, tuple[str, ...]], states: Mapping[str, str]) -> str:
    layers: dict[str, int] = {}
    for name, earlier in before.items():
        layers[name] = 1 + max((layers[each] for each in earlier), default=-1)
    rows: dict[int, list[str]] = {}
    for name, layer in layers.items():
        rows.setdefault(layer, []).append(name)
    width = max((len(name) for name in before), default=4) * 8 + 24
    place: dict[str, tuple[int, int]] = {}
    for layer, names in rows.items():
        if layer:
            names.sort(key=lambda name: sum(place[e][0] for e in before[name]) / max(1, len(before[name])))
        for column, name in enumerate(names):
            place[name] = (20 + column * (width + 24), 20 + layer * 80)
    right = max((x for x, _y in place.values()), default=0) + width + 20
    bottom = max((y for _x, y in place.values()), default=0) + 56
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom}" '
        'font-family="sans-serif" font-size="13">',
        '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#666"/></marker></defs>',
    ]
    for name, all_earlier in before.items():
        x, y = place[name]
        for each in all_earlier:
            from_x, from_y = place[each]
            out.append(
                f'<path d="M{from_x + width / 2},{from_y + 36} C{from_x + width / 2},{from_y + 60} '
                f'{x + width / 2},{y - 24} {x + width / 2},{y}" fill="none" stroke="#666" marker-end="url(#a)"/>'
            )
    for name, (x, y) in place.items():
        color = _COLORS[states[name]]
        out.append(
            f"<g><title>{escape(name)}: {states[name]}</title>"
            f'<rect x="{x}" y="{y}" width="{width}" height="36" rx="6" fill="{color}" stroke="#666"/>'
            f'<text x="{x + width / 2}" y="{y + 23}" text-anchor="middle">{escape(name)}</text></g>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"
