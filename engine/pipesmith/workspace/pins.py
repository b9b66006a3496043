"""Pins of environments and datasets: what pipe.lock says they resolved to, and resolving anew where that no longer
holds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from pipesmith.digest import Digest
from pipesmith.errors import ConfigError, EnvironmentFailure, Finding, PipeError, StageError, UserError
from pipesmith.lockfile.model import DatasetPin, EnvironmentPin
from pipesmith.pipeline.model import Dataset, Environment, Stage
from pipesmith.verdict.reasons import Reason

if TYPE_CHECKING:
    from pipesmith.build.context import StageEnvironment
    from pipesmith.environments.materialise import Materialised
    from pipesmith.workspace.session import Session

__all__ = ["Pins"]


class Pins:
    """The pins of one session. What `resolve_*` found anew is in `new_environments` and `new_datasets`, to be
    locked."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.new_environments: dict[str, EnvironmentPin] = {}
        self.new_datasets: dict[str, DatasetPin] = {}
        self._texts: dict[str, tuple[str | None, Reason | None]] = {}
        self._digests: dict[str, Digest | None] = {}
        self._materialised: dict[str, StageEnvironment] = {}
        self._materialising = threading.Lock()
        self._of_commit: Mapping[str, EnvironmentPin] | None = None

    def unpinned(self) -> tuple[str, ...]:
        """Return the datasets that have no pin that holds."""
        return tuple(name for name in self._session.pipeline.datasets if self.dataset_pin(name) is None)

    def adopt(self, others: Pins) -> None:
        """Take over what another session found anew, where it holds for what is written now."""
        from pipesmith.environments.definition import definition_digest

        pipeline, read = self._session.pipeline, self._session.read_file
        for name, environment in others.new_environments.items():
            written = pipeline.environments.get(name)
            if written is not None and environment.definition == definition_digest(written, read):
                self.new_environments[name] = environment
        for name, dataset in others.new_datasets.items():
            if name in pipeline.datasets and dataset.definition == pipeline.datasets[name].definition:
                self.new_datasets[name] = dataset

    # -- environments -------------------------------------------------------------------------------------------------

    def environment_pin(self, environment: Environment) -> EnvironmentPin | None:
        """Return the pin that holds for an environment as it is written now, None where there is none."""
        if environment.name in self.new_environments:
            return self.new_environments[environment.name]
        from pipesmith.environments.definition import definition_digest

        pin = self._session.lockfile.environments.get(environment.name)
        if pin is None or pin.definition != definition_digest(environment, self._session.read_file):
            return None
        return pin

    def environment_text(self, stage: Stage) -> tuple[str | None, Reason | None]:
        """Return what stands for a stage's environment in its fingerprint, and a reason where that is not known yet."""
        if stage.environment is None:
            return None, None
        if stage.environment not in self._texts:
            self._texts[stage.environment] = self._text(self._session.pipeline.environments[stage.environment])
        return self._texts[stage.environment]

    def _text(self, environment: Environment) -> tuple[str | None, Reason | None]:
        if environment.python == "system":
            from pipesmith.environments.system import system_digest

            return system_digest(), None
        if environment.dockerfile:
            from pipesmith.environments.definition import dockerfile_digest

            text = dockerfile_digest(environment, self._session.tree.source_id)
            return text, None if text is not None else Reason("environment", environment.name, None, None)
        from pipesmith.environments.definition import pin_digest

        pin = self.environment_pin(environment)
        if pin is not None:
            return pin_digest(pin), None
        old = self._session.lockfile.environments.get(environment.name)
        return None, Reason("environment", environment.name, pin_digest(old) if old else None, None)

    def packages_between(self, stage: Stage, old: str, new: str | None) -> tuple[str, str] | None:
        """Return which packages differ between two texts of a stage's environment: see `Outside.packages`."""
        if stage.environment is None:
            return None
        from pipesmith.environments.resolve import told_between

        environment = self._session.pipeline.environments[stage.environment]
        return told_between(
            environment, old, new, lambda digest: self._pin_of(environment.name, digest), self._session.read_file
        )

    def _pin_of(self, name: str, digest: str) -> EnvironmentPin | None:
        """Return the pin that a digest stands for: of this build, the lockfile, the one of the checked-out commit, or
        what was ever built here."""
        from pipesmith.environments.definition import pin_digest

        for known in (self.new_environments, self._session.lockfile.environments):
            if name in known and pin_digest(known[name]) == digest:
                return known[name]
        for pin in self._committed().values():
            if pin_digest(pin) == digest:
                return pin
        from pipesmith.environments.listing import pin_on_disk

        return pin_on_disk(digest)

    def _committed(self) -> Mapping[str, EnvironmentPin]:
        """Return the pins of the lockfile of the checked-out commit; none where it has none that can be read."""
        if self._of_commit is None:
            from pipesmith.workspace.revisions import lockfile_at

            try:
                lockfile = lockfile_at(self._session.workspace.home, "HEAD")
            except PipeError:
                lockfile = None
            self._of_commit = lockfile.environments if lockfile is not None else {}
        return self._of_commit

    @contextmanager
    def located(self, name: str) -> Iterator[None]:
        """Have what goes wrong with an environment say where pipeline.toml asks for it."""
        session = self._session
        environment = session.pipeline.environments[name]
        ways = ("conda", "image", "dockerfile", "requirements", "packages")
        way = next((way for way in ways if getattr(environment, way)), None)
        key = f"environment.{name}.{way}" if way else f"environment.{name}"
        file = session.pipeline.file
        try:
            yield
        except EnvironmentFailure as error:
            from pipesmith.docker_client import DaemonGone

            if not isinstance(error, DaemonGone):  # which is the compute's, and says so
                error.where = error.where or (file, session.line(key), key)
            raise
        except ConfigError:
            raise
        except UserError as error:
            finding = Finding(file=file, line=session.line(key), key=key, text=error.text, help=error.help)
            raise ConfigError([finding]) from None

    def resolve_environments(
        self, names: Sequence[str], notice: Callable[[str], None], *, upgrade: bool = False
    ) -> None:
        """Resolve the environments whose pin does not hold. Raises EnvironmentFailure."""
        for name in names:
            environment = self._session.pipeline.environments[name]
            if environment.python == "system" or environment.dockerfile:
                continue  # what they are is looked at by each build
            if not upgrade and self.environment_pin(environment) is not None:
                continue
            from pipesmith.environments.resolve import resolve

            previous = self._session.lockfile.environments.get(name)
            with self.located(name):
                self.new_environments[name] = resolve(
                    environment,
                    self._session.read_file,
                    previous,
                    upgrade=upgrade,
                    root=self._session.workspace.root,
                    image=self._session.computes.resolve_image,
                    notice=notice,
                )
            self._texts.pop(name, None)

    def materialise(self, stage: Stage, notice: Callable[[str], None]) -> StageEnvironment:
        """Return what a stage's interpreter is made of here, built first if it is not there. Raises
        EnvironmentFailure."""
        from pipesmith.build.context import StageEnvironment

        name = stage.environment
        if name is None or self._session.pipeline.computes[stage.compute].kind != "local":
            return StageEnvironment()
        with self._materialising:  # one of two stages makes it, the other takes it
            if name not in self._materialised:
                made = self.made_here(name, notice)
                self._materialised[name] = StageEnvironment(
                    path=(made.bin,), prefix=made.prefix, variables=made.variables
                )
            return self._materialised[name]

    def made_here(self, name: str, notice: Callable[[str], None]) -> Materialised:
        """Return an environment on this machine, built first if it is not there. Raises EnvironmentFailure."""
        environment = self._session.pipeline.environments[name]
        if environment.python == "system":
            from pipesmith.environments.system import system_environment

            return system_environment()
        from pipesmith.environments.materialise import ensure

        pin = self.environment_pin(environment)
        assert pin is not None

        def making(text: str) -> AbstractContextManager[None]:
            return self._session.cold.making(name, "", "built", text)

        with self.located(name):
            return ensure(pin, notice, root=self._session.workspace.root, making=making)

    # -- datasets -----------------------------------------------------------------------------------------------------

    def dataset_pin(self, name: str) -> DatasetPin | None:
        """Return the pin that holds for a dataset as it is written now, None where there is none."""
        if name in self.new_datasets:
            return self.new_datasets[name]
        pin = self._session.lockfile.datasets.get(name)
        if pin is None or pin.definition != self._session.pipeline.datasets[name].definition:
            return None
        return pin

    def dataset_digest(self, name: str) -> Digest | None:
        pin = self.dataset_pin(name)
        return pin.digest if pin else None

    def pin_datasets(self, names: Sequence[str], *, update: bool = False) -> None:
        """Pin the datasets that have no pin that holds. Raises UserError where a glob finds nothing."""
        for name in names:
            if not update and self.dataset_pin(name) is not None:
                continue
            from pipesmith.data.datasets import pin

            self.new_datasets[name] = pin(
                self._session.pipeline.datasets[name],
                self._session.pipeline.datastores,
                self._data_root(self._session.pipeline.datasets[name]),
                self._session.stat_cache.digest,
                self._session.lockfile.datasets.get(name),
                update=update,
            )

    def dataset_files(self, name: str) -> Sequence[tuple[str, str]]:
        """Return (absolute origin, relative name) of a dataset's files, each verified against its pin. Raises
        StageError."""
        from pipesmith.data.datasets import locate

        pin = self.dataset_pin(name)
        assert pin is not None
        dataset, stores = self._session.pipeline.datasets[name], self._session.pipeline.datastores
        hash = self._session.stat_cache.of_algorithm(pin.digest.algorithm).digest
        home = self._session.workspace.home.root
        root = self._data_root(dataset)
        if root != home:
            try:
                return locate(dataset, pin, stores, root, hash)
            except StageError:
                pass  # git holds some of it, or other content
        return locate(dataset, pin, stores, home, hash)

    def _data_root(self, dataset: Dataset) -> str:
        """Return where a dataset's relative paths begin. A commit elsewhere has its own files, as far as git holds
        them; all else lies where the user's workspace is."""
        workspace = self._session.workspace
        if workspace.place is None or workspace.place.revision is None:
            return workspace.home.root
        from pipesmith.data.places import place_of

        places = [place_of(source, self._session.pipeline.datastores, workspace.root) for source in dataset.sources]
        held = all(os.path.lexists(place.base) for place in places)
        return workspace.root if places and held else workspace.home.root


def user_and_host() -> tuple[str, str]:
    """Return who runs this, and where."""
    import socket

    name = os.environ.get("USER") or os.environ.get("LOGNAME")
    if not name:
        import pwd

        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            name = str(os.getuid())
    return name, socket.gethostname()
