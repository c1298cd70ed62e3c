"""One script leaves the same behind on every store: entries, causes, rows, attempts and views."""

import json
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from squidmesh.domain.entries import AttemptHeartbeat, Entry, FinalStatus, LiveWakeupEmitted
from squidmesh.records import type_name
from tests.mesh.scripts import SCRIPTS, cancels, in_transactions, on_a_connection, people, replays
from tests.mesh.staging import Play, left_behind, mapped, staged

pytestmark = pytest.mark.anyio

WRITTEN_BY_ENGINES: Final = {type_name(AttemptHeartbeat), type_name(LiveWakeupEmitted)}
"""Words of the protocol for engines that own their leases or note their wake-ups: no store does."""

AUDITED: Final = {
    "paused",
    "resumed",
    "approved",
    "rejected",
    "cancel_requested",
    "replayed",
    "compensation_routed",
    "undo_routed",
    "compensation_started",
    "compensation_completed",
    "compensation_failed",
}

CAUSES: Final = {
    *("start", "claim", "report", "lose"),
    *("cancel", "resume", "approve", "reject", "replay"),
}


@pytest.fixture
def urls(emptied_database: str, tmp_path: Path) -> dict[str, str]:
    return {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path / 'mesh.db'}",
        "postgres": emptied_database,
    }


async def played(url: str, play: Play, *, is_cautious: bool = False) -> str:
    """What is left behind when the curtain falls."""
    async with staged(url, play, is_cautious=is_cautious) as stage:
        await play.script(stage)
        return await left_behind(stage)


def differences(one: str, other: str) -> list[str]:
    """The lines that are not in both, with some around them; a whole text is too long to read."""
    return list(unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=8))


@pytest.mark.parametrize("make", SCRIPTS, ids=lambda make: make.__name__)
async def test_a_script_leaves_the_same_behind_on_every_store(
    urls: dict[str, str], make: Callable[[], Play]
) -> None:
    left = {store: await played(url, make()) for store, url in urls.items()}

    assert differences(left["memory"], left["sqlite"]) == []
    assert differences(left["memory"], left["postgres"]) == []


async def test_steps_in_transactions_leave_the_same_behind_on_every_store_that_has_them(
    urls: dict[str, str],
) -> None:
    on_sqlite = await played(urls["sqlite"], in_transactions())
    on_postgres = await played(urls["postgres"], in_transactions())

    assert differences(on_sqlite, on_postgres) == []


@pytest.mark.parametrize(
    "make", [people, cancels, replays, on_a_connection], ids=lambda m: m.__name__
)
async def test_a_preview_of_every_command_leaves_nothing_behind_on_any_store(
    urls: dict[str, str], make: Callable[[], Play]
) -> None:
    left = await played("memory://", make())

    for url in urls.values():
        assert differences(left, await played(url, make(), is_cautious=True)) == []


@pytest.mark.parametrize("make", SCRIPTS, ids=lambda make: make.__name__)
async def test_a_script_that_is_played_twice_leaves_the_same_behind(
    make: Callable[[], Play],
) -> None:
    first, second = await played("memory://", make()), await played("memory://", make())

    assert differences(first, second) == []


async def test_the_scripts_together_write_everything_that_can_be_written() -> None:
    runs: list[dict[str, Any]] = []
    for make in SCRIPTS:
        runs += json.loads(await played("memory://", make()))

    entries = {entry["type"] for run in runs for entry in run["run"]["entries"]}
    audited = {event["type"] for run in runs for event in run["run"]["audit_events"]}
    causes = {row["cause"] for run in runs for row in run["journal"]}
    assert entries == {type_name(kind) for kind in get_args(Entry)} - WRITTEN_BY_ENGINES
    assert audited == AUDITED
    assert {run["run"]["status"] for run in runs} >= {status.value for status in FinalStatus}
    assert causes == CAUSES


def test_ids_are_numbered_as_they_appear_and_times_count_from_the_start() -> None:
    first, second = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c"

    text = mapped(f"{second}:a:1 {first} {second} claim-7 2030-01-01T00:00:01.5+00:00 worker-3")

    assert text == "<run 1>:a:1 <run 2> <run 1> <claim 1> <start + 1.5 s> <worker 1>"
