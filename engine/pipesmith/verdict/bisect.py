"""Which commit to ask next, and when the answer is found: git bisect's rule, where commits that must have the same
result are one, and known results come first.

A commit that is good clears all that is before it, one that is bad all that is not. What is left in the end is bad, and
all its parents are good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

__all__ = ["Bisection"]

_NEAR = 200  # commits nearest to the middle that are looked at: those far from it tell little


class Bisection:
    """commits: (commit, its parents) of the range, children before parents; the first is the bad one."""

    def __init__(self, commits: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        self._names = [name for name, _parents in commits]
        self._index = {name: index for index, name in enumerate(self._names)}
        self._up_to = [0] * len(commits)  # of each commit a bit set: itself and all before it
        for index in reversed(range(len(commits))):
            bits = 1 << index
            for parent in commits[index][1]:
                if parent in self._index:
                    bits |= self._up_to[self._index[parent]]
            self._up_to[index] = bits
        self._left = (1 << len(commits)) - 1
        self._skipped = 0
        self.bad = self._names[0]

    def is_good(self, commit: str) -> None:
        self._left &= ~self._up_to[self._index[commit]]

    def is_bad(self, commit: str) -> None:
        self._left &= self._up_to[self._index[commit]]
        self.bad = commit

    def skip(self, commit: str) -> None:
        """Say that it can't be told of a commit."""
        self._skipped |= 1 << self._index[commit]

    @property
    def left(self) -> list[str]:
        """The commits that may yet be the first bad one but for the bad one itself, children first."""
        return self._named(self._left & ~(1 << self._index[self.bad]))

    @property
    def suspects(self) -> list[str]:
        """The commits that may be the first bad one, the one that is known to be bad included."""
        return self._named(self._left)

    def open(self) -> list[str]:
        """Return the commits that can be asked, those nearest to the middle first; of a long range some only."""
        bits = self._left & ~(1 << self._index[self.bad]) & ~self._skipped
        total = self._left.bit_count()
        ranked = []
        for index in _indexes(bits):
            before = (self._up_to[index] & self._left).bit_count()
            ranked.append((-min(before, total - before), index))
        ranked.sort()
        return [self._names[index] for _rank, index in ranked[:_NEAR]]

    def best(self, asked: Sequence[str], key: Callable[[str], str]) -> str:
        """Return which commit halves the rest best. asked: of `open()`, in its order. key: the same for commits that
        must have the same result."""
        if len(asked) <= 1:
            return asked[0]
        groups: dict[str, int] = {}
        for name in asked:
            bit = 1 << self._index[name]
            groups[key(name)] = groups.get(key(name), 0) | bit
        best, best_rank = asked[0], -1
        for name in asked:
            before = self._up_to[self._index[name]] & self._left
            older = sum(1 for bits in groups.values() if bits & before)
            newer = sum(1 for bits in groups.values() if bits & ~before)
            rank = min(older, newer)
            if rank > best_rank:
                best, best_rank = name, rank
        return best

    def _named(self, bits: int) -> list[str]:
        return [self._names[index] for index in _indexes(bits)]


def _indexes(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
