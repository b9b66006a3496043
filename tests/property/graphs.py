"""Random stage graphs: what a stage is made of, its table in pipeline.toml, and what it makes, in plain Python."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

# What a path holds: a file's bytes, a link's text, or a folder's (path, bytes or link, executable) sorted.
Content = bytes | str | tuple[tuple[str, "bytes | str", bool], ...]

PARAMS = ("p", "q")


@dataclass(frozen=True)
class Given:
    """An input. path: of a file or folder below data/, or of what an earlier stage makes; output: then
    `STAGE.OUTPUT`."""

    name: str
    path: str
    stage: str = ""
    output: str = ""
    by_path: bool = False


@dataclass(frozen=True)
class Spec:
    """A stage. cut: its main output takes two values only, so that edits often end with it (early cutoff)."""

    name: str
    inputs: tuple[Given, ...] = ()
    params: tuple[str, ...] = ()
    folder: bool = False
    cut: bool = False
    cache: bool = True
    temp: bool = False
    sandbox: bool = True
    second: bool = False
    env: str = ""
    hash_path: str = ""
    after: tuple[str, ...] = ()
    cwd: str = "."

    @property
    def source(self) -> str:
        return f"src/{self.name}"

    @property
    def outputs(self) -> dict[str, str]:
        """Output name to path."""
        found = {"o": f"{'out' if self.cache else 'kept'}/{self.name}{'.d' if self.folder else '.txt'}"}
        if self.second:
            found["extra"] = f"out/more/{self.name}"
        return found

    def cached(self, output: str) -> bool:
        return self.cache or output == "extra"

    @property
    def before(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*(given.stage for given in self.inputs if given.stage), *self.after]))

    # -- as the program sees it -----------------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """The command: a digest of all it was given, as a file or a folder."""
        listed = "find {} ! -type d ! -name '*.skip' | LC_ALL=C sort | xargs cat"
        up = "" if self.cwd == "." else "../"
        read = [listed.replace("{}", up + self.source)]
        read += [listed.replace("{}", f"{{inputs.{given.name}}}") for given in self.inputs]
        read += [f"echo {{params.{name}}}" for name in self.params]
        if self.env:
            read.append('echo "$WORD"')
        digest = "sha256sum | cut -c1-12"
        if self.cut:
            digest = "sha256sum | cut -c1 | tr 0-9a-f 0000000011111111"
        main = "{outputs.o}/x" if self.folder else "{outputs.o}"
        steps = [f"echo {self.name} >> $HOME/ran"]
        if self.folder:
            steps.append("mkdir -p {outputs.o}/sub")
        steps.append(f"if grep -rqs FAIL {up}{self.source}; then echo half > {main}; exit 3; fi")
        steps.append(f"( {'; '.join(read)} ) | {digest} | sed 's/$/ {self.name}/' > {main}")
        if self.folder:
            steps.append(f"echo always {self.name} > {{outputs.o}}/sub/y && chmod +x {{outputs.o}}/sub/y")
            steps.append("ln -s sub/y {outputs.o}/l")
        if self.second:
            steps.append(f"( {'; '.join(read)} ) | wc -c | sed 's/^ *//; s/$/ {self.name}/' > {{outputs.extra}}")
        return "; ".join(steps)

    def table(self) -> str:
        lines = [f"[stage.{self.name}]", f'source = ["{self.source}"]', f"run = '''{self.run}'''"]
        if self.inputs:
            origins = [
                f'{given.name} = "{given.path if given.by_path or not given.stage else f"stage:{given.output}"}"'
                for given in self.inputs
            ]
            lines.append(f"inputs = {{ {', '.join(origins)} }}")
        if self.env:
            lines.append(f'env = {{ WORD = "{self.env}" }}')
        if self.hash_path:
            lines.append(f'hash-paths = ["{self.hash_path}"]')
        if self.after:
            lines.append(f"after = [{', '.join(f'{chr(34)}{name}{chr(34)}' for name in self.after)}]")
        if not self.sandbox:
            lines.append("sandbox = false")
        if self.cwd != ".":
            lines.append(f'cwd = "{self.cwd}"')
        lines.append(f"[stage.{self.name}.outputs]")
        for name, path in self.outputs.items():
            words = [f'path = "{path}"']
            if not self.cached(name):
                words.append("cache = false")
            if self.temp and name == "o":
                words.append("temp = true")
            lines.append(f"{name} = {{ {', '.join(words)} }}")
        return "\n".join(lines)

    # -- as the oracle sees it ------------------------------------------------------------------------------------

    def make(self, source: Content, inputs: list[Content], params: Mapping[str, object]) -> dict[str, Content]:
        """Return what each output is, of these."""
        data = b"".join(map(_text, [source, *inputs]))
        data += b"".join(f"{params[name]}\n".encode() for name in self.params)
        if self.env:
            data += f"{self.env}\n".encode()
        word = hashlib.sha256(data).hexdigest()[:12]
        if self.cut:
            word = "0" if word[0] in "01234567" else "1"
        main = f"{word} {self.name}\n".encode()
        made: dict[str, Content] = {"o": main}
        if self.folder:
            made["o"] = (
                ("l", "sub/y", False),
                ("sub/y", f"always {self.name}\n".encode(), True),
                ("x", main, False),
            )
        if self.second:
            made["extra"] = f"{len(data)} {self.name}\n".encode()
        return made


def _text(content: Content) -> bytes:
    """What `find | sort | xargs cat` prints of it."""
    if isinstance(content, bytes):
        return content
    assert isinstance(content, tuple)
    files = {path: data for path, data, _executable in content}

    def read(path: str) -> bytes:
        data = files[path]
        return read(os.path.normpath(os.path.join(os.path.dirname(path), data))) if isinstance(data, str) else data

    return b"".join(read(path) for path in sorted(files, key=os.fsencode))


@dataclass
class Graph:
    """Stages in topological order, and the params."""

    stages: dict[str, Spec] = field(default_factory=dict)
    params: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARAMS, 1))

    def toml(self) -> str:
        params = "\n".join(f"{name} = {value}" for name, value in self.params.items())
        tables = "\n\n".join(spec.table() for spec in self.stages.values())
        return f"[params]\n{params}\n\n{tables}\n"

    def copy(self) -> Graph:
        return Graph(dict(self.stages), dict(self.params))

    def readers(self, name: str) -> list[str]:
        return [other.name for other in self.stages.values() if name in other.before]

    def upstream(self, names: list[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.stages[name].before
        return found


def random_spec(rng: random.Random, name: str, graph: Graph, data: list[str]) -> Spec:
    """Return a stage that may read what the graph's stages make, and paths below data/."""
    inputs: dict[str, Given] = {}
    for number in range(rng.choice([0, 1, 1, 1, 2, 2, 3])):
        label = f"i{number}"
        if graph.stages and rng.random() < 0.7:
            maker = rng.choice(list(graph.stages.values()))
            output = rng.choice(list(maker.outputs))
            path = maker.outputs[output]
            if output == "o" and maker.folder and not maker.temp and rng.random() < 0.3:
                given = Given(label, f"{path}/{rng.choice(['x', 'sub'])}", maker.name, by_path=True)
            else:
                given = Given(label, path, maker.name, f"{maker.name}.{output}", by_path=rng.random() < 0.3)
        else:
            given = Given(label, rng.choice(data))
        if not any(_overlap(given.path, other.path) for other in inputs.values()):
            inputs[label] = given
    folder = rng.random() < 0.35
    cache = rng.random() < 0.8
    return Spec(
        name=name,
        inputs=tuple(inputs.values()),
        params=tuple(word for word in PARAMS if rng.random() < 0.25),
        folder=folder,
        cut=rng.random() < 0.4,
        cache=cache,
        temp=cache and rng.random() < 0.12,
        sandbox=rng.random() < 0.85,
        second=rng.random() < 0.2,
        env=rng.choice(["", "", "", "one", "two"]),
        hash_path=rng.choice(["", "", "", "", "notes.txt"]),
        after=(rng.choice(list(graph.stages)),) if graph.stages and rng.random() < 0.1 else (),
    )


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def rewired(rng: random.Random, spec: Spec, graph: Graph, data: list[str]) -> Spec:
    """Return the stage with one thing about it changed; it still reads earlier stages only."""
    earlier = Graph()
    for name, other in graph.stages.items():
        if name == spec.name:
            break
        earlier.stages[name] = other
    other = random_spec(rng, spec.name, earlier, data)
    what: Callable[[], Spec] = rng.choice(
        [
            lambda: replace(spec, inputs=other.inputs),
            lambda: replace(spec, params=other.params),
            lambda: replace(spec, cut=not spec.cut),
            lambda: replace(spec, env=other.env),
            lambda: replace(spec, sandbox=not spec.sandbox),
            lambda: replace(spec, hash_path=other.hash_path),
            lambda: replace(spec, after=other.after),
        ]
    )
    return what()
