"""A source's id is git's own: what `git add` would make of the work tree now, filters and all."""

from __future__ import annotations

import os

import pytest

from pipesmith.errors import UserError


def test_clean_folder_has_the_id_that_git_has(bed):
    bed.repo.write("lib/a.py", "a\n")
    bed.repo.write("lib/deep/b.sh", "b\n", executable=True)
    bed.repo.write("lib.py", "sorts between lib and lib/\n")
    bed.repo.commit()
    for path in ("lib", "lib/deep", "lib.py"):
        assert bed.source(path) == bed.repo.git("rev-parse", f"HEAD:{path}").stdout.strip()


def test_untracked_and_deleted_and_changed_files_count(bed):
    bed.repo.write("lib/a.py", "a\n")
    bed.repo.write("lib/gone.py", "a\n")
    bed.repo.commit()
    before = bed.source("lib")
    bed.repo.write("lib/new.py", "new\n")
    (bed.path / "lib/gone.py").unlink()
    bed.repo.write("lib/a.py", "changed\n")
    assert bed.source("lib") == bed.would_commit("lib") != before


def test_no_commit_yet(bed):
    bed.repo.write("lib/a.py", "a\n")
    assert bed.source("lib") == bed.would_commit("lib")


def test_nothing_there_and_nothing_listed(bed):
    bed.repo.write(".gitignore", "data/\n")
    bed.repo.write("data/a", "a\n")
    (bed.path / "empty/inner").mkdir(parents=True)
    tree = bed.tree()
    assert [tree.source_id(path) for path in ("absent", "data", "empty", "data/a")] == [None] * 4


def test_ignored_files_do_not_count_but_tracked_ones_do(bed):
    bed.repo.write(".gitignore", "*.log\n")
    bed.repo.write("lib/a.log", "a\n")
    bed.repo.write("lib/kept.log", "a\n")
    bed.repo.git("add", "-f", "lib/kept.log")
    assert bed.source("lib") == bed.would_commit("lib")
    assert [path for path, _mode in bed.tree().source_files("lib")] == ["lib/kept.log"]


def test_users_index_is_not_touched(bed):
    bed.repo.write("a", "a\n")
    bed.repo.commit()
    index = (bed.path / ".git/index").read_bytes()
    objects = sorted(os.walk(bed.path / ".git/objects"))
    bed.repo.write(".gitattributes", "* text=auto\n")
    bed.repo.write("a", "changed\r\n")
    bed.repo.write("b", "new\r\n")
    tree = bed.tree()
    tree.source_id(".")
    tree.input("b")
    tree.flush()
    assert (bed.path / ".git/index").read_bytes() == index
    assert sorted(os.walk(bed.path / ".git/objects")) == objects
    assert not (bed.path / ".git/index.lock").exists()


def test_what_never_counts(bed):
    bed.repo.write("pipeline.toml", "")
    bed.repo.write("pipe.lock", "")
    bed.repo.write("sub/pipeline.toml", "another workspace's is a file like others")
    bed.repo.write("models/a.pkl", "made")
    bed.repo.write("models/readme", "not made")
    bed.repo.write("out", "made")
    bed.repo.commit()
    bed.excluded = frozenset({"models/a.pkl", "out"})
    assert bed.source(".") == bed.would_commit(drop=("models/a.pkl", "out"))
    assert bed.source("models") == bed.would_commit("models", drop=("models/a.pkl",))
    assert bed.source("out") is None
    assert bed.source("models/a.pkl") is None
    assert [path for path, _mode in bed.tree().source_files(".")] == ["models/readme", "sub/pipeline.toml"]
    assert bed.revision().source_id(".") == bed.source(".")
    assert bed.revision().source_id("out") is None


def test_a_folder_with_an_output_path_of_similar_name(bed):
    bed.repo.write("out2/a", "a\n")
    bed.repo.write("out/a", "a\n")
    bed.excluded = frozenset({"out"})
    assert bed.source("out2") == bed.would_commit("out2")
    assert bed.source(".") == bed.would_commit(drop=("out",))


def test_workspace_in_a_subfolder(bed):
    bed.repo.write("lib/a.py", "outside\n")
    bed.repo.write("team/pipeline.toml", "")
    bed.repo.write("team/lib/a.py", "inside\n")
    bed.repo.write(".gitignore", "/team/lib/ignored\n")
    bed.repo.write("team/lib/ignored", "x")
    bed.repo.write(".gitattributes", "/team/lib/crlf eol=lf\n")
    bed.repo.write("team/lib/crlf", "a\r\nb\r\n")
    bed.repo.commit()
    assert bed.source("lib", "team") == bed.repo.git("rev-parse", "HEAD:team/lib").stdout.strip()
    assert bed.source(".", "team") == bed.would_commit("team", drop=("team/pipeline.toml",))
    assert bed.revision(folder="team").source_id(".") == bed.source(".", "team")


def test_executable_bit_follows_core_filemode(bed):
    bed.repo.write("lib/a.sh", "a\n")
    bed.repo.write("lib/b.sh", "a\n", executable=True)
    bed.repo.commit()
    (bed.path / "lib/a.sh").chmod(0o755)
    (bed.path / "lib/b.sh").chmod(0o644)
    bed.repo.write("lib/new.sh", "a\n", executable=True)
    assert bed.source("lib") == bed.would_commit("lib")
    bed.repo.git("config", "core.fileMode", "no")
    assert bed.source("lib") == bed.would_commit("lib")


def test_links_count_by_their_text(bed):
    bed.repo.write("lib/a.py", "a\n")
    os.symlink("a.py", bed.path / "lib/link")
    os.symlink("../lib", bed.path / "lib/loop")
    bed.repo.commit()
    assert bed.source("lib") == bed.would_commit("lib")
    assert bed.source("lib/link") == bed.would_commit("lib/link")


@pytest.mark.parametrize("target", ["nowhere", "../../outside", "/etc/hostname"])
def test_a_link_that_dangles_or_leads_out_is_told(bed, target):
    bed.repo.write("lib/a.py", "a\n")
    os.symlink(target, bed.path / "lib/data")
    with pytest.raises(UserError) as caught:
        bed.source("lib")
    assert "`lib/data`" in caught.value.text
    if target == "/etc/hostname":
        assert "[dataset.data]" in caught.value.text and 'from = "/etc/hostname"' in caught.value.text
    bed.repo.write(".pipeignore", "lib/data\n")
    assert bed.source("lib") == bed.would_commit("lib", drop=("lib/data",))


def test_a_folder_replaced_by_a_link_hides_what_git_tracked_in_it(bed):
    bed.repo.write("old/a.py", "a\n")
    bed.repo.write("new/a.py", "a\n")
    bed.repo.commit()
    (bed.path / "old/a.py").unlink()
    (bed.path / "old").rmdir()
    os.symlink("new", bed.path / "old")
    assert bed.source(".") == bed.would_commit()
    assert bed.source("old") == bed.tree().hash_path_id("old") == bed.would_commit("old")
    assert bed.source("old/a.py") is None


def test_a_file_replaced_by_a_folder_and_the_other_way_round(bed):
    bed.repo.write("a", "a\n")
    bed.repo.write("b/c", "a\n")
    bed.repo.commit()
    (bed.path / "a").unlink()
    bed.repo.write("a/inner", "x\n")
    (bed.path / "b/c").unlink()
    (bed.path / "b").rmdir()
    bed.repo.write("b", "x\n")
    assert bed.source(".") == bed.would_commit()


def test_intent_to_add_and_unmerged_entries_count_as_they_lie_there(bed):
    bed.repo.write("a", "base\n")
    bed.repo.commit()
    bed.repo.git("checkout", "-q", "-b", "other")
    bed.repo.write("a", "theirs\n")
    bed.repo.commit()
    bed.repo.git("checkout", "-q", "main")
    bed.repo.write("a", "ours\n")
    bed.repo.commit()
    bed.repo.git("merge", "other", check=False)
    bed.repo.write("b", "b\n")
    bed.repo.git("add", "-N", "b")
    assert "u" in bed.repo.git("ls-files", "-u").stdout or bed.repo.git("ls-files", "-u").stdout
    tree = bed.source(".")
    bed.repo.git("add", "-A")
    assert tree == bed.repo.git("write-tree").stdout.strip()


def test_sparse_checkout_counts_what_is_left_out(bed):
    bed.repo.write("lib/a", "a\n")
    bed.repo.write("other/b", "b\n")
    bed.repo.commit()
    whole = bed.source(".")
    bed.repo.git("sparse-checkout", "set", "lib")
    assert not bed.repo.exists("other/b")
    assert bed.source(".") == whole
    assert bed.source("other") == bed.repo.git("rev-parse", "HEAD:other").stdout.strip()
    with pytest.raises(UserError) as caught:
        bed.tree().source_files("other")
    assert caught.value.help == "run `git sparse-checkout add other`"
    assert [path for path, _mode in bed.tree().source_files("lib")] == ["lib/a"]


def test_linked_worktree(bed, make_bed):
    bed.repo.write("lib/a", "a\n")
    bed.repo.commit()
    other = make_bed(bed.repo.worktree())
    other.repo.write("lib/b", "b\n")
    assert other.source("lib") == other.would_commit("lib") != bed.source("lib")


@pytest.mark.parametrize("name", ['"quoted', "end\r", "two\nlines", "tab\t", "é", "\udcff", "a b", "-n", "\\back", "*"])
def test_odd_names(bed, name):
    raw = os.fsencode(bed.path / "lib") + b"/" + os.fsencode(name)
    os.mkdir(bed.path / "lib")
    with open(raw, "wb") as file:
        file.write(b"a\r\n")
    assert bed.source("lib") == bed.would_commit("lib")
    bed.repo.write("lib/.gitattributes", "* text\n")
    assert bed.source("lib") == bed.would_commit("lib")
    assert bed.tree().input("lib").digest is not None
    assert f"lib/{name}" in [path for path, _mode in bed.tree().source_files("lib")]


def test_sha256_repository(bed, make_bed, make_repo, tmp_path):
    repo = make_repo("sha256")
    repo.git("init", "-q", "--object-format=sha256", str(tmp_path / "real"))
    repo.path = tmp_path / "real"
    other = make_bed(repo)
    repo.write("lib/a", "a\r\n")
    repo.write(".gitattributes", "a text\n")
    repo.write(".pipeignore", "skip\n")
    repo.write("lib/skip", "a\n")
    commit = repo.commit()
    assert len(commit) == 64
    assert other.source("lib") == other.would_commit("lib", drop=("lib/skip",)) == other.revision().source_id("lib")
    assert other.revision().source_id(".") == other.source(".")


def test_a_file_that_cannot_be_read_is_named(bed):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    bed.repo.write("lib/a", "a\n").chmod(0)
    with pytest.raises(UserError, match="lib/a"):
        bed.source("lib")
