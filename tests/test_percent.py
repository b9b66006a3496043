"""Percent-encoding, against the standard library's."""

from __future__ import annotations

from urllib.parse import parse_qsl
from urllib.parse import quote as expected

from hypothesis import example, given
from hypothesis import strategies as st

from pipesmith.percent import query, quote


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["", "/", "@+", "/:@"]))
@example("ü /%", "/")
def test_it_is_the_library_s(text, safe):
    assert quote(text, safe) == expected(text, safe=safe)


@given(st.binary())
def test_names_that_are_no_utf_8(data):
    text = data.decode("utf-8", "surrogateescape")
    assert quote(text) == expected(data)


@given(st.dictionaries(st.text("abc&=? +", min_size=1), st.text("abc&=? +ü", min_size=1)))
def test_a_query_is_read_as_it_was_meant(values):
    assert dict(parse_qsl(query(values))) == values
