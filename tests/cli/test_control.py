"""`runs approve|reject|resume|cancel|replay`: who decided what, and what is refused."""

import re

import pytest

from squidmesh import SquidMesh
from tests.cli.shop import Holding, Sale
from tests.cli.support import APP, Shop


def held(shop: Shop) -> str:
    """A run that waits for somebody to resume it."""

    async def start(mesh: SquidMesh) -> str:
        run = await mesh.start_run(Holding, Sale())
        await mesh.run_until_idle()
        return run.id

    return shop.with_mesh(start)


def completed(shop: Shop) -> str:
    """A run that has shipped what cannot be called back."""
    (run_id,) = shop.sell()
    assert shop.ask("runs", "approve", run_id).status == 0
    shop.work()
    return run_id


def test_an_approval_records_who_said_what(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask(
        "runs", "approve", run_id, "--actor", "ana", "--comment", "fine",
        "--metadata", "ticket=12", "--metadata", "note=a=b",
    )  # fmt: skip

    event = (shop.inspect(run_id).audit_events or ())[-1]
    assert reply.first_line == f"Approved by ana  ·  selling {run_id}  ● running at pay"
    assert (event.type, event.actor, event.comment) == ("approved", "ana", "fine")
    assert event.metadata == {"ticket": "12", "note": "a=b"}


def test_whoever_is_not_named_is_taken_from_the_environment(shop: Shop) -> None:
    first, second = shop.sell(2)

    shop.ask("runs", "approve", first, env={"SQUIDMESH_ACTOR": "bea"})
    shop.ask("runs", "approve", second, env={"SQUIDMESH_ACTOR": "", "USER": "cay"})

    actors = [(shop.inspect(run).audit_events or ())[-1].actor for run in (first, second)]
    assert actors == ["bea", "cay"]


@pytest.mark.parametrize("command", ["approve", "reject", "cancel"])
def test_an_actor_without_a_name_is_refused_and_nobody_stands_in(shop: Shop, command: str) -> None:
    (run_id,) = shop.sell()
    before = shop.inspect(run_id)

    reply = shop.ask("runs", command, run_id, "--actor", "")

    assert reply.status == 2
    assert "[invalid_review]" in reply.err
    assert shop.inspect(run_id) == before


def test_a_rejection_takes_the_error_route(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "reject", run_id, "--json")

    assert reply.status == 0
    assert (reply.json["id"], reply.json["current_step"]) == (run_id, "turn_down")


def test_a_pause_ends_with_resume_and_not_with_approve(shop: Shop) -> None:
    run_id = held(shop)

    refused = shop.ask("runs", "approve", run_id)
    done = shop.ask("runs", "resume", run_id, "--comment", "go on")

    assert refused.status == 4
    assert refused.err == (
        "error: The run waits in a pause, not in an approval. [not_paused] "
        f"Try: squidmesh runs explain {run_id}\n"
    )
    assert done.first_line.startswith(f"Resumed by ida  ·  holding {run_id}")


def test_a_run_is_cancelled_once_and_its_end_names_the_reason(shop: Shop) -> None:
    (run_id,) = shop.sell()

    first = shop.ask("runs", "cancel", run_id, "--reason", "changed my mind")
    again = shop.ask("runs", "cancel", run_id)

    event = (shop.inspect(run_id).audit_events or ())[-1]
    assert first.status == 0
    assert (event.type, event.comment) == ("cancel_requested", "changed my mind")
    assert again.status == 4
    assert "[invalid_transition]" in again.err


def test_the_same_key_decides_once_and_answers_twice(shop: Shop) -> None:
    (run_id,) = shop.sell()

    statuses = [
        shop.ask("runs", "approve", run_id, "--idempotency-key", "k1").status for _ in range(2)
    ]

    events = [event.type for event in shop.inspect(run_id).audit_events or ()]
    assert statuses == [0, 0]
    assert events.count("approved") == 1


@pytest.mark.parametrize("command", ["approve", "reject", "resume", "cancel"])
def test_a_key_that_comes_again_names_who_acted_and_that_nothing_was_written(
    shop: Shop, command: str
) -> None:
    run_id = held(shop) if command == "resume" else shop.sell()[0]
    asked = ("runs", command, run_id, "--idempotency-key", "k1")

    first = shop.ask(*asked, "--actor", "xa", "--json").json
    revision = shop.inspect(run_id).revision
    by_another = shop.ask(*asked, "--actor", "yo")
    by_the_same = shop.ask(*asked, "--actor", "xa", "--json").json

    done = f"Done before by xa; nothing was written  ·  {first['workflow']} {run_id}"
    assert by_another.first_line.startswith(done)
    assert (first["repeated"], by_the_same["repeated"]) == (False, True)
    assert shop.inspect(run_id).revision == revision


def test_a_replay_whose_key_comes_again_names_who_started_it_and_the_same_run(shop: Shop) -> None:
    asked = ("runs", "replay", shop.send(), "--app", APP, "--idempotency-key", "k1")

    first = shop.ask(*asked, "--actor", "xa", "--json").json
    again = shop.ask(*asked, "--actor", "yo")
    document = shop.ask(*asked, "--actor", "yo", "--json").json

    done = f"Done before by xa; nothing was written  ·  sending {first['id']}"
    assert again.first_line.startswith(done)
    assert (first["repeated"], document["repeated"]) == (False, True)
    assert document["id"] == first["id"]


def test_what_only_one_command_takes_comes_first_in_its_help(shop: Shop) -> None:
    options = {
        command: re.findall(r"\n  (--[a-z-]+)", shop.ask("runs", command, "--help").out)
        for command in ("approve", "cancel", "replay")
    }

    acting = ["--preview", "--actor", "--idempotency-key"]
    assert options["approve"][:5] == ["--comment", "--metadata", *acting]
    assert options["cancel"][:5] == ["--reason", *acting, "--url"]
    assert options["replay"][:8] == [
        "--comment", "--allow-irreversible", "--from-step", *acting, "--app", "--url",
    ]  # fmt: skip


def test_the_same_key_for_something_else_is_a_conflict(shop: Shop) -> None:
    (run_id,) = shop.sell()
    shop.ask("runs", "approve", run_id, "--idempotency-key", "k1")

    reply = shop.ask("runs", "cancel", run_id, "--idempotency-key", "k1")

    assert reply.status == 4
    assert "[idempotency_conflict]" in reply.err


def test_a_replay_needs_the_code_and_says_how_to_name_it(shop: Shop) -> None:
    run_id = completed(shop)

    reply = shop.ask("runs", "replay", run_id)

    assert reply.status == 2
    assert reply.err.endswith(
        f"[no_app] Try: squidmesh runs replay {run_id} --app MODULE:WORKFLOWS\n"
    )


def test_a_replay_that_would_repeat_something_irreversible_is_refused(shop: Shop) -> None:
    run_id = completed(shop)

    reply = shop.ask("runs", "replay", run_id, "--app", APP)

    assert reply.status == 4
    assert reply.err.startswith("error: A replay would repeat what cannot be undone: ship; ")
    assert len(shop.ask("runs", "list", "--json").json["runs"]) == 1


def test_a_replay_starts_a_new_run_that_names_the_old_one(shop: Shop) -> None:
    run_id = completed(shop)

    reply = shop.ask(
        "runs", "replay", run_id, "--allow-irreversible", "--json", env={"SQUIDMESH_APP": APP}
    )

    assert reply.status == 0
    assert reply.json["replayed_from"] == run_id
    assert reply.json["id"] != run_id


def test_a_replay_may_start_at_a_step(shop: Shop) -> None:
    run_id = completed(shop)
    start = ("runs", "replay", run_id, "--app", APP, "--allow-irreversible", "--from-step")

    unknown = shop.ask(*start, "fly")
    known = shop.ask(*start, "pay")

    assert unknown.status == 2
    assert known.status == 0
    assert known.first_line.endswith("pending at pay")


def test_a_replay_of_a_workflow_that_the_code_does_not_have_is_not_found(shop: Shop) -> None:
    run_id = completed(shop)

    reply = shop.ask("runs", "replay", run_id, "--app", f"{APP}:Holding")

    assert reply.status == 3
    assert "The workflow selling is not among those of --app (holding)." in reply.err
