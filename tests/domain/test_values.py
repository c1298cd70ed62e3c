"""Following a path through JSON."""

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful
from returns.result import Failure, Success

from squidmesh.domain.values import Json, MissingPath, dig
from tests.domain.strategies import json_values

ORDER: Json = {"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}], "note": None}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ((), ORDER),
        (("id",), 7),
        (("note",), None),
        (("lines", "0", "sku"), "a"),
        (("lines", "1"), {"sku": "b"}),
    ],
)
def test_a_path_leads_through_objects_by_key_and_through_lists_by_index(
    path: tuple[str, ...], found: Json
) -> None:
    assert dig(ORDER, path) == Success(found)


@pytest.mark.parametrize(
    ("path", "missing_at"),
    [
        (("total",), "total"),
        (("id", "unit"), "unit"),
        (("note", "text"), "text"),
        (("lines", "2"), "2"),
        (("lines", "-1"), "-1"),
        (("lines", "first", "sku"), "first"),
        (("lines", ""), ""),
        (("lines", "1" * 5000), "1" * 5000),
        (("lines", "\u0661"), "\u0661"),
        (("total", "net", "cents"), "total"),
    ],
)
def test_a_path_that_leads_nowhere_names_the_first_key_that_is_missing(
    path: tuple[str, ...], missing_at: str
) -> None:
    assert dig(ORDER, path) == Failure(MissingPath(path, missing_at))


def test_any_mapping_may_be_followed() -> None:
    value = MappingProxyType[str, Json]({"id": 7})

    assert dig(value, ("id",)) == Success(7)


def test_what_is_found_is_part_of_the_value_and_no_copy() -> None:
    lines: list[Json] = [1]

    found = dig({"lines": lines}, ("lines",))

    assert found.unwrap() is lines


@given(json_values, st.lists(st.text(max_size=3) | st.integers(0, 12).map(str), max_size=4))
def test_no_path_through_no_value_raises(value: Json, path: list[str]) -> None:
    found = dig(value, path)

    if is_successful(found):
        assert dig(value, path[:1]).bind(lambda inner: dig(inner, path[1:])) == found
    else:
        assert found.failure().missing_at in path


@given(json_values)
def test_every_value_is_found_where_it_stands(value: Json) -> None:
    nested: Json = {"a": [None, {"": value}]}

    assert dig(nested, ("a", "1", "")) == Success(value)
