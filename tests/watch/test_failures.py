"""What can't be built: it is shown, and tried again at the save that mends it, or reaches it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.conftest import Repo

from .conftest import Watch, runs


@pytest.fixture
def shaky(repo: Repo) -> Repo:
    """`a` fails unless its file says `good`; `after` comes after it, `b` has nothing to do with either."""
    repo.write(
        "pipeline.toml",
        f"""
        [stage.b]
        source = "b"
        run = "{repo.note("b")}; cat b/* > {{outputs.o}}"
        outputs = {{ o = "out/b" }}
        [stage.a]
        source = "a"
        run = "{repo.note("a")}; grep good a/a.txt > {{outputs.o}}"
        outputs = {{ o = "out/a" }}
        [stage.after]
        source = "after"
        run = "{repo.note("after")}; cat {{inputs.i}} after/* > {{outputs.o}}"
        inputs = {{ i = "stage:a.o" }}
        outputs = {{ o = "out/after" }}
        """,
    )
    repo.write("a/a.txt", "bad\n")
    repo.write("b/b.txt", "b\n")
    repo.write("after/x.txt", "x\n")
    repo.write(".gitignore", "/out\n")
    repo.commit()
    return repo


def statuses(document: dict[str, object]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in document["stages"]}  # type: ignore[attr-defined]


def test_a_stage_that_failed_is_tried_again_at_the_next_save_that_reaches_it(
    shaky: Repo, watch: Callable[..., Watch]
) -> None:
    w = watch("-k")
    w.until_ready()
    assert statuses(w.documents[0]) == {"a": "failed", "b": "ran", "after": "skipped"}
    assert "`a` failed" in w.text
    shaky.ran()
    other = w.next(lambda: shaky.write("b/b.txt", "bb\n"))
    assert shaky.ran() == ["b"]
    assert statuses(other) == {"a": "skipped", "b": "ran", "after": "skipped"}
    nothing = w.next(lambda: shaky.write("after/x.txt", "x\n\n"))
    assert shaky.ran() == []
    assert (nothing["run"], nothing["status"]) == (None, "failed")
    shaky.write("after/x.txt", "x\n")
    w.next(lambda: shaky.write("a/a.txt", "still bad\n"))
    assert shaky.ran() == ["a"]
    w.next(lambda: shaky.write("a/a.txt", "good\n"))
    assert shaky.ran() == ["a", "after"]
    assert shaky.read("out/after") == "good\nx\n"
    assert shaky.pipe("status", "--check").returncode == 0
    assert w.lines[-1] == "waiting for changes"


def test_a_save_that_changes_nothing_of_it_is_a_try_as_well(shaky: Repo, watch: Callable[..., Watch]) -> None:
    """The reason may lie outside; a mere `touch` is no save."""
    shaky.write("pipeline.toml", shaky.read("pipeline.toml").replace("grep good a/a.txt", "cat $HOME/outside"))
    w = watch("a")
    w.until_ready()
    shaky.ran()
    (shaky.home / "outside").write_text("here\n")
    (shaky.path / "a/a.txt").touch()
    w.next(lambda: shaky.write("a/a.txt", "bad\n"))
    assert shaky.ran() == ["a"]
    assert shaky.read("out/a") == "here\n"


def test_a_save_that_reaches_what_comes_after_a_failed_stage_runs_nothing(
    shaky: Repo, watch: Callable[..., Watch]
) -> None:
    w = watch("-k")
    w.until_ready()
    shaky.ran()
    shaky.write("after/x.txt", "xx\n")
    w.next(lambda: shaky.write("b/b.txt", "bb\n"))
    assert shaky.ran() == ["b"]


def test_without_keep_going_the_rest_is_built_by_the_save_that_mends(shaky: Repo, watch: Callable[..., Watch]) -> None:
    """What was left out when another stage failed is no reason to build at every save."""
    text = shaky.read("pipeline.toml")
    shaky.write(
        "pipeline.toml",
        text + '[stage.z]\nrun = "echo z >> $HOME/ran; echo > {outputs.o}"\n'
        'after = ["b"]\nmutex = ["m"]\noutputs = { o = "out/z" }\n',
    )
    w = watch("-j", "1")
    w.until_ready()
    first = statuses(w.documents[0])
    assert first["a"] == "failed"
    left = [name for name, status in first.items() if status == "skipped"]
    assert "after" in left
    shaky.ran()
    before = runs(shaky)
    shaky.write("README.md", "nothing\n")
    shaky.write("unrelated/x", "nothing\n")
    w.next(lambda: shaky.write("a/a.txt", "good\n"))
    assert runs(shaky) == before + 1
    assert shaky.ran() == sorted({"a", "after", *left})
    assert shaky.pipe("status", "--check").returncode == 0


def test_what_is_written_of_a_failed_stage_counts_as_a_save(repo: Repo, watch: Callable[..., Watch]) -> None:
    repo.write(
        "pipeline.toml", '[stage.a]\nrun = "sleep 2; echo > {outputs.o}"\noutputs = { o = "o" }\ntimeout = "1s"\n'
    )
    w = watch()
    w.until_ready()
    assert statuses(w.documents[0]) == {"a": "failed"}
    done = w.next(lambda: repo.write("pipeline.toml", repo.read("pipeline.toml").replace("1s", "60s")))
    assert statuses(done) == {"a": "ran"}


def test_a_broken_expectation_is_not_tried_at_every_save(repo: Repo, watch: Callable[..., Watch]) -> None:
    repo.write(
        "pipeline.toml",
        f"""
        [stage.a]
        source = "a"
        run = "{repo.note("a")}; cp a/m.json {{outputs.m}}"
        metrics = ["m"]
        outputs = {{ m = "m.json" }}
        expect = {{ "m:auc" = {{ min = 0.9 }} }}
        [stage.b]
        source = "b"
        run = "{repo.note("b")}; cat b/* > {{outputs.o}}"
        outputs = {{ o = "out/b" }}
        """,
    )
    repo.write("a/m.json", '{"auc": 0.5}')
    repo.write("b/b.txt", "b\n")
    w = watch("-k")
    w.until_ready()
    repo.ran()
    before = runs(repo)
    w.next(lambda: repo.write("b/b.txt", "bb\n"))
    assert repo.ran() == ["b"]
    assert runs(repo) == before + 1
    done = w.next(lambda: repo.write("a/m.json", '{"auc": 0.95}'))
    assert statuses(done)["a"] == "ran"
    worse = w.next(lambda: repo.write("pipeline.toml", repo.read("pipeline.toml").replace("0.9 ", "0.99 ")))
    assert statuses(worse)["a"] == "failed"
    better = w.next(lambda: repo.write("pipeline.toml", repo.read("pipeline.toml").replace("0.99 ", "0.9 ")))
    assert statuses(better)["a"] == "fresh"
    assert w.lines[-1] == "waiting for changes"


def test_what_was_saved_while_the_pipeline_was_broken_is_built_after_its_mend(
    shaky: Repo, watch: Callable[..., Watch]
) -> None:
    shaky.write("a/a.txt", "good\n")
    w = watch()
    w.until_ready()
    shaky.ran()
    good = shaky.read("pipeline.toml")
    bad = good.replace('outputs = { o = "out/b" }', 'outputs = { o = "out/b" }\nsorce = "x"').replace(
        "after/*", "{inputs.k}"
    )
    error = w.next(lambda: shaky.write("pipeline.toml", bad))["error"]
    assert error["kind"] == "config"
    assert [(m["file"], m["key"]) for m in error["messages"]] == [
        ("pipeline.toml", "stage.b.sorce"),
        ("pipeline.toml", "stage.after.run"),
    ]
    assert all(message["line"] for message in error["messages"])
    assert "pipeline.toml:5: stage.b.sorce" in w.text
    shaky.write("a/a.txt", "good again\n")
    shaky.write("b/b.txt", "bb\n")
    assert shaky.ran() == []
    w.next(lambda: shaky.write("pipeline.toml", good))
    assert shaky.ran() == ["a", "after", "b"]


def test_a_pipeline_that_is_broken_from_the_start_is_waited_for(pair: Repo, watch: Callable[..., Watch]) -> None:
    good = pair.read("pipeline.toml")
    pair.write("pipeline.toml", "[stage.a\n")
    w = watch()
    w.until_ready()
    assert w.documents[0]["error"]["messages"][0]["line"] == 1
    w.next(lambda: pair.write("pipeline.toml", good))
    assert pair.ran() == ["a", "b"]


def test_broken_params_file_from_the_start(repo: Repo, watch: Callable[..., Watch]) -> None:
    repo.write(
        "pipeline.toml",
        '[pipeline]\nparams-files = ["conf/p.json"]\n[stage.a]\nrun = "echo {params.x} > {outputs.o}"\noutputs = { o = "o" }\n',
    )
    repo.write("conf/p.json", "{")
    w = watch()
    w.until_ready()
    assert "error" in w.documents[0]
    w.next(lambda: repo.write("conf/p.json", '{"x": 3}'))
    assert repo.read("o") == "3\n"


def test_a_pipeline_that_goes_and_comes_back(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.ran()
    good = pair.read("pipeline.toml")
    assert "is gone" in w.next(lambda: (pair.path / "pipeline.toml").unlink())["error"]["messages"][0]["text"]
    pair.write("a/a.txt", "aa\n")
    w.next(lambda: pair.write("pipeline.toml", good))
    assert pair.ran() == ["a"]


def test_a_broken_lock_is_waited_for(pair: Repo, watch: Callable[..., Watch]) -> None:
    w = watch()
    w.until_ready()
    pair.ran()
    good = pair.read("pipe.lock")
    bad = w.next(lambda: pair.write("pipe.lock", "<<<<<<< ours\n" + good))
    assert "error" in bad
    pair.write("a/a.txt", "aa\n")
    w.next(lambda: pair.write("pipe.lock", good))
    assert pair.ran() == ["a"]


def test_a_dataset_that_finds_nothing_is_waited_for(repo: Repo, watch: Callable[..., Watch]) -> None:
    outside = repo.home / "big" / "images"
    repo.write(
        "pipeline.toml",
        f"""
        [dataset.images]
        from = "{outside}/*.png"
        [stage.a]
        run = "{repo.note("a")}; ls {{inputs.d}} > {{outputs.o}}"
        inputs = {{ d = "dataset:images" }}
        outputs = {{ o = "out/a" }}
        """,
    )
    w = watch()
    w.until_ready()
    assert "finds nothing" in w.documents[0]["error"]["messages"][0]["text"]

    def arrive() -> None:
        outside.mkdir(parents=True)
        (outside / "x.png").write_text("x")

    w.next(arrive)
    assert repo.read("out/a") == "x.png\n"


def test_a_pinned_dataset_stays_what_it_is(repo: Repo, watch: Callable[..., Watch]) -> None:
    outside = repo.home / "big"
    outside.mkdir()
    (outside / "x.txt").write_text("x")
    repo.write(
        "pipeline.toml",
        f"""
        [dataset.d]
        from = "{outside}"
        [stage.a]
        run = "{repo.note("a")}; ls {{inputs.d}} > {{outputs.o}}"
        inputs = {{ d = "dataset:d" }}
        outputs = {{ o = "out/a" }}
        """,
    )
    w = watch()
    w.until_ready()
    (outside / "y.txt").write_text("y")
    repo.write("pipeline.toml", repo.read("pipeline.toml").replace("ls ", "ls -1 "))
    w.until(lambda: len(w.documents) == 2, "the new command")
    assert repo.ran() == ["a", "a"]
    w.until(lambda: w.waits() == 2, "the end")
    repo.pipe("data", "update")
    w.until(lambda: len(w.documents) == 3, "what was pinned anew")
    assert repo.read("out/a") == "x.txt\ny.txt\n"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("nosuch",), "no stage `nosuch`"),
        (("--debounce", "-5"), "`--debounce` needs a number of milliseconds"),
        (("--debounce", "soon"), "`--debounce` needs a whole number"),
        (("-j", "0"), "`-j` needs a number of at least 1"),
        (("--compute", "moon"), "no compute `moon`"),
        (("--set", "x"), "`--set x` is not `K=V`"),
    ],
)
def test_wrong_use_ends_it(pair: Repo, args: tuple[str, ...], text: str) -> None:
    done = pair.pipe("watch", *args, check=False)
    assert done.returncode == 2
    assert text in done.stderr
    assert pair.ran() == []


def test_a_wrong_way_to_watch_ends_it(pair: Repo) -> None:
    done = pair.pipe("watch", check=False, env={"PIPE_WATCH": "staring"})
    assert done.returncode == 2
    assert "PIPE_WATCH is `staring`" in done.stderr


def test_it_does_not_start_inside_a_stage(pair: Repo) -> None:
    done = pair.pipe("watch", check=False, env={"PIPE_RUN": "r", "PIPE_STAGE": "a"})
    assert done.returncode == 2
    assert "`pipe watch` does not start inside a stage" in done.stderr


def test_outside_a_repository(tmp_path: object, make_repo: Callable[[str], Repo]) -> None:
    empty = make_repo("empty")
    done = empty.pipe("watch", check=False)
    assert done.returncode == 2
    assert "pipe init" in done.stderr


def test_a_stage_that_writes_into_its_own_source_is_not_built_for_ever(pair: Repo, watch: Callable[..., Watch]) -> None:
    text = pair.read("pipeline.toml").replace("[stage.a]", "[stage.a]\nsandbox = false")
    pair.write(
        "pipeline.toml", text.replace("cat a/*", "date +%N >> a/made.txt; sleep 0.5; date +%N >> a/made.txt; cat a/*")
    )
    w = watch("-k")
    w.until_ready()
    assert statuses(w.documents[0])["a"] == "failed"
    w.next(lambda: pair.write("b/b.txt", "bb\n"))
    w.next(lambda: pair.write("b/b.txt", "bbb\n"))
    assert pair.ran() == ["a", "b", "b", "b"]
    w.next(lambda: pair.write("a/a.txt", "aa\n"))
    assert pair.ran() == ["a"]
