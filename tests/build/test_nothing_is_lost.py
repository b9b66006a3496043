"""Rule 7: content that only exists in the workspace is never destroyed."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def one(repo, toml):
    repo.write("src", "1")
    toml("""
        [stage.a]
        source = "src"
        run = "NOTE(a) && cat src > {outputs.o} && mkdir {outputs.d} && cat src > {outputs.d}/x"
        outputs = { o = "o", d = "d" }
    """)
    return repo


def kept(text: str) -> list[str]:
    return [part.split()[0].rstrip(",") for part in text.split("kept as ")[1:]]


def test_a_hand_edited_output(one) -> None:
    """An output edited by hand is put into the cache and named (`pipe cat HASH`) before it is replaced."""
    one.pipe("build")
    (one.path / "o").unlink()
    one.write("o", "mine")
    done = one.pipe("build", "--json")
    assert done.stages() == {"a": "restored"}
    assert "`o`" in done.stderr
    (hash,) = kept(done.stderr)
    assert one.pipe("cat", hash).stdout == "mine"
    assert one.read("o") == "1"


def test_a_hand_edited_output_before_a_stage_runs(one) -> None:
    """Also where the stage runs anew."""
    one.pipe("build")
    one.write("o", "mine")
    one.write("src", "2")
    done = one.pipe("build")
    (hash,) = kept(done.stderr)
    assert one.pipe("cat", hash[:12]).stdout == "mine"
    assert one.read("o") == "2"


def test_files_in_the_way_of_a_first_build(one) -> None:
    """Files in the way of a first build are kept in the cache and named."""
    one.write("o", "mine")
    one.write("d/precious", "mine too")
    one.commit()
    one.git("rm", "-q", "--cached", "-r", "o", "d")
    done = one.pipe("build")
    assert len(kept(done.stderr)) == 2
    assert "mine" in [one.pipe("cat", hash, check=False).stdout for hash in kept(done.stderr)]
    assert sorted(os.listdir(one.path / "d")) == ["x"]


def test_strangers_in_output_folders(one) -> None:
    """Strangers in output folders are kept in the cache and named."""
    one.pipe("build")
    one.write("d/mine", "precious")
    one.write("src", "2")
    done = one.pipe("build")
    (hash,) = kept(done.stderr)
    assert "`d`" in done.stderr
    assert "mine" in one.pipe("cat", hash).stdout
    assert os.listdir(one.path / "d") == ["x"]


def test_a_folder_where_a_file_must_be(one) -> None:
    """Whatever lies there is kept, whatever its kind."""
    one.write("o/precious", "mine")
    os.symlink("/nowhere", one.path / "d")
    done = one.pipe("build")
    assert len(kept(done.stderr)) == 2
    assert one.read("o") == "1"


def test_a_file_where_an_outputs_folder_must_be(repo, toml) -> None:
    """Also a file that lies where an output's folder must be."""
    repo.write("deep", "mine")
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}"
        outputs = { o = "deep/o" }
    """)
    done = repo.pipe("build")
    (hash,) = kept(done.stderr)
    assert repo.pipe("cat", hash).stdout == "mine"
    assert repo.read("deep/o") == "1\n"


def test_a_failed_build_leaves_hand_edits_where_they_are(repo, toml) -> None:
    """A failed stage leaves the workspace as it was, hand-edits included."""
    repo.write("src", "0")
    toml("""
        [stage.a]
        source = "src"
        run = "echo 1 > {outputs.o}; exit $(cat src)"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    repo.write("o", "mine")
    repo.write("src", "1")
    assert repo.pipe("build", check=False).returncode == 1
    assert repo.read("o") == "mine"


def test_a_large_hand_edited_output(repo, toml) -> None:
    """Writing to a large cached output in place never writes into the cache."""
    toml("""
        [stage.a]
        run = "head -c 3000000 /dev/zero > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    os.unlink(repo.path / "o")
    repo.pipe("build")
    os.chmod(repo.path / "o", 0o644)
    with open(repo.path / "o", "r+b") as file:
        file.write(b"mine")
    done = repo.pipe("build", "--json", check=False)
    assert done.returncode == 0, done.stderr
    assert (repo.path / "o").read_bytes() == bytes(3000000)


def test_checkout_to_shows_other_states(one) -> None:
    """`pipe checkout --to DIR` puts the locked state elsewhere, and leaves what lies in the workspace."""
    one.pipe("build")
    one.write("o", "mine")
    one.pipe("checkout", "--to", str(one.home / "there"))
    assert (one.home / "there/o").read_text() == "1" and one.read("o") == "mine"


def test_outputs_are_ignored_by_git(repo, toml) -> None:
    """A build adds outputs that git does not ignore yet, anchored, to the workspace's .gitignore, and says so."""
    repo.write(".gitignore", "*.log")
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.o}; echo 1 > {outputs.l}; echo 1 > {outputs.m}; mkdir {outputs.d}"
        outputs = { o = "out/o [1]", l = "x.log", m = { path = "m.json", cache = false }, d = "out/d" }
    """)
    done = repo.pipe("build")
    lines = repo.read(".gitignore").splitlines()
    assert lines[0] == "*.log" and all(line.startswith("/") for line in lines[1:]) and len(lines) == 3
    assert ".gitignore" in done.stdout + done.stderr
    repo.git("add", "-A")
    tracked = repo.git("ls-files").stdout.split()
    assert sorted(tracked) == [".gitignore", "m.json", "pipe.lock", "pipeline.toml"]
    before = repo.read(".gitignore")
    repo.pipe("build", "--force")
    assert repo.read(".gitignore") == before


def test_ignore_lines_are_written_in_one_step_and_once(repo, toml) -> None:
    """`kill -9` at any moment, and a full disk, cost no line of .gitignore: it is replaced, not written over. Builds
    that begin together add each line once."""
    repo.write(".gitignore", "*.log")
    (repo.path / ".gitignore").chmod(0o664)
    os.link(repo.path / ".gitignore", repo.home / "before")
    outputs = ", ".join(f'o{number} = "out/{number}"' for number in range(30))
    toml(f"""
        [stage.a]
        run = "for n in $(seq 0 29); do echo 1 > out/$n; done"
        outputs = {{ {outputs} }}
    """)
    builds = [repo.start("build") for _build in range(4)]
    assert [process.wait() for process in builds] == [0, 0, 0, 0]
    lines = repo.read(".gitignore").splitlines()
    assert lines == ["*.log", *sorted(f"/out/{number}" for number in range(30))]
    assert (repo.home / "before").read_text() == "*.log"
    assert os.stat(repo.path / ".gitignore").st_mode & 0o777 == 0o664


def test_source_dot_is_fresh_at_the_second_build(repo, toml) -> None:
    """Ignore lines are written before anything is fingerprinted, so that `source = "."` is fresh at the second
    build."""
    repo.write("x", "1")
    toml("""
        [stage.a]
        source = "."
        run = "NOTE(a) && cat x > {outputs.o}"
        outputs = { o = "o" }
    """)
    repo.pipe("build")
    assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0


def test_an_output_that_git_tracks(repo, toml) -> None:
    """An output that git tracks must have `cache = false`; else exit 2, naming `git rm --cached`."""
    repo.write("o", "1")
    repo.commit()
    toml("""
        [stage.a]
        run = "NOTE(a) && echo 2 > {outputs.o}"
        outputs = { o = "o" }
    """)
    done = repo.pipe("build", check=False)
    assert done.returncode == 2 and "git rm --cached" in done.stderr and "cache = false" in done.stderr
    assert repo.ran() == [] and repo.read("o") == "1"


def test_uncached_outputs(repo, toml) -> None:
    """cache = false: left to git: never ignored, never a link; its bytes are in the cache all the same, so it can be
    restored."""
    toml("""
        [stage.a]
        run = "NOTE(a) && head -c 3000000 /dev/zero > {outputs.m}"
        outputs = { m = { path = "m", cache = false } }
    """)
    repo.pipe("build")
    repo.ran()
    (repo.path / "m").unlink()
    assert repo.pipe("build", "--json").stages() == {"a": "restored"}
    assert repo.ran() == []
    info = os.stat(repo.path / "m")
    assert info.st_nlink == 1 and info.st_mode & 0o200
    assert not repo.exists(".gitignore")


def test_an_output_that_is_left_to_git_from_now_on(repo, toml) -> None:
    """cache = false: never ignored, never a link, though it was a cached output before: its line is taken out."""
    repo.write(".gitignore", "*.log\n# mine\n/m2\n")
    text = """
        [stage.a]
        run = "NOTE(a) && head -c 3000000 /dev/zero > {outputs.m}; echo 2 > {outputs.m2}"
        outputs = { m = "m", m2 = "m2" }
    """
    toml(text)
    repo.pipe("build")
    repo.ran()
    assert repo.read(".gitignore") == "*.log\n# mine\n/m2\n/m\n"
    toml(text.replace('m = "m"', 'm = { path = "m", cache = false }'))
    done = repo.pipe("build")
    assert "took `/m` out of .gitignore" in done.stdout + done.stderr
    assert repo.read(".gitignore") == "*.log\n# mine\n/m2\n"
    repo.git("add", "-A")
    assert "m" in repo.git("ls-files").stdout.split()
    assert repo.ran() == []
    for again in (("build",), ("checkout",), ("build", "--force")):
        if again != ("build", "--force"):
            (repo.path / "m").unlink()
        repo.pipe(*again)
        info = os.stat(repo.path / "m")
        assert info.st_nlink == 1 and info.st_mode & 0o200, again
    assert repo.ran() == ["a"]


def test_a_link_to_the_cache_ends_when_a_stage_that_leaves_its_output_to_git_runs(repo, toml) -> None:
    """Never a link: what lies there from a time when it was cached is no reason to leave it one."""
    text = """
        [stage.a]
        run = "head -c 3000000 /dev/zero > {outputs.m}"
        outputs = { m = "m" }
    """
    toml(text)
    repo.pipe("build")
    toml(text.replace('m = "m"', 'm = { path = "m", cache = false }'))
    repo.pipe("build", "--force")
    info = os.stat(repo.path / "m")
    assert info.st_nlink == 1 and info.st_mode & 0o200
    assert (repo.path / "m").read_bytes() == bytes(3000000)


def test_changed_committed_output_at_a_revision(repo, toml) -> None:
    """A committed `cache = false` output that differs from the lock is `output-changed`."""
    toml("""
        [stage.a]
        run = "echo 1 > {outputs.m}"
        outputs = { m = { path = "m", cache = false } }
    """)
    repo.pipe("build")
    repo.commit()
    assert repo.pipe("status", "--rev", "HEAD", "--check").returncode == 0
    repo.write("m", "mine")
    repo.commit()
    told = repo.pipe("status", "--rev", "HEAD", "--check", "--json", check=False)
    assert told.returncode == 1 and told.why("a") == [("output-changed", "m")]
