"""pipe.lock while a build goes on: written at most twice a second, and at the end; merged with what other builds
wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

from pipesmith.lockfile import io
from pipesmith.lockfile.model import DatasetPin, EnvironmentPin, Lockfile, StageLock
from pipesmith.lockfile.reader import parse
from pipesmith.records import replace

__all__ = ["LockWriter"]

_INTERVAL_S = 0.5


class LockWriter:
    """Collects the entries of stages and writes them into the lockfile at `path`.

    guard: the workspace lock, taken for each writing. text, lockfile: the file as it was read, to be parsed again only
    when its text is another. settle: brings what the entries name to the disk; called before each writing. An object
    that a crash of the machine has damaged all the same is found out when it is placed, and made again.
    """

    def __init__(
        self,
        path: str,
        guard: Callable[[], AbstractContextManager[None]],
        text: str | None,
        lockfile: Lockfile,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._settle = settle
        self._known = (text, lockfile)
        self._path = path
        self._guard = guard
        self._stages: dict[str, StageLock] = {}
        self._environments: dict[str, EnvironmentPin] = {}
        self._datasets: dict[str, DatasetPin] = {}
        self._written = 0.0
        self._mutex = threading.Lock()

    def set_stage(self, name: str, entry: StageLock) -> None:
        with self._mutex:
            self._stages[name] = entry

    def set_environment(self, name: str, pin: EnvironmentPin) -> None:
        with self._mutex:
            self._environments[name] = pin

    def set_dataset(self, name: str, pin: DatasetPin) -> None:
        with self._mutex:
            self._datasets[name] = pin

    def pending(self) -> bool:
        """Return whether there are entries that were not written yet."""
        with self._mutex:
            return bool(self._stages or self._environments or self._datasets)

    def tick(self) -> None:
        """Write if there is something new and the last writing is half a second ago."""
        if time.monotonic() - self._written >= _INTERVAL_S:
            self.write()

    def write(self, *, keep: tuple[Collection[str], Collection[str], Collection[str]] | None = None) -> None:
        """Write now what is new. keep: the stages, environments and datasets that the pipeline has; other entries go.

        Raises UserError where the lockfile can't be read, OSError where it can't be written."""
        with self._mutex:
            stages, environments, datasets = dict(self._stages), dict(self._environments), dict(self._datasets)
        if not (stages or environments or datasets or keep):
            return
        with self._guard():
            current = self._read()
            merged = Lockfile(
                stages={**current.stages, **stages},
                environments={**current.environments, **environments},
                datasets={**current.datasets, **datasets},
            )
            if keep is not None:
                merged = replace(
                    merged,
                    stages={name: entry for name, entry in merged.stages.items() if name in keep[0]},
                    environments={name: pin for name, pin in merged.environments.items() if name in keep[1]},
                    datasets={name: pin for name, pin in merged.datasets.items() if name in keep[2]},
                )
            if merged != current:
                self._settle()
                self._known = (io.write(self._path, merged), merged)
        with self._mutex:
            for name, entry in stages.items():
                if self._stages.get(name) is entry:
                    del self._stages[name]
            self._environments = {n: p for n, p in self._environments.items() if environments.get(n) is not p}
            self._datasets = {n: p for n, p in self._datasets.items() if datasets.get(n) is not p}
        self._written = time.monotonic()

    def _read(self) -> Lockfile:
        try:
            with open(self._path, encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            return Lockfile()
        if text != self._known[0]:
            self._known = (text, parse(text))
        return self._known[1]
