"""Where a run goes and what its steps are given: routes, conditions, paths to values, triggers."""

from typing import Any

import attrs
import pytest

from squidmesh import (
    Run,
    SquidMesh,
    StepContext,
    Workflow,
    approval,
    cron,
    log,
    manual,
    path,
    pause,
    step,
    when,
)
from tests.mesh.support import (
    OpenMesh,
    Order,
    context_of,
    entries_of,
    error_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


@attrs.frozen(kw_only=True)
class Case:
    score: float = 0
    kind: str = "plain"
    flags: dict[str, Any] = attrs.field(factory=dict[str, Any])


def judge(score: float, flags: dict[str, Any]) -> dict[str, Any]:
    return {"routing": {"score": score, "flags": flags}}


class Triage(Workflow[Case]):
    """Every operator, over what a step found and over the payload."""

    name = "triage"
    by_hand = manual()
    judge = step(judge)
    high = log("high")
    low = log("low")
    listed = log("listed")
    vip = log("vip")
    rest = log("rest")
    transitions = (
        judge.on_ok(rest),
        judge.on_ok(vip, when=when("kind", equals="vip")),
        judge.on_ok(high, when=when("routing.score", greater_than=10)),
        judge.on_ok(low, when=when("routing.score", less_than=-10)),
        judge.on_ok(listed, when=when(("routing", "flags", "ids"), equals=[1, {"a": True}])),
        path(high),
        path(low),
        path(listed),
        path(vip),
        path(rest),
    )


async def finished(mesh: SquidMesh, workflow: Any, payload: object = None, **options: Any) -> Run:
    run = await mesh.start_run(workflow, payload, **options)
    await mesh.run_until_idle()
    return await history(mesh, run)


def taken(run: Run) -> list[str]:
    return [name for name, status in step_statuses(run).items() if status == "completed"][1:]


@pytest.mark.parametrize(
    ("case", "target"),
    [
        (Case(score=10.5), "high"),
        (Case(score=10), "rest"),
        (Case(score=-11), "low"),
        (Case(kind="vip", score=99), "vip"),
        (Case(flags={"ids": [1, {"a": True}]}), "listed"),
        (Case(flags={"ids": [1, {"a": 1}]}), "rest"),
        (Case(flags={"ids": [True, {"a": True}]}), "rest"),
        (Case(flags={"ids": {"0": 1}}), "rest"),
    ],
)
async def test_the_first_condition_that_holds_decides_and_the_unconditional_one_is_the_fallback(
    open_mesh: OpenMesh, case: Case, target: str
) -> None:
    mesh = await open_mesh(Triage)

    assert taken(await finished(mesh, Triage, case)) == [target]


async def test_an_operand_may_be_null_and_a_missing_path_equals_nothing(
    open_mesh: OpenMesh,
) -> None:
    def do_look() -> dict[str, Any]:
        return {"found": {"value": None}}

    class Nulls(Workflow[Order]):
        name = "nulls"
        by_hand = manual()
        look = step(do_look)
        gone = log("gone")
        null = log("null")
        transitions = (
            look.on_ok(gone, when=when("found.other", equals=None)),
            look.on_ok(null, when=when("found.value", equals=None)),
            path(gone),
            path(null),
        )

    mesh = await open_mesh(Nulls)

    assert taken(await finished(mesh, Nulls)) == ["null"]


async def test_a_condition_on_an_output_key_sees_what_the_step_has_just_returned(
    open_mesh: OpenMesh,
) -> None:
    class Own(Workflow[Order]):
        name = "own"
        by_hand = manual()
        ask = step(lambda: {"decision": "auto"}, output="routing")
        auto = log("auto")
        hand = log("hand")
        transitions = (
            ask.on_ok(auto, when=when("routing.decision", equals="auto")),
            ask.on_ok(hand),
            path(auto),
            path(hand),
        )

    mesh = await open_mesh(Own)

    assert taken(await finished(mesh, Own)) == ["auto"]


async def test_a_route_on_ok_may_end_the_run_by_condition(open_mesh: OpenMesh) -> None:
    class Short(Workflow[Order]):
        name = "short"
        by_hand = manual()
        ask = step(lambda amount: {"large": amount > 50})
        more = log("more")
        transitions = (
            ask.on_ok(Workflow.complete, when=when("large", equals=False)),
            path(ask, more, Workflow.complete),
        )

    mesh = await open_mesh(Short)

    small, large = (
        await finished(mesh, Short, Order(amount=1)),
        await finished(mesh, Short, Order(amount=99)),
    )
    assert (small.status, step_statuses(small)["more"]) == ("completed", "skipped")
    assert (large.status, step_statuses(large)["more"]) == ("completed", "completed")


async def test_error_routes_take_conditions_too(open_mesh: OpenMesh) -> None:
    def fail() -> None:
        raise ConnectionError

    class Careful(Workflow[Order]):
        name = "careful"
        by_hand = manual()
        ask = step(fail)
        large = log("large")
        small = log("small")
        transitions = (
            path(ask),
            ask.on_error(large, when=when("amount", greater_than=50)),
            ask.on_error(small),
            path(large),
            path(small),
        )

    mesh = await open_mesh(Careful)

    large = await finished(mesh, Careful, Order(amount=99))
    small = await finished(mesh, Careful, Order(amount=1))
    assert step_statuses(large) == {"ask": "failed", "large": "completed", "small": "skipped"}
    assert step_statuses(small) == {"ask": "failed", "large": "skipped", "small": "completed"}


async def test_inputs_rename_dig_and_reach_into_the_payload(open_mesh: OpenMesh) -> None:
    def do_look() -> dict[str, Any]:
        return {"lines": {"first": {"sku": "x"}}, "total": 7}

    def do_use(sku: str, sum_: int, who: str, extra: int = 3) -> dict[str, Any]:
        return {"used": [sku, sum_, who, extra]}

    class Digging(Workflow[Order]):
        name = "digging"
        by_hand = manual()
        look = step(do_look, output="invoice")
        use = step(
            do_use,
            inputs={
                "sku": "invoice.lines.first.sku",
                "sum_": ("invoice", "total"),
                "who": "number",
            },
        )
        transitions = path(look, use)

    mesh = await open_mesh(Digging)

    done = await finished(mesh, Digging, Order(number="o9"))
    assert context_of(done)["used"] == ["x", 7, "o9", 3]
    assert step_of(done, "use").input == {"sku": "x", "sum_": 7, "who": "o9"}


async def test_an_input_that_digs_where_nothing_is_fails_with_the_place(
    open_mesh: OpenMesh,
) -> None:
    class Digging(Workflow[Order]):
        name = "digging"
        by_hand = manual()
        look = step(lambda: {"lines": {}}, output="invoice")
        use = step(lambda sku: {"used": sku}, inputs={"sku": "invoice.lines.first"})
        transitions = path(look, use)

    mesh = await open_mesh(Digging)

    error = error_of(await finished(mesh, Digging))
    assert error["code"] == "missing_input"
    assert error["details"]["parameter"] == "sku"
    assert error["details"]["path"] == "invoice.lines.first"


async def test_later_outputs_hide_earlier_ones_and_the_last_write_counts(
    open_mesh: OpenMesh,
) -> None:
    class Twice(Workflow[Order]):
        name = "twice"
        by_hand = manual()
        first = step(lambda: {"n": 1}, output="found")
        second = step(lambda found: {"n": found["n"] + 1}, output="found")
        third = step(lambda found: {"seen": found["n"]})
        transitions = path(first, second, third)

    mesh = await open_mesh(Twice)

    done = await finished(mesh, Twice)
    assert done.context == {"found": {"n": 2}, "seen": 2}
    assert step_of(done, "first").output == {"n": 1}
    assert step_of(done, "third").input == {"found": {"n": 2}}


async def test_parallel_branches_do_not_see_each_other_and_a_join_sees_all(
    open_mesh: OpenMesh,
) -> None:
    def peek(context: StepContext, root: str, left: str = "unseen") -> str:
        return f"{root}/{left}"

    class Diamond(Workflow[Order]):
        name = "diamond"
        by_hand = manual()
        top = step(lambda number: number, output="root")
        left = step(lambda root: f"{root}/l", output="left", after=top)
        right = step(peek, output="right", after=(top,))
        join = step(lambda left, right: [left, right], output="all", after=[left, right])

    mesh = await open_mesh(Diamond)

    done = await finished(mesh, Diamond)
    assert context_of(done)["all"] == ["o1/l", "o1/unseen"]
    assert step_of(done, "join").depends_on == ("left", "right")


async def test_a_workflow_of_one_step_needs_neither_transitions_nor_dependencies(
    open_mesh: OpenMesh,
) -> None:
    class Single(Workflow[Order]):
        name = "single"
        by_hand = manual()
        only = step(lambda number: {"said": number})

    mesh = await open_mesh(Single)

    assert (await finished(mesh, Single)).context == {"said": "o1"}


@attrs.frozen(kw_only=True)
class Nightly:
    number: str = "nightly"
    depth: int = 2


async def test_the_trigger_decides_which_payload_the_steps_see(open_mesh: OpenMesh) -> None:
    def tell(number: str, context: StepContext, depth: int = 0) -> dict[str, Any]:
        return {"said": f"{context.trigger} {number} {depth}"}

    class Both(Workflow[Order]):
        name = "both"
        by_hand = manual()
        nightly = cron("0 3 * * *", payload=Nightly)
        say = step(tell)
        transitions = path(say)

    mesh = await open_mesh(Both)

    by_hand = await finished(mesh, Both)
    nightly = await finished(mesh, Both, Nightly(depth=5), trigger="nightly")
    assert context_of(by_hand)["said"] == "by_hand o1 0"
    assert context_of(nightly)["said"] == "nightly nightly 5"


async def test_a_body_is_told_who_and_where_it_is(open_mesh: OpenMesh) -> None:
    seen: list[StepContext] = []
    states: list[dict[str, Any]] = []

    async def do_look(context: StepContext) -> None:
        seen.append(context)
        states.append(dict(context.state))
        await context.heartbeat()

    class Context(Workflow[Order]):
        name = "context"
        by_hand = manual()
        first = step(lambda: {"a": 1})
        look = step(do_look)
        transitions = path(first, look)

    mesh = await open_mesh(Context)
    run = await finished(mesh, Context)

    (context,) = seen
    (claimed,) = [one for one in entries_of(run, "attempt_claimed") if one.data["step"] == "look"]
    assert (context.run_id, context.workflow, context.step) == (run.id, "context", "look")
    assert (context.attempt, context.trigger, context.schedule) == (1, "by_hand", None)
    assert context.runnable_key == f"{run.id}:look:1"
    assert context.claim_id == claimed.data["claim_id"]
    assert context.fence == claimed.seq
    assert context.cancelled is False
    assert states == [{"payload": {"number": "o1", "amount": 100}, "context": {"a": 1}}]
    with pytest.raises(RuntimeError):
        _ = context.connection


async def test_a_plain_body_has_no_heartbeat_of_its_own(open_mesh: OpenMesh) -> None:
    def beat(context: StepContext) -> dict[str, str]:
        try:
            context.heartbeat()
        except RuntimeError as refused:
            return {"said": type(refused).__name__}
        return {"said": "nothing"}

    class Beating(Workflow[Order]):
        name = "beating"
        by_hand = manual()
        beats = step(beat)

    mesh = await open_mesh(Beating)

    assert (await finished(mesh, Beating)).context == {"said": "RuntimeError"}


async def test_all_ways_to_take_a_parameter_work(open_mesh: OpenMesh) -> None:
    def only_position(number: str, /, amount: int, *rest: int, key: str = "k", **more: int) -> str:
        return f"{number} {amount} {rest} {key} {more}"

    def plain_context(context) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return str(context.step)

    class Taking(Workflow[Order]):
        name = "taking"
        by_hand = manual()
        one = step(only_position, output="one")
        two = step(plain_context, output="two")
        transitions = path(one, two)

    mesh = await open_mesh(Taking)

    assert (await finished(mesh, Taking)).context == {"one": "o1 100 () k {}", "two": "two"}


async def test_a_step_runs_in_its_own_queue_or_else_in_the_runs(open_mesh: OpenMesh) -> None:
    class Queued(Workflow[Order]):
        name = "queued"
        by_hand = manual()
        first = log("first")
        second = step(lambda: None, queue="slow")
        transitions = path(first, second)

    mesh = await open_mesh(Queued)

    run = await finished(mesh, Queued, queue="fast")
    scheduled = entries_of(run, "attempt_scheduled")
    assert [(one.data["step"], one.data["queue"]) for one in scheduled] == [
        ("first", "fast"),
        ("second", "slow"),
    ]


async def test_steps_are_inherited_and_can_be_overridden(open_mesh: OpenMesh) -> None:
    class Base(Workflow[Order], abstract=True):
        by_hand = manual()
        first = step(lambda: {"by": "base"})
        second = step(lambda by: {"told": by})
        transitions = path(first, second)

    class Child(Base):
        name = "child"
        first = step(lambda: {"by": "child"})

    mesh = await open_mesh(Child)

    assert (await finished(mesh, Child)).context == {"by": "child", "told": "child"}


async def test_manual_steps_may_stand_between_others_of_every_kind(open_mesh: OpenMesh) -> None:
    class Mixed(Workflow[Order]):
        name = "mixed"
        by_hand = manual()
        a = log("a", level="debug")
        b = pause()
        c = approval(output="verdict")
        d = step(lambda verdict: {"said": verdict["decision"]})
        transitions = (path(a, b, c, d), c.on_error(d))

    mesh = await open_mesh(Mixed)
    run = await finished(mesh, Mixed)
    await mesh.resume_run(run.id)
    await mesh.reject_run(run.id, actor="ada")
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert done.status == "completed"
    assert context_of(done)["said"] == "rejected"
