"""What tests of the command share: a sealed git repository with `pipe` in it.

    def test_second_build_runs_nothing(repo):
        repo.write("pipeline.toml", f'''
            [stage.a]
            run = "{repo.note("a")} && echo 1 > {{outputs.o}}"
            outputs = {{ o = "o.txt" }}
        ''')
        repo.pipe("build")
        assert repo.ran() == ["a"]
        assert repo.pipe("build", "--json").json()["status"] == "up-to-date"
        assert repo.ran() == []

`note` returns a shell command that writes a word to a file in HOME, which lies outside the workspace and stands in no
fingerprint by its path; `ran` returns the words since it was last asked. That is how tests say which stages ran, and
which not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How fast examples come says how busy the machine is, and no more.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "engine"

# Of the caller's environment, only what reaching a package registry takes goes through to `pipe` and git.
_NETWORK_PREFIXES = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_PROXY", "http_", "https_", "no_proxy")


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    args: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return the one JSON document on stdout."""
        return json.loads(self.stdout)

    def stages(self, *, key: str = "status") -> dict[str, str]:
        """Return stage to status (of `build --json`), or to state with key="state" (of `status --json`)."""
        return {stage["name"]: stage[key] for stage in self.json()["stages"]}

    def why(self, stage: str) -> list[tuple[str, str]]:
        """Return (kind, item) of each reason of a stage, of `build --json` or `status --json`."""
        found = next(entry for entry in self.json()["stages"] if entry["name"] == stage)
        return [(reason["kind"], reason["item"]) for reason in found["why"]]


class Repo:
    """A git repository below a folder of its own. path: the work tree. home: HOME of every command, outside of it."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        self.home = home
        self.env = sealed_environment(home)

    # -- files ----------------------------------------------------------------------------------------------------

    def write(self, path: str, content: str | bytes, *, executable: bool = False) -> Path:
        """Write a file, its folders as well. Text is dedented, and loses a first empty line."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = textwrap.dedent(content.removeprefix("\n")).encode()
        target.write_bytes(content)
        if executable:
            target.chmod(0o755)
        return target

    def read(self, path: str) -> str:
        return (self.path / path).read_text()

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.path / path)

    @property
    def pipe_dir(self) -> Path:
        """The folder below git's own that pipe keeps everything in."""
        return Path(self.git("rev-parse", "--path-format=absolute", "--git-common-dir").stdout.strip()) / "pipe"

    # -- commands -------------------------------------------------------------------------------------------------

    def run(
        self,
        *args: str | os.PathLike[str],
        check: bool = True,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
    ) -> Result:
        """Run a program in the work tree. check: any exit code but 0 fails the test, with all that was printed."""
        words = tuple(os.fspath(arg) for arg in args)
        done = subprocess.run(
            words,
            cwd=self.path,
            env={**self.env, **(env or {})},
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="surrogateescape",
        )
        result = Result(words, done.returncode, done.stdout, done.stderr)
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
        return result

    def git(self, *args: str, check: bool = True, env: Mapping[str, str] | None = None) -> Result:
        return self.run("git", *args, check=check, env=env)

    def commit(self, message: str = "change") -> str:
        """Commit all that git does not ignore, and return the commit's id."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").stdout.strip()

    def pipe(
        self, *args: str, check: bool = True, env: Mapping[str, str] | None = None, input: str | None = None
    ) -> Result:
        """Run `pipe` of this checkout."""
        return self.run(sys.executable, "-m", "pipesmith", *args, check=check, env=env, input=input)

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start `pipe` in a session of its own and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipesmith", *args],
            cwd=self.path,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    # -- which stages ran -----------------------------------------------------------------------------------------

    def note(self, word: str) -> str:
        """Return a shell command by which a stage says that it runs. Good inside a basic TOML string."""
        return f"echo {word} >> $HOME/ran"

    def ran(self) -> list[str]:
        """Return the words noted since this was last asked, sorted."""
        log = self.home / "ran"
        words = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(words)

    # -- more repositories ----------------------------------------------------------------------------------------

    def clone(self, name: str = "clone") -> Repo:
        """Return a clone beside this repository, with the same HOME."""
        target = self.path.parent / name
        self.git("clone", "-q", str(self.path), str(target))
        return Repo(target, self.home)

    def worktree(self, name: str = "worktree", revision: str = "HEAD") -> Repo:
        """Return another work tree of the same clone, at a detached revision."""
        target = self.path.parent / name
        self.git("worktree", "add", "-q", "--detach", str(target), revision)
        return Repo(target, self.home)


def sealed_environment(home: Path) -> dict[str, str]:
    """Return an environment with nothing of the user's in it but the way to package registries and uv's cache."""
    network = {key: value for key, value in os.environ.items() if key.startswith(_NETWORK_PREFIXES)}
    environment = {
        **network,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR") or str(_user_cache() / "uv"),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.com",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.com",
    }
    if not _installed_from_here():
        environment["PYTHONPATH"] = str(ENGINE)
    return environment


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _installed_from_here() -> bool:
    from importlib.util import find_spec

    spec = find_spec("pipesmith")
    return spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(ENGINE)


def new_repo(folder: Path, name: str = "work") -> Repo:
    """Return an empty repository `folder`/`name`, with its HOME beside it."""
    path, home = folder / name, folder / "home"
    path.mkdir(parents=True)
    home.mkdir(exist_ok=True)
    (home / ".gitconfig").touch()
    repo = Repo(path, home)
    repo.git("-c", "init.templateDir=", "init", "-q", "-b", "main")
    return repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """An empty git repository of its own, on branch `main`."""
    return new_repo(tmp_path)


@pytest.fixture
def make_repo(tmp_path: Path) -> Iterator[Callable[[str], Repo]]:
    """Makes more empty repositories by name, all with one HOME."""
    yield lambda name: new_repo(tmp_path, name)


@pytest.fixture
def workspace(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """Like `repo`, with this process's own environment and folder sealed as well: for tests that call the library."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "PIPE_", "XDG_"))]:
        monkeypatch.delenv(name)
    for name, value in repo.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(repo.path)
    return repo


def pytest_configure(config: pytest.Config) -> None:
    """Name the folder of the services of this session, for the workers as well; each is started when first needed."""
    if not hasattr(config, "workerinput"):
        import tempfile

        os.environ["PIPESMITH_TEST_SERVICES"] = os.path.join(tempfile.gettempdir(), f"pipesmith-services-{os.getpid()}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the services of this session."""
    folder = os.environ.get("PIPESMITH_TEST_SERVICES", "")
    if not hasattr(config, "workerinput") and os.path.isdir(folder):
        import shutil

        for script in (ROOT / "tests" / "services").glob("*_services.py"):
            subprocess.run([sys.executable, script, "stop", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)
