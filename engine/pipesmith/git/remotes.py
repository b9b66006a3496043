"""Remotes: which one is meant, what refs it has, and refs sent to it and brought from it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable

from pipesmith.errors import EnvironmentFailure, UserError, nearest
from pipesmith.git.repository import Repository, cut_credentials
from pipesmith.records import field, record

__all__ = ["Delivery", "choose_remote", "fetch_objects", "push_refs", "remote_refs"]

_AT_ONCE = 400  # refs a call: a command line has an end


def choose_remote(repo: Repository, name: str | None, *, pushing: bool) -> str:
    """Return the remote's name, or the URL or path that was given as one.

    Without a name: the one that the branch is pushed to (or pulled from), else `origin`, else the only one.
    Raises UserError where that is none."""
    names = _names(repo)
    if name is not None:
        if name in names:
            return name
        if os.path.isdir(name):
            return os.path.abspath(name)  # git is asked at the top of the work tree
        if not name.startswith("-") and (":" in name or "/" in name):
            return name
        near = nearest(name, names)
        help = f"did you mean `{near}`?" if near else "`git remote` lists them"
        raise UserError(f"no remote `{name}`", help if names else "`git remote add NAME URL` adds one")
    branch = repo.branch()
    keys = [f"branch.{branch}.remote"] if branch else []
    if pushing:
        keys = [*([f"branch.{branch}.pushremote"] if branch else []), "remote.pushdefault", *keys]
    for key in keys:
        if (found := repo.config.get(key)) and found != ".":
            return found
    if "origin" in names:
        return "origin"
    if len(names) == 1:
        return names[0]
    if names:
        raise UserError(f"several remotes, none of them `origin`: {', '.join(names)}", "name one of them")
    raise UserError("this repository has no remote", "`git remote add origin URL` adds one")


def _names(repo: Repository) -> list[str]:
    found = {key[7:].rpartition(".")[0] for key in repo.config if key.startswith("remote.")}
    return sorted(name for name in found if f"remote.{name}.url" in repo.config)


def remote_refs(repo: Repository, remote: str, *patterns: str, pushing: bool = False) -> dict[str, str]:
    """Return name to object id of the refs that a remote has, all without patterns.

    pushing: of where it is pushed to. Raises EnvironmentFailure with git's words where it can't be asked."""
    address = remote
    if pushing and remote in _names(repo):
        where = [repo.process("remote", "get-url", *flag, "--", remote).stdout for flag in ((), ("--push",))]
        if where[0] != where[1]:
            address = os.fsdecode(where[1]).split("\n")[0]
    done = _speak(repo, "ls-remote", "--quiet", "--", address, *patterns)
    if done.returncode != 0:
        raise _unreachable(remote, done)
    rows = (line.split("\t", 1) for line in os.fsdecode(done.stdout).splitlines())
    return {name: identity for identity, name in rows if not name.endswith("^{}")}


def fetch_objects(repo: Repository, remote: str, refs: Iterable[str]) -> None:
    """Bring what refs of a remote lead to; no ref of this repository is set, nor FETCH_HEAD.

    Raises EnvironmentFailure with git's words."""
    listed = list(refs)
    flags = ("--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--refmap=", "--no-auto-gc")
    if listed:
        text = "".join(f"{ref}\n" for ref in listed)
        done = _speak(repo, "fetch", *flags, "--stdin", "--", remote, input=os.fsencode(text))
        if done.returncode != 0:
            raise _unreachable(remote, done)


@record(frozen=False, kw_only=False)
class Delivery:
    """What a push came to. refused: ref to the remote's reason. said: what the remote's hooks printed."""

    sent: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def push_refs(repo: Repository, remote: str, new: dict[str, str], replaced: dict[str, tuple[str, str]]) -> Delivery:
    """Set refs of a remote. new: ref to id, of refs that it does not have. replaced: ref to (id, the id that it has).

    The user's and the remote's hooks run as with any push. Raises EnvironmentFailure where the remote can't be
    reached."""
    delivery = Delivery()
    wanted = [(f"{identity}:{ref}", ref, "") for ref, identity in new.items()]
    wanted += [(f"+{identity}:{ref}", ref, old) for ref, (identity, old) in replaced.items()]
    for at in range(0, len(wanted), _AT_ONCE):
        part = wanted[at : at + _AT_ONCE]
        leases = [f"--force-with-lease={ref}:{old}" for _spec, ref, old in part if old]
        flags = ("--porcelain", "--no-follow-tags", "--recurse-submodules=no", *leases)
        mirror = ("-c", f"remote.{remote}.mirror=false") if f"remote.{remote}.mirror" in repo.config else ()
        done = _speak(repo, *mirror, "push", *flags, "--", remote, *(spec for spec, _ref, _old in part))
        _read_porcelain(os.fsdecode(done.stdout), delivery)
        if done.returncode != 0 and not delivery.refused:
            raise _unreachable(remote, done)
        said = os.fsdecode(done.stderr).splitlines()
        delivery.said += [line.removeprefix("remote: ").rstrip() for line in said if line.startswith("remote: ")]
    return delivery


def _read_porcelain(text: str, delivery: Delivery) -> None:
    """Take up what `git push --porcelain` says of each ref."""
    for line in text.splitlines():
        parts = line.split("\t")
        if len(parts) != 3 or len(parts[0]) != 1:
            continue
        ref = parts[1].rpartition(":")[2]
        if parts[0] == "!":
            delivery.refused[ref] = parts[2]
        else:
            delivery.sent.append(ref)


def _speak(repo: Repository, *args: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return repo.process(*args, input=input)


def _unreachable(remote: str, done: subprocess.CompletedProcess[bytes]) -> EnvironmentFailure:
    """Return git's words in one line: what it calls fatal, with the lines of transports before that."""
    skipped = ("and the repository exists.", "Please make sure you have the correct access rights", "hint:")
    lines = [line.strip() for line in os.fsdecode(done.stderr).splitlines()]
    lines = [line for line in lines if line and not line.startswith(skipped)]
    text = "; ".join(dict.fromkeys(line.removeprefix("fatal: ").removeprefix("error: ") for line in lines))
    shown = cut_credentials(remote)
    return EnvironmentFailure(
        f"`{shown}`: {text or f'git exits with {done.returncode}'}", f"`git ls-remote {shown}` tries"
    )
