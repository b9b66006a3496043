"""From requirements to a pin, and what of a pin counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipesmith.environments.definition import pin_digest
from pipesmith.environments.resolve import canonical_set, changes, resolve
from pipesmith.errors import EnvironmentFailure, UserError
from pipesmith.lockfile.model import EnvironmentPin
from pipesmith.pipeline.model import Environment

from .conftest import make_wheel


def environment(*packages: str, **more: str) -> Environment:
    return Environment(name="project", python="3.11", packages=packages, **more)  # type: ignore[arg-type]


def nothing(path: str) -> bytes | None:
    return None


def heads(pin: EnvironmentPin) -> list[str]:
    return [line.partition(" --hash=")[0] for line in pin.resolved]


def test_the_whole_set_is_pinned_with_hashes_and_without_other_pythons(index: Path) -> None:
    pin = resolve(environment("beta"), nothing, None)
    assert heads(pin) == ["alpha==2.0", "beta==1.0"]
    assert all(" --hash=sha256:" in line for line in pin.resolved)
    assert str(index) not in "".join(pin.resolved)


def test_packages_of_other_platforms_are_pinned_with_their_marker(index: Path) -> None:
    pin = resolve(environment("alpha", "windowsonly; sys_platform=='win32'"), nothing, None)
    assert heads(pin) == ["alpha==2.0", "windowsonly==1.0 ; sys_platform == 'win32'"]


def test_an_edited_table_keeps_what_still_fits(index: Path) -> None:
    old = resolve(environment("alpha==1.0"), nothing, None)
    new = resolve(environment("alpha", "beta"), nothing, old)
    assert heads(new) == ["alpha==1.0", "beta==1.0"]
    assert changes(old, new) == [("beta", None, "1.0")]


def test_upgrade_resolves_all_anew(index: Path) -> None:
    old = resolve(environment("alpha==1.0"), nothing, None)
    new = resolve(environment("alpha"), nothing, old, upgrade=True)
    assert heads(new) == ["alpha==2.0"]
    assert changes(old, new) == [("alpha", "1.0", "2.0")]


def test_what_no_longer_fits_is_resolved_again(index: Path) -> None:
    old = resolve(environment("alpha==1.0"), nothing, None)
    assert heads(resolve(environment("alpha>1"), nothing, old)) == ["alpha==2.0"]


def test_the_same_set_written_in_another_way_is_the_same_fingerprint(index: Path) -> None:
    one = resolve(environment("beta", "alpha==2.0"), nothing, None)
    files = {"requirements.txt": b"# all\nAlpha >= 2 \nBETA\n"}
    other = resolve(environment(requirements="requirements.txt"), files.get, None)
    assert one.definition != other.definition
    assert pin_digest(one) == pin_digest(other)


def test_constraints_hold(index: Path) -> None:
    files = {"r.txt": b"beta\n-c c.txt\n", "c.txt": b"alpha<2\n"}
    assert heads(resolve(environment(requirements="r.txt"), files.get, None)) == ["alpha==1.0", "beta==1.0"]


def test_files_that_an_index_gets_later_change_nothing_until_an_upgrade(index: Path) -> None:
    old = resolve(environment("alpha==2.0"), nothing, None)
    make_wheel(index, "alpha", "2.0", build="1")
    assert resolve(environment("alpha"), nothing, old).resolved == old.resolved
    assert resolve(environment("alpha"), nothing, old, upgrade=True).resolved != old.resolved


def test_another_order_of_hashes_is_the_same_set() -> None:
    one = "alpha==2.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    assert canonical_set(one, "3.11") == ("alpha==2.0 --hash=sha256:aa --hash=sha256:bb",)
    other = "# header\n\nalpha==2.0 --hash=sha256:bb --hash=sha256:aa\n"
    assert canonical_set(other, "3.11") == canonical_set(one, "3.11")


def test_the_fingerprint_hangs_on_python_and_set_only(index: Path) -> None:
    pin = resolve(environment("alpha"), nothing, None)
    assert pin_digest(replace(pin, definition="other")) == pin_digest(pin)
    assert pin_digest(replace(pin, python="3.12")) != pin_digest(pin)
    assert pin_digest(replace(pin, resolved=())) != pin_digest(pin)


@pytest.mark.parametrize("python", ["3", None])
def test_an_open_python_version_is_settled_in_the_pin(index: Path, python: str | None) -> None:
    """Else two machines could build one pin with two Pythons."""
    pin = resolve(Environment(name="e", python=python, packages=("beta",)), nothing, None)
    assert pin.python == "3.11"
    assert heads(pin) == ["alpha==2.0", "beta==1.0"]


def test_no_packages_ask_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("pipesmith.environments.uv.uv_binary", lambda: pytest.fail("uv was called"))
    pin = resolve(environment(), nothing, None)
    assert (pin.python, pin.resolved) == ("3.11", ())


def test_a_package_that_does_not_exist_is_named(index: Path) -> None:
    with pytest.raises(EnvironmentFailure) as caught:
        resolve(environment("no-such-package-x"), nothing, None)
    assert caught.value.text.startswith(
        "environment `project` can't be resolved: because no-such-package-x was not found"
    )
    assert caught.value.help is not None and caught.value.help.startswith("uv says: ")
    assert "\n" not in caught.value.text + caught.value.help


def test_a_conflict_names_both_sides(index: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"alpha==1\.0 and alpha==2\.0"):
        resolve(environment("alpha==1.0", "alpha==2.0"), nothing, None)


def test_a_requirement_that_can_not_be_read_is_the_users(index: Path) -> None:
    with pytest.raises(UserError, match=r"a requirement can't be read: `alpha===!`: no such comparison operator"):
        resolve(environment("alpha===!"), nothing, None)


def test_an_index_that_can_not_be_reached_is_said(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_NO_INDEX", "UV_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(EnvironmentFailure, match="the package index can't be reached"):
        resolve(environment("alpha"), nothing, None)


def test_uvs_configuration_of_the_workspace_is_used(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UV_NO_INDEX", "UV_FIND_LINKS"):
        monkeypatch.delenv(name)
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "uv.toml").write_text(f'[pip]\nno-index = true\nfind-links = ["{index}"]\n')
    pin = resolve(environment("alpha"), nothing, None, root=str(tmp_path / "workspace"))
    assert heads(pin) == ["alpha==2.0"]
