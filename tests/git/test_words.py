"""What the repository says of itself and of git's failures: no credentials; the cause, not its consequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipesmith.errors import EnvironmentFailure
from pipesmith.git.repository import Repository, cut_credentials

if TYPE_CHECKING:
    from tests.conftest import Repo


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com/a.git", "https://example.com/a.git"),
        ("https://ada:secret@example.com/a.git", "https://example.com/a.git"),
        ("https://token@example.com:8443/a.git", "https://example.com:8443/a.git"),
        ("https://ada:p@ss@word@example.com/a.git", "https://example.com/a.git"),
        ("HTTPS://ada:secret@example.com/a@b.git", "HTTPS://example.com/a@b.git"),
        ("ssh://git@example.com/a.git", "ssh://example.com/a.git"),
        ("git@example.com:a.git", "git@example.com:a.git"),
        ("/some/where@home/a.git", "/some/where@home/a.git"),
    ],
)
def test_credentials_are_cut_out_of_urls(url: str, shown: str) -> None:
    """Whatever characters the password has."""
    assert cut_credentials(url) == shown


def test_the_remote_is_origin_or_the_only_one(workspace: Repo) -> None:
    git = workspace.path
    assert Repository.discover(str(git)).remote_url() is None
    workspace.git("remote", "add", "upstream", "https://x:y@example.com/up.git")
    assert Repository.discover(str(git)).remote_url() == "https://example.com/up.git"
    workspace.git("remote", "add", "fork", "https://example.com/fork.git")
    assert Repository.discover(str(git)).remote_url() is None
    workspace.git("remote", "add", "origin", "https://example.com/origin.git")
    assert Repository.discover(str(git)).remote_url() == "https://example.com/origin.git"


def test_a_failure_names_the_command_and_the_cause(workspace: Repo) -> None:
    """Of several lines the first that is an error; options before the command are not the command."""
    git = Repository.discover(str(workspace.path))
    with pytest.raises(EnvironmentFailure) as raised:
        git.run("-c", "core.compression=0", "update-index", "--add", "missing")
    assert raised.value.text.startswith("`git update-index` failed: missing: does not exist")
