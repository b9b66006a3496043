"""Random graphs and random edits, held to a plain-Python oracle: which stages run, what comes out, what the lockfile
says.

PIPESMITH_SEEDS="7 8 9" runs these seeds only; a failure prints its seed and all that was done.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from tests.conftest import Repo

from .history import History

_STEPS = 9
_SEEDS = [int(word) for word in os.environ.get("PIPESMITH_SEEDS", "").split()]


def live(repo: Repo, make_repo: Callable[[str], Repo], seed: int, steps: int) -> None:
    history = History(repo, seed)
    try:
        history.run(steps)
        history.from_nothing(make_repo("other"))
    except AssertionError as error:
        pytest.fail("\n".join([*history.told, "", str(error)]), pytrace=True)


@pytest.mark.parametrize("seed", _SEEDS or range(16))
def test_history(repo: Repo, make_repo: Callable[[str], Repo], seed: int) -> None:
    live(repo, make_repo, seed, _STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_many_histories(repo: Repo, make_repo: Callable[[str], Repo], seed: int) -> None:
    live(repo, make_repo, seed, 2 * _STEPS)
