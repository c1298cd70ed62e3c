"""`runs watch`: what is told while a run goes on, and what the exit status says in the end."""

import json
from pathlib import Path

import pytest

from squidmesh import SquidMesh
from tests.cli.shop import Holding, Sale
from tests.cli.support import APP, Shop, start


def approved(shop: Shop, **fields: bool) -> str:
    (run_id,) = shop.sell(**fields)
    assert shop.ask("runs", "approve", run_id).status == 0
    shop.work()
    return run_id


def test_a_completed_run_ends_the_watch_well(shop: Shop) -> None:
    run_id = approved(shop)

    reply = shop.ask("runs", "watch", run_id)

    assert reply.status == 0
    assert "the run is completed after" in reply.out


def test_a_failed_run_ends_the_watch_with_six(shop: Shop) -> None:
    run_id = approved(shop, refused=True)

    reply = shop.ask("runs", "watch", run_id)

    assert reply.status == 6
    assert "the run is failed" in reply.out
    assert "refused" in reply.out


def test_a_run_that_still_waits_at_the_timeout_ends_the_watch_with_seven(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "watch", run_id, "--timeout", "10ms")

    assert reply.status == 7
    assert "still going on  Paused for approval" in reply.out
    assert f"squidmesh runs approve {run_id}" in reply.out


def test_in_json_each_line_is_an_object_and_the_last_has_the_status(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "watch", run_id, "--timeout", "10ms", "--json")

    first, *_, last = [json.loads(line) for line in reply.out.splitlines()]
    assert (first["type"], first["status"], first["run_id"]) == ("run", "paused", run_id)
    assert last == {
        "type": "watch_ended",
        "outcome": "still_waiting",
        "exit_code": 7,
        "run_id": run_id,
        "status": "paused",
    }


@pytest.mark.slow
def test_what_happens_meanwhile_is_told_line_by_line(shop: Shop, tmp_path: Path) -> None:
    (run_id,) = shop.sell(work=False)
    watching = start(
        "runs", "watch", run_id, "--interval", "0.05", cwd=tmp_path, SQUIDMESH_URL=shop.url
    )
    listening = start(
        "runs",
        "watch",
        run_id,
        "--interval",
        "0.05",
        "--json",
        cwd=tmp_path,
        SQUIDMESH_URL=shop.url,
    )
    assert watching.stdout is not None
    assert listening.stdout is not None
    title, begun = watching.stdout.readline(), json.loads(listening.stdout.readline())

    shop.work()
    shop.ask("runs", "approve", run_id, "--actor", "ana", "--comment", "fine")
    shop.work()
    lines, _ = watching.communicate(timeout=30)
    events, _ = listening.communicate(timeout=30)

    told = [line.split("  ", 1)[1] for line in lines.splitlines() if "  " in line]
    types = [json.loads(line)["type"] for line in events.splitlines()]
    assert title.startswith("selling  ◌ pending")
    assert begun["revision"] > 0
    for sentence in (
        "find  attempt 1 begins",
        "find  completed",
        "review  waits for a person (approval)",
        "review  approved by ana: fine",
        "ship  completed",
    ):
        assert sentence in told
    assert types.count("attempt_completed") == 3
    assert types[-1] == "watch_ended"
    assert (watching.returncode, listening.returncode) == (0, 0)


def test_a_timer_that_is_hours_away_is_shown_as_due_then(shop: Shop) -> None:
    async def started(mesh: SquidMesh) -> str:
        run = await mesh.start_run(Holding, Sale())
        await mesh.run_until_idle()
        await mesh.resume_run(run.id)
        return run.id

    run_id = shop.with_mesh(started)

    reply = shop.ask("runs", "watch", run_id, "--timeout", "1ms", "--app", APP)

    assert reply.status == 2
    assert shop.ask("runs", "watch", run_id, "--timeout", "1ms").status == 7
    assert "Waiting for a time" in shop.ask("runs", "explain", run_id).first_line
