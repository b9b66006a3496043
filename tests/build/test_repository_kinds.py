"""Every kind of repository that git has: what `status`, `build` and `status --rev` say there is right, or said not to be
known. docs/repositories.md has a row for each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.conftest import Repo

ALLOW = ("-c", "protocol.file.allow=always")

TEXT = """
    [stage.a]
    source = "src/a"
    run = "NOTE(a) && cat src/a/* {inputs.d} > {outputs.o}"
    inputs = { d = "data/x" }
    outputs = { o = "out/a" }
    [stage.b]
    run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
    inputs = { i = "stage:a.o" }
    outputs = { o = { path = "kept/b", cache = false } }
"""
FRESH = {"a": "fresh", "b": "fresh"}


@pytest.fixture
def built(repo, toml) -> Repo:
    """A repository with two stages, built and committed, and one more commit that makes them stale."""
    repo.write("src/a/main", "main\n")
    repo.write("data/x", "x\n")
    repo.write("other/y", "y\n")
    toml(TEXT)
    repo.pipe("build")
    repo.ran()
    repo.commit("built")
    repo.git("tag", "built")
    repo.write("src/a/main", "changed\n")
    repo.commit("changed")
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    return repo


def states(repo: Repo, rev: str | None = None) -> dict[str, str]:
    return repo.pipe("status", *(("--rev", rev) if rev else ()), "--json").stages(key="state")


def keys(repo: Repo, rev: str | None = None) -> dict[str, str]:
    return repo.pipe("status", *(("--rev", rev) if rev else ()), "--json").stages(key="fingerprint")


def refused(repo: Repo, *args: str, code: int) -> str:
    """Return what a command that must fail with this code says, on one line and its help line."""
    done = repo.pipe(*args, check=False)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stderr


def cloned(repo: Repo, name: str, *options: str) -> Repo:
    target = repo.path.parent / name
    repo.git("clone", "-q", *options, f"file://{repo.path}", str(target))
    return Repo(target, repo.home)


def builds_like(repo: Repo, expected: dict[str, str]) -> None:
    """The work tree is stale, is built, and is then fresh with these fingerprints, at the commit of it as well."""
    assert states(repo)["a"] == "stale"
    repo.pipe("build")
    assert repo.ran() == ["a", "b"]
    assert states(repo) == FRESH
    assert keys(repo) == expected
    repo.commit("built here")
    assert states(repo, "HEAD") == FRESH and keys(repo, "HEAD") == expected


@pytest.fixture
def expected(built) -> dict[str, str]:
    """The fingerprints that a build of the last commit has, found in a plain clone."""
    plain = cloned(built, "plain")
    plain.pipe("build")
    plain.ran()
    return keys(plain)


# -- clones that lack something ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["blob:none", "tree:0"])
def test_partial_clone(built, expected, what: str) -> None:
    """What is missing is fetched by git when it is asked for."""
    clone = cloned(built, "partial", f"--filter={what}")
    assert states(clone, "built") == FRESH
    assert states(clone, "HEAD") == {"a": "stale", "b": "pending"}
    assert clone.pipe("status", "--rev", "built..HEAD", "--json").json()["commits"][0]["stages"][0]["state"] == "stale"
    builds_like(clone, expected)


@pytest.mark.parametrize(("what", "named"), [("blob:none", "pipeline.toml"), ("tree:0", "tree")])
def test_partial_clone_whose_remote_is_gone(built, what: str, named: str) -> None:
    """What can't be had is named: exit 1. Nothing is guessed."""
    clone = cloned(built, "partial", f"--filter={what}", "-n")
    built.path.rename(built.path.parent / "elsewhere")
    said = refused(clone, "-C", ".", "status", "--rev", "built", code=1) if clone.exists("pipeline.toml") else ""
    clone.write("pipeline.toml", "[stage.x]\nrun = 'true'\n")
    said = refused(clone, "status", "--rev", "built", code=1)
    assert "can't be read: could not fetch" in said and "partial clone" in said
    if what == "blob:none":
        assert f"`{named}`" in said
    done = clone.pipe("status", "--rev", "built..HEAD", check=False)
    assert done.returncode == 1 and "error: " in done.stdout and "could not fetch" in done.stdout
    document = clone.pipe("status", "--rev", "built", "--json", check=False).json()
    assert document["error"]["kind"] == "environment"


def test_shallow_clone(built, expected) -> None:
    """Its commits are judged as everywhere; a range that it does not hold is said not to be known."""
    clone = cloned(built, "shallow", "--depth=1")
    assert states(clone, "HEAD") == {"a": "stale", "b": "pending"}
    assert "not a revision" in refused(clone, "status", "--rev", "HEAD~1..HEAD", code=2)
    assert clone.pipe("status", "--rev", "HEAD..HEAD", "--check").stdout == "no commits\n"
    builds_like(clone, expected)
    assert states(clone, "HEAD") == FRESH
    assert clone.pipe("status", "--rev", "HEAD~1..HEAD", "--check").returncode == 0
    clone.git("fetch", "-q", "--depth=1", "origin", "tag", "built")
    said = refused(clone, "status", "--rev", "built..HEAD", code=1)
    assert "shallow clone" in said and "git fetch --unshallow" in said
    clone.git("fetch", "-q", "--unshallow")
    assert len(clone.pipe("status", "--rev", "built..HEAD").stdout.splitlines()) == 2


def test_alternates_and_reference(built, expected) -> None:
    shared = cloned(built, "shared", "--reference", str(built.path))
    local = Repo(built.path.parent / "local", built.home)
    built.git("clone", "-q", "-s", str(built.path), str(local.path))
    for clone in (shared, local):
        assert (clone.path / ".git/objects/info/alternates").exists()
        assert states(clone, "built") == FRESH
        builds_like(clone, expected)


@pytest.mark.parametrize("how", [("gc", "-q"), ("repack", "-adq"), ("unpack",)])
def test_packed_and_loose(built, how: tuple[str, ...]) -> None:
    before = keys(built, "built"), keys(built, "HEAD")
    if how == ("unpack",):
        built.git("repack", "-adq")
        packs = [path.rename(built.home / path.name) for path in (built.path / ".git/objects/pack").glob("*.pack")]
        for pack in packs:
            built.run("sh", "-c", f"git unpack-objects -q < {pack}")
    else:
        built.git(*how)
        built.git("pack-refs", "--all")
    assert (keys(built, "built"), keys(built, "HEAD")) == before
    assert states(built, "built") == FRESH


# -- where nothing is checked out -------------------------------------------------------------------------------------


def test_bare(built) -> None:
    """`status --rev` is all that a bare repository is asked: from inside it, and with -C."""
    bare = cloned(built, "bare.git", "--bare")
    expected = keys(built, "built")
    assert states(bare, "built") == FRESH
    assert keys(bare, "built") == expected
    assert built.pipe("-C", str(bare.path), "status", "--rev", "built", "--json").stages(key="fingerprint") == expected
    assert bare.pipe("-C", "refs", "status", "--rev", "built", "--json").stages(key="fingerprint") == expected
    assert bare.pipe("status", "--rev", "built", "--check").returncode == 0
    assert bare.pipe("status", "--rev", "HEAD", "--check", check=False).returncode == 1
    assert len(bare.pipe("status", "--rev", "built~0..", "--json").json()["commits"]) == 1
    for args in (["status"], ["build"]):
        assert "bare" in refused(bare, *args, code=2)
    assert "not a revision" in refused(bare, "status", "--rev", "nope", code=2)


def test_worktree_of_a_bare_repository(built, expected) -> None:
    bare = cloned(built, "bare.git", "--bare")
    bare.git("worktree", "add", "-q", "-b", "work", str(built.path.parent / "tree"))
    builds_like(Repo(built.path.parent / "tree", built.home), expected)
    assert states(bare, "work") == FRESH


def test_workspaces_of_a_bare_repository(repo, toml) -> None:
    """The one at the revision; of more, the one at the top or the one that is named."""
    for name in ("one", "two"):
        repo.write(f"team/{name}/pipeline.toml", f"[stage.{name}]\nsource = '.'\nrun = 'true'\n")
        repo.commit(name)
    bare = cloned(repo, "bare.git", "--bare")
    assert states(bare, "main~1") == {"one": "stale"}
    said = refused(bare, "status", "--rev", "main", code=2)
    assert "there are 2 pipelines" in said and "`main:team/one`, `main:team/two`" in said
    assert states(bare, "main:team/two") == {"two": "stale"}
    assert states(bare, "main:team/one/") == {"one": "stale"}
    told = bare.pipe("status", "--rev", "main~1..main:team/two", "--json").json()["commits"]
    assert [[stage["name"] for stage in commit["stages"]] for commit in told] == [["two"]]
    assert "`main:team/one`" in refused(bare, "status", "--rev", "main:team", code=2)
    toml("[stage.top]\nrun = 'true'\n")
    repo.commit("top")
    bare.git("fetch", "-q", "origin", "main:main")
    assert states(bare, "main") == {"top": "stale"}
    assert states(bare, "main:") == {"top": "stale"}
    inner = Repo(repo.path / "team/two", repo.home)
    assert keys(bare, "main:team/two") == keys(inner, "HEAD") == keys(inner)


def test_linked_worktree(built, expected) -> None:
    tree = built.worktree()
    builds_like(tree, expected)
    tree.write("src/a/main", "dirt\n")
    assert states(tree)["a"] == "stale"
    assert states(tree, "HEAD") == FRESH
    assert states(built, "HEAD") == {"a": "stale", "b": "pending"}


# -- object formats, links between objects ----------------------------------------------------------------------------


def test_sha256(built, expected, toml) -> None:
    other = Repo(built.path.parent / "sha256", built.home)
    other.path.mkdir()
    other.git("init", "-q", "-b", "main", "--object-format=sha256")
    for path in ("src", "data", "other", "pipeline.toml"):
        built.run("cp", "-r", str(built.path / path), str(other.path / path))
    start = other.commit("start")
    builds_like(other, keys(other) | {"b": expected["b"]})
    assert len(start) == 64
    assert len(other.pipe("status", "--rev", f"{start}..HEAD", "--check").stdout.splitlines()) == 1


def test_replaced_commits(built) -> None:
    """As with `git checkout`: a replaced commit has the tree of the one that stands for it, unless git is told not to."""
    stale = built.git("rev-parse", "HEAD").stdout.strip()
    built.git("replace", "HEAD", "built")
    assert states(built, stale) == FRESH
    assert states(cloned(built, "clone"), stale) == {"a": "stale", "b": "pending"}
    env = {"GIT_NO_REPLACE_OBJECTS": "1"}
    assert built.pipe("status", "--rev", stale, "--json", env=env).stages(key="state") == {"a": "stale", "b": "pending"}
    assert states(built, stale) == FRESH


def test_replaced_blobs_leave_no_trace(built) -> None:
    """What stands for a blob is believed as long as it does: nothing of it is remembered."""
    built.write("data/z", "other content\n")
    built.write("pipeline.toml", built.read("pipeline.toml").replace('"data/x"', '"data/z"'))
    built.commit("z")
    true = keys(built, "HEAD")
    shutil.rmtree(built.pipe_dir)
    built.git(
        "replace",
        built.git("rev-parse", "HEAD:data/z").stdout.strip(),
        built.git("rev-parse", "HEAD:other/y").stdout.strip(),
    )
    assert keys(built, "HEAD") != true
    built.git("replace", "-d", built.git("rev-parse", "HEAD:data/z").stdout.strip())
    assert keys(built, "HEAD") == true


def test_grafts(built) -> None:
    """History that begins later, by `git replace --graft`: a range is what git says it is."""
    for number in range(3):
        built.write("other/y", f"{number}\n")
        built.commit(f"more {number}")
    assert len(built.pipe("status", "--rev", "built..HEAD").stdout.splitlines()) == 4
    built.git("replace", "--graft", "HEAD~1", "built")
    assert len(built.pipe("status", "--rev", "built..HEAD").stdout.splitlines()) == 2


# -- what is left out of a work tree ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [["--cone"], ["--cone", "--sparse-index"], ["--no-cone"]])
def test_sparse_checkout(built, expected, how: list[str]) -> None:
    """What is left out counts as it stands in the index; a commit is all there."""
    clone = cloned(built, "sparse")
    clone.git("sparse-checkout", "set", *how, *(["src", "data"] if "--cone" in how else ["/*", "!/other/"]))
    assert not clone.exists("other/y") and clone.exists("src/a/main")
    assert states(clone, "built") == FRESH
    before = keys(clone)["a"], keys(clone, "HEAD")["a"]
    assert before[0] == before[1] == expected["a"]
    clone.write("pipeline.toml", clone.read("pipeline.toml").replace('source = "src/a"', 'source = ["src/a", "other"]'))
    clone.git("commit", "-qam", "other counts")
    assert keys(clone)["a"] == keys(clone, "HEAD")["a"] != expected["a"]


def test_sparse_checkout_without_what_a_stage_needs(built) -> None:
    """A stage whose source or input is left out can't be built there, which is said; it is judged all the same."""
    clone = cloned(built, "sparse")
    clone.git("sparse-checkout", "set", "--no-cone", "/*", "!/data/", "!/src/")
    before = keys(built)["a"]
    assert keys(clone)["a"] == keys(clone, "HEAD")["a"] == before
    done = clone.pipe("build", check=False)
    assert done.returncode == 1
    assert "the sparse checkout leaves it out" in done.stdout and "git sparse-checkout add" in done.stdout
    assert clone.ran() == []
    clone.git("sparse-checkout", "add", "/src/")
    done = clone.pipe("build", check=False)
    assert done.returncode == 1
    assert "`data/x` belongs to the input `data/x`" in done.stdout and "git sparse-checkout add data" in done.stdout
    clone.git("sparse-checkout", "disable")
    clone.pipe("build")
    assert clone.ran() == ["a", "b"] and keys(clone)["a"] == before


def test_sparse_checkout_of_a_part_of_an_input(built) -> None:
    """A folder of which some is left out counts as a whole; fresh stages stay fresh, again and again."""
    built.write("data/deep/y", "y\n", executable=True)
    os.symlink("y", built.path / "data/deep/link")
    built.write(
        "pipeline.toml", built.read("pipeline.toml").replace('"data/x"', '"data"').replace("{inputs.d}", "data/x")
    )
    built.pipe("build")
    built.commit("a folder")
    clone = cloned(built, "sparse")
    clone.git("sparse-checkout", "set", "--no-cone", "/*", "!/data/deep/")
    for _look in range(2):
        assert keys(clone)["a"] == keys(built)["a"] == keys(built, "HEAD")["a"]
    clone.git("sparse-checkout", "set", "--no-cone", "/*", "!/data/")
    assert keys(clone)["a"] == keys(built)["a"]
    shutil.copytree(built.path / "out", clone.path / "out")
    for _look in range(2):
        assert states(clone) == FRESH
        assert clone.pipe("build", "--json").json()["status"] == "up-to-date"


def test_sparse_checkout_of_a_part_of_a_source(built) -> None:
    """A source of which some is left out is judged, and fresh is answered as fresh, again and again."""
    built.write("src/a/deep/y", "y\n")
    built.write("pipeline.toml", built.read("pipeline.toml").replace("cat src/a/*", "cat src/a/main"))
    built.pipe("build")
    built.commit("a source")
    built.ran()
    built.git("sparse-checkout", "set", "--no-cone", "/*", "!/src/a/deep/")
    for _look in range(2):
        assert states(built) == FRESH
        assert built.pipe("build", "--json").json()["status"] == "up-to-date"
    assert built.ran() == []
    built.git("sparse-checkout", "disable")
    built.write("src/a/deep/y", "other\n")
    built.commit("changed where it was left out")
    built.git("sparse-checkout", "set", "--no-cone", "/*", "!/src/a/deep/")
    assert states(built)["a"] == "stale"


# -- repositories in repositories -------------------------------------------------------------------------------------


@pytest.fixture
def nested(repo, make_repo, toml) -> Repo:
    """A stage whose source holds a submodule, which has one of its own."""
    deep = make_repo("deep")
    deep.write("d", "deep\n")
    deep.commit()
    sub = make_repo("sub")
    sub.write("s", "sub\n")
    sub.git(*ALLOW, "submodule", "add", "-q", str(deep.path), "deep")
    sub.commit()
    repo.write("lib/own", "own\n")
    repo.git(*ALLOW, "submodule", "add", "-q", str(sub.path), "lib/sub")
    repo.git(*ALLOW, "submodule", "update", "-q", "--init", "--recursive")
    toml("""
        [stage.a]
        source = "lib"
        run = "NOTE(a) && cat lib/own lib/sub/s lib/sub/deep/d > {outputs.o}"
        outputs = { o = "o" }
        [stage.b]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "lib/sub/s" }
        outputs = { o = "p" }
    """)
    repo.pipe("build")
    repo.ran()
    repo.commit("built")
    return repo


def test_submodules(nested) -> None:
    """They count by their trees: checked out, dirty, at another commit, and in a clone."""
    assert states(nested) == states(nested, "HEAD") == FRESH
    clone = Repo(nested.path.parent / "clone", nested.home)
    nested.git(*ALLOW, "clone", "-q", "--recurse-submodules", str(nested.path), str(clone.path))
    assert states(clone, "HEAD") == FRESH
    clone.pipe("build")
    assert clone.ran() == ["a", "b"]
    assert keys(clone) == keys(nested)
    nested.write("lib/sub/s", "dirty\n")
    assert states(nested) == {"a": "stale", "b": "stale"}
    assert states(nested, "HEAD") == FRESH
    nested.run("git", "-C", "lib/sub", "commit", "-qam", "moved on")
    assert states(nested, "HEAD") == FRESH
    nested.commit("bump")
    assert states(nested, "HEAD") == {"a": "stale", "b": "stale"}
    assert keys(nested, "HEAD") == keys(nested)
    told = nested.pipe("status", "--rev", "HEAD~1..HEAD", "--json").json()["commits"]
    assert [stage["state"] for stage in told[0]["stages"]] == ["stale", "stale"]


def test_submodules_that_are_not_here(nested) -> None:
    """What can't be known is said, with the submodule's path; stages that don't need it are judged."""
    clone = nested.clone()
    done = clone.pipe("status", "--rev", "HEAD", "--check", "--json", check=False)
    assert done.returncode == 1
    assert all("lib/sub" in entry["problems"][0]["text"] for entry in done.json()["stages"])
    assert done.stages(key="state") == {"a": "stale", "b": "stale"}
    bare = cloned(nested, "bare.git", "--bare")
    assert "lib/sub" in bare.pipe("status", "--rev", "HEAD").stdout
    said = refused(clone, "build", code=2)
    assert "submodule `lib/sub` is not checked out" in said and "git submodule update --init" in said
    clone.write("pipeline.toml", "[stage.c]\nsource = 'lib/own'\nrun = 'true'\n")
    clone.commit()
    assert clone.pipe("status", "--rev", "HEAD", "--json").json()["stages"][0]["problems"] == []


def test_workspaces_in_subfolders(repo) -> None:
    """Several workspaces in one repository: each is judged by its own files, at a commit too."""
    for name in ("one", "team/two"):
        repo.write(f"{name}/src/main", f"{name}\n")
        repo.write(
            f"{name}/pipeline.toml",
            f"[stage.s]\nsource = 'src'\nrun = '{repo.note(name)} && cat src/main > {{outputs.o}}'\noutputs = {{ o = 'o' }}\n",
        )
    start = repo.commit("start")
    one, two = Repo(repo.path / "one", repo.home), Repo(repo.path / "team/two", repo.home)
    one.pipe("build")
    assert repo.ran() == ["one"]
    repo.commit("one is built")
    two.pipe("build")
    repo.commit("two is built")
    assert states(one, "HEAD") == states(two, "HEAD") == states(one, "HEAD~1") == {"s": "fresh"}
    assert states(two, "HEAD~1") == {"s": "stale"}
    assert repo.pipe("-C", "team/two/src", "status", "--rev", "HEAD", "--json").stages(key="state") == {"s": "fresh"}
    told = two.pipe("status", "--rev", f"{start}..HEAD", "--json").json()["commits"]
    assert [commit["stages"][0]["state"] for commit in told] == ["stale", "fresh"]
    assert "no pipeline.toml" in refused(repo, "status", "--rev", "HEAD", code=2)


# -- in the middle of something ---------------------------------------------------------------------------------------


def test_before_the_first_commit(repo, toml) -> None:
    repo.write("src/a/main", "main\n")
    repo.write("data/x", "x\n")
    toml(TEXT)
    assert states(repo)["a"] == "stale"
    assert "there is no commit yet" in refused(repo, "status", "--rev", "HEAD", code=2)
    assert "there is no commit yet" in refused(repo, "status", "--rev", "HEAD..HEAD", code=2)
    repo.pipe("build")
    assert states(repo) == FRESH
    before = keys(repo)
    repo.commit("first")
    assert keys(repo, "HEAD") == before and states(repo, "HEAD") == FRESH


def test_a_head_that_leads_nowhere(built) -> None:
    """HEAD names a branch that is not there, or a commit that is not: other revisions are judged all the same."""
    before = keys(built)
    built.git("symbolic-ref", "HEAD", "refs/heads/nothing")
    assert "there is no commit yet" in refused(built, "status", "--rev", "HEAD", code=2)
    assert states(built, "main~1") == FRESH
    assert keys(built) == before
    (built.path / ".git/HEAD").write_text("1" * 40 + "\n")
    assert refused(built, "status", "--rev", "HEAD", code=2)
    assert states(built, "main~1") == FRESH


@pytest.mark.parametrize("doing", ["merge", "rebase", "cherry-pick"])
def test_in_the_middle_of_a_conflict(built, doing: str) -> None:
    """Unmerged files count as they lie there; commits are judged as ever; a lock with markers is told."""
    built.git("checkout", "-q", "-b", "side", "built")
    built.write("src/a/main", "side\n")
    side = built.commit("side")
    before = keys(built, side)
    args = {"merge": ["merge", "main"], "rebase": ["rebase", "main"], "cherry-pick": ["cherry-pick", "main"]}[doing]
    assert built.git(*args, check=False).returncode == 1
    assert "<<<<<<<" in built.read("src/a/main")
    assert keys(built, side) == before and states(built, "built") == FRESH
    conflicted = keys(built)
    assert conflicted["a"] not in (before["a"], keys(built, "main")["a"])
    built.write("src/a/main", "side\n")
    assert keys(built)["a"] == before["a"]
    built.pipe("build")
    assert built.ran() == ["a", "b"]
    assert states(built) == FRESH


def test_during_a_bisect(built, expected) -> None:
    built.git("bisect", "start", "main", "built")
    assert states(built, "built") == FRESH
    assert states(built, "bisect/bad") == {"a": "stale", "b": "pending"}
    built.git("checkout", "-q", "main")
    builds_like(built, expected)


# -- what is broken ---------------------------------------------------------------------------------------------------


def spoil(repo: Repo, name: str, content: bytes | None) -> str:
    oid = repo.git("rev-parse", name).stdout.strip()
    path = repo.path / ".git/objects" / oid[:2] / oid[2:]
    path.chmod(0o644)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return oid


@pytest.mark.parametrize("content", [b"", b"garbage", None])
@pytest.mark.parametrize("name", ["pipeline.toml", "pipe.lock", "src", "src/a", "data/x"])
def test_a_damaged_object_is_told(built, name: str, content: bytes | None) -> None:
    """What git can't read is named, with its path where it has one: exit 1, no verdict. Other commits are judged."""
    built.write("data/x", "new\n")
    built.write("src/a/new", "new\n")
    built.write("pipeline.toml", built.read("pipeline.toml") + "# new\n")
    (built.path / "pipe.lock").write_text(built.read("pipe.lock").replace("size = 2", "size = 3"))
    built.commit("spoilt")
    shutil.rmtree(built.pipe_dir)
    oid = spoil(built, f"HEAD:{name}", content)
    said = refused(built, "status", "--rev", "HEAD", code=1)
    assert oid[:10] in said and f"`{name}`" in said, said
    done = built.pipe("status", "--rev", "built..HEAD", check=False)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert "stale" in first and f"error: `{name}`" in second and second.endswith("spoilt")
    assert states(built, "built") == FRESH


def test_another_users_repository(built) -> None:
    """Git's refusal is told in its own words, with what to type."""
    env = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    done = built.pipe("status", "--rev", "HEAD", check=False, env=env)
    assert done.returncode == 2 and "dubious ownership" in done.stderr and "safe.directory" in done.stderr
    bare = cloned(built, "bare.git", "--bare")
    done = bare.pipe("status", "--rev", "HEAD", check=False, env=env)
    assert done.returncode == 2 and "dubious ownership" in done.stderr
    (built.home / ".gitconfig").write_text("[safe]\n\tbareRepository = explicit\n")
    done = bare.pipe("status", "--rev", "HEAD", check=False)
    assert done.returncode == 2 and "safe.bareRepository" in done.stderr
    assert bare.pipe("status", "--rev", "built", env={"GIT_DIR": str(bare.path)}).returncode == 0


# -- git-lfs ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not here")
def test_git_lfs(repo, toml) -> None:
    """A file of git-lfs counts by its pointer: the same in the work tree, at the commit, and where it was not fetched."""
    repo.git("lfs", "install", "--local")
    repo.git("lfs", "track", "*.big")
    repo.write("data/x.big", "large\n" * 100)
    repo.write("src/model.big", "model\n" * 100)
    toml("""
        [stage.a]
        source = "src"
        run = "NOTE(a) && cat {inputs.i} src/model.big > {outputs.o}"
        inputs = { i = "data/x.big" }
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.ran() == ["a"]
    assert (repo.path / "o").read_text().startswith("large")
    repo.commit("built")
    assert keys(repo) == keys(repo, "HEAD") and states(repo, "HEAD") == {"a": "fresh"}
    pointers = Repo(repo.path.parent / "pointers", repo.home)
    repo.run("git", "clone", "-q", str(repo.path), str(pointers.path), env={"GIT_LFS_SKIP_SMUDGE": "1"})
    assert pointers.read("data/x.big").startswith("version https://git-lfs")
    assert states(pointers, "HEAD") == {"a": "fresh"}
    assert keys(pointers, "HEAD") == keys(repo)
    repo.write("data/x.big", "other\n" * 100)
    assert states(repo) == {"a": "stale"}
    assert states(repo, "HEAD") == {"a": "fresh"}


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not here")
@pytest.mark.parametrize("sandbox", ["true", "false"])
@pytest.mark.parametrize("lacking", ["data/x.big", "src/model.big", "data"])
def test_git_lfs_runs_no_stage_on_pointers(repo, toml, lacking: str, sandbox: str) -> None:
    """The result of a pointer is not that of the content, though they have one fingerprint: such a stage fails."""
    repo.git("lfs", "install", "--local")
    repo.git("lfs", "track", "*.big")
    repo.write(lacking if lacking != "data" else "data/x.big", "large\n" * 100)
    repo.write("src/main", "main\n")
    repo.write("data/y", "version https://git-lfs.github.com/spec/v1\n")  # looks like one, and is none
    given = lacking if lacking.startswith("data") else "data/y"
    toml(f"""
        [stage.a]
        source = "src"
        sandbox = {sandbox}
        run = "NOTE(a) && cat {lacking}{"/*" if lacking == "data" else ""} > {{outputs.o}}"
        inputs = {{ i = "{given}" }}
        outputs = {{ o = "o" }}
    """)
    repo.commit("not built")
    pointers = Repo(repo.path.parent / "pointers", repo.home)
    repo.run("git", "clone", "-q", str(repo.path), str(pointers.path), env={"GIT_LFS_SKIP_SMUDGE": "1"})
    assert states(pointers) == {"a": "stale"}
    done = pointers.pipe("build", check=False)
    assert done.returncode == 1 and pointers.ran() == [] and not pointers.exists("o")
    assert ".big` is git-lfs's pointer to content that is not here" in done.stdout
    assert "run `git lfs pull`" in done.stdout
    shutil.copytree(repo.path / ".git/lfs", pointers.path / ".git/lfs", dirs_exist_ok=True)
    pointers.git("lfs", "install", "--local")
    pointers.git("lfs", "checkout")
    pointers.pipe("build")
    assert pointers.ran() == ["a"] and pointers.read("o").startswith("large")


def test_a_folder_below_git_is_no_workspace(built) -> None:
    done = built.pipe("-C", ".git", "status", "--rev", "HEAD", check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_reads_nothing_but_objects(built) -> None:
    """Nothing is written but below pipe's own folder, and a repository that can't be written is read all the same."""
    before = {
        path: path.read_bytes() for path in Path(built.path).rglob("*") if path.is_file() and "/pipe/" not in str(path)
    }
    assert states(built, "built") == FRESH
    built.pipe("status", "--rev", "built..HEAD")
    after = {
        path: path.read_bytes() for path in Path(built.path).rglob("*") if path.is_file() and "/pipe/" not in str(path)
    }
    assert before == after
    assert os.path.isdir(built.pipe_dir)
