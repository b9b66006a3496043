"""`keep`: a folder that the next try of the same fingerprint finds again."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("kind", ["auto", "copies"])
def test_next_try_finds_what_the_last_one_left(repo: Any, kind: str) -> None:
    """In every kind of sandbox; after a success the next run finds nothing."""
    run = "echo x >> $PIPE_KEEP/ckpt && test $(wc -l < $PIPE_KEEP/ckpt) -ge 2 && cp $PIPE_KEEP/ckpt {outputs.o}"
    repo.write(
        "pipeline.toml",
        f"""
        [stage.train]
        run = "{run}"
        outputs = {{ o = "o.txt" }}
        keep = "ckpt"
        """,
    )
    env = {"PIPE_SANDBOX": kind}
    assert repo.pipe("build", env=env, check=False).returncode == 1
    repo.pipe("build", env=env)
    assert repo.read("o.txt") == "x\nx\n"
    assert repo.pipe("build", "--force", env=env, check=False).returncode == 1


def test_another_fingerprint_finds_nothing(repo: Any) -> None:
    text = """
        [stage.train]
        run = "test ! -e $PIPE_KEEP/ckpt && touch $PIPE_KEEP/ckpt && exit %d"
        outputs = { o = "o.txt" }
        keep = "ckpt"
        """
    for code in (3, 4):
        repo.write("pipeline.toml", text % code)
        assert f"exited with {code}" in repo.pipe("build", check=False).stdout
