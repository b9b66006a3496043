"""Bisection on random histories: the commit found is bad, all before it is good, and no more is asked than needed."""

from __future__ import annotations

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from pipesmith.verdict.bisect import Bisection

History = dict[str, tuple[str, ...]]


def history(seed: int, size: int, *, merges: bool) -> History:
    """Return commit to its parents, the oldest first."""
    rng = random.Random(seed)
    commits: History = {}
    for number in range(size):
        names = list(commits)
        parents = names[-1:]
        if merges and len(names) > 2 and rng.random() < 0.3:
            parents = rng.sample(names[-4:], rng.choice([1, 2, 2]))
        commits[f"c{number}"] = tuple(parents)
    return commits


def before(commits: History, commit: str) -> set[str]:
    """Return a commit and all that is before it."""
    found, waiting = set(), [commit]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += commits[name]
    return found


def listed(commits: History, bad: str, good: str) -> list[tuple[str, tuple[str, ...]]]:
    among = before(commits, bad) - before(commits, good)
    return [(name, commits[name]) for name in reversed(commits) if name in among]


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), st.integers(2, 40), st.booleans())
def test_the_commit_that_is_found(seed: int, size: int, merges: bool) -> None:
    commits = history(seed, size, merges=merges)
    rng = random.Random(seed + 1)
    tip = f"c{size - 1}"
    among = [name for name, _parents in listed(commits, tip, "c0")]
    culprit = rng.choice(among)
    bad = {name for name in commits if culprit in before(commits, name)}
    search = Bisection(listed(commits, tip, "c0"))
    asked = []
    while open := search.open():
        commit = search.best(open, lambda name: name)
        assert commit in open and commit not in asked
        asked.append(commit)
        search.is_bad(commit) if commit in bad else search.is_good(commit)
    assert search.bad == culprit
    assert search.suspects == [culprit]
    if not merges:
        assert len(asked) <= math.ceil(math.log2(len(among)))


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.integers(2, 40), st.booleans())
def test_skipped_commits_leave_suspects_that_hold_the_culprit(seed: int, size: int, merges: bool) -> None:
    """Whatever can't be told: the culprit is found or among the suspects, which hold no other commit that was told."""
    commits = history(seed, size, merges=merges)
    rng = random.Random(seed + 1)
    tip = f"c{size - 1}"
    among = [name for name, _parents in listed(commits, tip, "c0")]
    culprit = rng.choice(among)
    bad = {name for name in commits if culprit in before(commits, name)}
    dark = {name for name in among if rng.random() < 0.4} - {tip}
    search = Bisection(listed(commits, tip, "c0"))
    while open := search.open():
        commit = rng.choice(open)
        if commit in dark:
            search.skip(commit)
        elif commit in bad:
            search.is_bad(commit)
        else:
            search.is_good(commit)
    assert culprit in search.suspects
    assert set(search.left) <= dark
    if not search.left:
        assert search.bad == culprit


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 60))
def test_no_more_is_built_than_there_are_different_results(seed: int, groups: int, size: int) -> None:
    """Commits with one key are one candidate: in a row, halving the keys is what it takes."""
    rng = random.Random(seed)
    groups = min(groups, size)
    commits = history(seed, size, merges=False)
    key = {name: str(min(groups - 1, int(name[1:]) * groups // size)) for name in commits}
    worst = rng.randint(int(key["c0"]), int(key[f"c{size - 1}"]))
    known = {key["c0"]: False, key[f"c{size - 1}"]: True}
    if worst == int(key["c0"]):
        return
    search = Bisection(listed(commits, f"c{size - 1}", "c0"))
    built = 0
    while open := search.open():
        free = [name for name in open if key[name] in known]
        commit = free[0] if free else search.best(open, key.__getitem__)
        if not free:
            built += 1
            known[key[commit]] = int(key[commit]) >= worst
        search.is_bad(commit) if known[key[commit]] else search.is_good(commit)
    assert int(key[search.bad]) == worst and int(key[commits[search.bad][0]]) == worst - 1
    assert built <= math.ceil(math.log2(groups)) if groups > 1 else built == 0
