"""The order of stages, and what comes before and after what."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipesmith.pipeline.graph import cycles, downstream, edges, order, upstream
from pipesmith.pipeline.model import Pipeline
from pipesmith.pipeline.reader import read_pipeline


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[Pipeline, dict[str, set[str]]]:
    """A pipeline without cycles, its tables in any order, and for each stage those it comes after."""
    count = draw(st.integers(0, 8))
    before = {
        f"s{n}": {f"s{e}" for e in draw(st.sets(st.integers(0, n - 1), max_size=3))} if n else set()
        for n in range(count)
    }
    text = ""
    for name in draw(st.permutations(list(before))):
        parts = sorted(before[name])
        ways = [draw(st.sampled_from(["path", "name", "after"])) for _ in parts]
        inputs = [f'"{e}" = "out/{e}"' for e, way in zip(parts, ways, strict=True) if way == "path"]
        inputs += [f'"{e}" = "stage:{e}.o"' for e, way in zip(parts, ways, strict=True) if way == "name"]
        after = [f'"{e}"' for e, way in zip(parts, ways, strict=True) if way == "after"]
        text += f'[stage.{name}]\nrun = "true"\noutputs = {{ o = "out/{name}" }}\n'
        text += f"inputs = {{ {', '.join(inputs)} }}\nafter = [{', '.join(after)}]\n"
    return read_pipeline(text, files=lambda path: None, default_name="x"), before


@given(pipelines())
def test_order(drawn: tuple[Pipeline, dict[str, set[str]]]) -> None:
    """Every stage comes once, after all that it comes after; where nothing asks for it, nothing moves."""
    pipeline, before = drawn
    found = order(pipeline)
    assert sorted(found) == sorted(before)
    for name, earlier in before.items():
        assert all(found.index(e) < found.index(name) for e in earlier)
    names = list(pipeline.stages)
    if all(names.index(e) < names.index(name) for name, earlier in before.items() for e in earlier):
        assert list(found) == names


@given(pipelines(), st.data())
def test_upstream_and_downstream(drawn: tuple[Pipeline, dict[str, set[str]]], data: st.DataObject) -> None:
    pipeline, before = drawn
    assert {name: set(earlier) for name, earlier in edges(pipeline).items()} == before
    reach: dict[str, set[str]] = {}
    for name in sorted(before, key=lambda name: int(name[1:])):
        reach[name] = {name}.union(*(reach[e] for e in before[name]))
    chosen = data.draw(st.sets(st.sampled_from(sorted(before)))) if before else set()
    assert upstream(pipeline, chosen) == set().union(*(reach[name] for name in chosen))
    assert downstream(pipeline, chosen) == {name for name in before if reach[name] & chosen}


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), unique=True)))
def test_cycles(before: dict[str, list[str]]) -> None:
    """Each cycle is one: every stage needs the next. Without the stages of all of them, none is left."""
    before = {name: [e for e in earlier if e in before] for name, earlier in before.items()}
    found = cycles(before)
    for cycle in found:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(needed in before[name] for name, needed in itertools.pairwise(cycle))
        assert cycle[0] == min(cycle, key=list(before).index)
    gone = {name for cycle in found for name in cycle}
    assert cycles({name: [e for e in before[name] if e not in gone] for name in before if name not in gone}) == []
