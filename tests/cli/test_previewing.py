"""`--preview`: what a command would do is shown, and not done."""

import pytest

from squidmesh import Explanation, NextAction, Run, SquidMesh
from squidmesh.cli.actions import command_for
from squidmesh.cli.settings import Settings
from tests.cli.shop import Holding, Sale
from tests.cli.support import APP, Shop

DONE = "Nothing was written; the same command without --preview does it."


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


def refused(shop: Shop) -> str:
    """A run that failed at its payment."""
    (run_id,) = shop.sell(refused=True)
    assert shop.ask("runs", "approve", run_id).status == 0
    shop.work()
    return run_id


def seen(shop: Shop, run_id: str) -> tuple[Run, int]:
    """The run, and how many there are."""
    return shop.inspect(run_id), len(shop.ask("runs", "list", "--json").json["runs"])


@pytest.mark.parametrize(
    ("command", "entries"),
    [
        (
            "approve",
            [
                "10   manual_step_resolved  review",
                "11   runnables_planned     pay",
                "12   attempt_scheduled     pay",
            ],
        ),
        (
            "reject",
            [
                "10   manual_step_resolved  review",
                "11   runnables_planned     turn_down",
                "12   attempt_scheduled     turn_down",
            ],
        ),
        ("cancel", ["10   cancel_requested", "11   run_terminal"]),
    ],
)
def test_a_preview_shows_the_entries_in_a_table_and_says_that_none_was_written(
    shop: Shop, command: str, entries: list[str]
) -> None:
    (run_id,) = shop.sell()
    before = seen(shop, run_id)

    reply = shop.ask("runs", command, run_id, "--preview")

    first, head, *rows = reply.out.splitlines()
    assert (reply.status, reply.err) == (0, "")
    assert first == f"This would be written  ·  {run_id}"
    assert head.split() == ["SEQ", "ENTRY", "STEP"]
    assert rows == [*entries, "", DONE]
    assert seen(shop, run_id) == before


def test_what_a_preview_shows_is_what_is_written_then(shop: Shop) -> None:
    run_id = held(shop)

    shown = shop.ask("runs", "resume", run_id, "--preview", "--json").json
    reply = shop.ask("runs", "resume", run_id)

    entries = shop.inspect(run_id).entries or ()
    assert reply.status == 0
    assert (shown["reruns"], shown["effects"]) == ([], [])
    assert [(entry["seq"], entry["type"]) for entry in shown["entries"]] == [
        (entry.seq, entry.type) for entry in entries[-len(shown["entries"]) :]
    ]


def test_a_replay_shows_both_runs_what_runs_again_and_what_that_repeats(shop: Shop) -> None:
    run_id = completed(shop)
    before = seen(shop, run_id)

    reply = shop.ask("runs", "replay", run_id, "--app", APP, "--allow-irreversible", "--preview")

    lines = reply.out.splitlines()
    assert reply.status == 0
    assert lines[1].split() == ["ABOUT", "SEQ", "ENTRY", "STEP"]
    assert lines[2].split() == ["this", "run", "22", "run_replayed"]
    assert lines[3].split() == ["new", "run", "1", "run_started"]
    assert lines[6].split() == ["new", "run", "4", "attempt_scheduled", "find"]
    assert lines[8:10] == [
        "Runs again  find, review, pay, ship",
        "Repeats     what pay, ship did outside",
    ]
    assert lines[-1] == DONE
    assert seen(shop, run_id) == before


def test_a_replay_from_a_step_on_may_repeat_nothing_outside(shop: Shop) -> None:
    run_id = refused(shop)

    reply = shop.ask("runs", "replay", run_id, "--app", APP, "--from-step", "pay", "--preview")

    told = "nothing that is declared irreversible, not compensatable or compensated"
    assert f"Runs again  pay\nRepeats     {told}\n" in reply.out
    assert "this run  16   run_replayed       pay\n" in reply.out


def test_a_replay_that_begins_behind_what_was_undone_says_what_it_builds_on(shop: Shop) -> None:
    run_id = shop.send()

    behind = ("--from-step", "ship", "--preview")
    reply = shop.ask("runs", "replay", run_id, "--app", APP, *behind)
    document = shop.ask("runs", "replay", run_id, "--app", APP, *behind, "--json").json

    assert "Builds on   what pay left, though it was undone\n" in reply.out
    assert document["undone"] == ["pay"]


def test_the_document_of_a_preview_tells_the_runs_apart(shop: Shop) -> None:
    run_id = completed(shop)

    document = shop.ask(
        "runs", "replay", run_id, "--app", APP, "--allow-irreversible", "--preview", "--json"
    ).json

    source, *new = [entry["data"]["run_id"] for entry in document["entries"]]
    assert document["reruns"] == ["find", "review", "pay", "ship"]
    assert document["effects"] == ["pay", "ship"]
    assert source == run_id
    assert {*new} == {document["entries"][0]["data"]["new_run_id"]}


def test_a_preview_is_refused_like_the_command(shop: Shop) -> None:
    run_id = completed(shop)

    replies = [
        shop.ask("runs", *command, *preview)
        for command in (("approve", run_id), ("replay", run_id, "--app", APP))
        for preview in (("--preview",), ())
    ]

    assert [reply.status for reply in replies] == [4, 4, 4, 4]
    assert replies[0].err == replies[1].err
    assert replies[2].err == replies[3].err


def test_a_key_that_was_used_leaves_nothing_to_do(shop: Shop) -> None:
    (run_id,) = shop.sell()
    shop.ask("runs", "approve", run_id, "--idempotency-key", "k1")

    reply = shop.ask("runs", "approve", run_id, "--idempotency-key", "k1", "--preview")

    assert reply.status == 0
    assert reply.out == (
        "There is nothing left to do: this key was used for the same command before.\n"
    )


def test_an_explanation_offers_to_take_a_failed_run_up_where_it_failed(shop: Shop) -> None:
    run_id = refused(shop)

    told = shop.ask("runs", "explain", run_id, "--json").json["next_actions"]

    assert [action["command"] for action in told] == [
        f"squidmesh runs replay {run_id} --app MODULE:WORKFLOWS",
        f"squidmesh runs replay {run_id} --from-step pay --app MODULE:WORKFLOWS",
    ]


def test_the_command_for_a_replay_starts_where_its_call_does() -> None:
    explanation = Explanation(
        status="failed",
        reason="step_failed",
        summary="It failed.",
        step="send",
        details={},
        evidence={},
        next_actions=(),
    )
    plain = NextAction("replay_run", 'await mesh.replay_run("r1")')
    resuming = NextAction("replay_run", "await mesh.replay_run(\"r1\", from_step='it\\'s')")

    commands = [
        command_for(Settings(app="shop"), action, "r1", explanation) for action in (plain, resuming)
    ]

    assert commands == [
        "squidmesh runs replay r1",
        "squidmesh runs replay r1 --from-step 'it'\"'\"'s'",
    ]
