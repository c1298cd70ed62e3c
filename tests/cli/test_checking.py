"""`squidmesh check`: whether code may be deployed, for people, for programs and for pipelines."""

import secrets
from pathlib import Path
from typing import Final

import pytest

from squidmesh import SquidMesh, Workflow, approval, manual, path, pause, step
from squidmesh.testing.postgres import TemporaryServer
from tests.cli.shop import Holding, Sale, Selling, Trying, charge, look_up
from tests.cli.shop import workflows as yesterdays
from tests.cli.support import APP, Reply, Shop, ask, run
from tests.postgres.support import count, name_of

HERE: Final = "tests.cli.test_checking"
OLD: Final = ("--app", APP)


def charge_in(cents: int) -> None: ...


class Sold(Workflow[Sale]):
    """The selling of the next release: nothing undoes a charge, and nothing is posted."""

    name = "selling"
    version = "v2"
    by_hand = manual()
    find = step(look_up, output="goods")
    review = approval(output="review")
    pay = step(charge, output="payment")
    transitions = (path(find, review, pay), review.on_error(Workflow.complete))


class Held(Workflow[Sale]):
    """The holding of the next release, whose only function asks for more."""

    name = "holding"
    by_hand = manual()
    hold = pause()
    weigh = step(lambda: {"cents": 5})
    ship = step(charge_in)
    transitions = path(hold, weigh, ship)


tomorrows = (Sold, Trying)
posting = (Held,)


def check(shop: Shop, *arguments: str, app: str = f"{HERE}:tomorrows") -> Reply:
    return shop.ask("--app", app, "check", *arguments)


def hold(shop: Shop) -> str:
    async def held(mesh: SquidMesh) -> str:
        started = await mesh.start_run(Holding, Sale())
        await mesh.run_until_idle()
        return started.id

    return shop.with_mesh(held)


def test_with_nothing_in_flight_everything_is_safe(shop: Shop) -> None:
    reply = check(shop)

    assert (reply.status, reply.out, reply.err) == (0, "No run is in flight.\n", "")
    assert check(shop, "--json").json == {"ok": True, "runs": 0, "blocked": 0, "versions": []}


def test_runs_that_the_code_can_carry_on_are_counted_by_version(shop: Shop) -> None:
    shop.sell(2)
    hold(shop)

    reply = check(shop, app=APP)

    head, *lines = reply.out.splitlines()
    assert reply.status == 0
    assert head.split() == ["WORKFLOW", "VERSION", "DEFINITION", "RUNS", "SAFE", "BLOCKED", "NOTE"]
    assert lines[0].split()[2:5] == ["1", "1", "0"]
    assert lines[1].split()[:2] + lines[1].split()[3:6] == ["selling", "v1", "2", "2", "0"]
    assert lines[1].endswith("as declared today, 2 paused")
    assert lines[-1] == (
        "✓ A fitting function was found for every step that these 3 runs have ahead."
        " Types are not compared."
    )


def test_what_is_in_the_way_is_said_below_with_what_helps(shop: Shop) -> None:
    (run_id,) = shop.sell()

    reply = check(shop)

    assert reply.status == 4
    assert "✗ selling v1" in reply.out
    assert "Step 'ship' runs tests.cli.shop:send, which the workflow declares no more" in reply.out
    assert "Step 'pay' is undone by tests.cli.shop:refund" in reply.out
    assert "Keep it as the function of a step 'ship'" in reply.out
    assert "see 'Keeping what old runs need' in docs/deploying.md" in reply.out
    (line,) = [line for line in reply.out.splitlines() if line.startswith(run_id)]
    assert line.endswith("◆ paused  review  turn_down, ship, undoing pay")
    assert reply.out.splitlines()[-1].startswith("✗ The run in flight is blocked.")


def test_a_workflow_that_is_gone_is_said_to_be(shop: Shop) -> None:
    run_id = hold(shop)

    reply = check(shop)

    assert reply.status == 4
    assert "not in the code, 1 paused" in reply.out
    assert "The code has no workflow of this name." in reply.out
    assert f"{run_id}  ◆ paused  hold\n" in reply.out


def test_a_function_that_asks_for_more_is_told_from_one_that_is_gone(shop: Shop) -> None:
    hold(shop)

    reply = check(shop, app=f"{HERE}:posting")

    assert "The function of step 'ship' asks for 'cents' now" in reply.out
    assert "Give 'cents' a default" in reply.out


def test_of_many_blocked_runs_a_few_are_shown(shop: Shop) -> None:
    shop.sell(8)

    reply = check(shop)

    assert reply.out.count("◆ paused  review") == 5
    assert "and 3 more\n" in reply.out
    assert "✗ 8 of 8 runs in flight are blocked." in reply.out


def test_a_program_gets_all_of_it_with_a_run_for_every_obstacle(shop: Shop) -> None:
    ids = shop.sell(2)

    reply = check(shop, "--json")

    (version,) = reply.json["versions"]
    assert (reply.status, reply.json["ok"], reply.json["blocked"]) == (4, False, 2)
    assert version["fingerprint"] == Selling.definition.fingerprint
    assert (version["workflow"], version["version"], version["registered"]) == (
        "selling",
        "v1",
        False,
    )
    assert (version["runs"], version["safe"], version["blocked"]) == (2, 0, 2)
    assert {run["run_id"] for run in version["listed"]} == set(ids)
    codes = {(one["code"], one["step"], one["phase"], one["runs"]) for one in version["obstacles"]}
    assert codes == {
        ("missing_body", "ship", "forward", 2),
        ("missing_body", "turn_down", "forward", 2),
        ("missing_body", "pay", "compensation", 2),
    }
    assert {one["step"] for one in version["listed"][0]["obstacles"]} == {
        "ship",
        "turn_down",
        "pay",
    }


def test_one_workflow_can_be_asked_for_alone(shop: Shop) -> None:
    shop.sell()
    hold(shop)

    trying = check(shop, "--workflow", "trying")
    holding = check(shop, "--workflow", "holding")

    assert (trying.status, trying.out, trying.err) == (0, "No run of trying is in flight.\n", "")
    assert (holding.status, "selling" in holding.out) == (4, False)


def test_a_name_that_neither_the_code_nor_the_store_knows_is_not_found(shop: Shop) -> None:
    shop.sell()

    slip = check(shop, "--workflow", "seling")
    told = check(shop, "--workflow", "seling", "--json")

    assert (slip.status, slip.out) == (3, "")
    assert f"There is no workflow seling: {HERE}:tomorrows has selling, trying" in slip.err
    assert "[unknown_workflow] Try: squidmesh" in slip.err
    assert "--workflow" not in slip.err
    assert (told.status, told.json["error"]["code"]) == (3, "unknown_workflow")


def test_a_name_that_only_the_store_knows_is_none_that_is_not_found(shop: Shop) -> None:
    run_id = hold(shop)
    assert shop.ask("runs", "cancel", run_id).status == 0

    reply = check(shop, "--workflow", "holding")

    assert (reply.status, reply.out, reply.err) == (0, "No run of holding is in flight.\n", "")


def test_it_takes_code_and_a_store_that_are_there(shop: Shop, tmp_path: Path) -> None:
    without_code = shop.ask("check")
    nowhere = ask("--url", f"sqlite:///{tmp_path}/none.db", *OLD, "check")
    nonsense = check(shop, "--workflow", "")

    assert (without_code.status, nowhere.status, nonsense.status) == (2, 3, 2)
    assert "[no_app]" in without_code.err
    assert not (tmp_path / "none.db").exists()


def test_what_is_over_is_left_out(shop: Shop) -> None:
    (run_id,) = shop.sell()
    assert shop.ask("runs", "cancel", run_id).status == 0

    assert check(shop).out == "No run is in flight.\n"


@pytest.mark.slow
def test_a_pipeline_sees_the_answer_in_the_exit_status_of_the_process(shop: Shop) -> None:
    shop.sell()

    safe = run(*OLD, "check", cwd=shop.folder, SQUIDMESH_URL=shop.url)
    blocked = run(
        "--app", f"{HERE}:tomorrows", "check", "--json", cwd=shop.folder, SQUIDMESH_URL=shop.url
    )

    assert (safe.status, blocked.status) == (0, 4)
    assert blocked.json["blocked"] == 1


async def sell_on(url: str) -> None:
    async with SquidMesh.open(url, workflows=yesterdays) as mesh:
        await mesh.start_run(Selling, Sale())
        await mesh.run_until_idle()


@pytest.mark.anyio
async def test_a_role_that_may_only_read_will_do(
    postgres_server: TemporaryServer, postgres_database: str
) -> None:
    await sell_on(postgres_database)
    role = f"reader_{secrets.token_hex(4)}"
    name = name_of(postgres_database)
    postgres_server.execute(f"create role {role} login password 'secret'")
    granted = ask("grants", role, "--read-only", "--url", postgres_database).out
    postgres_server.execute(granted, name)
    before = [count(postgres_database, table) for table in ("entries", "workers", "definitions")]

    url = postgres_server.url(name, user=role, password="secret")
    safe = run("--url", url, *OLD, "check", cwd=Path.cwd())
    blocked = run("--url", url, "--app", f"{HERE}:tomorrows", "check", cwd=Path.cwd())

    after = [count(postgres_database, table) for table in ("entries", "workers", "definitions")]
    postgres_server.execute(f"drop owned by {role}", name)
    postgres_server.execute(f"drop role {role}")
    assert (safe.status, safe.err) == (0, "")
    assert blocked.status == 4, blocked.err
    assert before == after
