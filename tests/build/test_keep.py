"""`keep`: a folder that the next try of the same fingerprint finds again, dropped on success; no output, never
counts."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("sandbox")

RUN = """
    [params]
    x = 1
    [stage.a]
    run = "cat $PIPE_KEEP/n >> $HOME/seen 2> /dev/null; echo {params.x} >> PLACE/n; test $(wc -l < $PIPE_KEEP/n) -ge 2 && echo 1 > {outputs.o}"
    outputs = { o = "o" }
    keep = "deep/ckpt"
"""


@pytest.mark.parametrize("place", ["$PIPE_KEEP", "deep/ckpt"])
def test_the_next_try_finds_it(repo, toml, place: str) -> None:
    """The next try of the same fingerprint finds it, as PIPE_KEEP and at its path in the sandbox."""
    toml(RUN.replace("PLACE", place))
    assert repo.pipe("build", check=False).returncode == 1
    assert not repo.exists("deep")
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert (repo.home / "seen").read_text() == "1\n"
    assert not repo.exists("deep") and not list(repo.pipe_dir.glob("keep/*"))


def test_retries_find_it(repo, toml) -> None:
    """A retry is the next try."""
    toml(RUN.replace("PLACE", "deep/ckpt") + "    retries = 1\n")
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}


def test_another_fingerprint_does_not(repo, toml) -> None:
    """Of the same fingerprint only."""
    toml(RUN.replace("PLACE", "deep/ckpt"))
    repo.pipe("build", check=False)
    assert repo.pipe("build", "--set", "x=2", check=False).returncode == 1
    assert not (repo.home / "seen").exists() or (repo.home / "seen").read_text() == ""


def test_without_a_sandbox(repo, toml) -> None:
    """Without a sandbox PIPE_KEEP names it, and the workspace has no such folder."""
    toml(RUN.replace("PLACE", "$PIPE_KEEP") + "    sandbox = false\n")
    assert repo.pipe("build", check=False).returncode == 1
    assert not repo.exists("deep")
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}


def test_a_shell_finds_it_and_drops_none(repo, toml) -> None:
    """`pipe shell` gives the folder that the next try would find, to look at and to mend."""
    toml(RUN.replace("PLACE", "$PIPE_KEEP"))
    assert repo.pipe("build", check=False).returncode == 1
    assert (
        repo.pipe("shell", "a", "sh", "-c", "cat $PIPE_KEEP/n deep/ckpt/n; echo more >> deep/ckpt/n").stdout == "1\n1\n"
    )
    other = {"PIPE_PARAM_x": "2"}
    assert repo.pipe("shell", "a", "ls", "deep/ckpt", env=other).stdout == ""
    assert repo.pipe("build", "--json").stages() == {"a": "ran"}
    assert (repo.home / "seen").read_text() == "1\nmore\n"
