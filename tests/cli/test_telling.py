"""Entries, ways and windows in words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from squidmesh import Entry, SquidMesh
from squidmesh.cli.layout import plain
from squidmesh.cli.moments import now
from squidmesh.cli.pictures import picture
from squidmesh.cli.telling import sentence_of
from squidmesh.cli.values import compact, told
from squidmesh.domain.entries import AfterFailure
from tests.cli.shop import Branching, Order
from tests.cli.support import Shop

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def entry(of_type: str, **data: Any) -> Entry:
    return Entry(seq=1, thread="run", type=of_type, at=NOON, data=data)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (entry("run_started", trigger="by_hand"), "started by by_hand"),
        (entry("attempt_claimed", step="pay", attempt_number=2), "pay  attempt 2 begins"),
        (entry("attempt_completed", step="pay"), "pay  completed"),
        (entry("attempt_cancelled", step="pay"), "pay  cancelled"),
        (
            entry(
                "attempt_failed",
                step="pay",
                attempt_number=1,
                error={"code": "busy", "message": "later"},
                then="retry",
            ),
            "pay  attempt 1 failed: busy: later; it will be tried again",
        ),
        (
            entry("attempt_lost", step="pay", attempt_number=1, error=None, then="fail"),
            "pay  attempt 1 lost its worker; the run fails",
        ),
        (entry("attempt_deferred", step="pay", reason="closed"), "pay  put off: closed"),
        (
            entry(
                "attempt_scheduled",
                step="pay",
                attempt_number=2,
                visible_at=(NOON + timedelta(seconds=90)).isoformat(),
            ),
            "pay  attempt 2 is due in 1 m 30 s",
        ),
        (
            entry("manual_step_paused", step="review", kind="approval"),
            "review  waits for a person (approval)",
        ),
        (
            entry(
                "manual_step_resolved",
                step="review",
                action="rejected",
                actor="ana",
                comment="no",
            ),
            "review  rejected by ana: no",
        ),
        (entry("cancel_requested", actor=None), "asked to stop"),
        (entry("run_replayed", new_run_id="r2"), "replayed as r2"),
        (entry("compensation_planned", steps=["pay", "send"]), "undoing pay, send"),
        (entry("step_routed", step="pay", target="page"), "pay  leads to page"),
        (entry("step_routed", step="pay", target=None), "pay  leads to the end"),
    ],
    ids=lambda value: value.type if isinstance(value, Entry) else None,
)
def test_what_happened_is_told_in_a_sentence(found: Entry, sentence: str) -> None:
    span = sentence_of(found)

    assert span is not None
    assert span.text == sentence


@pytest.mark.parametrize(
    "found",
    [
        entry("attempt_scheduled", step="pay", attempt_number=1, visible_at=NOON.isoformat()),
        entry("runnables_planned", steps=["pay"]),
        entry("run_terminal", status="completed"),
    ],
    ids=lambda value: value.type,
)
def test_bookkeeping_is_not_told(found: Entry) -> None:
    assert sentence_of(found) is None


def test_whatever_follows_from_a_failure_has_words() -> None:
    spans = [
        sentence_of(entry("attempt_failed", step="pay", error=None, then=then.value))
        for then in AfterFailure
        if then is not AfterFailure.RECORD
    ]

    assert all(span is not None and "; " in span.text for span in spans)


def test_a_long_value_is_cut_and_says_how_long_it_is() -> None:
    assert compact("x" * 2000, 10) == f'"{"x" * 9}… (2,002 characters)'


def test_a_value_is_told_as_people_write_it() -> None:
    assert told("2026-11-22T06:24:11.5+00:00") == "2026-11-22 06:24:11Z"
    assert told(["a", "b"]) == "a, b"
    assert told([{"step": "a"}, {"step": "b"}]) == "step=a; step=b"
    assert told({"code": "busy", "type": "OSError", "message": "later"}) == "busy (OSError): later"
    assert told(None) == "null"


def drawn(shop: Shop, most: int | None = None) -> list[str]:
    """The picture of a run that took the way of the large orders."""

    async def pictured(mesh: SquidMesh) -> list[str]:
        started = await mesh.start_run(Branching, Order(cents=5000))
        await mesh.run_until_idle()
        run = await mesh.inspect_run(started.id, include_history=True)
        return list(plain(picture(run, await mesh.graph(run.id), now(), most=most)))

    return shop.with_mesh(pictured)


def test_ways_with_conditions_say_them_and_which_was_taken(shop: Shop) -> None:
    lines = [line.lstrip("├─└│ ") for line in drawn(shop)]

    assert "on ok when goods.cents greater than 1000 → large  ✓ taken" in lines
    assert any(line.startswith("weigh") and line.endswith("→ small") for line in lines)


def test_of_many_steps_those_around_the_open_one_are_shown(shop: Shop) -> None:
    lines = [line.lstrip("├─└│ ") for line in drawn(shop, most=1)]

    assert lines[1] == "… 1 step above"
    assert lines[-1] == "… 3 steps below"
