"""What a save does: which stages it reaches, and what is no save at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
from tests.conftest import Repo

from .conftest import Watch, runs


def test_it_builds_at_once_and_then_at_every_save(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    assert w.ran(w.documents[0]) == ["a", "b"]
    assert pair.ran() == ["a", "b"]
    second = w.next(lambda: pair.write("a/a.txt", "aa\n"))
    assert w.ran(second) == ["a"] and second["status"] == "succeeded"
    assert pair.ran() == ["a"]
    assert pair.read("out/a") == "aa\n"
    assert "`a/a.txt` changed" in w.text
    third = w.next(lambda: pair.write("b/b.txt", "bb\n"))
    assert w.ran(third) == ["b"]
    assert pair.ran() == ["b"]
    assert runs(pair) == 3
    assert w.end() == 130


def test_a_save_that_reaches_no_stage_makes_no_run(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.ran()
    pair.write("README.md", "nobody's\n")
    pair.write("docs/page.md", "nobody's\n")
    pair.write("a/run.log", "ignored by git\n")
    pair.write("pipeline.toml", "# a comment\n" + pair.read("pipeline.toml"))
    os.utime(pair.path / "a/a.txt")
    pair.write("b/b.txt", "b\n")  # the same bytes
    pair.git("add", "-A")
    pair.git("commit", "-qm", "a commit changes nothing that is built")
    after = w.next(lambda: pair.write("b/b.txt", "bb\n"))
    assert w.ran(after) == ["b"]
    assert pair.ran() == ["b"]
    assert [d["status"] for d in w.documents] == ["succeeded", "succeeded"]
    assert runs(pair) == 2


def test_what_a_build_writes_itself_wakes_nothing(repo: Repo, watch: Callable[..., Watch]) -> None:
    """The whole workspace is the source: outputs, lockfile and .gitignore lie in it."""
    repo.write(
        "pipeline.toml",
        f"""
        [stage.all]
        source = "."
        run = "{repo.note("all")}; cat src.txt > {{outputs.o}}"
        [stage.all.outputs]
        o = "out/o"
        kept = {{ path = "report.txt", cache = false }}
        """.replace("cat src.txt > {outputs.o}", "cat src.txt > {outputs.o}; cp {outputs.o} {outputs.kept}"),
    )
    repo.write("src.txt", "1\n")
    w = watch()
    w.until_ready()
    assert "/out/o" in repo.read(".gitignore")
    w.next(lambda: repo.write("src.txt", "2\n"))
    w.next(lambda: repo.write("src.txt", "3\n"))
    assert repo.ran() == ["all"] * 3
    assert len(w.documents) == 3


def test_an_output_edited_by_hand_is_put_right(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.ran()
    after = w.next(lambda: os.replace(pair.write("edited", "by hand\n"), pair.path / "out/a"))
    assert w.ran(after) == ["a"]
    assert pair.read("out/a") == "a\n"
    assert pair.ran() == []  # restored
    w.next(lambda: (pair.path / "out/b").unlink())
    assert pair.read("out/b") == "b\n"


def test_a_lock_taken_back_by_hand_is_made_again(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.ran()
    before = pair.read("pipe.lock")
    w.next(lambda: (pair.path / "pipe.lock").unlink())
    assert pair.read("pipe.lock") == before
    assert pair.ran() == []


def test_inputs_that_git_ignores_wake_it(repo: Repo, watch: Callable[..., Watch]) -> None:
    repo.write(".gitignore", "/data\n/out\n")
    repo.write("data/raw/x.csv", "1\n")
    repo.write(
        "pipeline.toml",
        f"""
        [stage.a]
        run = "{repo.note("a")}; cat {{inputs.d}}/* > {{outputs.o}}"
        inputs = {{ d = "data/raw" }}
        outputs = {{ o = "out/a" }}
        """,
    )
    w = watch()
    w.until_ready()
    repo.ran()
    w.next(lambda: repo.write("data/raw/x.csv", "2\n"))
    assert repo.ran() == ["a"]
    w.next(lambda: repo.write("data/raw/y.csv", "3\n"))
    assert repo.read("out/a") == "2\n3\n"


def test_what_pipeignore_names_reaches_nothing(pair: Repo, watch: Callable[..., Watch]) -> None:
    pair.write(".pipeignore", "*.tmp\n")
    w = watch()
    w.until_ready()
    pair.ran()
    pair.write("a/x.tmp", "1\n")
    assert w.ran(w.next(lambda: pair.write("b/b.txt", "bb\n"))) == ["b"]
    assert w.ran(w.next(lambda: pair.write(".pipeignore", "nothing\n"))) == ["a"]


def test_new_and_removed_folders(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.write("pipeline.toml", pair.read("pipeline.toml").replace("cat a/*", "find a -type f | sort | xargs cat"))
    w.until(lambda: len(w.documents) == 2, "the new command")
    w.next(lambda: pair.write("a/deep/er/x.txt", "x\n"))
    assert pair.read("out/a") == "a\nx\n"
    w.next(lambda: pair.write("a/deep/er/x.txt", "xx\n"))
    assert pair.read("out/a") == "a\nxx\n"
    w.next(lambda: (pair.path / "a/deep").rename(pair.path / "a/shallow"))
    w.next(lambda: pair.write("a/shallow/er/x.txt", "xxx\n"))
    assert pair.read("out/a") == "a\nxxx\n"
    w.next(lambda: shutil.rmtree(pair.path / "a/shallow"))
    assert pair.read("out/a") == "a\n"


def test_a_source_folder_that_is_removed_and_made_again(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.ran()
    gone = w.next(lambda: shutil.rmtree(pair.path / "a"))
    assert gone["error"]["messages"][0]["key"] == "stage.a.source"
    w.next(lambda: pair.write("a/new.txt", "new\n"))
    assert pair.read("out/a") == "new\n"
    w.next(lambda: pair.write("a/new.txt", "newer\n"))
    assert pair.read("out/a") == "newer\n"
    assert pair.ran() == ["a", "a"]


def test_a_link_on_the_way_to_an_input(repo: Repo, watch: Callable[..., Watch]) -> None:
    repo.write("real/data/x.txt", "1\n")
    (repo.path / "alias").symlink_to("real")
    repo.write(
        "pipeline.toml",
        """
        [stage.a]
        run = "cat {inputs.d} > {outputs.o}"
        inputs = { d = "alias/data/x.txt" }
        outputs = { o = "out/a" }
        """,
    )
    w = watch()
    w.until_ready()
    w.next(lambda: repo.write("real/data/x.txt", "2\n"))
    assert repo.read("out/a") == "2\n"


def test_an_executable_bit_counts(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    assert w.ran(w.next(lambda: (pair.path / "a/a.txt").chmod(0o755))) == ["a"]


def test_params_files_and_pipeline_toml(repo: Repo, watch: Callable[..., Watch]) -> None:
    repo.write(
        "pipeline.toml",
        f"""
        [pipeline]
        params-files = ["conf/params.json"]
        [stage.a]
        run = "{repo.note("a")}; echo {{params.x}} > {{outputs.o}}"
        outputs = {{ o = "out/a" }}
        """,
    )
    repo.write("conf/params.json", '{"x": 1}')
    w = watch()
    w.until_ready()
    w.next(lambda: repo.write("conf/params.json", '{"x": 2}'))
    assert repo.read("out/a") == "2\n"
    w.next(lambda: repo.write("pipeline.toml", repo.read("pipeline.toml").replace("out/a", "out/b")))
    assert repo.read("out/b") == "2\n"
    assert repo.ran() == ["a", "a", "a"]


def test_a_stage_that_always_runs_is_run_at_the_start_and_when_it_is_reached(
    pair: Repo, watch: Callable[..., Watch]
) -> None:
    text = pair.read("pipeline.toml").replace("[stage.a]", "[stage.a]\nreuse = false")
    pair.write("pipeline.toml", text)
    pair.pipe("build")
    pair.ran()
    w = watch()
    w.until_ready()
    assert pair.ran() == ["a"]
    w.next(lambda: pair.write("b/b.txt", "bb\n"))
    assert pair.ran() == ["b"]
    w.next(lambda: pair.write("a/a.txt", "aa\n"))
    assert pair.ran() == ["a"]


def test_named_stages_only(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch("a")
    w.until_ready()
    pair.write("b/b.txt", "bb\n")
    w.next(lambda: pair.write("a/a.txt", "aa\n"))
    assert pair.ran() == ["a", "a"]
    assert [stage["name"] for stage in w.documents[-1]["stages"]] == ["a"]


def test_overridden_params(repo: Repo, watch: Callable[..., Watch]) -> None:
    repo.write(
        "pipeline.toml", '[params]\nx = 1\n[stage.a]\nrun = "echo {params.x} > {outputs.o}"\noutputs = { o = "o" }\n'
    )
    w = watch("--set", "x=5", "-j", "1", "-k", "--debounce", "0")
    w.until_ready()
    assert repo.read("o") == "5\n"


@pytest.mark.parametrize(
    "way", ["vim", "vim backup", "emacs", "vscode", "jetbrains", "plain rename", "truncate", "sed"]
)
def test_ways_in_which_editors_save(pair: Repo, watch: Callable[..., Watch], way: str) -> None:
    w = watch()
    w.until_ready()
    pair.ran()
    folder = pair.path / "a"

    def save() -> None:
        if way.startswith("vim"):
            (folder / "4913").write_text("")
            (folder / "4913").unlink()
            (folder / "a.txt").rename(folder / "a.txt~")
            (folder / "a.txt").write_text("saved\n")
            if way == "vim":
                (folder / "a.txt~").unlink()
            else:
                (folder / "a.txt~").rename(pair.home / "a.txt~")
        elif way == "emacs":
            (folder / ".#a.txt").symlink_to("ada@host.1234:5678")
            (folder / "#a.txt#").write_text("auto-saved\n")
            (folder / "a.txt").write_text("saved\n")
            (folder / "#a.txt#").unlink()
            (folder / ".#a.txt").unlink()
        elif way == "jetbrains":
            (folder / "a.txt___jb_tmp___").write_text("saved\n")
            (folder / "a.txt").rename(folder / "a.txt___jb_old___")
            (folder / "a.txt___jb_tmp___").rename(folder / "a.txt")
            (folder / "a.txt___jb_old___").unlink()
        elif way == "plain rename":
            (folder / "tmp1234").write_text("saved\n")
            (folder / "tmp1234").replace(folder / "a.txt")
        elif way == "truncate":
            with open(folder / "a.txt", "w") as file:
                file.write("sa")
                file.flush()
                file.write("ved\n")
        elif way == "sed":
            pair.run("sed", "-i", "s/.*/saved/", "a/a.txt")
        else:
            (folder / "a.txt").write_text("saved\n")
            os.utime(folder / "a.txt")

    assert w.ran(w.next(save)) == ["a"]
    assert pair.read("out/a") == "saved\n"
    w.next(lambda: pair.write("b/b.txt", "bb\n"))
    assert pair.ran() == ["a", "b"]
    assert len(w.documents) == 3


def test_what_an_editor_lays_beside_an_open_file_wakes_nothing(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.ran()
    (pair.path / "a/.#a.txt").symlink_to("ada@host.1234:5678")
    pair.write("a/#a.txt#", "half a thought")
    pair.write("a/.a.txt.swp", "b0VIM")
    for name in (".#a.txt", "#a.txt#", ".a.txt.swp"):
        (pair.path / "a" / name).unlink()
    w.next(lambda: pair.write("b/b.txt", "bb\n"))
    assert pair.ran() == ["b"]
    assert len(w.documents) == 2


def test_many_files_at_once_are_one_build(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch("--debounce", "500")
    w.until_ready()
    pair.ran()

    def save() -> None:
        for number in range(200):
            pair.write(f"a/n{number}.txt", f"{number}\n")

    w.next(save)
    assert pair.ran() == ["a"]
    assert "and 197 more changed" in w.text


def test_a_change_that_no_event_told_of_is_found_when_it_is_quiet(pair: Repo, watch: Callable[..., Watch]) -> None:
    """Written through a hard link that lies elsewhere."""
    os.link(pair.path / "a/a.txt", pair.home / "elsewhere")
    w = watch()
    w.until_ready()
    pair.ran()
    (pair.home / "elsewhere").write_text("from elsewhere\n")
    pair.write("b/b.txt", "bb\n")
    for name, content in (("a", "from elsewhere\n"), ("b", "bb\n")):
        there = pair.path / "out" / name
        w.until(lambda there=there, content=content: there.exists() and there.read_text() == content, name)  # type: ignore[misc]
    assert pair.ran() == ["a", "b"]


def test_many_saves_in_many_ways(pair: Repo, watch: Callable[..., Watch]) -> None:
    """Whatever is trusted between looks: after each save the workspace is what a build of it would be."""
    pair.write("pipeline.toml", pair.read("pipeline.toml").replace("cat a/*", "find a -type f | sort | xargs cat"))
    for number in range(10):
        pair.write(f"a/d{number}/x.txt", f"{number}\n")
    w = watch()
    w.until_ready()
    saves: list[Callable[[], object]] = [
        lambda: pair.write("a/d1/x.txt", "new\n"),
        lambda: pair.write("a/d1/y.txt", "a file more\n"),
        lambda: (pair.path / "a/d2/x.txt").unlink(),
        lambda: (pair.path / "a/d3").rename(pair.path / "a/e3"),
        lambda: os.replace(pair.write("a/d4/tmp", "replaced\n"), pair.path / "a/d4/x.txt"),
        lambda: shutil.move(pair.path / "a/d5", pair.home / "d5"),
        lambda: shutil.copytree(pair.home / "d5", pair.path / "a/f/g/d5"),
        lambda: pair.write("a/f/g/d5/x.txt", "deep\n"),
        lambda: pair.write("a/d6/.gitignore", "x.txt\n"),
        lambda: pair.write("a/d6/.gitignore", "nothing\n"),
        lambda: (pair.path / "a/d7/x.txt").chmod(0o755),
        lambda: pair.write("a/d1/x.txt", "newer\n"),
        lambda: shutil.rmtree(pair.path / "a/d1"),
        lambda: pair.git("rm", "-q", "--cached", "-r", "b"),
        lambda: pair.write("a/a.txt", "last\n"),
    ]
    for number, save in enumerate(saves):
        if number == 13:
            save()
            continue
        w.next(save)
        expected = sorted((pair.path / "a").rglob("*"))
        files = [path for path in expected if path.is_file()]
        shown = "".join(path.read_text() for path in sorted(files, key=lambda path: os.fsencode(path)))
        if number == 8:
            shown = shown.replace("6\n", "", 1)
        assert sorted(pair.read("out/a").split()) == sorted(shown.split()), number
        assert pair.pipe("status", "--check", check=False).returncode == 0, number
