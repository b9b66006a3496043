"""Fresh, restored, run, early cutoff, pending."""

from __future__ import annotations

import pytest


def test_everything_runs_once_and_then_nothing(repo, chain) -> None:
    """A fresh stage is not run."""
    first = repo.pipe("build", "--json")
    assert first.json()["status"] == "succeeded"
    assert first.stages() == {"a": "ran", "b": "ran", "c": "ran"}
    assert repo.ran() == ["a", "b", "c"]
    second = repo.pipe("build", "--json")
    assert second.json()["status"] == "up-to-date" and second.json()["run"] is None
    assert second.stages() == {"a": "fresh", "b": "fresh", "c": "fresh"}
    assert repo.ran() == []
    assert repo.read("out/c") == "11"


def test_a_changed_source_runs_what_depends_on_it(repo, chain) -> None:
    """Otherwise it runs, once; and so does what depends on its outputs."""
    repo.pipe("build")
    repo.ran()
    repo.write("a.txt", "2x")
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "stale", "b": "pending", "c": "pending"}
    assert repo.pipe("build", "--json").stages() == {"a": "ran", "b": "ran", "c": "ran"}
    assert repo.ran() == ["a", "b", "c"]
    assert repo.read("out/c") == "22"


def test_equal_outputs_leave_what_follows_fresh(repo, chain) -> None:
    """If its outputs' content is what it was, stages after it stay fresh."""
    repo.pipe("build")
    repo.ran()
    repo.write("a.txt", "1y")
    assert repo.pipe("build", "--json").stages() == {"a": "ran", "b": "fresh", "c": "fresh"}
    assert repo.ran() == ["a"]


def test_a_known_result_is_restored(repo, chain) -> None:
    """The result of this fingerprint is known: linked into place, not run."""
    repo.pipe("build")
    repo.write("a.txt", "2x")
    repo.pipe("build")
    repo.ran()
    repo.write("a.txt", "1x")
    assert repo.pipe("status", "--json").stages(key="state") == {
        "a": "restorable",
        "b": "restorable",
        "c": "restorable",
    }
    done = repo.pipe("build", "--json")
    assert done.json()["status"] == "succeeded"
    assert done.stages() == {"a": "restored", "b": "restored", "c": "restored"}
    assert repo.ran() == []
    assert repo.read("out/c") == "11"


def test_a_lost_output_is_restored(repo, chain) -> None:
    """Outputs that are gone from the workspace are linked into place, not made again."""
    repo.pipe("build")
    repo.ran()
    (repo.path / "out/b").unlink()
    (repo.path / "out/c").unlink()
    assert repo.pipe("build", "--json").stages() == {"a": "fresh", "b": "restored", "c": "restored"}
    assert repo.ran() == []
    assert repo.read("out/b") == "11"


def test_the_locks_own_result_is_restored_first(repo, toml) -> None:
    """Restored: the lock's result first, else the newest complete one of the action cache."""
    toml("""
        [stage.a]
        run = "NOTE(a) && date +%s%N > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    first = repo.read("o")
    repo.commit("first")
    repo.pipe("build", "--force")
    assert repo.read("o") != first
    repo.git("checkout", "-q", "pipe.lock")
    repo.ran()
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}
    assert repo.read("o") == first
    assert repo.git("status", "--porcelain").stdout == ""
    assert repo.ran() == []


def test_another_known_result_is_restored_and_said(repo, toml) -> None:
    """The build says so when the lock's own result could not be had."""
    toml("""
        [stage.a]
        run = "NOTE(a) && date +%s%N > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    first = repo.read("o")
    other = repo.pipe("build", "--force", "--json").json()["stages"][0]["outputs"][0]["hash"].partition(":")[2]
    (repo.path / "o").unlink()
    for found in repo.pipe_dir.glob(f"cache/**/{other[2:]}*"):
        found.unlink()
    repo.ran()
    done = repo.pipe("build", "--json")
    assert done.stages() == {"a": "restored"}
    assert "could not be had" in done.stderr
    assert repo.read("o") == first
    assert repo.ran() == []


def test_pending_has_the_stage_before_it_as_reason(repo, chain) -> None:
    """`pending`: something before it is stale, so it can't be known yet."""
    status = repo.pipe("status", "--json")
    assert status.stages(key="state") == {"a": "stale", "b": "pending", "c": "pending"}
    assert status.why("a") == [("new", "")]
    assert status.why("b") == [("upstream", "a")]
    assert status.why("c") == [("upstream", "b")]


def test_status_check_fails_on_all_but_fresh(repo, chain) -> None:
    """`--check` fails on all but `fresh`; and status changes nothing."""
    assert repo.pipe("status", "--check", check=False).returncode == 1
    repo.pipe("build")
    assert repo.pipe("status", "--check").returncode == 0
    (repo.path / "out/c").unlink()
    assert repo.pipe("status", "--check", check=False).returncode == 1
    assert not repo.exists("out/c")


def test_folder_outputs_keep_bits_links_and_empty_folders(repo, toml) -> None:
    """A folder's content is its names, executable bits and link texts; restored, it has them all."""
    toml("""
        [stage.a]
        run = '''mkdir -p {outputs.o}/sub/empty && echo 1 > {outputs.o}/x && chmod +x {outputs.o}/x && ln -s ../x {outputs.o}/sub/l'''
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    import shutil

    shutil.rmtree(repo.path / "o")
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}
    assert (repo.path / "o/x").stat().st_mode & 0o111 == 0o111
    assert (repo.path / "o/sub/l").readlink().as_posix() == "../x"
    assert (repo.path / "o/sub/empty").is_dir()
    (repo.path / "o/x").chmod(0o644)
    assert repo.pipe("status", "--json").stages(key="state") == {"a": "restorable"}


def test_only_the_named_stages_and_what_they_need(repo, chain) -> None:
    """`pipe build STAGE` brings that stage and what it needs up to date, by stage name or output path."""
    assert set(repo.pipe("build", "b", "--json").stages()) == {"a", "b"}
    assert set(repo.pipe("build", "out/a", "--json").stages()) == {"a"}
    assert repo.ran() == ["a", "b"]


def test_targets_are_the_default(repo, toml) -> None:
    """`targets`: default for `pipe build`; without it every stage."""
    toml("""
        [pipeline]
        targets = ["b"]
        [stage.a]
        run = "NOTE(a) && echo 1 > {outputs.o}"
        outputs = { o = "a" }
        [stage.b]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "a" }
        outputs = { o = "b" }
        [stage.c]
        run = "NOTE(c) && echo 1 > {outputs.o}"
        outputs = { o = "c" }
    """)
    repo.pipe("build")
    assert repo.ran() == ["a", "b"]
    repo.pipe("build", "--force")
    assert repo.ran() == ["b"]


def test_what_is_changed_back_before_the_build_is_fresh(repo, chain) -> None:
    """A stage is judged by content: an edit undone is no edit."""
    repo.pipe("build")
    repo.write("a.txt", "9")
    repo.write("a.txt", "1x")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"


@pytest.mark.parametrize(("before", "now"), [("blake3", "md5"), ("md5", "blake3")])
def test_another_hash(repo, toml, before: str, now: str) -> None:
    """`[cache] hash`: what was made under another is made once more, and then all is fresh, in the words of the new
    one; what is known under the old one is restored when it comes back."""
    text = """
        [cache]
        hash = "HASH"
        [stage.a]
        run = "NOTE(a) && mkdir {outputs.d} && echo 1 > {outputs.d}/f"
        outputs = { d = "d" }
        [stage.b]
        run = "NOTE(b) && cat {inputs.i} > {outputs.o}"
        inputs = { i = "d/f" }
        outputs = { o = "o" }
    """
    toml(text.replace("HASH", before))
    repo.pipe("build")
    toml(text.replace("HASH", now))
    assert repo.pipe("build", "--json").stages() == {"a": "ran", "b": "ran"}
    assert repo.pipe("status", "--check").returncode == 0
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    assert f'hash = "{now}"' in repo.read("pipe.lock") and before not in repo.read("pipe.lock")
    toml(text.replace("HASH", before))
    assert repo.pipe("build", "--json").stages() == {"a": "restored", "b": "restored"}
    assert repo.pipe("status", "--check").returncode == 0
