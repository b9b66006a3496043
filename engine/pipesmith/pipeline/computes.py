"""`[compute.NAME]`: where stages run. Each kind has keys of its own; a plugin's kind checks its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipesmith.pipeline.declarations import NAME
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import COMPUTE_KINDS, KIND_KEYS, TABLES, Path, type_error
from pipesmith.pipeline.model import Compute
from pipesmith.pipeline.units import parse_size_bytes

__all__ = ["read_computes"]

_MOST_GPUS = 1024  # of one machine: each has a lock file
_DOCKER_SCHEMES = ("unix://", "tcp://", "ssh://")
_RAY_SCHEMES = ("ray://", "http://", "https://")


def read_computes(value: Mapping[str, Any], kinds: Callable[[], Collection[str]], faults: Faults) -> dict[str, Compute]:
    """Return the computes by name, the implicit `local` among them. kinds: returns those of entry points; asked only
    for a kind that is not built in."""
    computes = {"local": Compute(name="local")}
    for name, raw in value.items():
        computes[name] = _compute(name, raw, kinds, faults)
    return computes


def _compute(name: str, raw: Any, kinds: Callable[[], Collection[str]], faults: Faults) -> Compute:
    where: Path = ("compute", name)
    nothing = Compute(name=name)
    if not NAME.fullmatch(name):
        faults.add(where, f"`{name}` can't be a name", "use letters, digits, `_`, `-` and `+`")
    if not isinstance(raw, dict):
        faults.table(raw, {}, where)
        return nothing
    kind = raw.get("kind", "local" if name == "local" else None)
    if kind is None:
        faults.add(where, "has no `kind`", f"write one of {', '.join(f'`{k}`' for k in COMPUTE_KINDS)}")
        return nothing
    wrong = type_error(kind, TABLES["compute"]["kind"])
    if wrong is not None:
        faults.add((*where, "kind"), wrong)
        return nothing
    if name == "local" and kind != "local":
        faults.add((*where, "kind"), "the compute `local` is this machine", "give the other one another name")
    if kind not in KIND_KEYS:
        installed = kinds()
        if kind not in installed:
            faults.unknown((*where, "kind"), "kind of compute", kind, [*COMPUTE_KINDS, *installed])
            return nothing
    table = _options(raw, kind, where, faults)
    return Compute(
        name=name,
        kind=kind,
        gpus=table.get("gpus"),
        max_jobs=table.get("max-jobs"),
        options={key: entry for key, entry in table.items() if key not in ("kind", "gpus", "max-jobs")},
    )


def _options(raw: Mapping[str, Any], kind: str, where: Path, faults: Faults) -> dict[str, Any]:
    """Return what is right of a compute's table."""
    allowed = KIND_KEYS.get(kind)
    own = {} if allowed is not None else {key: raw[key] for key in raw if key not in ("kind", "gpus", "max-jobs")}
    keys = TABLES["compute"]
    good = {}
    for key, entry in raw.items():
        if key in own:
            good[key] = entry
        elif key not in keys:
            faults.unknown((*where, key), "key", key, ["kind", *allowed] if allowed is not None else keys)
        elif allowed is not None and key != "kind" and key not in allowed:
            of = next(k for k, known in KIND_KEYS.items() if key in known)
            faults.add((*where, key), f"`{key}` is a key of kind `{of}`, this one is `{kind}`", "take it out")
        else:
            good |= faults.table({key: entry}, keys, where)
    _check_options(good, where, faults)
    if allowed is not None:
        _check_amounts(good, where, faults)
    if kind == "local" and (good.get("gpus") or 0) > _MOST_GPUS:
        faults.add((*where, "gpus"), f"no machine has {good['gpus']} GPUs", f"write {_MOST_GPUS} or less")
    if kind == "docker":
        _check_docker(good, where, faults)
    elif kind == "ray":
        _check_url(good.get("address"), _RAY_SCHEMES, (*where, "address"), faults)
    return good


def _check_options(table: Mapping[str, Any], where: Path, faults: Faults) -> None:
    if table.get("max-jobs") == 0:
        faults.add((*where, "max-jobs"), "must be 1 or more", "leave it out for no limit")
    fewest, most = table.get("min-nodes"), table.get("max-nodes")
    if isinstance(fewest, int) and isinstance(most, int) and fewest > most:
        faults.add((*where, "min-nodes"), f"{fewest} is more than `max-nodes`, {most}", "swap them")


def _check_docker(table: Mapping[str, Any], where: Path, faults: Faults) -> None:
    _check_url(table.get("host"), _DOCKER_SCHEMES, (*where, "host"), faults)
    if "host" in table and "hosts" in table:
        faults.add((*where, "hosts"), "stands beside `host`", "keep one of them")
    faults.table(table.get("tls", {}), TABLES["tls"], (*where, "tls"))
    if table.get("hosts") == []:
        faults.add((*where, "hosts"), "names no host", 'write `["ssh://HOST"]`, or leave it out')
    seen: set[str] = set()
    for index, entry in enumerate(table.get("hosts", ())):
        place = (*where, "hosts", index)
        url = entry.get("url") if isinstance(entry, dict) else entry
        if isinstance(url, str):
            if url in seen:
                faults.add(place, f"`{url}` stands twice", "a host runs as many stages as fit it: name it once")
            seen.add(url)
        if isinstance(entry, str):
            _check_url(entry, _DOCKER_SCHEMES, place, faults)
            continue
        host = faults.table(entry, TABLES["host"], place)
        _check_amounts(host, place, faults)
        if "url" not in entry:
            faults.add(place, "has no `url`", 'write `{ url = "ssh://host" }`')
        _check_url(host.get("url"), _DOCKER_SCHEMES, (*place, "url"), faults)


def _check_amounts(table: Mapping[str, Any], where: Path, faults: Faults) -> None:
    if "cpus" in table and table["cpus"] <= 0:
        faults.add((*where, "cpus"), "must be more than 0", "leave it out for all that there are")
    if "memory" in table and parse_size_bytes(str(table["memory"])) == 0:
        faults.add((*where, "memory"), "must be more than 0", "leave it out for all that there is")


def _check_url(url: Any, schemes: tuple[str, ...], where: Path, faults: Faults) -> None:
    if not isinstance(url, str):
        return
    faults.no_password(url, where)
    if not url.startswith(schemes):
        faults.add(where, f"`{url}` starts with none of {', '.join(schemes)}", f"write `{schemes[-1]}HOST`")
