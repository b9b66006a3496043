"""Markers are written in one way, and lose what the Python version decides."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipesmith.environments.markers import canonical_marker, simplify

packaging = pytest.importorskip("packaging.markers")


@pytest.mark.parametrize(
    ("marker", "python", "left"),
    [
        ("python_full_version < '3.12'", "3.11", ""),
        ("python_full_version >= '3.12'", "3.11", None),
        ("python_full_version >= '3.11.4'", "3.11", "python_full_version >= '3.11.4'"),
        ("python_full_version >= '3.11.4'", "3.11.4", ""),
        ("python_version == '3.11'", "3.11", ""),
        ("python_version != '3.11'", "3.11.2", None),
        ("python_full_version == '3.11.*'", "3.11", ""),
        ("python_version >= '3.11' and sys_platform == 'win32'", "3.11", "sys_platform == 'win32'"),
        ("python_version >= '3.12' and sys_platform == 'win32'", "3.11", None),
        ("python_version >= '3.11' or sys_platform == 'win32'", "3.11", ""),
        ("implementation_name == 'pypy'", "3.11", None),
        ("platform_python_implementation != 'PyPy'", "3.11", ""),
        (
            "(sys_platform == 'a' or sys_platform == 'b') and os_name == 'c'",
            "3.11",
            "(sys_platform == 'a' or sys_platform == 'b') and os_name == 'c'",
        ),
        ("'x86' in platform_machine", "3.11", "'x86' in platform_machine"),
        ("platform_machine not in 'x86 arm'", "3.11", "platform_machine not in 'x86 arm'"),
        ("extra == 'one' &&", "3.11", "extra == 'one' &&"),
    ],
)
def test_what_is_left_of_a_marker(marker: str, python: str, left: str | None) -> None:
    assert simplify(marker, python) == left


VERSIONS = ["3", "3.10", "3.11", "3.11.0", "3.11.4", "3.12", "3.9.1"]
ATOMS = [f"python_full_version {op} '{v}'" for op, v in itertools.product(("<", "<=", ">", ">=", "==", "!="), VERSIONS)]
ATOMS += [
    f"python_version {op} '{v}'" for op, v in itertools.product(("<", "<=", ">", ">=", "==", "!="), VERSIONS[1:3])
]
ATOMS += ["sys_platform == 'linux'", "os_name != 'nt'", "'x86' in platform_machine"]


def markers() -> st.SearchStrategy[str]:
    return st.recursive(
        st.sampled_from(ATOMS),
        lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        max_leaves=5,
    )


@given(
    marker=markers(),
    micro=st.integers(0, 9),
    exact=st.booleans(),
    platform=st.sampled_from(["linux", "win32"]),
    machine=st.sampled_from(["x86_64", "arm64"]),
)
def test_what_is_left_means_the_same_for_every_release_of_the_version(
    marker: str, micro: int, exact: bool, platform: str, machine: str
) -> None:
    full = f"3.11.{micro}"
    where = {
        "python_version": "3.11",
        "python_full_version": full,
        "sys_platform": platform,
        "os_name": "nt" if platform == "win32" else "posix",
        "platform_machine": machine,
    }
    expected = packaging.Marker(marker).evaluate(where)
    left = simplify(marker, full if exact else "3.11")
    assert expected is (left is not None and (left == "" or packaging.Marker(left).evaluate(where)))


@given(marker=markers())
def test_the_canonical_marker_is_stable(marker: str) -> None:
    once = canonical_marker(marker)
    assert canonical_marker(once) == once
