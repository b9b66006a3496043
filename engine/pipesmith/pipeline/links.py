"""What refers to other tables is followed here: inputs to their makers, `after`, computes, environments, datastores."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from pipesmith.errors import nearest
from pipesmith.pipeline.declarations import NAME, known_datastore
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.graph import cycles, stage_edges
from pipesmith.pipeline.keys import Path
from pipesmith.pipeline.makers import Makers
from pipesmith.pipeline.model import Compute, Dataset, Datastore, Environment, Input, Origin, OriginKind, Output, Stage
from pipesmith.pipeline.stages import Draft, DraftInput
from pipesmith.records import record

__all__ = ["Tables", "link"]


@record
class Tables:
    """What stages refer to, by name. lost: tables that no stage could be read of; naming them is no fault."""

    datasets: Mapping[str, Dataset]
    datastores: Mapping[str, Datastore]
    environments: Mapping[str, Environment]
    computes: Mapping[str, Compute]
    lost: frozenset[str]


def link(
    drafts: list[Draft], tables: Tables, faults: Faults
) -> tuple[dict[str, Stage], dict[str, tuple[str, ...]], Makers]:
    """Return stages by name, the cells of each table, and who makes which path."""
    groups: dict[str, list[str]] = {}
    for draft in drafts:
        groups.setdefault(draft.base, []).append(draft.name)
    makers = Makers(drafts, faults)
    linker = _Linker(drafts, groups, tables, makers, faults)
    stages = {draft.name: linker.stage(draft) for draft in drafts}
    _check_cycles(stages, faults)
    return stages, {base: tuple(names) for base, names in groups.items()}, makers


def _check_cycles(stages: Mapping[str, Stage], faults: Faults) -> None:
    before = {name: [e for e in stage_edges(stage) if e in stages] for name, stage in stages.items()}
    for found in cycles(before):
        stage, needed = stages[found[0]], found[1]
        where: Path = ("stage", stage.base, "after")
        for name, given in stage.inputs.items():
            if needed == given.origin.stage or needed in given.origin.cells.values():
                where = ("stage", stage.base, "inputs", name)
                break
        chain = " needs ".join(f"`{name}`" for name in found)
        faults.add(where, f"a cycle: {chain}", "take one of these edges out")


class _Linker:
    def __init__(
        self,
        drafts: list[Draft],
        groups: Mapping[str, list[str]],
        tables: Tables,
        makers: Makers,
        faults: Faults,
    ) -> None:
        self.drafts = {draft.name: draft for draft in drafts}
        self.groups = groups
        self.tables = tables
        self.makers = makers
        self.faults = faults

    def stage(self, draft: Draft) -> Stage:
        where = ("stage", draft.base)
        table, tables, faults = draft.table, self.tables, self.faults
        if draft.compute not in tables.computes:
            faults.unknown((*where, "compute"), "compute", draft.compute, tables.computes)
        if draft.environment is not None and draft.environment not in tables.environments:
            faults.unknown((*where, "environment"), "environment", draft.environment, tables.environments)
        for output in draft.outputs.values():
            if output.to is not None:
                known_datastore(output.to, (*where, "outputs", output.name, "to"), tables.datastores, faults)
        if draft.transfer is not None:
            for key, text in (("from", draft.transfer.source), ("to", draft.transfer.target)):
                if text:
                    known_datastore(text, (*where, "transfer", key), tables.datastores, faults)
        return Stage(
            name=draft.name,
            base=draft.base,
            kind=draft.kind,
            cell=draft.cell,
            desc=table.get("desc", ""),
            source=draft.source,
            run=draft.run,
            notebook=draft.notebook,
            transfer=draft.transfer,
            inputs=self._inputs(draft),
            outputs=draft.outputs,
            params=draft.params,
            metrics=draft.metrics,
            plots=draft.plots,
            after=self._after(draft),
            mutex=draft.mutex,
            resources=draft.resources,
            compute=draft.compute,
            environment=draft.environment,
            env=draft.env,
            pass_env=draft.pass_env,
            reuse=table.get("reuse", True),
            hash_paths=draft.hash_paths,
            timeout_s=draft.timeout_s,
            retries=table.get("retries", 0),
            keep=draft.keep,
            sandbox=table.get("sandbox", True),
            cwd=draft.cwd,
            frozen=table.get("frozen", False),
            expect=draft.expect,
        )

    def _after(self, draft: Draft) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for index, name in enumerate(draft.after):
            if name in self.groups:
                found.update(dict.fromkeys(self.groups[name]))
            elif name in self.drafts:
                found[name] = None
            elif name.partition("@")[0] not in self.tables.lost:
                where = ("stage", draft.base, "after", index)
                self.faults.unknown(where, "stage", name, [*self.groups, *self.drafts])
        return tuple(found)

    # -- inputs --------------------------------------------------------------------------------------------------

    def _inputs(self, draft: Draft) -> dict[str, Input]:
        inputs: dict[str, Input] = {}
        for name, given in draft.inputs.items():
            if given.path is not None and (given.path == "." or ".git" in given.path.split("/")):
                self.faults.add((*given.where, "path"), f"an input can't be at `{given.path}`", "set another `path`")
                continue
            found = self._input(draft, name, given)
            if found is not None:
                inputs[name] = found
        self._check_places(draft, inputs)
        if draft.keep is not None:
            self._check_keep(draft, draft.keep, inputs)
        return inputs

    def _check_keep(self, draft: Draft, keep: str, inputs: Mapping[str, Input]) -> None:
        """Refuse a `keep` that would hide what the stage is given in its sandbox, or be part of an output."""
        where = ("stage", draft.base, "keep")
        given = [*draft.source, *(found.path for found in inputs.values())]
        hidden = next((path for path in given if f"{path}/".startswith(f"{keep}/")), None)
        made = next((o.path for o in draft.outputs.values() if f"{keep}/".startswith(f"{o.path}/")), None)
        help = "name a folder of its own"
        if keep == ".":
            self.faults.add(where, "the workspace itself can't be kept", help)
        elif hidden is not None:
            self.faults.add(where, f"`{keep}` would lie over `{hidden}`, which the stage is given", help)
        elif made is not None:
            self.faults.add(where, f"`{keep}` lies in `{made}`, an output of the stage", help)

    def _check_places(self, draft: Draft, inputs: Mapping[str, Input]) -> None:
        """Refuse inputs that would lie over one another, or over an output, in the stage's sandbox."""
        places: list[tuple[str, Input | Output]] = [(f"{found.path}/", found) for found in inputs.values()]
        places += [(f"{output.path}/", output) for output in draft.outputs.values()]
        places.sort(key=lambda place: place[0])
        above: list[tuple[str, Input | Output]] = []
        for path, found in places:
            while above and not path.startswith(above[-1][0]):
                above.pop()
            if above:
                self._check_pair(draft, above[-1][1], found)
            above.append((path, found))

    def _check_pair(self, draft: Draft, outer: Input | Output, inner: Input | Output) -> None:
        """Refuse that one thing lies inside another, where it matters. Outputs among themselves: see Makers."""
        if isinstance(outer, Input) and isinstance(inner, Input):
            if _at_home(outer) and _at_home(inner):
                return  # their content agrees
            text = f"`{inner.path}` and `{outer.path}`, where input `{outer.name}` appears, lie inside one another"
            self.faults.add(draft.inputs[inner.name].where, text, "set another `path` for one of them")
            return
        given, output = (outer, inner) if isinstance(outer, Input) else (inner, outer)
        if isinstance(given, Input) and isinstance(output, Output) and given.origin.stage != draft.name:
            text = f"input `{given.path}` and output `{output.path}` lie inside one another"
            self.faults.add(draft.inputs[given.name].where, text, "give one another path")

    def _input(self, draft: Draft, name: str, given: DraftInput) -> Input | None:
        if given.source.startswith("stage:"):
            return self._from_stage(draft, name, given)
        if given.source.startswith("dataset:"):
            return self._from_dataset(name, given)
        self._check_scheme(name, given)
        path = self.faults.path(given.source, given.where, what=name if NAME.fullmatch(name) else "data")
        if path is None:
            return None
        made = self.makers.of(path)
        if made is not None:
            stage, output, above = made
            within = "" if above == path else posixpath.relpath(path, above)
            origin = Origin(kind=OriginKind.STAGE, stage=stage, output=output)
            self._check_moved(draft, given, path)
            return Input(name=name, path=given.path or path, origin=origin, mode=given.mode, within=within, lies=path)
        inside = self.makers.inside(path)
        if inside is not None:
            stage, output, made_path = inside
            self.faults.add(
                given.where,
                f"`{path}` holds `{made_path}`, an output of `{stage}`",
                f'name the outputs themselves, as `{name} = "stage:{stage}.{output}"`',
            )
            return None
        if path == ".":
            self.faults.add(given.where, "the workspace itself can't be an input", 'write `source = "."`')
            return None
        if path in ("pipeline.toml", "pipe.lock") or ".git" in path.split("/"):
            self.faults.add(given.where, f"`{path}` can't be an input")
            return None
        self._check_moved(draft, given, path)
        origin = Origin(kind=OriginKind.PATH)
        return Input(name=name, path=given.path or path, origin=origin, mode=given.mode, lies=path)

    def _check_scheme(self, name: str, given: DraftInput) -> None:
        """Say what to write where an input is meant that only a dataset can be."""
        head, colon, _rest = given.source.partition(":")
        if colon and (
            given.source.startswith(f"{head}://") or head.startswith("git+") or head in self.tables.datastores
        ):
            self.faults.add(
                given.where,
                f"`{given.source}` is no path of the workspace",
                f'write `[dataset.{name}]` with `from = "{given.source}"`, and `{name} = "dataset:{name}"` here',
            )
        elif colon and nearest(head, ("stage", "dataset")):
            self.faults.add(
                given.where,
                f"`{given.source}` is no path of the workspace",
                f"did you mean `{nearest(head, ('stage', 'dataset'))}:`?",
            )

    def _check_moved(self, draft: Draft, given: DraftInput, path: str) -> None:
        if given.path is not None and given.path != path and not draft.table.get("sandbox", True):
            text = f"`{path}` can't be at `{given.path}` with `sandbox = false`"
            self.faults.add((*given.where, "path"), text, "leave `path` out")

    def _from_dataset(self, name: str, given: DraftInput) -> Input | None:
        dataset = given.source.removeprefix("dataset:")
        if dataset not in self.tables.datasets:
            self.faults.unknown(given.where, "dataset", dataset, self.tables.datasets)
            return None
        path = given.path or f"inputs/{name}"
        made = self.makers.of(path) or self.makers.inside(path)
        if made is not None:
            place = (*given.where, "path") if given.path else given.where
            self.faults.add(place, f"`{path}` is the place of an output of `{made[0]}`", "set another `path`")
            return None
        return Input(name=name, path=path, origin=Origin(kind=OriginKind.DATASET, dataset=dataset), mode=given.mode)

    def _from_stage(self, draft: Draft, name: str, given: DraftInput) -> Input | None:
        stage, dot, output = given.source.removeprefix("stage:").rpartition(".")
        if not dot or not stage:
            self.faults.add(given.where, f"`{given.source}` names no output", "write `stage:NAME.OUTPUT`")
            return None
        if stage.partition("@")[0] in self.tables.lost:
            return None
        if stage.endswith("@*"):
            return self._from_cells(name, given, stage[:-2], output)
        if stage not in self.drafts:
            cells = self.groups.get(stage)
            if cells:
                self.faults.add(
                    given.where,
                    f"`{stage}` has {len(cells)} cells",
                    f"write `stage:{stage}@*.{output}` for all, or `stage:{cells[0]}.{output}` for one",
                )
            else:
                self.faults.unknown(given.where, "stage", stage, [*self.groups, *self.drafts])
            return None
        made = self._output_of(stage, stage, output, given)
        if made is None:
            return None
        self._check_moved(draft, given, made.path)
        origin = Origin(kind=OriginKind.STAGE, stage=stage, output=output)
        return Input(name=name, path=given.path or made.path, origin=origin, mode=given.mode, lies=made.path)

    def _from_cells(self, name: str, given: DraftInput, base: str, output: str) -> Input | None:
        members = self.groups.get(base, [])
        if not members or members == [base]:
            if members:
                help = f"write `stage:{base}.{output}`"
                self.faults.add(given.where, f"stage `{base}` has no matrix", help)
            else:
                known = [b for b, names in self.groups.items() if names != [b]]
                self.faults.unknown(given.where, "stage", base, known)
            return None
        cells = {}
        for member in members:
            if self._output_of(member, f"{base}@*", output, given) is None:
                return None
            cells[member.removeprefix(f"{base}@")] = member
        origin = Origin(kind=OriginKind.CELLS, cells=cells, output=output)
        return Input(name=name, path=given.path or f"inputs/{name}", origin=origin, mode=given.mode)

    def _output_of(self, stage: str, said: str, output: str, given: DraftInput) -> Output | None:
        """Return an output of a stage; a fault where it has none of that name. said: the stage as it is named."""
        draft = self.drafts[stage]
        made = draft.outputs.get(output)
        if made is None and output not in draft.broken:
            near = nearest(output, draft.outputs)
            if near:
                help = f"did you mean `stage:{said}.{near}`?"
            else:
                names = ", ".join(f"`{known}`" for known in draft.outputs)
                help = f"it makes {names}" if names else "it has no outputs yet"
            self.faults.add(given.where, f"stage `{stage}` has no output `{output}`", help)
        return made


def _at_home(given: Input) -> bool:
    """Return whether an input appears where it lies: such inputs may hold one another, their content agrees."""
    return given.path == given.lies
