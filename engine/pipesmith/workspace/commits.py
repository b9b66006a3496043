"""Judging commits: from git's objects and the lockfile there alone, and only what differs from the one before.

A verdict is a function of what was looked at for it: the stage as pipeline.toml has it, its entry of the lockfile,
paths of the tree, what the stages before it made. All that is noted while a stage is judged (`Concern`); at the next
commit a stage is judged again exactly when something of it differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from pipesmith.digest import Digest
from pipesmith.errors import UserError
from pipesmith.fingerprint.concern import Change, Concern, changes
from pipesmith.fingerprint.items import input_parts, stage_text
from pipesmith.fingerprint.pipeignore import NAME as PIPEIGNORE
from pipesmith.fingerprint.revision import Revision
from pipesmith.git.objects import ObjectReader
from pipesmith.git.tree_diffs import ABSENT, TreeChange, TreeDiffs
from pipesmith.lockfile.history import LockHistory
from pipesmith.lockfile.model import LockedOut, Lockfile, StageLock
from pipesmith.pipeline.graph import order
from pipesmith.pipeline.keys import COMPUTE_KINDS
from pipesmith.pipeline.model import Environment, OriginKind, Pipeline, Stage
from pipesmith.pipeline.params import lookup
from pipesmith.records import field, record, replace
from pipesmith.verdict.judgement import Judgement, Outside
from pipesmith.verdict.reasons import Reason
from pipesmith.verdict.rebuilder import Question
from pipesmith.verdict.verdict import Result, Verdict
from pipesmith.workspace.reading import read, text_of

if TYPE_CHECKING:
    from pipesmith.fingerprint.pipeignore import PipeIgnore
    from pipesmith.pipeline.history import PipelineHistory
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Beside", "Commits", "Judged", "Looked", "NoPipeline"]

# Who looks at paths beside the stages: names that no stage can have.
_PIPELINE = "\0pipeline"
_LOCK = "\0lock"
_FOLDER, _GITLINK = b"040000", b"160000"
_MOST_DONE = 1000
_Read = TypeVar("_Read")


class NoPipeline(UserError):
    """A commit has no pipeline.toml in the workspace's folder."""


@record
class Judged:
    """A commit. verdicts: in topological order; where two commits have the same, they are the same objects. file: what
    its pipeline.toml is called. by_tree_alone: whether nothing but the commit's tree was asked."""

    commit: str
    file: str
    pipeline: Pipeline
    verdicts: dict[str, Verdict]
    by_tree_alone: bool


@record
class Looked:
    """A commit that nothing was judged of yet. metric_at(revision, stage, key): a locked metric elsewhere;
    has_revision(revision): whether there is an elsewhere."""

    pipeline: Pipeline
    lockfile: Lockfile
    tree: Revision
    metric_at: Callable[[str, str, str], float | None]
    has_revision: Callable[[str], bool]


@record(frozen=False)
class _Seen:
    """The commit that was judged last. top: tree id of the workspace's folder. readers: stage to those that read what
    it makes. by_param: param to the stages that it counts for. asks_more: whether something beside the tree was asked:
    another revision, or what kinds of compute are installed."""

    top: str
    rules: PipeIgnore | None
    pipeline: Pipeline
    excluded: frozenset[str]
    order: tuple[str, ...]
    readers: dict[str, list[str]]
    by_param: dict[str, list[str]]
    asks_more: bool
    lockfile: Lockfile
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)


class Commits:
    """Commits of one workspace. reader: shared by those who read the same repository; without one, `close` closes its
    own.

    Asks neither the work tree, nor the action cache, nor PIPE_PARAM_*, nor the network."""

    def __init__(self, workspace: Workspace, reader: ObjectReader | None = None) -> None:
        self._workspace = workspace
        self._reader = reader or ObjectReader(workspace.repo)
        self._owned = reader is None
        self._locks = LockHistory(workspace.state)
        self._lockfiles: dict[str, Lockfile | None] = {}  # of revisions that `expect` names
        self._revisions: dict[str, bool] = {}  # and whether they are some
        self._pipelines: dict[str, _SameText] = {}
        self._first: tuple[str, dict[str, bytes | None], Pipeline] | None = None  # that was read
        self._concern = Concern()
        self.places: dict[str, tuple[str, str]] = {}  # of the commit judged last: what lies at some paths
        self._tops: dict[str, str] = {}  # of a commit's tree, the tree of the workspace's folder
        self._coming: TreeDiffs | None = None
        self._diffs: dict[tuple[str, str], list[TreeChange]] = {}
        self._seen: _Seen | None = None
        self._done: dict[str, Judged] = {}  # by the tree of the workspace's folder
        self._revision: Revision | None = None

    def close(self) -> None:
        if self._coming is not None:
            self._coming.close()
        if self._owned:
            self._reader.close()

    def flush(self) -> None:
        """Remember for later processes what was read."""
        if self._revision is not None:
            self._revision.flush()
        self._locks.flush()

    def judge(self, commit: str) -> Judged:
        """Return a commit's pipeline and verdicts.

        Raises UserError where there is no pipeline there or it can't be read, EnvironmentFailure where git can't read
        an object."""
        tree = Revision(self._reader, commit, self._workspace.prefix, "blake3", self._workspace.state)
        self._revision = tree
        file = self._shown(commit, "pipeline.toml")
        known = self._done.get(tree.top)
        if known is not None:
            return replace(known, commit=commit, file=file)
        before, self._seen = self._seen, None  # what is half done is no ground to go on from
        if before is None:
            self._concern = Concern()
        self._seen = _Step(self, tree, commit, before).take()
        judged = Judged(
            commit=commit,
            file=file,
            pipeline=self._seen.pipeline,
            verdicts=self._seen.verdicts,
            by_tree_alone=not (self._seen.asks_more or tree.has_submodules),
        )
        if len(self._done) >= _MOST_DONE:
            self._done.pop(next(iter(self._done)))
        self._done[tree.top] = judged
        return judged

    def _shown(self, commit: str, name: str) -> str:
        """Return what a file of the workspace at a commit is called."""
        return f"{commit[:10]}:{self._workspace.in_repo(name)}"

    def look(self, commit: str) -> Looked:
        """Return what is at a commit, for others to judge. Raises what `judge` raises."""
        tree = Revision(self._reader, commit, self._workspace.prefix, "blake3", self._workspace.state)
        pipeline = self.pipeline(tree, commit)
        lockfile = self.lockfile(tree, commit)
        tree.use_algorithm(pipeline.cache.hash)
        tree.use_lock(lockfile)
        tree.exclude(pipeline.output_paths)
        return Looked(
            pipeline=pipeline, lockfile=lockfile, tree=tree, metric_at=self.metric_at, has_revision=self.has_revision
        )

    # -- what a commit is judged by -------------------------------------------------------------------------------

    def pipeline(self, tree: Revision, commit: str) -> Pipeline:
        """Return the pipeline at a commit, the same object for the same text and files."""
        shown = self._shown(commit, "pipeline.toml")
        data = tree.read("pipeline.toml")
        if data is None:
            raise NoPipeline(f"there is no pipeline.toml at {commit[:10]}", "name a commit that has one")
        text = text_of(data, shown)
        known = self._pipelines.get(text)
        if known is None:
            known = self._pipelines[text] = _SameText()
        found = known.find(tree.read)
        if found is not None:
            return found
        asked: dict[str, bytes | None] = {}

        def noted(path: str) -> bytes | None:
            asked[path] = tree.read(path)
            return asked[path]

        root = self._workspace.root
        if self._first is None:  # one a process is worth remembering for others
            state = self._workspace.state
            found = read(text, root=root, files=noted, overrides={}, environ={}, state=state, file=shown)
            self._first = (text, asked, found)
        else:
            found = self._past.read(text, noted, shown)
            if found is None:
                from pipesmith.pipeline.reader import read_pipeline

                asked.clear()
                name = os.path.basename(root)
                found = read_pipeline(text, files=noted, default_name=name, file=shown, kinds=_installed_kinds)
                self._past.take(text, asked, found)
        known.add(asked, found)
        return found

    @cached_property
    def _past(self) -> PipelineHistory:
        from pipesmith.pipeline import history

        past = history.PipelineHistory()
        if self._first is not None:
            past.take(*self._first)
        return past

    def lockfile(self, tree: Revision, commit: str) -> Lockfile:
        """Return the lockfile at a commit. Tables that did not change are the same objects."""
        data = tree.read("pipe.lock")
        return self._parsed(data, self._shown(commit, "pipe.lock")) if data is not None else Lockfile()

    def _parsed(self, data: bytes, file: str) -> Lockfile:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise UserError(f"{file} is not UTF-8", "restore it with `git checkout`, or remove it and build") from None
        return self._locks.parse(text, file=file)

    def metric_at(self, revision: str, stage: str, key: str) -> float | None:
        """Return a locked metric at a revision that `expect` names, None where there is none."""
        if revision not in self._lockfiles:
            self._lockfiles[revision] = self._lockfile_of(revision)
        lockfile = self._lockfiles[revision]
        entry = lockfile.stages.get(stage) if lockfile else None
        return entry.metrics.get(key) if entry else None

    def has_revision(self, revision: str) -> bool:
        """Return whether there is a revision for `metric_at`."""
        from pipesmith.workspace.revisions import is_revision

        if revision not in self._revisions:
            self._revisions[revision] = is_revision(self._workspace, revision)
        return self._revisions[revision]

    def _lockfile_of(self, revision: str) -> Lockfile | None:
        from pipesmith.workspace.revisions import lockfile_at

        return lockfile_at(self._workspace, revision)

    def outside(self, tree: Revision, pipeline: Pipeline, lockfile: Lockfile) -> Outside:
        """Return what a judgement asks of a commit beside its tree."""
        return Beside(tree, pipeline, lockfile, self.metric_at, self.has_revision).outside

    def differing(self, old: str, new: str) -> list[TreeChange] | None:
        """Return what differs between two trees of the workspace's folder, None where that was not looked at ahead."""
        if self._coming is not None:
            self._diffs = self._coming.read()
            self._coming = None
        return self._diffs.get((old, new))

    def compare(self, old: str, new: str, path: str) -> list[Change]:
        """Return what differs between two trees that lie at a path, not looking into their folders."""
        return changes(self._reader, old, new, path)

    def same_rules(self, pairs: Iterable[tuple[str, str]], made: Iterable[str]) -> None:
        """Say that each new tree of (old, new) has the rules and submodules of the old one, and what was made none."""
        memo = self._reader.memo
        for old, new in pairs:
            known = memo.get(("summary", old))
            if known is not None:
                memo["summary", new] = known
        for tree in made:
            memo["summary", tree] = ((), ())

    # -- reading ahead --------------------------------------------------------------------------------------------

    def look_ahead(self, commits: Sequence[tuple[str, str]]) -> None:
        """Let git compare commits that will be judged one after another. commits: (commit, its tree)."""
        reader = self._reader
        for commit, tree in commits:
            reader.know(commit, tree)
        self._tops = tops = {tree: tree for _commit, tree in commits}
        for part in self._workspace.prefix.split("/") if self._workspace.prefix != "." else ():
            reader.read_trees(tops.values())
            entries = {tree: reader.entry(top, part) for tree, top in tops.items() if reader.has_tree(top)}
            tops = {tree: entry[1] for tree, entry in entries.items() if entry is not None and entry[0] == "40000"}
        self._tops = tops
        pairs = self._pairs(commits)
        if self._coming is not None:
            self._coming.close()
        self._diffs = {}
        self._coming = TreeDiffs(reader.repo, pairs) if pairs else None

    def read_ahead(self, commits: Sequence[tuple[str, str]]) -> None:
        """Read the files of these commits, of those that were looked at ahead, that judging them will read."""
        blobs = [
            new
            for old, top in self._pairs(commits)
            for path, _mode, _old, mode, new in self.differing(old, top) or ()
            if mode not in (ABSENT, _FOLDER, _GITLINK) and not self._concern.at(path).isdisjoint((_PIPELINE, _LOCK))
        ]
        self._reader.read_blobs(blobs)

    def _pairs(self, commits: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the trees that are compared when these are judged: a tree that was judged before is not again."""
        found = []
        judged = set(self._done)
        last = self._seen.top if self._seen is not None else None
        for _commit, tree in commits:
            top = self._tops.get(tree)
            if top is not None and top not in judged:
                if last is not None:
                    found.append((last, top))
                judged.add(top)
                last = top
        return found


class _SameText:
    """The pipelines that one text is, by the files that it was read with."""

    def __init__(self) -> None:
        self._known: list[tuple[tuple[str, ...], dict[tuple[bytes | None, ...], Pipeline]]] = []

    def find(self, files: Callable[[str], bytes | None]) -> Pipeline | None:
        for paths, known in self._known:
            found = known.get(tuple(map(files, paths)))
            if found is not None:
                return found
        return None

    def add(self, asked: Mapping[str, bytes | None], pipeline: Pipeline) -> None:
        paths = tuple(asked)
        group = next((known for named, known in self._known if named == paths), None)
        if group is None:
            group = {}
            self._known.append((paths, group))
        group[tuple(asked.values())] = pipeline


class _Step:
    """From the commit judged last, if any, to another one."""

    def __init__(self, commits: Commits, tree: Revision, commit: str, before: _Seen | None) -> None:
        self.commits = commits
        self.concern = commits._concern
        self.tree = tree
        self.commit = commit
        self.before = before
        self.touched: set[str] = set()  # who looked at what differs
        self.everything = False

    def take(self) -> _Seen:
        if self.before is None:
            self.commits.places.clear()
        elif not self._differs(self.before.top, self.tree.top):
            self.tree.use_rules(self.before.rules)
        self.tree.use_places(self.commits.places)
        rules = self.tree.rules
        self.everything = self.before is None or rules is not self.before.rules
        now = self._read(rules)
        if self.before is not None and not self.everything:
            self._compare_pipelines(self.before, now)
            self._compare_locks(self.before.lockfile, now)
        if self.before is None or self.everything:
            self.touched = set(now.order)
        elif now.pipeline.stages is self.before.pipeline.stages:
            now.verdicts, now.results = self.before.verdicts, self.before.results
        else:
            for name in self.before.verdicts:
                if name not in now.pipeline.stages:
                    self.concern.forget(name)
            now.verdicts = {name: self.before.verdicts[name] for name in now.order if name in self.before.verdicts}
            now.results = {name: result for name, result in self.before.results.items() if name in now.verdicts}
        if self.touched:
            now.verdicts, now.results = dict(now.verdicts), dict(now.results)
            self._judge(now)
        return now

    # -- what differs ---------------------------------------------------------------------------------------------

    def _differs(self, old: str, new: str) -> bool:
        """Note who looked at what differs; return whether rules of `.pipeignore` may differ."""
        differing = self.commits.differing(old, new)
        if differing is None:
            self.commits.places.clear()
            return self._compare(old, new, "")
        rules = False
        changed, made = [(old, new)], list[str]()
        places = self.commits.places
        alike = set[str]()  # folders that nobody looks into: what concerns one of their files concerns all
        for path, mode_before, before, mode, now in differing:
            if path in places:
                if mode in (ABSENT, _GITLINK):
                    del places[path]
                else:
                    places[path] = (mode.lstrip(b"0").decode(), now)
            if mode_before == mode == _FOLDER:
                changed.append((before, now))
                continue
            if mode == _FOLDER:
                made.append(now)
            folder, _, name = path.rpartition("/")
            rules = rules or name == PIPEIGNORE or _GITLINK in (mode_before, mode)
            if folder in alike:
                continue
            if not self.concern.below(folder):
                alike.add(folder)
            self.touched |= self.concern.of(path)
        if not rules:
            self.commits.same_rules(changed, made)
        return rules

    def _compare(self, old: str, new: str, path: str) -> bool:
        """Do what `_differs` does, reading the trees."""
        rules = False
        for change in self.commits.compare(old, new, path):
            if change.of_trees and self.concern.below(change.path):
                self.touched |= self.concern.at(change.path)
                before, now = change.trees
                rules |= self._compare(before, now, change.path)
                continue
            self.touched |= self.concern.of(change.path)
            rules = rules or change.of_rules or self._has_rules(change)
        return rules

    def _has_rules(self, change: Change) -> bool:
        return any(self.tree.has_rules(tree, change.path) for tree in change.trees)

    def _compare_pipelines(self, old: _Seen, new: _Seen) -> None:
        """Note the stages that pipeline.toml has otherwise now."""
        before, now = old.pipeline, new.pipeline
        if before is now:
            return
        if old.excluded != new.excluded or before.cache.hash != now.cache.hash:
            self.everything = True
            return
        if before.stages is now.stages:
            for key, names in new.by_param.items():
                if stage_text(lookup(before.params, key)) != stage_text(lookup(now.params, key)):
                    self.touched.update(names)
            return
        for name, stage in now.stages.items():
            known = before.stages.get(name)
            if known is None or _meaning(before, known) != _meaning(now, stage):
                self.touched.add(name)

    def _compare_locks(self, before: Lockfile, new: _Seen) -> None:
        """Note the stages whose entries differ, and those that looked at what an entry that differs says."""
        now = new.lockfile
        if before is now:
            return
        for name in before.stages.keys() | now.stages.keys():
            old, entry = before.stages.get(name), now.stages.get(name)
            if old is not entry:
                self.touched.add(name)
                for path, _said in _said_of(old) ^ _said_of(entry):
                    self.touched |= self.concern.at(path)
        if before.environments != now.environments or before.datasets != now.datasets:
            self.touched |= {name for name, stage in new.pipeline.stages.items() if _has_pins(stage)}

    # -- what is now ----------------------------------------------------------------------------------------------

    def _read(self, rules: PipeIgnore | None) -> _Seen:
        """Return the commit with its pipeline and lockfile, nothing judged yet."""
        before = self.before
        if before is not None and _PIPELINE not in self.touched:
            pipeline = before.pipeline
        else:
            pipeline = self._noted(_PIPELINE, self.commits.pipeline)
        if before is not None and _LOCK not in self.touched:
            lockfile = before.lockfile
        else:
            lockfile = self._noted(_LOCK, self.commits.lockfile)
        self.touched -= {_PIPELINE, _LOCK}
        if before is not None and pipeline.stages is before.pipeline.stages:
            excluded, ordered, readers = before.excluded, before.order, before.readers
            by_param, asks_more = before.by_param, before.asks_more
        else:
            excluded, ordered, readers = pipeline.output_paths, order(pipeline), _readers(pipeline)
            by_param = _by_param(pipeline)
            asks_more = _asks_more(pipeline)
        return _Seen(
            top=self.tree.top,
            rules=rules,
            pipeline=pipeline,
            excluded=excluded,
            order=ordered,
            readers=readers,
            by_param=by_param,
            asks_more=asks_more,
            lockfile=lockfile,
        )

    def _noted(self, who: str, what: Callable[[Revision, str], _Read]) -> _Read:
        looked_at: set[str] = set()
        self.tree.watch(looked_at)
        found = what(self.tree, self.commit)
        self.tree.watch(None)
        self.concern.looked(who, looked_at)
        return found

    # -- judging --------------------------------------------------------------------------------------------------

    def _judge(self, now: _Seen) -> None:
        """Judge the stages that are touched, and those that read what they made when that differs."""
        judgement = self._judgement(now)
        self.tree.use_algorithm(now.pipeline.cache.hash)
        self.tree.use_lock(now.lockfile)
        self.tree.exclude(now.excluded)
        for name in now.order:
            if name not in self.touched:
                continue
            judgement.unsettle(name)
            looked_at: set[str] = set()
            self.tree.watch(looked_at)
            verdict = judgement.judge(now.pipeline.stages[name])
            self.tree.watch(None)
            self.concern.looked(name, looked_at)
            if now.verdicts.get(name) != verdict:
                now.verdicts[name] = verdict
            result = judgement.result(name)
            if result != now.results.get(name):
                self.touched.update(now.readers.get(name, ()))
            if result is None:
                now.results.pop(name, None)
            else:
                now.results[name] = result
        if len(now.verdicts) == len(now.order) and tuple(now.verdicts) != now.order:
            now.verdicts = {name: now.verdicts[name] for name in now.order}

    def _judgement(self, now: _Seen) -> Judgement:
        question = Question(
            output=self.tree.output, at_hand=_nothing_at_hand, actions=None, check_cached_outputs=False, restore=False
        )
        outside = self.commits.outside(self.tree, now.pipeline, now.lockfile)
        return Judgement(now.pipeline, self.tree, now.lockfile, question, outside, now.results)


class Beside:
    """What a judgement asks of a commit beside its tree: see `verdict.judgement.Outside`."""

    def __init__(
        self,
        tree: Revision,
        pipeline: Pipeline,
        lockfile: Lockfile,
        metric_at: Callable[[str, str, str], float | None],
        has_revision: Callable[[str], bool],
    ) -> None:
        self.tree = tree
        self.pipeline = pipeline
        self.lockfile = lockfile
        self.metric_at = metric_at
        self.has_revision = has_revision
        self._definitions: dict[str, tuple[str, set[str]]] = {}  # by environment: digest, the files it was made of

    @property
    def outside(self) -> Outside:
        return Outside(
            environment=self.environment,
            dataset=self.dataset,
            within=self.within,
            notebook=_notebook,
            metric_at=self.metric_at,
            packages=self.packages,
            has_revision=self.has_revision,
        )

    def packages(self, stage: Stage, old: str, new: str | None) -> tuple[str, str] | None:
        """Tell packages as far as this commit's lockfile knows them."""
        if stage.environment is None:
            return None
        from pipesmith.environments.definition import pin_digest
        from pipesmith.environments.resolve import told_between

        environment = self.pipeline.environments[stage.environment]
        pin = self.lockfile.environments.get(environment.name)
        known = {pin_digest(pin): pin} if pin is not None else {}
        return told_between(environment, old, new, known.get, self.tree.read)

    def environment(self, stage: Stage) -> tuple[str | None, Reason | None]:
        if stage.environment is None:
            return None, None
        environment = self.pipeline.environments[stage.environment]
        if environment.python == "system":
            entry = self.lockfile.stages.get(stage.name)
            return (entry.environment if entry else None), None
        if environment.dockerfile:
            from pipesmith.environments.definition import dockerfile_digest

            text = dockerfile_digest(environment, self.tree.source_id)
            return text, None if text is not None else Reason("environment", environment.name, None, None)
        from pipesmith.environments.definition import pin_digest

        pin = self.lockfile.environments.get(environment.name)
        if pin is not None and pin.definition == self._definition(environment):
            return pin_digest(pin), None
        return None, Reason("environment", environment.name, pin_digest(pin) if pin else None, None)

    def _definition(self, environment: Environment) -> str:
        known = self._definitions.get(environment.name)
        if known is None:
            from pipesmith.environments.definition import definition_digest

            files: set[str] = set()

            def noted(path: str) -> bytes | None:
                files.add(path)
                return self.tree.read(path)

            known = self._definitions[environment.name] = (definition_digest(environment, noted), files)
            return known[0]
        for path in known[1]:
            self.tree.read(path)  # for whoever notes what this stage looked at
        return known[0]

    def dataset(self, name: str) -> Digest | None:
        pin = self.lockfile.datasets.get(name)
        return pin.digest if pin is not None and pin.definition == self.pipeline.datasets[name].definition else None

    def within(self, digest: Digest, inner: str, path: str) -> Digest | None:
        return self.tree.within(digest, path)


def _by_param(pipeline: Pipeline) -> dict[str, list[str]]:
    """Return the params that count, and for which stages."""
    found: dict[str, list[str]] = {}
    for name, stage in pipeline.stages.items():
        for key in stage.params:
            found.setdefault(key, []).append(name)
    return found


def _asks_more(pipeline: Pipeline) -> bool:
    """Return whether a verdict on its stages rests on something beside the tree: a revision, or installed packages."""
    compared = any(each.vs for stage in pipeline.stages.values() for each in stage.expect)
    return compared or any(compute.kind not in COMPUTE_KINDS for compute in pipeline.computes.values())


def _meaning(pipeline: Pipeline, stage: Stage) -> tuple[object, ...]:
    """Return all of pipeline.toml that a verdict on a stage rests on, but for the paths of all outputs."""
    parts = input_parts(stage, pipeline.stages)
    return (
        stage,
        parts,
        # Python takes 1, 1.0 and true for the same.
        [stage_text(lookup(pipeline.params, key)) for key in stage.params],
        pipeline.environments[stage.environment] if stage.environment is not None else None,
        [pipeline.datasets[part.dataset].definition for part in parts if part.dataset],
    )


def _readers(pipeline: Pipeline) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, stage in pipeline.stages.items():
        for maker in dict.fromkeys(part.stage for part in input_parts(stage, pipeline.stages) if part.stage):
            found.setdefault(maker, []).append(name)
    return found


def _said_of(entry: StageLock | None) -> set[tuple[str, object]]:
    """Return what a lockfile's entry says of paths that git may not hold."""
    if entry is None:
        return set()
    return {(dep.path, dep) for dep in entry.deps} | set(entry.hash_paths.items())


def _has_pins(stage: Stage) -> bool:
    return stage.environment is not None or any(
        given.origin.kind is OriginKind.DATASET for given in stage.inputs.values()
    )


def _installed_kinds() -> Mapping[str, str]:
    from pipesmith.executors.plugins import installed_kinds

    return installed_kinds()


def _notebook(text: bytes) -> str:
    from pipesmith.build.notebook import notebook_source_id

    return notebook_source_id(text)


def _nothing_at_hand(_outs: Sequence[LockedOut]) -> bool:
    return False
