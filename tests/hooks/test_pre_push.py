"""`pre-push` refuses a push with a tip whose lock is stale, by real pushes between real repositories."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Repo

from .conftest import PIPELINE, make_stale, passed, push, refused, remote_refs

ZERO = "0" * 40


def test_a_built_commit_goes_through(gated: Repo) -> None:
    """A tip whose lock belongs to it is pushed, and nothing is said; what is stale in the work tree alone is no matter."""
    gated.write("src/a.txt", "2\n")
    passed(push(gated))
    assert set(remote_refs(gated)) == {"refs/heads/main"}
    assert gated.ran() == []


def test_a_stale_tip_is_refused(gated: Repo) -> None:
    """It names ref, commit, lock, stages and why, and what to type; the remote gets nothing. A build mends it."""
    commit = make_stale(gated)
    said = refused(push(gated), "refs/heads/main", commit[:10], "pipe.lock", "`pipe build`", "--no-verify")
    status = gated.pipe("status", "--rev", "HEAD").stdout
    assert "source `src` changed" in status and "pending    train" in status
    for line in status.splitlines():
        assert line in said.splitlines()
    assert remote_refs(gated) == {}
    gated.pipe("build")
    gated.commit("built")
    passed(push(gated))


def test_only_what_is_stale_is_told(gated: Repo) -> None:
    """Fresh stages are not listed."""
    gated.write("pipeline.toml", PIPELINE.replace("lr = 1", "lr = 2"))
    gated.commit()
    said = refused(push(gated), "train", "param `lr` changed: 1 -> 2")
    assert "prepare" not in said


def test_the_lock_of_the_tip_counts(gated: Repo) -> None:
    """Built, but not committed: refused. And the commits below the tip do not matter."""
    make_stale(gated)
    gated.pipe("build")
    refused(push(gated))
    gated.commit("the lock")
    passed(push(gated))


def test_no_verify(gated: Repo) -> None:
    commit = make_stale(gated)
    assert push(gated, "--no-verify", "origin", "main").returncode == 0
    assert remote_refs(gated) == {"refs/heads/main": commit}


def test_deletions_pass(gated: Repo) -> None:
    """Deleting a branch passes, whatever is checked out."""
    passed(push(gated, "origin", "main", "main:other"))
    make_stale(gated)
    passed(push(gated, "origin", ":other"))
    passed(push(gated, "origin", "--delete", "main"))
    assert remote_refs(gated) == {}


def test_new_branches_and_force_pushes_are_judged(gated: Repo) -> None:
    passed(push(gated))
    fresh = gated.git("rev-parse", "HEAD").stdout.strip()
    gated.git("switch", "-q", "-c", "topic")
    make_stale(gated)
    refused(push(gated, "-u", "origin", "topic"), "refs/heads/topic")
    gated.git("commit", "-q", "--amend", "-m", "another")
    refused(push(gated, "--force", "origin", "topic:main"), "refs/heads/main")
    refused(push(gated, "origin", "+HEAD:refs/heads/new"), "refs/heads/new")
    assert remote_refs(gated) == {"refs/heads/main": fresh}


def test_several_refs_at_once(gated: Repo) -> None:
    """All are judged, each commit once; one that is stale refuses the push."""
    gated.git("branch", "good")
    gated.git("switch", "-q", "-c", "bad")
    bad = make_stale(gated)
    gated.git("branch", "bad-too")
    gated.git("switch", "-q", "-c", "worse")
    worse = make_stale(gated, "3\n")
    said = refused(push(gated, "origin", "good", "bad", "bad-too", "worse", "main"), "refs/heads/worse")
    assert said.count("error: pre-push: ") == 2
    assert said.count(bad[:10]) == 1 and said.count(worse[:10]) == 1
    line = next(line for line in said.splitlines() if bad[:10] in line)
    assert "refs/heads/bad, refs/heads/bad-too" in line
    assert "refs/heads/good" not in said.replace("refs/heads/good ->", "") and remote_refs(gated) == {}
    refused(push(gated, "--all", "origin"))
    refused(push(gated, "--mirror", "origin"))
    passed(push(gated, "origin", "good", "main"))


def test_tags(gated: Repo) -> None:
    """Tags are judged by the commit they lead to; tags of what is no commit pass."""
    gated.git("tag", "good")
    gated.git("tag", "-a", "good-too", "-m", "x")
    make_stale(gated)
    gated.git("tag", "light")
    gated.git("tag", "-a", "heavy", "-m", "x")
    gated.git("tag", "-a", "twice", "-m", "x", "heavy")
    gated.git("tag", "-a", "tree", "-m", "x", "HEAD^{tree}")
    gated.git("tag", "blob", "HEAD:src/a.txt")
    passed(push(gated, "origin", "good", "good-too", "tree", "blob"))
    for name in ("light", "heavy", "twice"):
        refused(push(gated, "origin", name), f"refs/tags/{name}")
    assert set(remote_refs(gated)) >= {"refs/tags/good", "refs/tags/tree", "refs/tags/blob"}


def test_branches_without_a_pipeline_or_lock_pass(gated: Repo) -> None:
    gated.git("switch", "-q", "--orphan", "pages")
    gated.write("index.html", "hello")
    gated.commit("pages")
    passed(push(gated, "origin", "pages"))
    gated.git("switch", "-q", "main")
    gated.git("rm", "-q", "--cached", "pipe.lock")
    gated.write("src/a.txt", "5\n")
    gated.git("commit", "-q", "-am", "no lock")
    passed(push(gated))


def test_runs_and_notes_pass(gated: Repo) -> None:
    """Runs are no tips of users': their snapshots have the lock of before the build."""
    make_stale(gated)
    gated.pipe("build")
    gated.git("notes", "add", "-m", "a note")
    passed(push(gated, "origin", "refs/pipe/runs/*"))
    passed(push(gated, "origin", "refs/notes/commits"))
    assert any(name.startswith("refs/pipe/runs/") for name in remote_refs(gated))


def test_a_monorepo(gated: Repo) -> None:
    """Every pipeline.toml of the tip with a pipe.lock beside it is judged, whichever folder one is in."""
    for name in ("one", "two/deep", "three"):
        gated.write(f"{name}/pipeline.toml", PIPELINE)
        gated.write(f"{name}/src/a.txt", "1\n")
        if name != "three":
            gated.pipe("-C", name, "build")
    gated.commit("three more")
    passed(push(gated))
    gated.write("one/src/a.txt", "x\n")
    gated.write("two/deep/pipeline.toml", PIPELINE.replace("lr = 1", "lr = 3"))
    gated.write("three/src/a.txt", "x\n")
    gated.commit("stale")
    nested = Repo(gated.path / "three", gated.home)
    said = refused(push(nested), "one/pipe.lock", "two/deep/pipe.lock", "param `lr` changed", "pipe -C one build")
    assert "three/pipe.lock" not in said and said.count("error: pre-push") == 2


def test_from_a_folder_without_a_pipeline(gated: Repo) -> None:
    make_stale(gated)
    (gated.path / "docs").mkdir()
    refused(push(Repo(gated.path / "docs", gated.home)))


def test_no_pipeline_in_the_work_tree(gated: Repo) -> None:
    """What is pushed is judged, not what is checked out."""
    make_stale(gated)
    gated.git("switch", "-q", "--orphan", "empty")
    gated.commit("empty")
    refused(push(gated, "origin", "main"))
    passed(push(gated, "origin", "empty"))


def test_a_detached_head_and_odd_names(gated: Repo) -> None:
    make_stale(gated)
    gated.git("checkout", "-q", "--detach")
    refused(push(gated, "origin", "HEAD:refs/heads/x"))
    passed(push(gated, "origin", "HEAD~1:refs/heads/x"))
    refused(push(gated, "origin", ":/stale:refs/heads/y"))
    refused(push(gated, "origin", "main:refs/heads/ünï/%41"), "refs/heads/ünï/%41")


def test_worktrees_share_the_gate(gated: Repo) -> None:
    """Hooks are of the clone; git sets GIT_DIR in a worktree's."""
    other = gated.worktree()
    passed(push(other, "origin", "HEAD:refs/heads/x"))
    commit = make_stale(other)
    refused(push(other, "origin", "HEAD:refs/heads/y"), commit[:10])


def test_git_s_variables(gated: Repo) -> None:
    """Repository and work tree named by variables alone."""
    make_stale(gated)
    env = {"GIT_DIR": str(gated.path / ".git"), "GIT_WORK_TREE": str(gated.path)}
    elsewhere = Repo(gated.home, gated.home)
    refused(push(elsewhere, str(gated.path.parent / "remote.git"), "main", env=env))
    passed(push(elsewhere, str(gated.path.parent / "remote.git"), "main~1:refs/heads/x", env=env))


def test_a_bare_repository(gated: Repo) -> None:
    """The gate of a bare repository that pushes on, as a mirror does."""
    make_stale(gated)
    gated.git("clone", "-q", "--bare", ".", "../mirror.git")
    mirror = Repo(gated.path.parent / "mirror.git", gated.home)
    mirror.pipe("hooks", "install")
    assert (mirror.path / "hooks/pre-push").exists()
    target = str(gated.path.parent / "remote.git")
    refused(push(mirror, target, "main"), "source `src` changed")
    passed(push(mirror, target, "main~1:refs/heads/main"))


def test_a_shallow_clone(gated: Repo) -> None:
    make_stale(gated)
    gated.pipe("build")
    gated.commit("built")
    gated.git("clone", "-q", "--depth=1", f"file://{gated.path}", "../shallow")
    shallow = Repo(gated.path.parent / "shallow", gated.home)
    shallow.pipe("hooks", "install")
    target = str(gated.path.parent / "remote.git")
    shallow.git("remote", "set-url", "origin", target)
    gated.git("push", "-q", "--no-verify", "../remote.git", "main:refs/heads/known")  # it has what lies below
    passed(push(shallow, "origin", "main:refs/heads/x"))
    make_stale(shallow, "9\n")
    refused(push(shallow, "origin", "main:refs/heads/y"))


def test_nothing_of_the_cache_is_needed(gated: Repo) -> None:
    """Neither data nor the cache nor state.db: a clone that never built judges all the same."""
    clone = gated.clone()
    clone.pipe("hooks", "install")
    passed(push(clone, str(gated.path.parent / "remote.git"), "main"))
    assert not clone.exists("data")
    make_stale(clone)
    refused(push(clone, str(gated.path.parent / "remote.git"), "main"))


def test_what_can_t_be_judged_is_refused(gated: Repo) -> None:
    """A gate does not vouch for a pipeline.toml or a lock that can't be read; it says where it stops."""
    gated.write("pipeline.toml", "[stage.a]\nrnu = 1\n")
    commit = gated.commit("broken")
    refused(push(gated), f"{commit[:10]}:pipeline.toml:2: stage.a.rnu: ", "can't be judged", "--no-verify")
    gated.git("reset", "-q", "--hard", "HEAD~1")
    gated.write("pipe.lock", "<<<<<<< ours\n=======\n>>>>>>> theirs\n")
    refused(push(gated, "origin", f"{gated.commit('markers')}:refs/heads/x"), "pipe.lock", "conflict markers")
    gated.write("pipe.lock", "version = 99\n")
    refused(push(gated, "origin", f"{gated.commit('newer')}:refs/heads/x"), "version 99")


def test_a_broken_expectation_is_refused(gated: Repo) -> None:
    gated.write(
        "pipeline.toml",
        """
        [stage.a]
        run = "echo '{{\\"auc\\": 0.5}}' > {outputs.o}"
        metrics = ["o"]
        outputs = { o = "o.json" }
        """,
    )
    gated.pipe("build")
    gated.commit("built")
    passed(push(gated))
    gated.write("pipeline.toml", gated.read("pipeline.toml") + '[stage.a.expect]\n"o:auc" = { min = 0.9 }\n')
    gated.commit("expect more")
    assert gated.pipe("status", "--rev", "HEAD", "--check", check=False).returncode == 1
    refused(push(gated), "`o:auc` is 0.5, expected at least 0.9")


def test_accepted_and_reuse_off_by_fingerprint(gated: Repo) -> None:
    """An accepted difference passes, and a stage with `reuse = false` is judged by its fingerprint."""
    gated.write("pipeline.toml", PIPELINE.replace("[stage.train]", "[stage.train]\nreuse = false"))
    gated.pipe("build")
    gated.commit("built")
    passed(push(gated))
    gated.write("src/a.txt", "1 \n")
    gated.pipe("accept", "prepare", "--reason", "a space")
    gated.commit("accepted")
    passed(push(gated))


def test_lines_by_hand(project: Repo) -> None:
    """`pipe hooks run pre-push` reads git's lines; --json tells what was judged; exit 1 when it refuses."""
    good = project.git("rev-parse", "HEAD").stdout.strip()
    bad = make_stale(project)
    lines = f"refs/heads/main {bad} refs/heads/main {good}\n(delete) {ZERO} refs/heads/gone {good}\nHEAD~1 {good} refs/heads/old {ZERO}\n"
    done = project.pipe("hooks", "run", "pre-push", "origin", "url", "--json", input=lines, check=False)
    assert done.returncode == 1
    told = done.json()
    assert told["refused"] is True
    assert [(each["commit"], each["refs"], each["workspace"], each["passes"]) for each in told["judged"]] == [
        (bad, ["refs/heads/main"], ".", False),
        (good, ["refs/heads/old"], ".", True),
    ]
    states = {stage["name"]: stage["state"] for stage in told["judged"][0]["stages"]}
    assert states == {"prepare": "stale", "train": "pending"}
    quiet = project.pipe("-q", "hooks", "run", "pre-push", input=lines, check=False)
    assert quiet.returncode == 1 and "source `src` changed" in quiet.stderr and quiet.stdout == ""
    assert project.pipe("hooks", "run", "pre-push", input="").returncode == 0
    wrong = project.pipe("hooks", "run", "pre-push", input="what\n", check=False)
    assert wrong.returncode == 2 and "help: " in wrong.stderr


def test_variables_of_pre_commit(project: Repo) -> None:
    """pre-commit tells its hooks by variables; on a first push only the branch's name."""
    bad = make_stale(project)
    env = {"PRE_COMMIT": "1", "PRE_COMMIT_FROM_REF": "HEAD~1", "PRE_COMMIT_TO_REF": bad}
    env |= {"PRE_COMMIT_LOCAL_BRANCH": "refs/heads/main", "PRE_COMMIT_REMOTE_BRANCH": "refs/heads/there"}
    done = project.pipe("hooks", "run", "pre-push", env=env, check=False)
    assert done.returncode == 1 and "refs/heads/there" in done.stderr and bad[:10] in done.stderr
    del env["PRE_COMMIT_FROM_REF"], env["PRE_COMMIT_TO_REF"]
    assert project.pipe("hooks", "run", "pre-push", env=env, check=False).returncode == 1
    assert project.pipe("hooks", "run", "pre-push", env={"PRE_COMMIT": "1"}, check=False).returncode == 1
    assert project.pipe("hooks", "run", "pre-push").returncode == 0  # nothing is pushed
    project.git("reset", "-q", "--hard", "HEAD~1")
    assert project.pipe("hooks", "run", "pre-push", env=env).returncode == 0


@pytest.mark.parametrize("words", [("run",), ("run", "pre-psuh"), ("install", "commit-msg"), ("nstall",), ()])
def test_wrong_use(project: Repo, words: tuple[str, ...]) -> None:
    done = project.pipe("hooks", *words, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "help: " in done.stderr


def test_a_submodule_that_is_there(gated: Repo, tmp_path: Path) -> None:
    """A pipeline inside a submodule is that repository's business; one whose commit is not here is told."""
    inner = gated.path.parent / "inner"
    shutil.copytree(gated.path, inner, symlinks=True)
    sub = Repo(inner, gated.home)
    make_stale(sub)
    gated.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", "../inner", "sub")
    gated.commit("a submodule with a stale pipeline")
    passed(push(gated))
    inside = Repo(gated.path / "sub", gated.home)
    inside.pipe("hooks", "install")
    refused(push(inside, str(gated.path.parent / "remote.git"), "HEAD:refs/heads/sub"))


def test_python_s_own_folder_is_not_on_the_path(gated: Repo) -> None:
    """A module of the project that is called like one of pipe's does not get in its way."""
    gated.write("pipesmith.py", "raise SystemExit(3)\n")
    gated.write("json.py", "raise SystemExit(3)\n")
    gated.commit()
    passed(push(gated, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}))


# -- what is remembered of a push -----------------------------------------------------------------------------------


def test_what_passed_passes_again(gated: Repo) -> None:
    """A commit that passed is not judged anew, and one with the same content neither; one that was refused is refused
    again, and passes as soon as it may."""
    passed(push(gated))
    passed(push(gated, "origin", "main:again"))
    gated.git("commit", "-q", "--allow-empty", "-m", "the same tree")
    passed(push(gated))
    make_stale(gated)
    refused(push(gated))
    refused(push(gated))
    gated.pipe("build")
    gated.commit("built")
    passed(push(gated))


def test_expectations_against_other_revisions_are_asked_each_time(gated: Repo) -> None:
    """`expect … vs main`: the same commit passes or not as main moves on."""
    toml = """
        [params]
        auc = 0.8
        [stage.a]
        run = "echo '{{\\"auc\\": {params.auc}}}' > {outputs.o}"
        metrics = ["o"]
        outputs = { o = "o.json" }
        [stage.a.expect]
        "o:auc" = { vs = "main", drop = 0.05 }
        """
    gated.write("pipeline.toml", toml)
    gated.pipe("build")
    gated.commit("0.8")
    gated.git("branch", "topic")
    passed(push(gated, "origin", "topic"))
    gated.write("pipeline.toml", toml.replace("0.8", "0.9"))
    gated.pipe("build")
    gated.commit("0.9")
    refused(push(gated, "origin", "topic:x"), "at `main` it is 0.9: a drop")
    assert "breaks what its pipeline expects" in push(gated, "origin", "topic:x").stderr


def test_replaced_objects_do_not_deceive_it(gated: Repo) -> None:
    """`git replace` changes what is seen here, not what is pushed."""
    good = gated.git("rev-parse", "HEAD").stdout.strip()
    bad = make_stale(gated)
    gated.git("replace", bad, good)
    refused(push(gated), bad[:10])


def test_a_clone_without_a_database(gated: Repo) -> None:
    """state.db may be deleted or broken at any time; a push does not begin one."""
    passed(push(gated))
    for path in gated.pipe_dir.glob("state.db*"):
        path.unlink()
    passed(push(gated, "origin", "main:one"))
    make_stale(gated)
    refused(push(gated, "origin", "main:two"))
    assert not (gated.pipe_dir / "state.db").exists()
    (gated.pipe_dir / "state.db").write_bytes(b"no database" * 1000)
    refused(push(gated, "origin", "main:two"))


def test_sha256(make_repo: Callable[[str], Repo]) -> None:
    """A repository with SHA-256 ids."""
    repo = make_repo("long")
    shutil.rmtree(repo.path / ".git")
    repo.git("init", "-q", "-b", "main", "--object-format=sha256")
    repo.git("init", "-q", "--bare", "--object-format=sha256", "../long.git")
    repo.git("remote", "add", "origin", "../long.git")
    repo.write("pipeline.toml", PIPELINE)
    repo.write("src/a.txt", "1\n")
    repo.pipe("build")
    repo.commit("built")
    repo.pipe("hooks", "install")
    passed(push(repo, "origin", "main", "main:gone"))
    make_stale(repo)
    refused(push(repo))
    passed(push(repo, "origin", ":gone"))


def test_later_pushes_judge_as_the_first_does(gated: Repo) -> None:
    """What is remembered of trees never changes a judgement: rules that leave files out, outputs inside a source, and
    submodules come and go, and each commit is judged as by a clone that remembers nothing."""
    gated.write(".pipeignore", "*.log\n")
    gated.write("src/deep/er/x.log", "1")
    gated.write("src/deep/er/y.txt", "1")
    gated.pipe("build")
    commits = [gated.commit("ignored")]
    gated.write("src/deep/er/x.log", "2")
    commits.append(gated.commit("what is left out"))
    gated.write("src/deep/er/y.txt", "2")
    commits.append(gated.commit("stale"))
    gated.write("src/deep/.pipeignore", "y.txt\n")
    commits.append(gated.commit("one more rule"))
    gated.pipe("build")
    commits.append(gated.commit("built"))
    gated.write(".pipeignore", "*.txt\n")
    commits.append(gated.commit("another rule"))
    gated.write(
        "pipeline.toml",
        gated.read("pipeline.toml") + '[stage.c]\nrun = "true > {outputs.o}"\noutputs = { o = "src/deep/er" }\n',
    )
    commits.append(gated.commit("an output inside a source"))
    gated.git("checkout", "-q", commits[0], "--", ".")
    gated.git("rm", "-q", "--cached", "src/deep/.pipeignore", check=False)
    (gated.path / "src/deep/.pipeignore").unlink(missing_ok=True)
    commits.append(gated.commit("back"))

    def told(repo: Repo, order: list[str]) -> dict[str, dict[str, str]]:
        lines = "".join(f"x {commit} refs/heads/{commit} {'0' * 40}\n" for commit in order)
        done = repo.pipe("hooks", "run", "pre-push", "--json", input=lines, check=False)
        return {j["commit"]: {s["name"]: s["state"] for s in j["stages"]} for j in done.json()["judged"]}

    expected = {commit: gated.pipe("status", "--rev", commit, "--json").stages(key="state") for commit in commits}
    assert len({tuple(states.items()) for states in expected.values()}) > 2
    for order in ([commits[2]], commits, commits[::-1], commits):
        assert told(gated, order) == {commit: expected[commit] for commit in order}
    assert told(gated.clone(), commits) == expected
    for commit in commits:
        good = set(expected[commit].values()) == {"fresh"}
        assert (push(gated, "origin", f"{commit}:refs/heads/{commit}").returncode == 0) is good
