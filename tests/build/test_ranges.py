"""`pipe status --rev A..B`: a line a commit, each judged by its own pipeline and lockfile."""

from __future__ import annotations

import json

import pytest


def lines(repo, rev: str, *more: str, code: int = 0) -> list[str]:
    done = repo.pipe("status", "--rev", rev, *more, check=False)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def short(repo, rev: str) -> str:
    return repo.git("rev-parse", "--short", rev).stdout.strip()


def test_a_line_a_commit(repo, chain) -> None:
    """Short id, what is not fresh, subject; the oldest first. --check fails if one is stale."""
    first = repo.commit("no lock")
    repo.pipe("build")
    second = repo.commit("built")
    third = repo.commit("nothing")
    told = repo.pipe("status", "--rev", f"{first}..HEAD", "--check", "--json").json()["commits"]
    assert [entry["revision"] for entry in told] == [second, third]
    assert {stage["state"] for entry in told for stage in entry["stages"]} == {"fresh"}
    repo.write("a.txt", "2x")
    stale = repo.commit("stale")
    repo.pipe("build")
    mended = repo.commit("mended: again")
    assert lines(repo, "HEAD~1..HEAD", "--check") == [f"{short(repo, mended)} fresh  mended: again"]
    expected = [
        f"{short(repo, stale)} stale: a (source a.txt), 2 pending  stale",
        f"{short(repo, mended)} fresh  mended: again",
    ]
    assert lines(repo, f"{third}..main") == expected
    assert lines(repo, f"{third}..main", "--check", code=1) == expected
    assert lines(repo, "HEAD..HEAD", "--check") == ["no commits"]
    assert repo.pipe("status", "--rev", "HEAD..HEAD", "--json").json() == {"commits": []}


def test_an_empty_side_is_head(repo, chain) -> None:
    repo.commit("first")
    repo.git("branch", "old")
    repo.pipe("build")
    repo.commit("second")
    assert [line.split("  ")[1] for line in lines(repo, "old..")] == ["second"]
    assert lines(repo, "..old") == ["no commits"]
    repo.git("checkout", "-q", "old")
    assert [line.split("  ")[1] for line in lines(repo, "..main")] == ["second"]


@pytest.mark.parametrize("rev", ["nope..HEAD", "HEAD..nope", "HEAD...HEAD", "A..B..C", "HEAD..HEAD..HEAD", "--x..HEAD"])
def test_ranges_that_are_none(repo, chain, rev: str) -> None:
    """Wrong use: exit 2, one document for programs."""
    repo.commit()
    done = repo.pipe("status", f"--rev={rev}", "--json", check=False)
    assert done.returncode == 2 and done.json()["error"]["kind"] == "user"


def test_names(repo, chain) -> None:
    """Only these stages are told of; a commit that has none of them has no states. A name that no commit has is wrong."""
    first = repo.commit("no lock")
    repo.pipe("build")
    repo.write("a.txt", "2x")
    stale = repo.commit("stale")
    repo.write("pipeline.toml", repo.read("pipeline.toml") + '[stage.late]\nrun = "true"\n')
    late = repo.commit("late")
    told = repo.pipe("status", "late", "--rev", f"{first}..HEAD", "--json").json()["commits"]
    assert [(entry["revision"], [stage["name"] for stage in entry["stages"]]) for entry in told] == [
        (stale, []),
        (late, ["late"]),
    ]
    assert lines(repo, f"{first}..HEAD~1", "out/b", "--check", code=1) == [
        f"{short(repo, stale)} stale: 1 pending  stale"
    ]
    done = repo.pipe("status", "nothing", "--rev", f"{first}..HEAD", "--json", check=False)
    assert done.returncode == 2 and "no stage `nothing`" in done.json()["error"]["messages"][0]["text"]


def test_commits_without_a_pipeline_are_left_out(repo, toml) -> None:
    start = repo.commit("empty")
    repo.write("x", "x")
    repo.commit("still none")
    toml("""
        [stage.a]
        run = "true"
    """)
    added = repo.commit("added")
    repo.git("rm", "-q", "pipeline.toml")
    repo.commit("removed")
    toml("""
        [stage.a]
        run = "false"
    """)
    again = repo.commit("again")
    told = repo.pipe("status", "--rev", f"{start}..HEAD", "--json").json()["commits"]
    assert [entry["revision"] for entry in told] == [added, again]
    assert told[0]["stages"][0]["fingerprint"] != told[1]["stages"][0]["fingerprint"]


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("pipeline.toml", "[stage.a]\nrnu = 1\n", "pipeline.toml:1: stage.a: has no `run` (and 1 more)"),
        ("pipeline.toml", "broken = [", "pipeline.toml:"),
        ("pipeline.toml", b"\xff\n", "pipeline.toml:1: is not UTF-8"),
        ("pipe.lock", "<<<<<<< ours\n=======\n>>>>>>> theirs\n", "pipe.lock:1: has conflict markers"),
        ("pipe.lock", "version = 99\n", "is of version 99"),
        ("pipe.lock", b"\xff\n", "is not UTF-8"),
    ],
)
def test_a_broken_commit_has_a_line_that_says_so(repo, chain, path: str, text: str | bytes, says: str) -> None:
    """It doesn't end the range; --check exits with 1, and for programs it has an error."""
    repo.pipe("build")
    start = repo.commit("built")
    good = repo.read(path)
    repo.write(path, text)
    broken = repo.commit("broken")
    repo.write(path, good)
    mended = repo.commit("mended")
    told = lines(repo, f"{start}..HEAD")
    assert told == lines(repo, f"{start}..HEAD", "--check", code=1)
    assert told[0].startswith(f"{short(repo, broken)} error: ") and says in told[0] and told[0].endswith("  broken")
    assert told[1] == f"{short(repo, mended)} fresh  mended"
    done = repo.pipe("status", "--rev", f"{start}..HEAD", "--json")
    first, second = done.json()["commits"]
    assert first["stages"] == [] and first["error"]["messages"][0]["text"]
    assert "error" not in second
    assert done.stdout == json.dumps(done.json(), indent=2) + "\n"


def test_many_reasons_fit_into_a_line(repo, toml) -> None:
    start = repo.commit("start")
    toml("".join(f'[stage.s{n}]\nrun = "true"\n' for n in range(6)))
    commit = repo.commit("six")
    assert lines(repo, f"{start}..") == [
        f"{short(repo, commit)} stale: s0 (never built), s1 (never built), s2 (never built), 3 more  six"
    ]


def test_a_range_says_what_each_commit_says(repo, chain) -> None:
    """Branches, merges, reverts and renames: each commit as if it were asked for alone."""
    start = repo.commit("start")
    repo.pipe("build")
    repo.commit("built")
    repo.git("checkout", "-qb", "side")
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace("stage.b]", "stage.z]"))
    repo.commit("renamed")
    repo.write(".pipeignore", "a.txt\n")
    repo.commit("ignored")
    repo.git("checkout", "-q", "main")
    repo.write("a.txt", "2x")
    repo.commit("stale")
    repo.git("revert", "--no-edit", "HEAD")
    repo.write("a.txt", "1x", executable=True)
    repo.commit("mode")
    repo.git("merge", "-q", "--no-edit", "side")
    repo.git("rm", "-q", ".pipeignore")
    repo.commit("not ignored")
    told = repo.pipe("status", "--rev", f"{start}..HEAD", "--json").json()["commits"]
    assert len(told) == 8
    alone = [repo.pipe("status", "--rev", entry["revision"], "--json").json() for entry in told]
    assert told == alone
    assert {entry["state"] for commit in told for entry in commit["stages"]} == {"fresh", "stale", "pending"}


def test_a_broken_expectation_is_named(repo, toml) -> None:
    repo.commit("start")
    toml("""
        [stage.a]
        run = "echo '{{\\"auc\\": 0.5}}' > {outputs.m}"
        metrics = ["m"]
        outputs = { m = "m.json" }
    """)
    repo.pipe("build")
    repo.commit("good")
    repo.write("pipeline.toml", repo.read("pipeline.toml") + '[stage.a.expect]\n"m:auc" = { min = 0.9 }\n')
    commit = repo.commit("too much")
    assert lines(repo, "HEAD~1..", "--check", code=1) == [
        f"{short(repo, commit)} broken: `m:auc` is 0.5, expected at least 0.9  too much"
    ]
