"""`runs show`, `explain` and `graph`: one run, in words and in JSON."""

import pytest

from squidmesh import Explanation, NextAction, SquidMesh
from squidmesh.cli.explain import answer
from squidmesh.cli.layout import plain
from squidmesh.cli.settings import Settings
from tests.cli.shop import Holding, Sale, Trying
from tests.cli.support import Shop


def test_a_run_is_shown_with_its_steps_its_payload_and_the_commands_that_help(shop: Shop) -> None:
    (run_id,) = shop.sell(item="octopus")

    reply = shop.ask("runs", "show", run_id)

    lines = reply.out.splitlines()
    assert lines[0] == f"selling  ◆ paused  {run_id}"
    assert lines[1].startswith("Why      Paused for approval. Step 'review' has waited since")
    assert '"item": "octopus"' in reply.out
    assert "├── find       ✓ completed" in reply.out
    assert "│   └── on error → turn_down" in reply.out
    assert f"squidmesh runs approve {run_id}" in reply.out
    assert "History" not in reply.out


def test_the_journal_is_shown_on_request_and_keeps_its_tokens(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "show", run_id, "--history")

    assert "attempt_claimed" in reply.out
    assert "token_hash" not in reply.out


def test_a_run_in_json_has_all_its_fields_its_graph_and_its_explanation(shop: Shop) -> None:
    (run_id,) = shop.sell()

    plain = shop.ask("runs", "show", run_id, "--json").json
    full = shop.ask("runs", "show", run_id, "--json", "--history").json

    assert (plain["id"], plain["status"], plain["current_step"]) == (run_id, "paused", "review")
    assert [step["name"] for step in plain["steps"]][:2] == ["find", "review"]
    assert plain["attempts"][0]["step"] == "find"
    assert plain["audit_events"][0]["type"] == "paused"
    assert plain["graph"]["run_id"] == plain["explanation"]["run_id"] == run_id
    assert "entries" not in plain
    assert full["entries"][0]["type"] == "run_started"


def test_the_first_line_of_an_explanation_is_the_answer(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "explain", run_id)

    assert reply.first_line.startswith("Paused for approval  ·  selling / review  ·  waiting ")
    assert f"squidmesh runs approve {run_id}  # then pay" in reply.out
    assert f"squidmesh runs reject {run_id}   # then turn_down" in reply.out


def test_every_next_action_of_an_explanation_names_its_command(shop: Shop) -> None:
    (run_id,) = shop.sell()

    answer = shop.ask("runs", "explain", run_id, "--json").json

    assert answer["reason"] == "paused_for_approval"
    assert {action["name"]: action["command"] for action in answer["next_actions"]} == {
        "approve_run": f"squidmesh runs approve {run_id}",
        "reject_run": f"squidmesh runs reject {run_id}",
        "cancel_run": f"squidmesh runs cancel {run_id}",
    }


def test_commands_repeat_the_store_where_it_was_typed(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "explain", run_id, "--url", shop.url, env={"SQUIDMESH_URL": None})

    assert f"squidmesh runs cancel {run_id} --url {shop.url}" in reply.out


def test_a_run_that_nobody_can_work_on_names_the_worker_it_needs(shop: Shop) -> None:
    (run_id,) = shop.sell(work=False)

    reply = shop.ask("runs", "explain", run_id)

    assert reply.first_line.startswith("No worker has the code of this workflow  ·  selling / find")
    assert "squidmesh worker --app MODULE:WORKFLOWS" in reply.out


def test_a_replay_that_would_repeat_something_irreversible_is_called_unsafe(shop: Shop) -> None:
    (run_id,) = shop.sell()
    shop.ask("runs", "approve", run_id)
    shop.work()

    reply = shop.ask("runs", "explain", run_id)

    assert reply.first_line.startswith("Completed  ·  selling")
    assert "Unsafe  replay: ship is done and cannot be undone" in reply.out
    assert f"squidmesh runs replay {run_id} --allow-irreversible --app" in reply.out


def test_a_failure_is_explained_by_its_code_and_message(shop: Shop) -> None:
    (run_id,) = shop.sell(refused=True)
    shop.ask("runs", "approve", run_id)
    shop.work()

    reply = shop.ask("runs", "explain", run_id)

    assert reply.first_line.startswith("Failed  ·  selling / pay")
    assert "error: refused: the bank said no" in reply.out


def test_the_ways_to_replay_a_failed_run_say_what_they_do_again(shop: Shop) -> None:
    undone, not_undone = shop.send(), shop.send(refundable=False)

    told = [shop.ask("runs", "explain", run_id).out for run_id in (undone, not_undone)]

    assert "# from the beginning: note is done again\n" in told[0]
    assert "# goes on at pay, which was undone; what was done before stands\n" in told[0]
    assert "# from the beginning: note, pay are done again\n" in told[1]
    assert "# goes on at ship; what was done before stands\n" in told[1]


def test_what_could_not_be_undone_is_named_with_its_step(shop: Shop) -> None:
    run_id = shop.send(refundable=False)

    reply = shop.ask("runs", "explain", run_id)

    assert "error: carrier_refused: no such street\n" in reply.out
    assert "not undone: pay: account_closed: the account is gone\n" in reply.out


def explained(reason: str, names: tuple[str, ...], **details: str) -> str:
    """What is told of a run that may be taken on by *names*."""
    explanation = Explanation(
        status="retrying",
        reason=reason,
        summary="It waits.",
        step="refund",
        details=details,
        evidence={},
        next_actions=tuple(NextAction(name, "await mesh.explain_run(...)") for name in names),
    )
    return "\n".join(plain(answer(Settings(app="shop"), "r1", explanation, ())))


def test_a_step_whose_function_is_missing_says_so_and_does_not_go_on_by_itself() -> None:
    told = explained(
        "lease_expired", ("wait_for_retry", "recover", "deploy_workflow"), function="orders:refund"
    )

    assert "Facts  needs: orders:refund" in told
    assert "squidmesh worker         # a worker that has orders:refund" in told
    assert "any worker" not in told
    assert "by itself" not in told


def test_a_step_of_a_workflow_that_nobody_knows_waits_for_one_who_does() -> None:
    told = explained("waiting_for_retry", ("wait_for_retry", "recover", "deploy_workflow"))

    assert "squidmesh worker         # a worker that knows this workflow" in told
    assert "any worker" not in told
    assert "by itself" not in told


def test_a_step_that_somebody_can_run_goes_on_by_itself() -> None:
    told = explained("waiting_for_retry", ("wait_for_retry", "recover"))

    assert "squidmesh runs watch r1  # it goes on by itself" in told
    assert "squidmesh worker         # any worker takes it up again" in told


def test_a_retry_says_when_it_is_due(shop: Shop) -> None:
    async def start(mesh: SquidMesh) -> str:
        run = await mesh.start_run(Trying, Sale())
        await mesh.run_until_idle()
        return run.id

    run_id = shop.with_mesh(start)

    explained = shop.ask("runs", "explain", run_id)
    drawn = shop.ask("runs", "graph", run_id)

    assert explained.first_line.startswith("Waiting to try again  ·  trying / pay  ·  due in 59 m")
    assert "step_exception (ValueError): the bank is closed" in explained.out
    assert "attempt 2  due in 59 m" in drawn.out


def test_a_step_that_was_not_reached_says_what_it_waits_for(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "explain", run_id, "--step", "ship")

    assert reply.first_line == "Waiting for other steps  ·  selling / ship"
    assert "ship waits for pay (waiting)" in reply.out


def test_a_step_that_the_workflow_does_not_have_is_a_misunderstanding(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "explain", run_id, "--step", "fly")

    assert reply.status == 2
    assert reply.err.endswith(f"[invalid_option] Try: squidmesh runs graph {run_id}\n")


@pytest.mark.parametrize(
    ("form", "beginning"),
    [("tree", "selling  ◆ paused"), ("mermaid", "flowchart TD\n"), ("json", '{\n  "run_id"')],
)
def test_a_graph_is_drawn_in_the_form_that_is_asked_for(
    shop: Shop, form: str, beginning: str
) -> None:
    (run_id,) = shop.sell()

    reply = shop.ask("runs", "graph", run_id, "--format", form)

    assert reply.status == 0
    assert reply.out.startswith(beginning)


def test_a_graph_in_json_is_one_document_whatever_its_form(shop: Shop) -> None:
    (run_id,) = shop.sell()

    tree = shop.ask("runs", "graph", run_id, "--json").json
    mermaid = shop.ask("runs", "graph", run_id, "--format", "mermaid", "--json").json

    assert tree["nodes"][0]["id"] == "find"
    assert mermaid["mermaid"].startswith("flowchart TD")


def test_a_route_that_was_taken_says_so(shop: Shop) -> None:
    (run_id,) = shop.sell()
    shop.ask("runs", "reject", run_id)
    shop.work()

    reply = shop.ask("runs", "graph", run_id)

    assert "on error → turn_down  ✓ taken" in reply.out
    assert "turn_down  ✓ completed" in reply.out


def test_a_terminal_is_not_steered_by_what_somebody_else_wrote(shop: Shop) -> None:
    (run_id,) = shop.sell(item="\x1b]0;gone\x07")

    replies = [shop.ask("runs", "show", run_id), shop.ask("runs", "show", run_id, "--history")]
    shop.ask("runs", "approve", run_id, "--comment", "\x1b[2J")
    replies.append(shop.ask("runs", "show", run_id))

    assert not any("\x1b" in reply.out or "\x07" in reply.out for reply in replies)
    assert "\\x1b[2J" in replies[-1].out


def test_a_pause_leads_where_its_route_leads(shop: Shop) -> None:
    async def start(mesh: SquidMesh) -> str:
        run = await mesh.start_run(Holding, Sale())
        await mesh.run_until_idle()
        return run.id

    run_id = shop.with_mesh(start)

    reply = shop.ask("runs", "explain", run_id)

    assert reply.first_line.startswith("Paused until resumed  ·  holding / hold")
    assert f"squidmesh runs resume {run_id}  # then rest" in reply.out
