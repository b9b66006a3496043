"""What refers to other tables: inputs to their makers, `after`, computes, environments. Cycles and clashing outputs are found here."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from pipesmith.errors import nearest
from pipesmith.pipeline.faults import Faults
from pipesmith.pipeline.graph import cycle, stage_edges
from pipesmith.pipeline.model import Compute, Dataset, Datastore, Environment, Input, Origin, OriginKind, Stage
from pipesmith.pipeline.stages import Draft, DraftInput

__all__ = ["link"]


def link(
    drafts: list[Draft],
    *,
    params: Mapping[str, Any],
    datasets: Mapping[str, Dataset],
    datastores: Mapping[str, Datastore],
    environments: Mapping[str, Environment],
    computes: Mapping[str, Compute],
    faults: Faults,
) -> tuple[dict[str, Stage], dict[str, tuple[str, ...]]]:
    """Return stages by name, and the cells of each table."""
    groups: dict[str, list[str]] = {}
    for draft in drafts:
        groups.setdefault(draft.base, []).append(draft.name)
    linker = _Linker(drafts, groups, datasets, faults)
    stages: dict[str, Stage] = {}
    for draft in drafts:
        where = ("stage", draft.base)
        compute = draft.table.get("compute", "local")
        if compute not in computes:
            faults.unknown((*where, "compute"), "compute", compute, computes)
        environment = draft.table.get("environment")
        if environment is not None and environment not in environments:
            faults.unknown((*where, "environment"), "environment", environment, environments)
        for output in draft.outputs.values():
            if output.to is not None and "://" not in output.to and output.to.partition(":")[0] not in datastores:
                place = (*where, "outputs", output.name, "to")
                faults.unknown(place, "datastore", output.to.partition(":")[0], datastores)
        table = draft.table
        stages[draft.name] = Stage(
            name=draft.name,
            base=draft.base,
            kind=draft.kind,
            cell=draft.cell,
            desc=table.get("desc", ""),
            source=draft.source,
            run=draft.run,
            notebook=draft.notebook,
            transfer=draft.transfer,
            inputs=linker.inputs(draft),
            outputs=draft.outputs,
            params=draft.params,
            metrics=tuple(name for name in table.get("metrics", ()) if name in draft.outputs),
            plots=draft.plots,
            after=linker.after(draft),
            mutex=tuple(table.get("mutex", ())),
            resources=draft.resources,
            compute=compute,
            environment=environment,
            env=draft.env,
            pass_env=tuple(table.get("pass-env", ())),
            reuse=table.get("reuse", True),
            hash_paths=draft.hash_paths,
            timeout_s=draft.timeout_s,
            retries=table.get("retries", 0),
            keep=table.get("keep"),
            sandbox=table.get("sandbox", True),
            cwd=draft.cwd,
            frozen=table.get("frozen", False),
            expect=draft.expect,
        )
    _check_cycle(stages, faults)
    return stages, {base: tuple(names) for base, names in groups.items()}


def _check_cycle(stages: Mapping[str, Stage], faults: Faults) -> None:
    before = {name: [e for e in stage_edges(stage) if e in stages] for name, stage in stages.items()}
    found = cycle(before)
    if found is not None:
        chain = " -> ".join(f"`{name}`" for name in found)
        key = "inputs" if stages[found[0]].inputs else "after"
        faults.add(("stage", stages[found[0]].base, key), f"a cycle: {chain}", "take one of these inputs out")


class _Linker:
    def __init__(
        self, drafts: list[Draft], groups: Mapping[str, list[str]], datasets: Mapping[str, Dataset], faults: Faults
    ) -> None:
        self.drafts = {draft.name: draft for draft in drafts}
        self.groups = groups
        self.datasets = datasets
        self.faults = faults
        self.makers: dict[str, tuple[str, str]] = {}  # output path to (stage, output)
        for draft in drafts:
            for output in draft.outputs.values():
                where = ("stage", draft.base, "outputs", output.name)
                other = self.makers.get(output.path)
                if other is not None:
                    faults.add(
                        where,
                        f"`{output.path}` is an output of `{other[0]}` as well as of `{draft.name}`",
                        "give one another path",
                    )
                else:
                    self.makers[output.path] = (draft.name, output.name)
        for path, (name, output_name) in self.makers.items():
            above = self._above(path)
            if above is not None:
                other, draft = self.makers[above], self.drafts[name]
                faults.add(
                    ("stage", draft.base, "outputs", output_name),
                    f"`{path}` of `{name}` lies inside `{above}`, an output of `{other[0]}`",
                    "give one another path",
                )

    def _above(self, path: str) -> str | None:
        """Return the output path that holds `path`, None where none does."""
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in self.makers:
                return path
        return None

    def after(self, draft: Draft) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for index, name in enumerate(draft.table.get("after", ())):
            where = ("stage", draft.base, "after", index)
            if name in self.groups:
                found.update(dict.fromkeys(n for n in self.groups[name]))
            elif name in self.drafts:
                found[name] = None
            else:
                self.faults.unknown(where, "stage", name, [*self.groups, *self.drafts])
        return tuple(found)

    def inputs(self, draft: Draft) -> dict[str, Input]:
        inputs: dict[str, Input] = {}
        paths: dict[str, str] = {}
        for name, given in draft.inputs.items():
            found = self._input(draft, name, given)
            if found is None:
                continue
            for path, other in paths.items():
                if path == found.path or path.startswith(f"{found.path}/") or found.path.startswith(f"{path}/"):
                    self.faults.add(
                        given.where,
                        f"`{found.path}` is given to the stage as `{other}` already",
                        "leave one out, or set `path`",
                    )
            paths[found.path] = name
            for output in draft.outputs.values():
                if (
                    output.path.startswith(f"{found.path}/")
                    or (found.path.startswith(f"{output.path}/")
                    and found.origin.stage != draft.name)
                ):
                    self.faults.add(
                        given.where,
                        f"input `{found.path}` and output `{output.path}` of `{draft.name}` lie inside one another",
                        "give one another path",
                    )
            inputs[name] = found
        return inputs

    def _input(self, draft: Draft, name: str, given: DraftInput) -> Input | None:
        if given.source.startswith("stage:"):
            return self._from_stage(name, given)
        if given.source.startswith("dataset:"):
            dataset = given.source.removeprefix("dataset:")
            if dataset not in self.datasets:
                self.faults.unknown(given.where, "dataset", dataset, self.datasets)
                return None
            origin = Origin(kind=OriginKind.DATASET, dataset=dataset)
            return Input(name=name, path=given.path or f"inputs/{name}", origin=origin, mode=given.mode)
        path = self.faults.path(given.source, given.where, what=name)
        if path is None:
            return None
        maker = self.makers.get(path)
        within = ""
        if maker is None:
            above = self._above(path)
            if above is not None:
                maker, within = self.makers[above], posixpath.relpath(path, above)
        if maker is not None:
            origin = Origin(kind=OriginKind.STAGE, stage=maker[0], output=maker[1])
            return Input(name=name, path=given.path or path, origin=origin, mode=given.mode, within=within)
        inside = sorted(made for made in self.makers if path == "." or made.startswith(f"{path}/"))
        if inside:
            stage, output = self.makers[inside[0]]
            self.faults.add(
                given.where,
                f"`{path}` holds an output: `{inside[0]}` of `{stage}`",
                f'name the outputs themselves, as `{name} = "stage:{stage}.{output}"`',
            )
            return None
        if path in ("pipeline.toml", "pipe.lock", ".git") or path.startswith(".git/"):
            self.faults.add(given.where, f"`{path}` can't be an input")
            return None
        return Input(name=name, path=given.path or path, origin=Origin(kind=OriginKind.PATH), mode=given.mode)

    def _from_stage(self, name: str, given: DraftInput) -> Input | None:
        stage, dot, output = given.source.removeprefix("stage:").rpartition(".")
        if not dot:
            self.faults.add(given.where, f"`{given.source}` names no output", "write `stage:NAME.OUTPUT`")
            return None
        if stage.endswith("@*"):
            return self._from_cells(name, given, stage[:-2], output)
        if stage not in self.drafts:
            if stage in self.groups:
                self.faults.add(
                    given.where,
                    f"`{stage}` has {len(self.groups[stage])} cells",
                    f"write `stage:{stage}@*.{output}` for all, or `stage:{self.groups[stage][0]}.{output}` for one",
                )
            else:
                self.faults.unknown(given.where, "stage", stage, [*self.groups, *self.drafts])
            return None
        made = self.drafts[stage].outputs.get(output)
        if made is None:
            near = nearest(output, self.drafts[stage].outputs)
            self.faults.add(
                given.where,
                f"stage `{stage}` has no output `{output}`",
                f"did you mean `stage:{stage}.{near}`?" if near else None,
            )
            return None
        origin = Origin(kind=OriginKind.STAGE, stage=stage, output=output)
        return Input(name=name, path=given.path or made.path, origin=origin, mode=given.mode)

    def _from_cells(self, name: str, given: DraftInput, base: str, output: str) -> Input | None:
        if base not in self.groups or self.groups[base] == [base]:
            known = [b for b, names in self.groups.items() if names != [b]]
            self.faults.unknown(given.where, "stage with a matrix", base, known)
            return None
        cells = {}
        for member in self.groups[base]:
            if output not in self.drafts[member].outputs:
                self.faults.add(given.where, f"stage `{member}` has no output `{output}`")
                return None
            cells[member.partition("@")[2]] = member
        origin = Origin(kind=OriginKind.CELLS, cells=cells, output=output)
        return Input(name=name, path=given.path or f"inputs/{name}", origin=origin, mode=given.mode)
