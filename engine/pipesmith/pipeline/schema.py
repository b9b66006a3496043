"""The JSON schema of pipeline.toml, from the same key tables that the reader checks by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipesmith.pipeline.keys import KIND_KEYS, TABLES, TYPES, Key

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
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipeline.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "pipeline": _object(TABLES["pipeline"]),
            "params": {"type": "object", "description": "defaults of params; nested tables are dotted keys"},
            "datastore": _named(_object(TABLES["datastore"], required=["url"])),
            "dataset": _named(_dataset()),
            "environment": _named(_object(TABLES["environment"])),
            "compute": _named(_compute()),
            "cache": _object(TABLES["cache"]),
            "snapshot": _object(TABLES["snapshot"]),
            "history": _object(TABLES["history"]),
            "stage": _named(_stage()),
        },
    }


def _dataset() -> dict[str, Any]:
    dataset = _object(TABLES["dataset"], required=["from"])
    dataset["properties"]["options"] |= _object(TABLES["options"])
    return dataset


def _compute() -> dict[str, Any]:
    """Return the schema of a compute: each kind has its own keys, a plugin's kind any."""
    compute = {**_object(TABLES["compute"]), "additionalProperties": True}
    compute["properties"]["tls"] |= _object(TABLES["tls"])
    compute["properties"]["hosts"]["items"] = {"oneOf": [{"type": "string"}, _object(TABLES["host"], required=["url"])]}
    compute["allOf"] = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"propertyNames": {"enum": ["kind", *keys]}},
        }
        for kind, keys in KIND_KEYS.items()
    ]
    return compute


def _stage() -> dict[str, Any]:
    stage = _object(TABLES["stage"], oneOf=[{"required": [way]} for way in ("run", "notebook", "transfer")])
    properties = stage["properties"]
    for name, table, required in (("inputs", "input", "from"), ("outputs", "output", "path")):
        entry = {"oneOf": [{"type": "string"}, _object(TABLES[table], required=[required])]}
        properties[name]["additionalProperties"] = entry
    properties["transfer"] |= _object(TABLES["transfer"], required=["from", "to"])
    properties["plots"]["items"] = _object(TABLES["plot"], required=["output"])
    properties["resources"] |= _object(TABLES["resources"])
    properties["resources"]["properties"]["custom"]["additionalProperties"] = {"type": "number"}
    bounds = [{"required": [bound]} for bound in ("min", "max", "vs")]
    properties["expect"]["additionalProperties"] = _object(TABLES["expectation"], anyOf=bounds)
    tables = {"type": "array", "items": {"type": "object"}}
    properties["matrix"] |= {
        "properties": {"include": tables, "exclude": tables},
        "additionalProperties": {"type": "array", "minItems": 1},
    }
    return stage
