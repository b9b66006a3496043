"""`pipe lock resolve`, from outside."""

from __future__ import annotations

PIPELINE = """
[stage.a]
run = "cat {inputs.i} > {outputs.o}"
inputs = { i = "a.txt" }
outputs = { o = "out/a.txt" }

[stage.b]
run = "cat {inputs.i} > {outputs.o}"
inputs = { i = "b.txt" }
outputs = { o = "out/b.txt" }
"""


def test_a_conflicted_lock_is_mended(repo) -> None:  # type: ignore[no-untyped-def]
    repo.write("pipeline.toml", PIPELINE)
    repo.write("a.txt", "1\n")
    repo.write("b.txt", "1\n")
    repo.pipe("build")
    repo.commit("base")
    repo.git("checkout", "-q", "-b", "other")
    repo.write("a.txt", "2\n")
    repo.write("b.txt", "2\n")
    repo.pipe("build")
    repo.commit("other")
    repo.git("checkout", "-q", "main")
    repo.write("a.txt", "3\n")
    repo.pipe("build")
    repo.commit("main")
    repo.git("merge", "-q", "other", check=False)
    repo.git("checkout", "-q", "--ours", "a.txt")
    told = repo.pipe("build", check=False)
    assert told.returncode == 2
    assert "pipe lock resolve" in told.stderr
    conflicted = repo.read("pipe.lock")
    assert "<<<<<<<" in conflicted, "it was not overwritten"

    mended = repo.pipe("lock", "resolve", "--json").json()
    assert mended == {"mended": True, "unmerged": True, "dropped": ["a"], "accepted": [], "pins": []}
    assert repo.pipe("lock", "resolve", "--json").json()["mended"] is False
    assert repo.pipe("status", "--json").why("a") == [("new", "")]
    built = repo.pipe("build", "--json").stages()
    assert built == {"a": "restored", "b": "restored"}, "both results are known"
    assert repo.read("out/a.txt") == "3\n"
    assert repo.read("out/b.txt") == "2\n"
