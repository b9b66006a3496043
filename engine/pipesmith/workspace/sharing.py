"""`push --runs` and `fetch --runs`: run history by a plain git remote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.git.remotes import choose_remote
from pipesmith.history.run_store import LOGS, PREFIX
from pipesmith.history.sharing import Brought, Offer, bring, offer, send
from pipesmith.pipeline.model import Snapshot

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["NO_REMOTE_CACHE", "Brought", "Offer", "fetch_runs", "offer_runs", "send_runs"]

NO_REMOTE_CACHE = "this version has no remote cache yet"


def offer_runs(workspace: Workspace, remote: str | None = None) -> Offer:
    """Return what a push of runs would share, for a person to look at; `send_runs` does it.

    remote: its name, URL or path; default: that of the branch. Raises UserError where there is none,
    EnvironmentFailure where it can't be reached."""
    chosen = choose_remote(workspace.repo, remote, pushing=True)
    try:
        most = workspace.session().pipeline.snapshot.max_file_bytes
    except (UserError, OSError):  # history is shared whatever state pipeline.toml is in
        most = Snapshot().max_file_bytes
    return offer(workspace.repo, workspace.run_store, chosen, max_file_bytes=most)


def send_runs(workspace: Workspace, wanted: Offer) -> None:
    """Share what was offered. Raises EnvironmentFailure with the remote's words where it refuses or can't be reached;
    what it took stays there."""
    if not wanted.new and not wanted.replaced:
        return
    done = send(workspace.repo, wanted)
    if done.refused:
        runs = sorted({ref.removeprefix(PREFIX) for ref in done.refused if ref.startswith(PREFIX)})
        logs = sorted({ref.removeprefix(LOGS) for ref in done.refused if ref.startswith(LOGS)})
        what = " and ".join(
            f"{len(names)} {noun}"
            for names, noun in ((runs, "runs" if len(runs) != 1 else "run"), (logs, "logs"))
            if names
        )
        why = "; ".join(dict.fromkeys([*done.refused.values(), *done.said]))
        raise EnvironmentFailure(f"`{wanted.remote}` refused {what}: {why}", f"the first is {(runs or logs)[0]}")


def fetch_runs(workspace: Workspace, remote: str | None = None) -> Brought:
    """Bring the runs that a remote has and this clone has not, with their logs.

    Raises UserError where there is no such remote, EnvironmentFailure where it can't be reached."""
    chosen = choose_remote(workspace.repo, remote, pushing=False)
    return bring(workspace.repo, workspace.run_store, chosen)
