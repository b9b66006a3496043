"""Environments on disk: built once, whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipesmith.environments.definition import pin_digest
from pipesmith.environments.listing import list_environments, remove_unused
from pipesmith.environments.materialise import MARKER, ensure, environment_key, environments_folder
from pipesmith.environments.resolve import resolve
from pipesmith.errors import EnvironmentFailure
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.pipeline.model import Environment

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def pin(index: Path) -> EnvironmentPin:
    return resolve(Environment(name="e", python=RUNNING, packages=("beta", "alpha")), lambda path: None, None)


def version_in(python: str, module: str = "alpha") -> str:
    done = subprocess.run(
        [python, "-c", f"import {module}; print({module}.VERSION)"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def leftovers() -> list[str]:
    return [entry for entry in os.listdir(environments_folder()) if entry.startswith(".tmp-")]


def test_the_pinned_set_is_what_the_interpreter_imports(pin: EnvironmentPin) -> None:
    said: list[str] = []
    made = ensure(pin, said.append)
    assert version_in(made.python) == "2.0"
    assert made.bin == os.path.join(str(made.prefix), "bin") and made.python.startswith(made.bin)
    assert said == [f"building an environment of 2 packages for Python {RUNNING}"]
    assert leftovers() == []


def test_the_second_time_it_is_there_and_uv_is_not_called(pin: EnvironmentPin, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure(pin, lambda text: None)
    monkeypatch.setattr("pipesmith.environments.materialise.run_uv", lambda *a, **k: pytest.fail("uv was called"))
    assert ensure(pin, pytest.fail) == first


def test_modules_are_compiled_so_that_nothing_is_written_at_first_import(pin: EnvironmentPin) -> None:
    made = ensure(pin, lambda text: None)
    assert list(Path(str(made.prefix)).rglob("alpha.*.pyc"))


def test_the_folder_hangs_on_the_set(pin: EnvironmentPin) -> None:
    assert environment_key(pin) == environment_key(replace(pin, definition="written otherwise"))
    assert environment_key(pin) != environment_key(replace(pin, resolved=pin.resolved[:1]))


def test_a_half_made_environment_is_built_again(pin: EnvironmentPin) -> None:
    made = ensure(pin, lambda text: None)
    os.unlink(os.path.join(str(made.prefix), MARKER))
    said: list[str] = []
    assert ensure(pin, said.append) == made
    assert len(said) == 1
    assert version_in(made.python) == "2.0"


def test_an_environment_whose_interpreter_is_gone_is_built_again(pin: EnvironmentPin) -> None:
    made = ensure(pin, lambda text: None)
    os.unlink(made.python)
    os.symlink("/gone/python", made.python)
    ensure(pin, lambda text: None)
    assert version_in(made.python) == "2.0"


def test_what_a_killed_build_left_is_removed(pin: EnvironmentPin) -> None:
    half = os.path.join(environments_folder(), f".tmp-{environment_key(pin)}-dead")
    os.makedirs(os.path.join(half, "lib"))
    ensure(pin, lambda text: None)
    assert leftovers() == []


def test_a_killed_build_leaves_nothing_trusted(pin: EnvironmentPin, tmp_path: Path) -> None:
    """The build is killed while uv installs; the next one makes it whole."""
    program = (
        "import os, sys\n"
        "import pipesmith.environments.materialise as m\n"
        "from pipesmith.lockfile.model import EnvironmentPin\n"
        "real = m.run_uv\n"
        "def dying(arguments, **more):\n"
        "    done = real(arguments, **more)\n"
        "    if arguments[0] == 'pip': os.kill(os.getpid(), 9)\n"
        "    return done\n"
        "m.run_uv = dying\n"
        f"m.ensure(EnvironmentPin(definition='', python={pin.python!r}, resolved={pin.resolved!r}), print)\n"
    )
    engine = str(Path(__file__).parents[2] / "engine")
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": engine}, check=False)
    assert done.returncode == -9
    assert len(leftovers()) == 1
    assert list_environments() == []
    said: list[str] = []
    assert version_in(ensure(pin, said.append).python) == "2.0"
    assert len(said) == 1
    assert leftovers() == []


def test_four_builds_at_once_build_it_once(pin: EnvironmentPin) -> None:
    program = (
        "from pipesmith.environments.materialise import ensure\n"
        "from pipesmith.lockfile.model import EnvironmentPin\n"
        f"made = ensure(EnvironmentPin(definition='', python={pin.python!r}, resolved={pin.resolved!r}), print)\n"
        "print(made.python)\n"
    )
    engine = str(Path(__file__).parents[2] / "engine")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": engine}, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    texts = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4
    assert sum("building an environment" in text for text in texts) == 1
    assert len({text.splitlines()[-1] for text in texts}) == 1
    waited = [line for text in texts for line in text.splitlines() if line.startswith("waiting")]
    assert all("pid " in line or "another process" in line for line in waited)


def test_it_is_built_without_an_index_from_uvs_cache(pin: EnvironmentPin, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ensure(pin, lambda text: None)
    removed = remove_unused((), older_than_s=-1)
    assert [each.path for each in removed] == [made.prefix]
    asked: list[list[str]] = []
    from pipesmith.environments import materialise

    real = materialise.run_uv

    def watched(arguments, **more):  # type: ignore[no-untyped-def]
        asked.append(list(arguments))
        return real(arguments, **more)

    monkeypatch.setattr(materialise, "run_uv", watched)
    assert version_in(ensure(pin, lambda text: None).python) == "2.0"
    assert [("--offline" in arguments) for arguments in asked if arguments[0] == "pip"] == [True]


def test_a_file_that_is_not_the_pinned_one_is_refused(pin: EnvironmentPin) -> None:
    wrong = replace(
        pin, resolved=tuple(f"{line.partition(' --hash=')[0]} --hash=sha256:{'0' * 64}" for line in pin.resolved)
    )
    with pytest.raises(EnvironmentFailure) as caught:
        ensure(wrong, lambda text: None)
    assert "ash mismatch" in caught.value.text + str(caught.value.help)
    assert leftovers() == []
    assert list_environments() == []


def test_a_python_that_can_not_be_had_is_named(pin: EnvironmentPin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    with pytest.raises(EnvironmentFailure, match=r"Python 3\.99 can't be had"):
        ensure(EnvironmentPin(definition="", python="3.99"), lambda text: None)


def test_a_cache_that_can_not_be_written_is_said(
    pin: EnvironmentPin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvironmentFailure, match="can't be built in"):
        ensure(pin, lambda text: None)


def test_a_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert environments_folder() == str(tmp_path / ".cache" / "pipesmith" / "envs")


def test_the_listing_says_what_lies_here_and_when_it_was_used(pin: EnvironmentPin) -> None:
    made = ensure(pin, lambda text: None)
    (each,) = list_environments()
    assert (each.path, each.pin, each.python, each.whole) == (made.prefix, pin_digest(pin), RUNNING, True)
    assert each.packages == ("alpha==2.0", "beta==1.0")
    assert each.size_bytes > 1000
    assert abs(each.last_used - time.time()) < 60
    marker = os.path.join(str(made.prefix), MARKER)
    os.utime(marker, (1, 1))
    ensure(pin, lambda text: None)
    assert os.stat(marker).st_mtime > 1


def test_only_what_is_old_and_unwanted_is_removed(pin: EnvironmentPin) -> None:
    made = ensure(pin, lambda text: None)
    assert remove_unused((), older_than_s=3600) == []
    assert remove_unused((pin_digest(pin),), older_than_s=-1) == []
    assert len(remove_unused((), older_than_s=-1, dry_run=True)) == 1
    assert os.path.exists(made.python)
    assert len(remove_unused((), older_than_s=-1)) == 1
    assert not os.path.exists(str(made.prefix))
    assert leftovers() == []
