"""Log lines: readable, one each, and with the same facts for programs."""

import logging

import pytest

from squidmesh.logs import logger


def test_a_line_is_readable_and_carries_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    logger("tested").warning("it.happened", step="first", count=3, text="two words", nothing=None)

    (record,) = caplog.records
    assert record.name == "squidmesh.tested"
    assert record.getMessage() == "it.happened step=first count=3 text='two words' nothing=None"
    assert record.squidmesh == {  # type: ignore[attr-defined]
        "event": "it.happened",
        "step": "first",
        "count": 3,
        "text": "two words",
        "nothing": None,
    }


def test_a_value_cannot_forge_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    logger("tested").warning("it.happened", text="a\nsquidmesh.run ERROR forged")

    assert "\n" not in caplog.records[0].getMessage()


def test_what_is_not_wanted_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="squidmesh.tested")

    logger("tested").info("it.happened")

    assert caplog.records == []


def test_an_exception_is_handed_on_for_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logger("tested").exception("it.failed", step="first")

    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.squidmesh == {"event": "it.failed", "step": "first"}  # type: ignore[attr-defined]


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError("no")


def test_a_value_that_cannot_be_shown_hurts_nobody() -> None:
    logger("tested").warning("it.happened", value=Unprintable())


def test_percent_signs_are_no_placeholders(caplog: pytest.LogCaptureFixture) -> None:
    logger("tested").warning("100% %s %(name)s")

    assert caplog.records[0].getMessage() == "100% %s %(name)s"
