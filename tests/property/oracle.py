"""The oracle: says from what lies on the disk which stages are fresh, restored, run, and what they make. Plain Python.

It reads source, data and outputs itself; what pipe.lock and the cache hold it remembers, by the text of the lockfile.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .graphs import Content, Graph, Spec

Fingerprint = tuple[Any, ...]


def read(path: Path) -> Content | None:
    """Return what lies at a path, None where nothing does. Files named *.skip are ignored by git."""
    if path.is_symlink():
        return os.readlink(path)
    if path.is_dir():
        found = []
        for folder, folders, files in os.walk(path):
            for name in [*files, *(each for each in folders if os.path.islink(os.path.join(folder, each)))]:
                place = Path(folder, name)
                if name.endswith(".skip"):
                    continue
                inner = str(place.relative_to(path))
                if place.is_symlink():
                    found.append((inner, os.readlink(place), False))
                else:
                    found.append((inner, place.read_bytes(), bool(place.stat().st_mode & 0o100)))
        return tuple(sorted(found))
    return path.read_bytes() if path.exists() else None


@dataclass(frozen=True)
class Entry:
    """What the lockfile says of a stage."""

    fingerprint: Fingerprint
    outs: tuple[tuple[str, Content], ...]  # by path


Lock = dict[str, Entry]


@dataclass
class Cache:
    """What lies in .git/pipe/cache."""

    known: dict[Fingerprint, dict[str, Content]] = field(default_factory=dict)
    objects: set[Content] = field(default_factory=set)

    def add(self, content: Content) -> None:
        self.objects.add(content)
        if isinstance(content, tuple):
            self.objects |= {data for _path, data, _executable in content if isinstance(data, bytes)}

    def has(self, content: Content) -> bool:
        if content not in self.objects:
            return False
        if isinstance(content, tuple):
            return all(data in self.objects for _path, data, _executable in content if isinstance(data, bytes))
        return True


@dataclass
class Expected:
    """What a build does with a stage. why it can't be said of one after a failed one: status `skipped`."""

    status: str
    fingerprint: Fingerprint | None = None
    outs: dict[str, Content] = field(default_factory=dict)  # by path


class Oracle:
    """root: the work tree. locks: text of a lockfile to what it says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = Cache()
        self.locks: dict[str, Lock] = {}

    @property
    def lock_text(self) -> str:
        path = self.root / "pipe.lock"
        return path.read_text() if path.exists() else ""

    def lock(self) -> Lock:
        text = self.lock_text
        return self.locks[text] if text else {}

    def fingerprint(self, spec: Spec, inputs: list[Content], params: Mapping[str, object]) -> Fingerprint:
        return (
            spec.run,
            spec.cwd,
            read(self.root / spec.source),
            tuple((given.name, given.path, content) for given, content in zip(spec.inputs, inputs, strict=True)),
            tuple((name, params[name]) for name in sorted(spec.params)),
            spec.env,
            (spec.hash_path, read(self.root / spec.hash_path)) if spec.hash_path else None,
            tuple(sorted(spec.outputs.items())),
        )

    def _inputs(self, spec: Spec, made: Mapping[str, dict[str, Content]]) -> list[Content]:
        found = []
        for given in spec.inputs:
            if not given.stage:
                content = read(self.root / given.path)
                assert content is not None, given.path
                if isinstance(content, bytes):
                    found.append(content)
                else:
                    found.append(content)
                continue
            outs = made[given.stage]
            if given.path in outs:
                found.append(outs[given.path])
                continue
            folder = next(content for path, content in outs.items() if given.path.startswith(f"{path}/"))
            assert isinstance(folder, tuple)
            inner = given.path.rpartition("/")[2]
            if inner == "x":
                found.append(next(data for path, data, _executable in folder if path == "x"))
            else:
                found.append(
                    tuple((path[4:], data, executable) for path, data, executable in folder if path.startswith("sub/"))
                )
        return found

    # -- a build ------------------------------------------------------------------------------------------------------

    def plan(
        self,
        graph: Graph,
        wanted: Collection[str],
        *,
        forced: Collection[str] = (),
        overrides: Mapping[str, int] | None = None,
        restore: bool = True,
    ) -> dict[str, Expected]:
        """Return what a build of these stages does, all that can go on going on after a failure. Changes nothing."""
        params = {**graph.params, **(overrides or {})}
        lock, plan = self.lock(), dict[str, Expected]()
        made: dict[str, dict[str, Content]] = {}
        needed: set[str] = set()

        def bring(name: str) -> None:
            spec = graph.stages[name]
            if any(plan[earlier].status in ("failed", "skipped") for earlier in spec.before):
                plan[name] = Expected("skipped")
                return
            inputs = self._inputs(spec, made)
            fingerprint = self.fingerprint(spec, inputs, params)
            source = read(self.root / spec.source)
            assert source is not None
            results = spec.make(source, inputs, params)
            outs = {spec.outputs[output]: content for output, content in results.items()}
            made[name] = outs
            entry = lock.get(name)
            matched = entry is not None and entry.fingerprint == fingerprint
            status = ""
            if name not in forced:
                if matched and all(self._there(spec, path, content, name in needed) for path, content in outs.items()):
                    status = "fresh"
                elif (
                    restore and (matched or fingerprint in self.cache.known) and all(map(self.cache.has, outs.values()))
                ):
                    status = "restored"
            if not status:
                for given in spec.inputs:
                    if (
                        given.stage
                        and given.stage not in needed
                        and self._absent(graph.stages[given.stage], plan, given)
                    ):
                        needed.add(given.stage)
                        bring(given.stage)
                if any(plan[earlier].status in ("failed", "skipped") for earlier in spec.before):
                    plan[name] = Expected("skipped")
                    return
                status = "failed" if any(b"FAIL" in data for data in _files(source)) else "ran"
            plan[name] = Expected(status, fingerprint, outs)

        for name in graph.stages:
            if name in wanted:
                bring(name)
        return plan

    def _there(self, spec: Spec, path: str, content: Content, needed: bool) -> bool:
        now = read(self.root / path)
        if now is None:
            return spec.temp and path == spec.outputs["o"] and not needed
        return now == content

    def _absent(self, maker: Spec, plan: Mapping[str, Expected], given: object) -> bool:
        path = maker.outputs["o"]
        wanted = getattr(given, "path", "") == path
        return wanted and maker.temp and plan[maker.name].status == "fresh" and read(self.root / path) is None

    # -- states -------------------------------------------------------------------------------------------------------

    def states(self, graph: Graph, *, committed: bool = False) -> dict[str, tuple[str, Fingerprint | None]]:
        """Return what `pipe status` says. committed: of `--rev`, whose sources and data the work tree has as they
        are."""
        lock = self.lock()
        made: dict[str, dict[str, Content]] = {}
        found: dict[str, tuple[str, Fingerprint | None]] = {}
        for name, spec in graph.stages.items():
            if any(given.stage and given.stage not in made for given in spec.inputs):
                found[name] = ("pending", None)
                continue
            inputs = self._inputs(spec, made)
            fingerprint = self.fingerprint(spec, inputs, graph.params)
            source = read(self.root / spec.source)
            assert source is not None
            outs = {spec.outputs[output]: made for output, made in spec.make(source, inputs, graph.params).items()}
            entry = lock.get(name)
            matched = entry is not None and entry.fingerprint == fingerprint
            state = "stale"
            if committed:
                if matched and all(
                    spec.cached(output) or read(self.root / path) in (None, outs[path])
                    for output, path in spec.outputs.items()
                ):
                    state = "fresh"
            elif matched and all(self._there(spec, path, content, False) for path, content in outs.items()):
                state = "fresh"
            elif (matched or fingerprint in self.cache.known) and all(map(self.cache.has, outs.values())):
                state = "restorable"
            if state != "stale":
                made[name] = outs
            found[name] = (state, fingerprint)
        return found

    # -- after a build ------------------------------------------------------------------------------------------------

    def replaced(self, graph: Graph, plan: Mapping[str, Expected]) -> list[Content]:
        """Return what lies where these stages will put something else: it must be kept."""
        found = []
        for name, expected in plan.items():
            aside = not graph.stages[name].sandbox and expected.status in ("ran", "failed")
            for path, content in expected.outs.items():
                now = read(self.root / path)
                took_place = expected.status in ("ran", "restored", "failed")
                if now is not None and took_place and (aside or (now != content and expected.status != "failed")):
                    found.append(now.encode() if isinstance(now, str) else now)
        return found

    def took(self, graph: Graph, before: Lock, did: Mapping[str, Expected], replaced: Collection[Content]) -> None:
        """Learn what a build has left: `did` with the statuses that it told, and the lockfile's text as it is now."""
        for content in replaced:
            self.cache.add(content)
        lock = {name: entry for name, entry in before.items() if name in graph.stages}
        for name, expected in did.items():
            if expected.status in ("ran", "restored"):
                assert expected.fingerprint is not None
                lock[name] = Entry(expected.fingerprint, tuple(sorted(expected.outs.items())))
            if expected.status == "ran":
                assert expected.fingerprint is not None
                self.cache.known[expected.fingerprint] = expected.outs
                for content in expected.outs.values():
                    self.cache.add(content)
        text = self.lock_text
        if text:
            said = self.locks.setdefault(text, lock)
            assert said == lock, "one text of pipe.lock for two contents"
        else:
            assert not lock, f"no pipe.lock, though stages were built: {sorted(lock)}"


def _files(content: Content) -> list[bytes]:
    if isinstance(content, bytes):
        return [content]
    assert isinstance(content, tuple)
    return [data for _path, data, _executable in content if isinstance(data, bytes)]
