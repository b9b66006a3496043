"""What to add to pipeline.toml when a failed command missed a file of the workspace."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator

from pipesmith.build.context import BuildContext
from pipesmith.errors import PipeError
from pipesmith.executors.base import FAR_WORKSPACE
from pipesmith.pipeline.model import Stage

__all__ = ["missing_file_hint"]

_MODULE = re.compile(r"No module named '?([\w.]+)")
_CODE = (".py", ".sh", ".r", ".R", ".jl", ".pl", ".js", ".ts")
_WORD = re.compile(r"[^\s'\"`‘’“”:;,()\[\]{}<>|&=]+")
# A line that tells of something that could not be had, in the words of shells, tools and languages.
_UNOPENED = re.compile(
    r"(?i)no such (?:file|director)|not found|does ?n[o']t exist|FileNotFound|ENOENT|no rule to make target"
    r"|(?:can ?not|can't|could ?n[o']t|unable to|failed to|error|failure) "
    r"(?:open|read|load|find|access|stat|list|import|locate|cd)"
)
# Where a stage sees the workspace that runs in a copy.
_SANDBOX = re.compile(r"^/.*/pipe/tmp/stage-[0-9a-f]{16}/sandbox(?=/)")
# What a command says or quotes is no argument of it.
_SAID = re.compile(r"\b(?:echo|printf)\b[^;&|<>\n]*|'[^']*\s[^']*'|\"[^\"]*\s[^\"]*\"")


def missing_file_hint(build: BuildContext, stage: Stage, tail: Iterable[str]) -> str:
    """Return one help line for a failed stage: the key to add, where its text or last lines name a workspace file or
    Python module that it was not given; else where to look."""
    missed = _missed(build, stage, list(tail)) if stage.sandbox else None  # without a sandbox it is given everything
    if missed is not None:
        return missed
    if build.elsewhere is not None:
        return f"look at `pipe logs {build.run} {stage.name}`, and at its sandbox, kept below {build.elsewhere.failed}"
    return f"look at `pipe logs {build.run} {stage.name}`, or go where it ran with `pipe shell {stage.name}`"


def _missed(build: BuildContext, stage: Stage, lines: list[str]) -> str | None:
    given = _given(build, stage)
    for line in lines:
        for module in _MODULE.findall(line):
            found = _module_path(build, module, stage)
            if found is not None and not _covered(found, given):
                return _add(build, stage, found, f"Python module `{module}`")
    for word, sure in _words(stage, lines):
        path = _workspace_path(build, stage, word)
        if path is None or _is_there(path, given):
            continue
        if sure or "/" in word or not _is_folder(build, path):
            return _add(build, stage, path, f"`{path}`")
    return None


def _words(stage: Stage, lines: list[str]) -> Iterator[tuple[str, bool]]:
    """Give the words that may name what was missed, likely ones first, and whether a plain word that is a folder's
    name means the folder: it does as an argument of the command, and where something could not be opened. Elsewhere it
    is just a word (`no data today`)."""
    unopened = [line for line in lines if _UNOPENED.search(line)]
    run = stage.run if isinstance(stage.run, str) else shlex.join(stage.run or ())
    for text, sure in (*((line, True) for line in unopened), *((line, False) for line in lines)):
        yield from ((word, sure) for word in _WORD.findall(text))
    for text, sure in ((_SAID.sub(" ", run), True), (run, False)):
        yield from ((word, sure) for word in _WORD.findall(text))


def _given(build: BuildContext, stage: Stage) -> list[str]:
    given = list(stage.source)
    given += [entry.path for entry in stage.inputs.values()]
    given += [output.path for output in stage.outputs.values()]
    if stage.notebook:
        given.append(stage.notebook)
    return given


def _covered(path: str, given: list[str]) -> bool:
    return any(have in (".", path) or path.startswith(f"{have}/") for have in given)


def _is_there(path: str, given: list[str]) -> bool:
    """Tell whether a stage finds something at a path: what it was given, or a folder with some of that."""
    return _covered(path, given) or any(have.startswith(f"{path}/") for have in given)


def _lies(build: BuildContext, path: str) -> bool:
    """Tell whether a path of the workspace exists: at the commit that is built, or in the user's own work tree."""
    return any(os.path.lexists(os.path.join(root, path)) for root in (build.root, build.seen_at))


def _is_folder(build: BuildContext, path: str) -> bool:
    return any(os.path.isdir(os.path.join(root, path)) for root in (build.root, build.seen_at))


def _workspace_path(build: BuildContext, stage: Stage, word: str) -> str | None:
    """Return a word as a path of the workspace, None where it names no file or folder there. Of a glob, its folder."""
    word = word.rstrip(".")
    if "*" in word or "?" in word:
        word = os.path.dirname(re.split(r"[*?]", word, maxsplit=1)[0])
    if not word or word in (".", "..", "/"):
        return None
    word = _SANDBOX.sub(build.seen_at, word)
    if build.pipeline.computes[stage.compute].kind != "local" and word.startswith(FAR_WORKSPACE + "/"):
        word = build.seen_at + word.removeprefix(FAR_WORKSPACE)
    place = os.path.normpath(os.path.join(build.seen_at, stage.cwd, word))
    path = os.path.relpath(place, build.seen_at)
    if path.split(os.sep)[0] in (".", "..", ".git"):
        return None
    return path if _lies(build, path) else None


def _module_path(build: BuildContext, module: str, stage: Stage) -> str | None:
    """Return where a Python module lies in the workspace: at its top, below `src`, or beside the stage's source."""
    first = module.split(".")[0]
    beside = {os.path.dirname(path) or "." for path in stage.source} | set(stage.source)
    for folder in (".", "src", "lib", *sorted(beside)):
        for candidate in (os.path.join(folder, first), os.path.join(folder, f"{first}.py")):
            if _lies(build, candidate):
                return os.path.normpath(candidate)
    return None


def _add(build: BuildContext, stage: Stage, path: str, what: str) -> str:
    """Return the help line. What a stage makes, and what git ignores, can't be source."""
    head = f"{what} was not given to it"
    ignored = _is_ignored(build, path)
    for maker in build.pipeline.stages.values():
        for name, output in maker.outputs.items():
            inside = path == output.path or path.startswith(f"{output.path}/")
            if inside or (ignored and output.path.startswith(f"{path}/")):  # a folder with nothing but outputs
                return _add_input(stage, head, name, f"stage:{maker.name}.{name}")
    if ignored:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(path).partition(".")[0]).strip("-") or "data"
        return _add_input(stage, head, name, path)
    if path.endswith(_CODE) and os.path.dirname(path):
        path = os.path.dirname(path)  # code seldom stands alone
    if not stage.source:
        return f'{head}: add `source = ["{path}"]` to [stage.{stage.base}] (or an input, if it is data)'
    listed = ", ".join(f'"{entry}"' for entry in (*stage.source, path))
    return f"{head}: write `source = [{listed}]` in [stage.{stage.base}] (or add an input, if it is data)"


def _is_ignored(build: BuildContext, path: str) -> bool:
    try:
        return os.path.lexists(os.path.join(build.root, path)) and build.tree.source_id(path) is None
    except PipeError:
        return False


def _add_input(stage: Stage, head: str, name: str, origin: str) -> str:
    if not stage.inputs:
        return f'{head}: add `inputs = {{ {name} = "{origin}" }}` to [stage.{stage.base}]'
    return f'{head}: add `{name} = "{origin}"` to `inputs` of [stage.{stage.base}]'
