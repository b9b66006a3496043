"""Who makes which path of the workspace: outputs by path, clashes among them, and with what is source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.keys import Path
from pipesmith.pipeline.stages import Draft

__all__ = ["Made", "Makers"]

Made = tuple[str, str, str]  # stage, output, the output's path


class Makers:
    """The outputs of all stages by path. Two outputs with one path, or one inside another, are faults."""

    def __init__(self, drafts: Sequence[Draft], faults: Faults) -> None:
        self._by_path: dict[str, Made] = {}
        self._below: dict[str, Made] = {}  # folder to one output somewhere below it
        self._faults = faults
        self._said: set[tuple[str, str]] = set()
        bases = {draft.name: draft.base for draft in drafts}
        for draft in drafts:
            for output in draft.outputs.values():
                made = (draft.name, output.name, output.path)
                other = self._by_path.setdefault(output.path, made)
                if other is not made:
                    self._twice(draft.base, made, other, bases[other[0]])
        for path, made in self._by_path.items():
            above = self._above(path)
            if above is not None:
                self._inside(bases[made[0]], made, above)
            for folder in _folders(path):
                self._below.setdefault(folder, made)
        for draft in drafts:
            self._check_source(draft)

    def of(self, path: str) -> Made | None:
        """Return who makes a path, or the folder that it lies in."""
        return self._by_path.get(path) or self._above(path)

    def inside(self, path: str) -> Made | None:
        """Return an output that lies below a folder."""
        if path == ".":
            return next(iter(self._by_path.values()), None)
        return self._below.get(path)

    def check_file(self, path: str, where: Path, what: str) -> None:
        """Refuse an output that would lie over a file which pipe reads for itself."""
        made = self.of(path)
        if made is not None:
            self._faults.add(where, f"`{path}` is an output of `{made[0]}`, and {what}", "give one another path")

    def _above(self, path: str) -> Made | None:
        for folder in _folders(path):
            made = self._by_path.get(folder)
            if made is not None:
                return made
        return None

    def _twice(self, base: str, made: Made, other: Made, other_base: str) -> None:
        where = ("stage", base, "outputs", made[1])
        if base == other_base and made[0] != other[0]:
            text = f"`{made[2]}` is an output of two cells, `{other[0]}` and `{made[0]}`"
            if (base, made[1]) not in self._said:
                self._said.add((base, made[1]))
                self._faults.add(where, text, "put their values into the path, as `{matrix.KEY}`")
            return
        text = f"`{made[2]}` is an output of `{other[0]}` as well as of `{made[0]}`"
        if made[0] == other[0]:
            text = f"`{made[2]}` is output `{other[1]}` as well"
        self._faults.add(where, text, "give one another path")

    def _inside(self, base: str, made: Made, above: Made) -> None:
        text = f"`{made[2]}` lies inside `{above[2]}`, an output of `{above[0]}`"
        self._faults.add(("stage", base, "outputs", made[1]), text, "give one another path")

    def _check_source(self, draft: Draft) -> None:
        for key, paths in (
            ("source", draft.source),
            ("hash-paths", draft.hash_paths),
            ("notebook", _one(draft.notebook)),
        ):
            for path in paths:
                made = self.of(path)
                if made is None:
                    continue
                help = f'name it in inputs, as `{made[1]} = "stage:{made[0]}.{made[1]}"`'
                if made[0] == draft.name:
                    help = "give the output another path"
                self._faults.add(
                    ("stage", draft.base, key),
                    f"`{path}` is made by a stage: output `{made[2]}` of `{made[0]}`",
                    help,
                )


def _one(path: str | None) -> tuple[str, ...]:
    return (path,) if path is not None else ()


def _folders(path: str) -> Iterable[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
