"""The figures, one function each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from bench.containers import Load, bytes_sent, daemons, results_back, sending, trivial_stage
from bench.graphs import Shape, commit
from bench.histories import KINDS, History, lay_out_history
from bench.measure import Command, Figures, alternate, environment, run_once
from bench.tools import Tools

__all__ = ["GROUPS", "Growth", "Row", "Sizes", "growth_rows", "machine", "rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. bound, aim: what it should stay under. detail: the medians it was made from."""

    what: str
    value: float
    unit: str
    bound: float | None = None
    aim: float | None = None
    higher_is_better: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A no-op at one size. per: what `count` counts."""

    per: str
    shape: Shape
    count: int
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large and how often. peers: shapes for DVC and Snakemake; DVC's first build grows faster than linearly."""

    rounds: int
    no_ops: tuple[Shape, ...]
    peers: tuple[Shape, ...]
    many_stages: int
    trivial_stages: int
    large_file_bytes: int
    small_files: int
    commits: int
    sent_bytes: int
    sent_files: int
    growing_stages: tuple[int, ...]
    growing_files: tuple[int, ...]

    @staticmethod
    def full() -> Sizes:
        return Sizes(
            rounds=11,
            no_ops=(Shape(10, 10), Shape(100, 100), Shape(1000, 1), Shape(1, 100_000)),
            peers=(Shape(10, 10), Shape(100, 100), Shape(200, 1), Shape(1, 100_000)),
            many_stages=1000,
            trivial_stages=200,
            large_file_bytes=2 << 30,
            small_files=10_000,
            commits=1000,
            sent_bytes=100_000_000,
            sent_files=2_000,
            growing_stages=(250, 500, 1000),
            growing_files=(25_000, 50_000, 100_000),
        )

    @staticmethod
    def quick() -> Sizes:
        return Sizes(
            rounds=5,
            no_ops=(Shape(10, 10), Shape(100, 20), Shape(300, 1), Shape(1, 20_000)),
            peers=(Shape(10, 10),),
            many_stages=300,
            trivial_stages=50,
            large_file_bytes=256 << 20,
            small_files=2_000,
            commits=200,
            sent_bytes=20_000_000,
            sent_files=400,
            growing_stages=(75, 150, 300),
            growing_files=(5_000, 10_000, 20_000),
        )


def rows(tools: Tools, sizes: Sizes, only: Collection[str] = ()) -> Iterator[Row]:
    """Measure one figure after another, and give each as it is known. only: those of GROUPS, by name; empty: all."""
    for name, group in GROUPS.items():
        if not only or name in only:
            yield from group(tools, sizes)


def _ms(**figures: Figures) -> str:
    return ", ".join(f"{name} {found.median_ms:.1f} ms" for name, found in figures.items())


def _version(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    version = Command(args=[tools.pipe, "--version"], cwd=tools.work)
    found = alternate({"pipe": version, "python": tools.command("python", tools.work)}, rounds=2 * sizes.rounds)
    ratio = found["pipe"].ratio(found["python"])
    yield Row(
        what="`pipe --version` / `python -c pass`", value=ratio, unit="×", bound=2.5, aim=1.5, detail=_ms(**found)
    )


# shape of the bound: what it is measured against, bound, aim
_NO_OP_BOUNDS = {
    "few": ("python", 3.5, 2.0),
    "square": ("git", 4.0, 2.0),
    "stages": ("python", 8.0, 4.0),
    "files": ("git", 2.0, 1.0),
}


def _kind(shape: Shape) -> str:
    if shape.stages == 1:
        return "files"
    if shape.files == 1:
        return "stages"
    return "few" if shape.stages * shape.files <= 100 else "square"


def _no_ops(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    for shape in sizes.no_ops:
        yield from _no_op(tools, sizes, shape)


def _no_op(tools: Tools, sizes: Sizes, shape: Shape) -> Iterator[Row]:
    against, bound, aim = _NO_OP_BOUNDS[_kind(shape)]
    named = {"git": "git status", "python": "python -c pass"}[against]
    commands = {tool: tools.command(tool, tools.built(tool, shape)) for tool in ("pipe", "git", "ninja", "make")}
    commands["python"] = tools.command("python", tools.work)
    found = alternate(commands, rounds=sizes.rounds, warm_up=2)
    value = found["pipe"].ratio(found[against])
    yield Row(what=f"no-op, {shape} / `{named}`", value=value, unit="×", bound=bound, aim=aim, detail=_ms(**found))
    if _kind(shape) == "files":
        peak = found["pipe"].peak_bytes / 1e6
        yield Row(what=f"peak memory of a no-op, {shape}", value=peak, unit=" MB", bound=120, aim=60)
    for command in commands.values():
        if command.cwd != tools.work:
            shutil.rmtree(command.cwd)


def _one_change(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    """One source file of many stages changes: the build without what the command itself takes."""
    shape = Shape(sizes.many_stages, 1)
    repo = tools.built("pipe", shape)
    edits = iter(range(1000))

    def edit() -> None:
        (repo / "src/s7/f0").write_text(f"edit {next(edits)}\n")

    build = tools.command("pipe", repo)
    commands = {
        "pipe": Command(args=build.args, cwd=repo, before=edit),
        "command": Command(args=["/bin/sh", "-c", "cat src/s7/f0 > /dev/null"], cwd=repo),
        "python": tools.command("python", repo),
    }
    found = alternate(commands, rounds=sizes.rounds)
    own = Figures(
        [pipe - command for pipe, command in zip(found["pipe"].seconds, found["command"].seconds, strict=True)]
    )
    shutil.rmtree(repo)
    yield Row(
        what=f"one changed file among {shape.stages:,} stages, without its command / `python -c pass`",
        value=own.ratio(found["python"]),
        unit="×",
        bound=40,
        aim=20,
        detail=_ms(**found),
    )


def _trivial_stages(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    shape = Shape(sizes.trivial_stages, 1)
    repos = {tool: tools.built(tool, shape) for tool in ("pipe", "make", "ninja")}

    def touch() -> None:
        for name in shape.names():
            os.utime(repos["ninja"] / f"src/{name}/f0")

    commands = {
        "pipe": tools.command("pipe", repos["pipe"], "-j2", "--force", "-q"),
        "make": tools.command("make", repos["make"], "-B"),
        "ninja": Command(args=["ninja", "--quiet", "-j2"], cwd=repos["ninja"], before=touch),
    }
    found = alternate(commands, rounds=max(3, sizes.rounds // 2))
    for repo in repos.values():
        shutil.rmtree(repo)
    yield Row(
        what=f"a trivial stage, sandboxed and recorded: cost over make's ({shape.stages} stages, -j2)",
        value=(found["pipe"].median_ms - found["make"].median_ms) / shape.stages,
        unit=" ms",
        bound=12,
        aim=5,
        detail=_ms(**found),
    )


def _first_fingerprint(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    repo = tools.work / "large-file"
    shutil.rmtree(repo, ignore_errors=True)
    repo.mkdir()
    (repo / "pipeline.toml").write_text(
        '[stage.a]\nrun = "echo 1 > {outputs.o}"\ninputs = { large = "large.bin" }\noutputs = { o = "o.txt" }\n'
    )
    (repo / ".gitignore").write_text("/large.bin\n/o.txt\n")
    block = os.urandom(1 << 20)
    with open(repo / "large.bin", "wb") as file:
        for number in range(sizes.large_file_bytes >> 20):
            file.write(number.to_bytes(8, "little") + block[8:])
    commit(repo)
    run_once(tools.command("pipe", repo), environment())

    def forget() -> None:
        for path in (repo / ".git/pipe").iterdir():
            if path.is_dir() and path.name != "cache":
                shutil.rmtree(path)
            elif not path.is_dir():
                path.unlink()

    reference = "from blake3 import blake3; blake3(max_threads=blake3.AUTO).update_mmap('large.bin').hexdigest()"
    commands = {
        "pipe": Command(args=[tools.pipe, "status"], cwd=repo, before=forget),
        "blake3": Command(args=[tools.python, "-c", reference], cwd=repo),
    }
    found = alternate(commands, rounds=max(3, sizes.rounds // 2))
    shutil.rmtree(repo)
    yield Row(
        what=f"first fingerprint of {sizes.large_file_bytes / (1 << 30):g} GiB / the reference `blake3` call",
        value=found["pipe"].ratio(found["blake3"]),
        unit="×",
        bound=1.3,
        aim=1.1,
        detail=_ms(**found),
    )


def _restore(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    repo = tools.work / "small-files"
    shutil.rmtree(repo, ignore_errors=True)
    repo.mkdir()
    loop = f"mkdir {{outputs.o}} && cd {{outputs.o}} && for n in $(seq {sizes.small_files}); do echo $n > f$n; done"
    (repo / "pipeline.toml").write_text(f'[stage.a]\nrun = "{loop}"\noutputs = {{ o = "out" }}\n')
    (repo / ".gitignore").write_text("/out/\n/copy/\n")
    commit(repo)
    run_once(tools.command("pipe", repo), environment())

    def remove(name: str) -> None:
        shutil.rmtree(repo / name, ignore_errors=True)

    commands = {
        "pipe": Command(args=[tools.pipe, "build"], cwd=repo, before=lambda: remove("out")),
        "cp": Command(args=["cp", "-r", "out", "copy"], cwd=repo, before=lambda: remove("copy")),
    }
    found = alternate(commands, rounds=sizes.rounds)
    shutil.rmtree(repo)
    yield Row(
        what=f"restore of {sizes.small_files:,} small files / `cp -r`",
        value=found["pipe"].ratio(found["cp"]),
        unit="×",
        bound=3,
        aim=1.5,
        detail=_ms(**found),
    )


def _peers(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    if tools.peers is not None:
        for shape in sizes.peers:
            yield from _peer(tools, sizes, shape)


def _peer(tools: Tools, sizes: Sizes, shape: Shape) -> Iterator[Row]:
    commands = {tool: tools.command(tool, tools.built(tool, shape)) for tool in ("pipe", "dvc", "snakemake")}
    found = alternate(commands, rounds=3)
    for peer, name in (("dvc", "dvc repro"), ("snakemake", "snakemake")):
        yield Row(
            what=f"no-op, {shape}: `{name}` / `pipe build`",
            value=found[peer].ratio(found["pipe"]),
            unit="×",
            bound=10,
            aim=30,
            higher_is_better=True,
            detail=_ms(pipe=found["pipe"], **{peer: found[peer]}),
        )
    for command in commands.values():
        shutil.rmtree(command.cwd)


def _ranges(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    """Commits judged without checking them out: long ranges of every kind, and one."""
    for kind, what in KINDS.items():
        yield from _range(tools, sizes, kind, what)
    wide = lay_out_history(tools.work, History(stages=100, commits=10, files=100))
    commands = {
        "pipe": Command(args=[tools.pipe, "status", "--rev", "HEAD", "--check"], cwd=wide, good=(0, 1)),
        "git": Command(args=["git", "status"], cwd=wide),
    }
    found = alternate(commands, rounds=sizes.rounds)
    shutil.rmtree(wide)
    yield Row(
        what="`pipe status --rev HEAD --check`, 100 × 100 / `git status`",
        value=found["pipe"].ratio(found["git"]),
        unit="×",
        bound=5,
        aim=3,
        detail=_ms(**found),
    )


def _range(tools: Tools, sizes: Sizes, kind: str, what: str) -> Iterator[Row]:
    """A range that was never asked about, and once more."""
    long = lay_out_history(tools.work, History(stages=100, commits=sizes.commits, kind=kind))
    root = subprocess.run(["git", "rev-list", "--max-parents=0", "main"], cwd=long, capture_output=True, check=True)
    span = f"{root.stdout.decode().strip()}..main"
    told = Command(args=[tools.pipe, "status", "--rev", span], cwd=long)
    commands = {
        "pipe": replace(told, before=lambda: shutil.rmtree(long / ".git/pipe", ignore_errors=True)),
        "again": told,
        "log": Command(args=["git", "log", "--stat", span], cwd=long),
    }
    found = alternate(commands, rounds=max(3, sizes.rounds // 2))
    shutil.rmtree(long)
    for name, how in (("pipe", "first time"), ("again", "once more")):
        yield Row(
            what=f"`pipe status --rev A..B`, {sizes.commits:,} commits of 100 stages that change {what}, {how} / "
            "`git log --stat A..B`",
            value=found[name].ratio(found["log"]),
            unit="×",
            bound=3,
            aim=1.5,
            detail=_ms(**found),
        )


def _push(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    """A push of a commit that was just built and committed, and of one that was pushed before: what the gate takes."""
    shape = sizes.no_ops[1]
    repo = tools.built("pipe", shape)
    lines = tools.work / "push-lines"
    numbers = iter(range(1000))

    def told() -> str:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repo, capture_output=True, text=True, check=True)
        return f"refs/heads/main {head.stdout.strip()} refs/heads/main {'0' * 40}\n"

    def change() -> None:
        (repo / "src/s7/f0").write_text(f"edit {next(numbers)}\n")
        run_once(tools.command("pipe", repo), environment())
        commit(repo)
        lines.write_text(told())

    gate = ["/bin/sh", "-c", f'exec "{tools.pipe}" hooks run pre-push origin url < "{lines}"']
    clone = tools.work / "fresh-clone"

    def fresh() -> None:
        shutil.rmtree(clone, ignore_errors=True)
        subprocess.run(["git", "clone", "-q", str(repo), str(clone)], check=True)

    fresh()
    commands = {
        "pipe": Command(args=gate, cwd=repo, before=change),
        "again": Command(args=gate, cwd=repo),
        "first": Command(args=gate, cwd=clone, before=fresh),
        "git": tools.command("git", repo),
    }
    found = alternate(commands, rounds=sizes.rounds)
    shutil.rmtree(repo)
    shutil.rmtree(clone)
    for name, what in (
        ("pipe", "a new commit is pushed"),
        ("again", "a commit is pushed once more"),
        ("first", "a fresh clone's first push"),
    ):
        value = found[name].ratio(found["git"])
        yield Row(what=f"{what}, {shape} / `git status`", value=value, unit="×", bound=5, aim=3, detail=_ms(**found))


def _containers(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    """Stages in containers, against what `docker` does with the same image and bytes."""
    load = Load(bytes=sizes.sent_bytes, files=sizes.sent_files)
    rounds = max(3, sizes.rounds // 2)
    with daemons(tools.work) as found:
        if found is None:
            return
        figures = trivial_stage(tools, found, sizes.rounds)
        ratio = figures["pipe"].ratio(figures["docker run"])
        yield Row(
            what="a trivial stage in a container, as a whole command / a bare `docker run` of its image",
            value=ratio,
            unit="×",
            bound=1.3,
            detail=_ms(**figures),
        )
        figures = sending(tools, found, load, rounds)
        yield Row(
            what=f"{load} of inputs to a daemon over TLS: cost over a build that sends none / `docker cp`",
            value=figures["first"].over(figures["again"]).ratio(figures["docker cp"]),
            unit="×",
            bound=1.2,
            detail=_ms(**figures),
        )
        sent = bytes_sent(tools, found, load)
        yield Row(
            what="bytes sent by a second stage with the same inputs / by the first",
            value=sent.second / sent.first,
            unit="×",
            bound=0.01,
            detail=f"{sent.first:,} and {sent.second:,} bytes",
        )
        figures = results_back(tools, found, load, rounds)
        yield Row(
            what=f"{load} of results back, verified and placed: cost over a build that brings none / `docker cp`",
            value=figures["out"].over(figures["kept"]).ratio(figures["docker cp"]),
            unit="×",
            bound=1.2,
            detail=_ms(**figures),
        )


_DEBOUNCE_S = 0.1  # what `pipe watch` waits after a save, if it is not told otherwise


def _watch(tools: Tools, sizes: Sizes) -> Iterator[Row]:
    """From a save to the line that says that its stage runs, without the time that the watch waits for more saves."""
    shape = sizes.no_ops[1]
    repo = tools.built("pipe", shape)
    took = []
    with subprocess.Popen(
        [tools.pipe, "watch"], cwd=repo, env=environment(), stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        _until(watching.stdout, "waiting")
        for number in range(2 + 2 * sizes.rounds):
            time.sleep(0.5)
            began = time.perf_counter()
            (repo / f"src/s{number}/f0").write_text(f"save {number}\n")
            _until(watching.stdout, "run ")
            took.append(time.perf_counter() - began - _DEBOUNCE_S)
            _until(watching.stdout, "waiting")
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
    shutil.rmtree(repo)
    found = Figures(took[2:])
    yield Row(
        what=f"`pipe watch`, {shape}: from a save to the start of its stage, over the debounce",
        value=found.median_ms,
        unit=" ms",
        bound=150,
        aim=75,
        detail=f"{min(found.seconds) * 1000:.0f} to {max(found.seconds) * 1000:.0f} ms",
    )


def _until(lines: IO[str], word: str) -> None:
    for line in lines:
        if line.startswith(word):
            return
    sys.exit(f"bench: `pipe watch` ended without a line `{word}…`")


GROUPS: dict[str, Callable[[Tools, Sizes], Iterator[Row]]] = {
    "version": _version,
    "no-op": _no_ops,
    "one-change": _one_change,
    "trivial": _trivial_stages,
    "fingerprint": _first_fingerprint,
    "restore": _restore,
    "push": _push,
    "ranges": _ranges,
    "watch": _watch,
    "containers": _containers,
    "peers": _peers,
}


def growth_rows(tools: Tools, sizes: Sizes) -> Iterator[Growth]:
    """Measure no-ops at three sizes each, in stages and in files."""
    groups = {
        "stage": [Shape(count, 1) for count in sizes.growing_stages],
        "file": [Shape(1, count) for count in sizes.growing_files],
    }
    for per, shapes in groups.items():
        repos = {str(shape): tools.built("pipe", shape) for shape in shapes}
        commands = {name: tools.command("pipe", repo) for name, repo in repos.items()}
        found = alternate(commands, rounds=sizes.rounds, warm_up=2)
        for shape in shapes:
            count = shape.stages if per == "stage" else shape.files
            yield Growth(per=per, shape=shape, count=count, milliseconds=found[str(shape)].median_ms)
        for repo in repos.values():
            shutil.rmtree(repo)


def machine() -> str:
    """Return what the figures were measured on, in a line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{os.cpu_count()} cores ({model}), {os.uname().sysname} {os.uname().release.partition('-')[0]}, {git}"
