"""The running interpreter as an environment."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipesmith.environments import system


def test_what_is_installed_is_found() -> None:
    packages = system.system_packages()
    assert packages["pytest"] == version("pytest")
    assert all(name == name.lower() and "_" not in name for name in packages)


def test_the_digest_hangs_on_installed_packages_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "Some_Name-1.0.dist-info").mkdir(parents=True)
    (second / "some_name-9.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(system, "system_folders", lambda: [str(first), str(second)])
    before = system.system_digest()
    assert system.system_packages() == {"some-name": "1.0"}
    (second / "other-2.0-py3.11.egg-info").mkdir()
    assert system.system_packages() == {"some-name": "1.0", "other": "2.0"}
    assert system.system_digest() != before
    (tmp_path / "cwd" / "local-1.0.dist-info").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.syspath_prepend(str(tmp_path / "cwd"))
    assert "local" not in system.system_packages()


def test_the_python_version_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = system.system_digest()
    other = SimpleNamespace(implementation=sys.implementation, version_info=SimpleNamespace(major=3, minor=99))
    monkeypatch.setattr(system, "sys", other)
    monkeypatch.setattr(system, "system_packages", dict)
    changed = system.system_digest()
    monkeypatch.setattr(system, "sys", sys)
    assert changed not in (before, system.system_digest())


def test_the_environment_is_the_running_interpreter() -> None:
    found = system.system_environment()
    assert found.python == sys.executable
    assert Path(found.bin, "python").exists() or Path(found.bin, "python3").exists()
    assert (found.prefix is None) is (sys.prefix == sys.base_prefix)
