"""Between branches: what the other branch's build made is no hand-made change."""

from __future__ import annotations

from tests.conftest import Repo


def test_switching_branches_restores_without_a_word(repo: Repo) -> None:
    """Returning to an earlier state restores its outputs and its pipe.lock byte for byte, and nothing is named as
    edited."""
    repo.write(
        "pipeline.toml",
        f"""
        [stage.a]
        source = "src"
        run = "{repo.note("a")}; cat src/x > {{outputs.o}}"
        outputs = {{ o = "o.txt" }}
        """,
    )
    repo.write("src/x", "one\n")
    repo.pipe("build")
    first = repo.commit()
    lock = repo.read("pipe.lock")
    repo.git("checkout", "-q", "-b", "other")
    repo.write("src/x", "two\n")
    repo.pipe("build")
    repo.commit()
    assert repo.ran() == ["a", "a"]
    for revision, text in ((first, "one\n"), ("other", "two\n"), (first, "one\n")):
        repo.git("checkout", "-q", revision)
        built = repo.pipe("build", "--json")
        assert built.stages() == {"a": "restored"}
        assert "kept" not in built.stderr
        assert repo.read("o.txt") == text
        assert repo.git("status", "--porcelain").stdout == ""
    assert repo.read("pipe.lock") == lock
    assert repo.ran() == []
    assert repo.pipe("verify").returncode == 0
