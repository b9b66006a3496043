"""`watch`: build whenever a save reaches a stage.

Events only wake: what was saved is told by looking at the workspace as a build does. One thread, the caller's, takes
in what happens and decides; a build has a thread of its own.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, Protocol

from pipesmith.build.control import Control
from pipesmith.errors import Cancelled, ConfigError, EnvironmentFailure, Finding, PipeError, UserError
from pipesmith.events import Event
from pipesmith.git.activity import GitActivity
from pipesmith.records import field, record
from pipesmith.watching.change import Change, Kind
from pipesmith.watching.coverage import Coverage
from pipesmith.watching.lookout import Lookout
from pipesmith.workspace.build import build, refuse_inside_a_stage
from pipesmith.workspace.plan import BuildOptions
from pipesmith.workspace.reach import Look, Memory, look_at
from pipesmith.workspace.results import BuildResult
from pipesmith.workspace.saves import Saves
from pipesmith.workspace.selecting import select_stages
from pipesmith.workspace.session import Session, UnknownCompute
from pipesmith.workspace.warm import Warmth
from pipesmith.workspace.watched_places import bare_coverage

if TYPE_CHECKING:
    from pipesmith.workspace.workspace import Workspace

__all__ = ["Face", "WatchOptions", "watch"]

_TICK_S = 1.0  # how often it looks whether the workspace is still there
_SERIES_S = 0.5  # how long it must be quiet in the middle of a rebase
_AT_WORK_S = 0.02  # how often it looks whether git still holds the index
_LEFT_BEHIND_S = 5.0  # an index that is held so long while nothing happens is held by an editor, or by nobody
_MOST_S = 10.0  # how long saves that follow each other closely put a build off
_CONFIRM_S = 2.0  # how long it must be quiet before everything is looked at once more
_END_S = 15.0  # how long a build may take to end when it is told to


@record
class WatchOptions:
    """What `pipe watch` takes. debounce_s: how long it must be quiet after a save. polling: whether the system's events
    are not to be used."""

    stages: tuple[str, ...] = ()
    debounce_s: float = 0.1
    jobs: int | None = None
    keep_going: bool = False
    overrides: dict[str, str] = field(default_factory=dict)
    compute: str | None = None
    polling: bool = False
    command_line: tuple[str, ...] = ()


class Face(Protocol):
    """Who shows what a watch does. All but the listener is called by the thread that called `watch`."""

    def building(self, woken_by: str) -> Callable[[Event], None]:
        """A build begins; woken_by is empty for the first. Returns who listens to it."""

    def built(self, result: BuildResult) -> None:
        """A build has ended."""

    def refused(self, error: PipeError, woken_by: str) -> None:
        """Nothing can be built as things are."""

    def waiting(self, failed: Sequence[str]) -> None:
        """Nothing is to be done until the next save. failed: stages that wait for a save that reaches them."""

    def ending(self, stages: Sequence[str], woken_by: str) -> None:
        """A save reaches stages that run: they are ended, to be run anew."""

    def noticed(self, text: str, help: str | None) -> None:
        """Something that a person should know."""


def watch(workspace: Workspace, options: WatchOptions, face: Face) -> NoReturn:
    """Build, and build again whenever a save reaches a stage, until SIGINT, SIGTERM or SIGHUP comes. Never returns.

    Raises Cancelled when it is ended, UserError for wrong use, EnvironmentFailure when the workspace is gone."""
    refuse_inside_a_stage("pipe watch")
    _Watch(workspace, options, face).run()


class _Stop:
    """A signal came."""


@record(frozen=False, kw_only=False)
class _Build:
    """One that goes on. ended: in the thread's last message."""

    look: Look
    control: Control
    held: dict[str, str | None]
    thread: threading.Thread | None = None
    result: BuildResult | None = None
    error: BaseException | None = None


_Message = Change | _Build | _Stop


class _Watch:
    def __init__(self, workspace: Workspace, options: WatchOptions, face: Face) -> None:
        self._workspace = workspace
        self._options = options
        self._face = face
        self._git = GitActivity(workspace.repo.git_dir, workspace.repo.common_dir)
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._lookout = Lookout(self._inbox.put, face.noticed, polling=options.polling)
        self._saves = Saves(workspace, self._git)
        self._warmth = Warmth(workspace.root, self._saves)
        self._confirm_at = 0.0  # when all is to be looked at, since the last look trusted the one before
        self._memory = Memory()
        self._build: _Build | None = None
        self._refused: str | None = None  # the text of the last error, as long as it holds
        self._again = False  # something was saved that the build that goes on may not have seen
        self._stopped = False
        self._since = 0.0  # when the first of the saves came that were not looked at yet
        self._newest = 0.0  # when the last one came
        self._passed_over: tuple[int, int] | None = None  # a holding of the index that is not waited for
        self._begun = False  # whether a build was begun
        self._waits = False  # whether it was said that there is nothing to do
        self._checked = False  # whether the words of the command line were looked at
        self._identity = self._where()

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> NoReturn:
        before = {
            number: signal.signal(number, self._signalled)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if threading.current_thread() is threading.main_thread()
            and not (number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN)  # as under nohup
        }
        try:
            self._lookout.cover(bare_coverage(self._workspace))
            self._act()
            while True:
                self._take(self._next())
                if self._is_due():
                    self._act()
                elif self._confirm_at and self._build is None and time.monotonic() >= self._confirm_at:
                    self._warmth.forget()
                    self._act()
        finally:
            self._lookout.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopped:
            os._exit(130)  # asked twice; the supervisor ends what runs
        self._stopped = True
        self._inbox.put(_Stop())

    def _next(self) -> _Message | None:
        """Return the next thing that happens, None where there is something to look after."""
        timeout = _TICK_S
        if self._saves.pending:
            timeout = min(timeout, max(self._due() - time.monotonic(), 0.0))
        try:
            return self._inbox.get(timeout=timeout) if timeout > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None

    def _take(self, message: _Message | None) -> None:
        """Take in a message and all that came with it."""
        changes: list[Change] = []
        while message is not None:
            if isinstance(message, _Stop):
                self._end()
            elif isinstance(message, _Build):
                self._ended(message)
            elif message.kind is Kind.FULL:
                self._lookout.full()
            else:
                changes.append(message)
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                message = None
        if not os.path.isdir(self._workspace.root) or self._where() != self._identity:
            self._gone()
        if changes and self._saves.add(changes):
            self._noted()

    def _noted(self) -> None:
        self._newest = time.monotonic()
        if not self._since:
            self._since = self._newest

    def _due(self) -> float:
        """Return when the saves are to be looked at, in monotonic seconds: when it has been quiet, and git is done."""
        quiet = self._options.debounce_s
        if self._git.in_series():
            return self._newest + max(quiet, _SERIES_S)
        return min(self._newest + quiet, self._since + max(_MOST_S, 20 * quiet))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if not self._saves.pending or now < self._due():
            return False
        holder = self._git.holder()
        if holder is None or holder == self._passed_over:
            return True
        if now - self._newest > _LEFT_BEHIND_S:
            self._passed_over = holder
            return True
        time.sleep(_AT_WORK_S)
        if self._git.holder() is None:
            self._newest = time.monotonic()  # what git did last is told in a moment
        return False

    # -- looking ------------------------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Look at what was saved, and do what follows from it."""
        self._since = 0.0
        self._saves.take()
        if self._build is not None and self._saves.only_made():
            self._again = True
            return
        try:
            look = self._look()
        except (PipeError, OSError) as error:
            if self._build is None:
                self._refuse(error)
            return
        running = self._build
        if running is not None:
            self._again = True
            self._interrupt(running, look)
            return
        self._memory.settle(look)
        written = self._saves.written
        reached = self._memory.reached(look, written)
        if not reached and self._refused is None and self._begun:
            look.session.tree.flush()
            look.session.stat_cache.flush()
            self._saves.forget()
            self._wait()
            return
        self._begin(look, self._memory.held(look, written))

    def _look(self) -> Look:
        """Return the verdicts of this moment. What they hang on is watched before it is looked at."""
        self._confirm_at = 0.0
        if self._saves.may_configure:
            self._workspace.repo.__dict__.pop("config", None)
        session = self._workspace.session(self._options.overrides, self._options.compute)
        try:
            _ = session.pipeline
        except FileNotFoundError:
            self._lookout.cover(self._bare(session))
            raise ConfigError(
                [Finding(file="pipeline.toml", text="is gone", help="put it back, and it is built")]
            ) from None
        except UnknownCompute as error:
            raise _WrongUse(error) from None
        except PipeError:
            self._lookout.cover(self._bare(session))
            raise
        try:
            if not self._checked:
                self._check_words(session)
            options = self._options_of({})
            if self._build is not None:
                session.pins.adopt(self._build.look.session.pins)
            self._lookout.cover(self._saves.follow(session, options))
            if not self._lookout.by_events:
                self._saves.look_alone()
            self._warmth.lend(session)
            look = look_at(session, options)
            self._warmth.keep(session)
            self._confirm_at = time.monotonic() + _CONFIRM_S if self._warmth.trusting else 0.0
            return look
        except BaseException:
            session.look_again()
            raise

    def _bare(self, session: Session) -> Coverage:
        bare = bare_coverage(self._workspace, session.asked)
        known = self._saves.coverage
        return known.also(bare.exact) if known is not None else bare

    def _check_words(self, session: Session) -> None:
        """Raise UserError for words of the command line that mean nothing here."""
        try:
            select_stages(session.pipeline, self._options.stages)
            self._checked = True
        except UserError as error:
            raise _WrongUse(error) from None

    def _refuse(self, error: PipeError | OSError) -> None:
        """Show what is wrong, unless it was shown before and nothing of it was touched."""
        if isinstance(error, _WrongUse):
            raise error.error
        if self._stopped:
            return
        if isinstance(error, OSError):
            error = EnvironmentFailure(f"`{error.filename}`: {(error.strerror or str(error)).lower()}")
        text = "\n".join(finding.render() for finding in error.findings())
        if text != self._refused or self._saves.touched_description:
            self._face.refused(error, self._saves.description())
            self._waits = False
        self._wait()
        self._refused = text
        self._saves.seen()

    # -- building -----------------------------------------------------------------------------------------------------

    def _options_of(self, held: dict[str, str | None]) -> BuildOptions:
        options = self._options
        return BuildOptions(
            stages=options.stages,
            jobs=options.jobs,
            keep_going=options.keep_going,
            overrides=options.overrides,
            compute=options.compute,
            command_line=options.command_line,
            by_fingerprint=self._begun,
            held=held,
        )

    def _begin(self, look: Look, held: dict[str, str | None]) -> None:
        self._waits = False
        listener = self._face.building(self._saves.description())
        options = self._options_of(held)
        this = _Build(look=look, control=Control(), held=held)
        self._saves.forget()
        self._begun, self._again = True, False

        def work() -> None:
            try:
                this.result = build(self._workspace, options, listener, control=this.control, session=look.session)
            except BaseException as error:
                this.error = error
            self._inbox.put(this)

        this.thread = threading.Thread(target=work, name="build", daemon=True)
        self._build = this
        this.thread.start()

    def _ended(self, this: _Build) -> None:
        self._build = None
        if this.result is not None:
            self._refused = None
            self._memory.learn(this.look, this.result, this.held)
            self._face.built(this.result)
        elif isinstance(this.error, (PipeError, OSError)):
            self._refuse(this.error)
        elif this.error is not None:
            raise this.error
        if self._stopped:
            return
        if self._again:
            self._again = False
            self._saves.revive()
        else:
            self._wait()
        # What it placed is told as changes in a moment; one look takes them together with what was saved meanwhile.
        self._noted()

    def _interrupt(self, this: _Build, look: Look) -> None:
        """End the stages that run and are reached. Where the pipeline is another one nothing more is started."""
        running = this.control.running()
        reached = [
            name
            for name, key in running.items()
            if (name not in look.verdicts or look.key(name) is None or look.key(name) != key)
            and this.look.stage(name).sandbox  # what writes into the workspace itself may be what was "saved"
        ]
        if reached:
            self._face.ending(reached, self._saves.description())
        if reached or look.session.pipeline != this.look.session.pipeline:
            this.control.stop(reached)

    def _wait(self) -> None:
        """Say that there is nothing to do, once."""
        if not self._waits:
            self._waits = True
            self._face.waiting(self._memory.failed)

    # -- ending -------------------------------------------------------------------------------------------------------

    def _end(self) -> NoReturn:
        self._await_build()
        raise Cancelled()

    def _gone(self) -> NoReturn:
        self._await_build()
        raise EnvironmentFailure(
            f"the workspace `{self._workspace.root}` is gone: it was removed, or has another name now",
            "start `pipe watch` where it lies now",
        )

    def _await_build(self) -> None:
        """Tell the build that goes on to end, and wait until it has."""
        this = self._build
        if this is None or this.thread is None:
            return
        this.control.cancel()
        deadline = time.monotonic() + (_END_S if this.control.attached else 2.0)
        while time.monotonic() < deadline:
            try:
                message = self._inbox.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(message, _Build):
                self._stopped = True
                self._ended(message)
                return

    def _where(self) -> tuple[int, int] | None:
        try:
            info = os.stat(self._workspace.root)
        except OSError:
            return None
        return info.st_dev, info.st_ino


class _WrongUse(UserError):
    """Words of the command line that mean nothing: told, and the end."""

    def __init__(self, error: UserError) -> None:
        super().__init__(error.text, error.help)
        self.error = error
