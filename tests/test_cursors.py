import base64
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squidmesh.cursors import read_cursor, write_cursor
from squidmesh.domain.state import RunStatus
from squidmesh.errors import InvalidOptionError
from squidmesh.ports.store import RunQuery

AT = datetime(2030, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
RUN = "01900000-0000-7000-8000-000000000001"
QUERY = RunQuery(
    workflow="orders",
    statuses=frozenset({RunStatus.RUNNING, RunStatus.PAUSED}),
    tags={"region": "eu", "tier": "gold"},
    started_after=AT,
)


def refusal(cursor: object, query: RunQuery = QUERY) -> InvalidOptionError:
    with pytest.raises(InvalidOptionError) as caught:
        read_cursor(cursor, query)
    return caught.value


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_leads_back_to_the_place_that_it_was_made_of(at: datetime, run: object) -> None:
    cursor = write_cursor((at, str(run)), QUERY)

    assert read_cursor(cursor, QUERY) == (at, str(run))


def test_a_cursor_is_text_that_fits_into_an_address() -> None:
    cursor = write_cursor((AT, RUN), QUERY)

    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_page_of_another_size_may_follow() -> None:
    cursor = write_cursor((AT, RUN), QUERY)

    assert read_cursor(cursor, attrs.evolve(QUERY, limit=7)) == (AT, RUN)


def test_the_same_filters_are_the_same_however_they_are_written() -> None:
    there = timezone(timedelta(hours=2))
    again = attrs.evolve(
        QUERY, tags={"tier": "gold", "region": "eu"}, started_after=AT.astimezone(there)
    )

    assert read_cursor(write_cursor((AT, RUN), QUERY), again) == (AT, RUN)


@pytest.mark.parametrize(
    "other",
    [
        RunQuery(),
        attrs.evolve(QUERY, workflow="refunds"),
        attrs.evolve(QUERY, statuses=frozenset({RunStatus.PAUSED})),
        attrs.evolve(QUERY, tags={"region": "eu"}),
        attrs.evolve(QUERY, started_after=AT + timedelta(microseconds=1)),
        attrs.evolve(QUERY, started_before=AT),
    ],
)
def test_a_cursor_of_a_list_with_other_filters_is_refused(other: RunQuery) -> None:
    error = refusal(write_cursor((AT, RUN), QUERY), other)

    assert (error.code, error.details) == ("invalid_cursor", {"option": "cursor"})
    assert "other filters" in str(error)


@pytest.mark.parametrize("garbled", ["", "x", "not a cursor", "é", "=", "A" * 5000, 7, None, b"AA"])
def test_what_is_no_cursor_is_refused(garbled: object) -> None:
    assert refusal(garbled).code == "invalid_cursor"


@pytest.mark.parametrize("place", range(0, 130, 7))
def test_a_cursor_that_was_altered_on_its_way_is_refused(place: int) -> None:
    cursor = write_cursor((AT, RUN), QUERY)
    other = "A" if cursor[place] != "A" else "B"

    assert refusal(cursor[:place] + other + cursor[place + 1 :]).code == "invalid_cursor"
    assert refusal(cursor[:place]).code == "invalid_cursor"


@pytest.mark.parametrize("body", [b"[2]", b"{}", b"null", b"\xff", b"[", b'[1,"later",7,"x"]'])
def test_a_sealed_text_that_says_something_else_is_refused(body: bytes) -> None:
    import hashlib

    sealed = base64.urlsafe_b64encode(body + hashlib.sha256(body).digest()[:6]).decode()

    assert refusal(sealed.rstrip("=")).code == "invalid_cursor"
