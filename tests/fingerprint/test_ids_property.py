"""Laws over random work trees: a source has the id that git would give it, and a commit has the ids of its checkout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_FOLDERS = ["", "lib", "lib/deep", "lib-x", "é"]
_NAMES = ["a", "b.txt", "c.up", "d.id", "lib", "Z", "a b", '"q', "nl\nx", "\udcff.txt", ".pipeignore.txt", "end\r"]
_CONTENTS = [b"", b"a\n", b"a\r\nb\r\n", b"mixed\r\nlf\n", b"$Id: x $\n", b"bin\0\r\n", b"\r\n" * 40]
_ATTRIBUTES = [
    b"* text=auto\n",
    b"*.txt text\n",
    b"*.up filter=up\n",
    b"* ident\n",
    b"*.txt eol=crlf\n",
    b"* -text\n",
    b"",
]
_IGNORES = [b"*.txt\n", b"/a\n", b"deep/\n", b"*\n!*/\n!a\n", b"lib/a\n", b"Z\n", b""]

_PATHS = st.tuples(st.sampled_from(_FOLDERS), st.sampled_from(_NAMES)).map(lambda pair: "/".join(filter(None, pair)))
_EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), _PATHS, st.sampled_from(_CONTENTS), st.booleans()),
        st.tuples(st.just("link"), _PATHS, st.sampled_from(["a", "b.txt", "."]), st.just(False)),
        st.tuples(st.just("remove"), _PATHS, st.just(b""), st.just(False)),
        st.tuples(
            st.sampled_from([".gitattributes", ".gitignore", ".pipeignore"]),
            st.sampled_from(_FOLDERS[:3]),
            st.sampled_from(_ATTRIBUTES + _IGNORES),
            st.just(False),
        ),
        st.tuples(st.just("commit"), st.just(""), st.just(b""), st.just(False)),
        st.tuples(st.just("force"), _PATHS, st.just(b""), st.just(False)),
    ),
    min_size=3,
    max_size=14,
)


def edit(bed, kind: str, path: str, content, executable: bool) -> None:
    place = bed.path / path
    if kind == "commit":
        bed.repo.git("-c", "core.safecrlf=false", "add", "-A")
        bed.repo.git("commit", "-q", "--allow-empty", "-m", "x")
    elif kind == "force":
        bed.repo.git("-c", "core.safecrlf=false", "add", "-f", "--", f":(literal){path}", check=False)
    elif kind.startswith("."):
        ways = [place, *(bed.path / parent for parent in place.relative_to(bed.path).parents)]
        if not any(way.is_symlink() or way.is_file() for way in ways):
            bed.repo.write(f"{path}/{kind}" if path else kind, content)
    elif kind == "remove":
        _drop(place)
    else:
        for parent in reversed(place.relative_to(bed.path).parents):
            if (bed.path / parent).is_symlink() or (bed.path / parent).is_file():
                (bed.path / parent).unlink()
        _drop(place)
        if kind == "link":
            place.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(content, place)
        else:
            bed.repo.write(path, content, executable=executable)


def _drop(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif os.path.lexists(place):
        place.unlink()


def ignored_by_pipeignore(bed) -> tuple[str, ...]:
    """Return pathspecs of all files that `.pipeignore` names, by git's reading of it in an index of all that counts."""
    env = {"GIT_INDEX_FILE": str(bed.repo.home / "index")}
    bed.would_commit()
    args = ["ls-files", "-z", "-c", "-i", "--exclude-per-directory=.pipeignore"]
    return tuple(f":(literal){path}" for path in bed.repo.git(*args, env=env).stdout.split("\0") if path)


def dangling(bed) -> bool:
    return any(
        os.path.islink(each) and not os.path.exists(each)
        for folder, folders, files in os.walk(bed.path)
        if "/.git" not in folder
        for each in (os.path.join(folder, name) for name in (*folders, *files))
    )


def start(bed) -> None:
    """Empty the repository of an earlier example."""
    for each in bed.path.iterdir():
        _drop(each)
    bed.repo.git("init", "-q", "-b", "main")
    bed.repo.git("config", "filter.up.clean", "tr a-z A-Z")
    bed.repo.git("config", "filter.up.smudge", "tr A-Z a-z")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=_EDITS)
def test_source_ids_are_those_of_git(make_bed: Callable, workspace, edits):
    bed = make_bed(workspace)
    start(bed)
    for each in edits:
        edit(bed, *each)
        looked = bed.tree()
        if not dangling(bed):
            looked.source_id(".")  # remembers ids between the edits
            looked.flush()
        looked.close()
    if dangling(bed):
        return
    bed.excluded = frozenset({"lib/a", "é"})
    drop = (*ignored_by_pipeignore(bed), ":(literal)lib/a", ":(literal)é")
    expected = {path: bed.would_commit(path, drop=drop) for path in ("", "lib", "lib/deep", "lib-x", "b.txt")}
    if not bed.repo.git("ls-files", env={"GIT_INDEX_FILE": str(bed.repo.home / "index")}).stdout:
        expected[""] = None  # git has an empty tree, we have none
    found = {path: bed.source(path or ".") for path in expected}
    bed.close()
    assert found == expected


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=_EDITS)
def test_a_commit_has_the_ids_of_its_checkout(make_bed: Callable, workspace, edits):
    bed = make_bed(workspace)
    start(bed)
    shutil.rmtree(bed.path.parent / "clone", ignore_errors=True)
    for each in edits:
        edit(bed, *each)
    edit(bed, "commit", "", b"", False)
    if dangling(bed):
        return
    clone = make_bed(bed.repo.clone())
    for key in ("filter.up.clean", "filter.up.smudge"):
        clone.repo.git("config", key, bed.repo.git("config", key).stdout.strip())
    clone.repo.git("rm", "-r", "-q", "--cached", "--ignore-unmatch", ".")
    clone.repo.git("reset", "-q", "--hard")
    bed.excluded = clone.excluded = frozenset({"lib/a", "é"})
    paths = ("", "lib", "lib/deep", "lib-x", "b.txt", "Z")
    revision = bed.revision()
    found = {path: revision.source_id(path or ".") for path in paths}
    unsettled = bed.repo.git("status", "--porcelain").stdout or clone.repo.git("status", "--porcelain").stdout
    checkout = {path: clone.source(path or ".") for path in paths}
    inputs = {
        path: (revision.input(path), clone.tree().input(path)) for path in ("lib", "b.txt", "Z") if not dangling(clone)
    }
    bed.close()
    clone.close()
    if not unsettled:  # where git itself calls a fresh checkout changed, its ids are other than the commit's
        assert checkout == found
        for path, (at_commit, now) in inputs.items():
            assert at_commit == now, path
