"""Classes of values: what `dataclasses` promises of theirs holds of ours."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys

import pytest

from pipesmith.records import as_dict, field, names_of, record, replace


@record
class Point:
    """A record."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.x + self.y


@record(kw_only=False, order=True)
class Named:
    name: str
    size: int = 0


@record(frozen=False)
class Counter:
    count: int = 0


@record
class Far(Point):
    z: int = 3


def test_values_are_given_by_name_and_have_defaults() -> None:
    point = Point(x=1)
    assert (point.x, point.y, point.tags, point.total) == (1, 2, [], 3)
    assert Point(x=1).tags is not point.tags
    assert repr(point) == "Point(x=1, y=2, tags=[])"
    with pytest.raises(TypeError):
        Point(1)  # type: ignore[call-arg, misc]
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]
    assert Named("a", 1) == Named(name="a", size=1)


def test_equal_values_are_equal_and_have_one_hash() -> None:
    assert Named("a", 1) == Named("a", 1) != Named("a", 2)
    assert len({Named("a", 1), Named("a", 1), Named("b", 1)}) == 2
    assert Named("a") != ("a", 0)
    assert sorted([Named("b"), Named("a", 2), Named("a", 1)]) == [Named("a", 1), Named("a", 2), Named("b")]
    with pytest.raises(TypeError):
        hash(Counter())


def test_what_is_frozen_stays() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del point.x
    with pytest.raises(AttributeError):
        object.__setattr__(point, "other", 1)
    counter = Counter()
    counter.count += 1
    assert counter == Counter(count=1)


def test_another_one_like_it() -> None:
    point = Point(x=1, tags=["a"])
    assert replace(point, y=5) == Point(x=1, y=5, tags=["a"]) == dataclasses.replace(point, y=5)
    assert copy.copy(point) == copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point
    with pytest.raises(TypeError):
        replace(point, w=5)


def test_fields_are_inherited() -> None:
    far = Far(x=1)
    assert (far.x, far.y, far.z, far.total) == (1, 2, 3, 3)
    assert replace(far, z=4) == Far(x=1, z=4) != Point(x=1)


def test_dataclasses_takes_them_for_its_own() -> None:
    assert [each.name for each in dataclasses.fields(Far)] == ["x", "y", "tags", "z"]
    assert dataclasses.asdict(Point(x=1, tags=["a"])) == {"x": 1, "y": 2, "tags": ["a"]}
    assert dataclasses.is_dataclass(Point)


@pytest.mark.parametrize(
    "module", ["pipesmith.workspace.commits", "pipesmith.workspace.gate", "pipesmith.verdict.verdict"]
)
def test_what_commands_go_through_does_without_inspect(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'dataclasses', 'inspect'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_first_objects_may_be_made_by_several_threads() -> None:
    """One that came to the first `__init__` while another thread replaced it goes on."""

    @record
    class Late:
        x: int

    first = Late.__init__
    made = [Late(x=number) for number in range(100)]
    late = Late.__new__(Late)
    first(late, x=7)
    assert late == Late(x=7) and made[7] == late


@pytest.mark.parametrize("before", [0, 20])
def test_the_first_of_a_class_are_made_as_all_others_are(before: int) -> None:
    """What they are filled by is not what many are made by: values, defaults and refusals are the same."""

    @record
    class Each:
        name: str
        size: int = 3
        tags: list[str] = field(default_factory=list)

    @record(kw_only=False)
    class Pair:
        a: int
        b: int | None = None

    for _ in range(before):
        Each(name="x")
        Pair(1)
    one, other = Each(name="a"), Each(name="a", size=3)
    assert one == other and one.tags is not other.tags
    assert (Pair(1, 2), Pair(1)) == (Pair(b=2, a=1), Pair(a=1, b=None))
    for call, text in (
        (lambda: Each(), "missing 1 required keyword-only argument: 'name'"),
        (lambda: Each("a"), "takes 1 positional argument but 2 were given"),
        (lambda: Each(name="a", other=1), "unexpected keyword argument 'other'"),
        (lambda: Pair(1, 2, 3), "takes from 2 to 3 positional arguments but 4 were given"),
        (lambda: Pair(1, a=1), "multiple values for argument 'a'"),
    ):
        with pytest.raises(TypeError, match=text):
            call()
    assert names_of(Pair) == ("a", "b") and as_dict(Pair(1)) == {"a": 1, "b": None}
