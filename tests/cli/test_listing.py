"""`runs list`: which runs there are, for people and for programs."""

from datetime import timedelta

from squidmesh import SquidMesh
from squidmesh.cli.options import STATUSES
from squidmesh.domain.state import RunStatus
from tests.cli.shop import Holding, Sale
from tests.cli.support import Shop


def test_an_empty_store_says_that_it_has_no_runs(shop: Shop) -> None:
    reply = shop.ask("runs", "list")

    assert (reply.status, reply.out) == (0, "There are no runs yet.\n")


def test_a_run_stands_on_a_line_of_its_own_with_its_whole_id(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "list")

    head, line = reply.out.splitlines()
    assert head.split() == ["RUN", "WORKFLOW", "STATUS", "STEP", "STARTED", "TOOK"]
    assert line.split()[:5] == [run_id, "selling", "◆", "paused", "review"]


def test_a_page_that_is_not_the_last_ends_with_the_command_for_the_next(shop: Shop) -> None:
    ids = shop.sell(3, work=False)

    first = shop.ask("runs", "list", "--limit", "2", "--workflow", "selling")
    _, _, again = first.err.strip().partition("more: squidmesh ")
    second = shop.ask(*again.split())

    assert first.err.startswith("2 shown; more: ")
    assert ids[0] not in first.out
    assert ids[0] in second.out
    assert second.err == ""


def test_pages_in_json_are_one_document_each_and_join_without_a_gap(shop: Shop) -> None:
    ids = shop.sell(3, work=False)

    first = shop.ask("runs", "list", "--limit", "2", "--json")
    cursor = first.json["next_cursor"]
    second = shop.ask("runs", "list", "--limit", "2", "--json", "--cursor", cursor)

    found = [run["id"] for run in first.json["runs"] + second.json["runs"]]
    assert found == sorted(ids, reverse=True)
    assert second.json["next_cursor"] is None
    assert first.err == ""


def test_filters_leave_out_whatever_does_not_fit(shop: Shop) -> None:
    async def start(mesh: SquidMesh) -> str:
        tagged = await mesh.start_run(Holding, Sale(), tags={"shop": "north"})
        await mesh.start_run(Holding, Sale(), tags={"shop": "south"})
        return tagged.id

    shop.sell()
    north = shop.with_mesh(start)

    by_tag = shop.ask("runs", "list", "--tag", "shop=north", "--json").json["runs"]
    by_status = shop.ask("runs", "list", "--status", "paused", "--status", "failed", "--json").json[
        "runs"
    ]
    by_time = shop.ask("runs", "list", "--started-before", "1h", "--json").json["runs"]

    assert [run["id"] for run in by_tag] == [north]
    assert {run["status"] for run in by_status} == {"paused"}
    assert by_time == []


def test_times_are_iso_text_or_a_while_ago(shop: Shop) -> None:
    (run_id,) = shop.sell()
    started = shop.inspect(run_id).started_at

    after = [
        shop.ask("runs", "list", "--json", "--started-after", text).json["runs"]
        for text in (
            "90m",
            (started - timedelta(seconds=1)).isoformat(),
            (started + timedelta(seconds=1)).isoformat(),
        )
    ]

    assert [len(runs) for runs in after] == [1, 1, 0]


def test_a_filter_that_nothing_fits_says_so(shop: Shop) -> None:
    shop.sell()

    reply = shop.ask("runs", "list", "--workflow", "baking")

    assert (reply.status, reply.out) == (0, "No run fits.\n")


def test_a_failed_run_shows_where_and_with_which_code(shop: Shop) -> None:
    (run_id,) = shop.sell(refused=True)
    shop.ask("runs", "approve", run_id)
    shop.work()

    reply = shop.ask("runs", "list", "--status", "failed")

    assert "pay: refused" in reply.out


def test_a_failed_run_that_is_not_undone_differs_from_one_that_is(shop: Shop) -> None:
    clean, dirty = shop.send(), shop.send(refundable=False)

    rows = {row.split()[0]: row for row in shop.ask("runs", "list").out.splitlines()}

    assert "ship: carrier_refused  " in rows[clean]
    assert "ship: carrier_refused, not undone  " in rows[dirty]


def test_every_status_of_a_run_can_be_asked_for() -> None:
    assert set(STATUSES) == {status.value for status in RunStatus}
