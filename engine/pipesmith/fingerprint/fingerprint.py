"""The fingerprint of a stage: an itemised record of all that decides what it makes, and its hash, the action key."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pipesmith.digest import new_hasher
from pipesmith.records import record

__all__ = ["FORMAT_VERSION", "Fingerprint", "Item", "fingerprint_of"]

FORMAT_VERSION = 1


@record(kw_only=False, order=True)
class Item:
    """One thing that counts. kind: a `why` kind of the contract (`run`, `source`, `input`, `param`, `env`,
    `environment`, `hash-path`). item: which one. value: readable text, equal exactly when the thing is the same."""

    kind: str
    item: str
    value: str


@record(kw_only=False)
class Fingerprint:
    """items: sorted. key: hex BLAKE3 of their canonical form, the same on every machine."""

    items: tuple[Item, ...]
    key: str


def fingerprint_of(items: Iterable[Item]) -> Fingerprint:
    """Return the fingerprint made of `items`; their order does not matter.

    The pre-image is compact JSON `["pipesmith-fingerprint", VERSION, [[kind, item, value], …]]` in UTF-8, lone
    surrogates (bytes of file names that are no UTF-8) escaped. Source: docs/formats/fingerprint.md.
    """
    ordered = tuple(sorted(items))
    body = ["pipesmith-fingerprint", FORMAT_VERSION, [[i.kind, i.item, i.value] for i in ordered]]
    hasher = new_hasher("blake3")
    hasher.update(json.dumps(body, separators=(",", ":")).encode("ascii"))
    return Fingerprint(ordered, hasher.hexdigest())
