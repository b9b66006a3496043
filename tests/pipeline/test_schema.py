"""The JSON schema and the reader agree: they are made of the same tables."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipesmith.pipeline.keys import COMPUTE_KINDS, KIND_KEYS, TABLES, TYPES, type_error
from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.schema import json_schema

HERE = Path(__file__).parent

jsonschema = pytest.importorskip("jsonschema")


def _errors(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    document = json.loads(json.dumps(tomllib.loads(text), default=str))
    return [error.message for error in validator.iter_errors(document)]


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema())) == json_schema()


def test_the_sample_fits() -> None:
    assert _errors((HERE / "sample.toml").read_text(encoding="utf-8")) == []


GOOD = [
    '[stage.a]\nrun = ["x"]\ntimeout = "1.5h"\nresources = { memory = 1024 }\n',
    '[stage.a]\nnotebook = "x.ipynb"\n',
    '[datastore.s]\nurl = "s3://b"\n[stage.a]\ntransfer = { from = "s:x", to = "s:y" }\n',
    '[compute.mine]\nkind = "docker"\nhosts = ["ssh://a", { url = "ssh://b", gpus = 2 }]\n',
    '[stage.a]\nrun = "x"\nmatrix = { x = [1], include = [{ y = 2 }], exclude = [] }\n',
    '[dataset.d]\nfrom = ["a", "b"]\noptions = { header = true, types = { id = "int64" } }\n',
]


@pytest.mark.parametrize("text", GOOD)
def test_both_accept(text: str, read: Callable[..., Pipeline]) -> None:
    assert _errors(text) == []
    read(text)


BAD = [
    "[stages.a]\n",
    '[stage.a]\nrun = "x"\nzzz = 1\n',
    '[stage.a]\ndesc = "x"\n',
    '[stage.a]\nrun = "x"\nnotebook = "x.ipynb"\n',
    '[stage.a]\nrun = "x"\ninputs = { i = { mode = "mount" } }\n',
    '[stage.a]\nrun = "x"\ninputs = { i = { from = "x", mode = "copy" } }\n',
    '[stage.a]\nrun = "x"\noutputs = { o = { path = "x", kache = true } }\n',
    '[stage.a]\nrun = "x"\ntimeout = "5 minutes"\n',
    '[stage.a]\nrun = "x"\nresources = { gpus = 1.5 }\n',
    '[stage.a]\nrun = "x"\nresources = { custom = { tpu = "1" } }\n',
    '[stage.a]\nrun = "x"\nplots = [{ x = "step" }]\n',
    '[stage.a]\nrun = "x"\nmatrix = { x = [] }\n',
    '[stage.a]\nrun = "x"\noutputs = { r = "r.json" }\nmetrics = ["r"]\nexpect = { "r:a" = {} }\n',
    '[stage.a]\ntransfer = { from = "s3://x" }\n',
    '[compute.c]\nkind = "docker"\npartition = "x"\n',
    '[compute.c]\nkind = "docker"\ntls = { crt = "x" }\n',
    '[dataset.d]\nfrom = "x"\noptions = { sep = ";" }\n',
    "[dataset.d]\n",
    "[datastore.d]\n",
    '[cache]\nhash = "sha1"\n',
    '[snapshot]\nmax-file = "x"\n',
    "[pipeline]\nname = 1\n",
]


@pytest.mark.parametrize("text", BAD)
def test_both_refuse(text: str, faults: Callable[..., str]) -> None:
    assert _errors(text)
    assert faults(text)


VALUES: list[Any] = [
    "x",
    "5m",
    "8M",
    "",
    1,
    0,
    -1,
    1.5,
    True,
    [],
    ["x"],
    ["x", 1],
    [{}],
    {},
    {"x": "y"},
    {"x": 1},
    10**20,
]


@pytest.mark.parametrize("table", TABLES)
def test_every_key_takes_what_its_schema_takes(table: str) -> None:
    """Key by key and value by value: the reader's check and the schema's part say the same."""
    for key in TABLES[table].values():
        part = {**TYPES[key.type][1], **({"enum": list(key.choices)} if key.choices else {})}
        validator = jsonschema.Draft202012Validator(part)
        for value in VALUES:
            if key.type == "int" and value == 1.0 and isinstance(value, float):
                continue  # JSON has one kind of number
            assert (type_error(value, key) is None) == validator.is_valid(value), (table, key, value)


def test_every_key_is_in_the_schema() -> None:
    schema = json.dumps(json_schema())
    for table, keys in TABLES.items():
        for name, key in keys.items():
            assert json.dumps(name) in schema, (table, name)
            assert json.dumps(key.doc) in schema, (table, name)


def test_kinds_of_compute_have_keys_that_exist() -> None:
    assert COMPUTE_KINDS == ("local", "docker", "slurm", "ray")
    assert {key for keys in KIND_KEYS.values() for key in keys} | {"kind"} == set(TABLES["compute"])
