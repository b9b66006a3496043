"""The JSON schema of pipeline.toml, from the same key tables that the reader checks by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipesmith.pipeline.keys import TABLES, TYPES, Key

__all__ = ["json_schema"]


def _object(keys: Mapping[str, Key], **more: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, key in keys.items():
        entry = {**TYPES[key.type][1], "description": key.doc}
        if key.choices:
            entry["enum"] = list(key.choices)
        properties[name] = entry
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": entry}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12)."""
    stage = _object(TABLES["stage"])
    properties = stage["properties"]
    properties["inputs"] |= {
        "additionalProperties": {"oneOf": [{"type": "string"}, _object(TABLES["input"], required=["from"])]}
    }
    properties["outputs"] |= {
        "additionalProperties": {"oneOf": [{"type": "string"}, _object(TABLES["output"], required=["path"])]}
    }
    properties["plots"] |= {"items": _object(TABLES["plot"], required=["output"])}
    properties["resources"] = _object(TABLES["resources"], description=TABLES["stage"]["resources"].doc)
    properties["expect"] |= {"additionalProperties": _object(TABLES["expectation"])}
    properties["matrix"] |= {"additionalProperties": {"type": "array"}}
    stage["oneOf"] = [{"required": [way]} for way in ("run", "notebook", "transfer")]
    compute = {**_object(TABLES["compute"]), "additionalProperties": True}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipeline.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "pipeline": _object(TABLES["pipeline"]),
            "params": {"type": "object", "description": "defaults of params"},
            "datastore": _named(_object(TABLES["datastore"], required=["url"])),
            "dataset": _named(_object(TABLES["dataset"], required=["from"])),
            "environment": _named(_object(TABLES["environment"])),
            "compute": _named(compute),
            "cache": _object(TABLES["cache"]),
            "snapshot": _object(TABLES["snapshot"]),
            "history": _object(TABLES["history"]),
            "stage": _named(stage),
        },
    }
