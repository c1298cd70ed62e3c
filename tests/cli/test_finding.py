"""Which run is meant: whole ids, beginnings, and the last one."""

import time
import uuid

import pytest

from squidmesh import SquidMesh
from squidmesh.cli.failures import CommandError
from squidmesh.cli.finding import MOST_PAGES, find_run
from squidmesh.cli.settings import Settings
from tests.cli.shop import Sale, Selling
from tests.cli.support import Shop


def started_as(shop: Shop, *ids: str) -> None:
    async def start(mesh: SquidMesh) -> None:
        for run_id in ids:
            await mesh.start_run(Selling, Sale(), run_id=run_id)

    shop.with_mesh(start)


def test_last_is_the_run_that_was_started_last(shop: Shop) -> None:
    *_, newest = shop.sell(3, work=False)

    reply = shop.ask("runs", "show", "last", "--json")

    assert reply.json["id"] == newest


def test_there_is_no_last_run_before_the_first(shop: Shop) -> None:
    reply = shop.ask("runs", "show", "last")

    assert reply.status == 3
    assert "[run_not_found]" in reply.err


def test_the_beginning_of_an_id_is_enough_if_no_other_run_shares_it(shop: Shop) -> None:
    (run_id,) = shop.sell(work=False)

    replies = [
        shop.ask("runs", "show", beginning, "--json")
        for beginning in (run_id[:4], run_id[:8].upper(), run_id[:20], run_id.replace("-", ""))
    ]

    assert [reply.json["id"] for reply in replies] == [run_id] * 4


def test_an_id_that_says_nothing_about_time_is_found_by_its_beginning(shop: Shop) -> None:
    given = "ffffffff-1111-4111-8111-111111111111"
    started_as(shop, given)

    reply = shop.ask("runs", "show", "ffff", "--json")

    assert reply.json["id"] == given


def test_a_beginning_that_several_runs_share_lists_them(shop: Shop) -> None:
    ids = ["abcd0000-1111-4111-8111-111111111111", "abcd0001-1111-4111-8111-111111111111"]
    started_as(shop, *ids)

    reply = shop.ask("runs", "cancel", "abcd", "--json")

    error = reply.json["error"]
    assert reply.status == 2
    assert error["code"] == "ambiguous_run_id"
    assert sorted(error["details"]["candidates"]) == ids
    assert shop.ask("runs", "show", "abcd0001", "--json").json["status"] == "pending"


def test_an_id_that_no_run_has_is_not_found(shop: Shop) -> None:
    shop.sell(work=False)

    whole = shop.ask("runs", "show", str(uuid.uuid4()))
    beginning = shop.ask("runs", "show", "0000")

    assert (whole.status, beginning.status) == (3, 3)
    assert whole.err.endswith("[run_not_found] Try: squidmesh runs list\n")
    assert beginning.err.startswith("error: No run begins with 0000. [run_not_found]")


def test_what_is_no_beginning_of_an_id_is_a_misunderstanding(shop: Shop) -> None:
    replies = [shop.ask("runs", "show", text) for text in ("0a1", "squid", "0" * 40, "")]

    assert [reply.status for reply in replies] == [2, 2, 2, 2]
    assert all("[invalid_run_id]" in reply.err for reply in replies)
    hint = "give a run id, 4 characters or more of its beginning, or `last`."
    assert all(hint in reply.err for reply in replies)


def test_a_search_reads_so_many_pages_and_then_asks_for_more_of_the_id(shop: Shop) -> None:
    moment = f"{time.time_ns() // 1_000_000:012x}"
    made = [
        f"{moment[:8]}-{moment[8:]}-7{number:03x}-8000-000000000000"
        for number in range(MOST_PAGES + 1)
    ]
    started_as(shop, *made)

    async def find(mesh: SquidMesh, given: str) -> str:
        return await find_run(mesh, given, Settings(), page=1)

    with pytest.raises(CommandError, match="too short to tell which of very many") as unsure:
        shop.with_mesh(lambda mesh: find(mesh, made[-1][:18]))
    with pytest.raises(CommandError, match="among the newest 10; give the whole id") as unseen:
        shop.with_mesh(lambda mesh: find(mesh, "0000"))
    assert (unsure.value.code, unseen.value.code) == ("ambiguous_run_id", "run_not_found")
    assert shop.with_mesh(lambda mesh: find(mesh, made[0])) == made[0]
