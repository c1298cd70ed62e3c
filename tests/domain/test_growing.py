"""The mapping that steps and context are kept in."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from squidmesh.domain.growing import MOST_NEW, SMALL, Grown, put

MANY = SMALL + 3 * MOST_NEW

puts = st.lists(st.tuples(st.integers(0, MANY), st.integers()), max_size=2 * MANY)


def grown(items: list[tuple[int, int]]) -> Mapping[int, int]:
    known: Mapping[int, int] = {key: key for key in range(SMALL)}
    for key, value in items:
        known = put(known, key, value)
    return known


@given(puts)
def test_it_holds_what_a_dictionary_would_in_the_same_order(items: list[tuple[int, int]]) -> None:
    expected = {key: key for key in range(SMALL)}
    expected.update(items)

    known = grown(items)

    assert known == expected
    assert list(known.items()) == list(expected.items())
    assert list(reversed(list(known))) == list(reversed(expected))
    assert len(known) == len(expected)
    assert all(key in known and known.get(key) == value for key, value in expected.items())
    assert -1 not in known
    assert known.get(-1, 7) == 7


def test_an_earlier_version_is_not_changed_by_a_later_one() -> None:
    versions = [grown([(number, 0) for number in range(length)]) for length in range(MANY)]
    before = [dict(version) for version in versions]

    for version in versions:
        put(version, 5, -1)

    assert [dict(version) for version in versions] == before


def test_it_is_shown_and_walked_backwards_like_a_dictionary() -> None:
    known = grown([(MANY, 1), (3, 2)])

    assert isinstance(known, Grown)
    assert next(reversed(known)) == MANY
    assert repr(known) == repr(dict(known))
