"""The texts of one stage (or cell): which placeholders may stand where, and what is filled in at once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipesmith.errors import nearest
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import Path
from pipesmith.pipeline.matrix import value_text
from pipesmith.pipeline.params import dotted_keys, lookup
from pipesmith.pipeline.placeholders import escape, fill, joined_text, stray_brace, unescape

__all__ = ["DELIVERY_NAMES", "Texts"]

DELIVERY_NAMES = ("run.id", "git.commit", "git.branch")  # known only when a stage has run
_HOMES = {
    "inputs": "the stage's `inputs`",
    "outputs": "the stage's `outputs`",
    "matrix": "the stage's `matrix`",
    "resources": "the stage's `resources`",
    "params": "`[params]`",
}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.+@-]*")


class Texts:
    """Fills in what is known of a stage while its table is read: matrix values, its name, resources, params."""

    def __init__(
        self,
        name: str,
        cell: Mapping[str, Any],
        resources: Mapping[str, Any],
        params: Mapping[str, Any],
        faults: Faults,
    ) -> None:
        self._name = name
        self._cell = cell
        self._resources = resources
        self._params = params
        self._faults = faults
        self.named_params: set[str] = set()  # those that the command names: they count

    def plain(self, text: str, where: Path) -> str:
        """Return a path, name or value, whole: all its placeholders are filled in, braces are single."""
        if "{" not in text and "}" not in text:
            return text

        def value(name: str) -> str | None:
            found = self._early(name, _as_it_is)
            if found is None and self.has_param(name):
                found = joined_text(lookup(self._params, name[7:]))
            if found is None:
                self._unknown(name, where, self._known(params=True))
                return None
            return escape(found)

        return unescape(self._fill(text, where, value))

    def delivery(self, text: str, where: Path) -> str:
        """Return where an output is delivered: what only a run knows is left, braces stay doubled."""
        if "{" not in text and "}" not in text:
            return text

        def value(name: str) -> str | None:
            if name in DELIVERY_NAMES:
                return None
            found = self._early(name, _as_it_is)
            if found is None and self.has_param(name):
                found = joined_text(lookup(self._params, name[7:]))
            if found is None:
                self._unknown(name, where, [*self._known(params=True), *DELIVERY_NAMES])
                return None
            return escape(found)

        return self._fill(text, where, value)

    def command(self, text: str, where: Path, *, shell: bool, names: Collection[str]) -> str:
        """Return a command, or one argument of it: inputs, outputs and params are left, braces stay doubled.

        shell: what is filled in is quoted for the shell. names: `inputs.N` and `outputs.N` of the stage.
        """
        if "{" not in text and "}" not in text:
            return text

        def value(name: str) -> str | None:
            found = self._early(name, shlex.quote if shell else _as_it_is)
            if found is not None:
                self._check_nul(found, name, where)
                return escape(found)
            if name in names:
                return None
            if self.has_param(name):
                self._check_nul(joined_text(lookup(self._params, name[7:])), name, where)
                self.named_params.add(name[7:])
                return None
            self._unknown(name, where, [*names, *self._known(params=True)], command=True)
            return None

        return self._fill(text, where, value)

    def _check_nul(self, text: str, name: str, where: Path) -> None:
        if "\0" in text:
            self._faults.add(where, f"`{{{name}}}` has a NUL character, which no command can hold")

    def has_param(self, name: str) -> bool:
        """Return whether `params.K` names a param or a table of them."""
        if not name.startswith("params."):
            return False
        try:
            lookup(self._params, name[7:])
        except KeyError:
            return False
        return True

    def _early(self, name: str, quote: Callable[[str], str]) -> str | None:
        space, _, key = name.partition(".")
        if space == "matrix" and key in self._cell:
            return quote(value_text(self._cell[key]))
        if name == "stage.name":
            return quote(self._name)
        if space == "resources" and key in self._resources:
            return quote(str(self._resources[key]))
        return None

    def _fill(self, text: str, where: Path, value: Callable[[str], str | None]) -> str:
        if stray_brace(text):
            self._faults.add(where, "a single brace", "write `{{` or `}}` for a brace")
            return text
        return fill(text, value)

    def _known(self, *, params: bool) -> list[str]:
        known = [f"matrix.{key}" for key in self._cell]
        known += ["stage.name", *(f"resources.{key}" for key in self._resources)]
        if params:
            known += [f"params.{key}" for key in dotted_keys(self._params)]
        return known

    def _unknown(self, name: str, where: Path, known: list[str], *, command: bool = False) -> None:
        space = name.partition(".")[0]
        if space == "params" and self._faults.params_lost:
            return
        if not command and space in ("inputs", "outputs"):
            self._faults.add(where, f"`{{{name}}}` can stand in `run` only", "write the path itself")
            return
        if name in DELIVERY_NAMES:
            self._faults.add(where, f"`{{{name}}}` can stand in an output's `to` only", "take it out")
            return
        near = nearest(name, known) if _WORD.fullmatch(name) else None
        key = name.partition(".")[2]
        if near:
            help = f"did you mean `{{{near}}}`?"
        elif space in _HOMES and key:
            help = f"add `{key}` to {_HOMES[space]}"
        else:
            help = "write `{{` and `}}` for braces that are none of pipe's"
        self._faults.add(where, f"unknown placeholder `{{{name}}}`", help)


def _as_it_is(text: str) -> str:
    return text
