"""Scripts that together use every construct of the authoring language, and every command.

Each function makes a fresh play: bodies keep what they remember between attempts in it, and gates
belong to the event loop in which it is played.
"""

import asyncio
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import attrs

from squidmesh import (
    Deferred,
    Errored,
    Retry,
    StepContext,
    Workflow,
    approval,
    compensation,
    cron,
    log,
    manual,
    path,
    pause,
    step,
    wait,
    when,
)
from tests.mesh.staging import Play, Stage, Told
from tests.mesh.support import LEASE, MINUTE, SECOND, Gate, Order, at_work, die_at

GIVEN = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


def fail() -> None:
    raise ConnectionError('reset by peer: \N{SQUID} "quoted"')


@attrs.frozen
class Invoice:
    """What a body returns, so that its fields are stored as JSON."""

    number: str
    total: Decimal
    due: date


def bill(number: str, amount: int) -> Invoice:
    return Invoice(number=number, total=Decimal(amount) / 3, due=date(2030, 2, 28))


def remember(context: StepContext, invoice: Invoice, number: str) -> dict[str, Any]:
    return {
        "seen": context.state,
        "keys": [context.runnable_key, context.idempotency_key, context.claim_id],
        "numbers": [context.attempt, context.fence, 1.5, -0.0, 1e100, 2**53 + 1],
        "names": [context.workflow, context.step, context.trigger, number, "\N{SNOWMAN}\u2028"],
        "due": invoice.due,
    }


class Fulfil(Workflow[Order]):
    """Outputs under keys and merged, routes by what they hold, and a timer as the last step."""

    name = "fulfil"
    version = "2030-01"
    by_hand = manual()
    by_phone = manual(payload=Order)
    bill = step(bill, output="invoice")
    rate = step(lambda amount: {"risk": {"score": amount, "level": ["low", "high"][amount > 50]}})
    small = log("a small one", level="debug")
    large = step(remember, inputs={"number": "invoice.number"}, output="memory", queue="slow")
    fixed = step(lambda: None, output="nothing")
    rest = wait(MINUTE)
    transitions = (
        bill.on_ok(rate),
        rate.on_ok(small, when=when("risk.score", less_than=10)),
        rate.on_ok(fixed, when=when("risk.level", equals="low")),
        rate.on_ok(Workflow.complete, when=when("risk.score", greater_than=1000)),
        rate.on_ok(large),
        path(small),
        path(fixed, Workflow.complete),
        path(large, rest),
    )


def routes() -> Play:
    async def script(stage: Stage) -> None:
        mesh = stage.mesh
        marks: dict[str, Any] = {"tags": {"team": "blue", "a": "b"}, "priority": 3}
        await mesh.start_run(Fulfil, Order(number="o1", amount=100), idempotency_key="k", **marks)
        await stage.work()
        stage.clock.advance(SECOND)
        await mesh.start_run(Fulfil, Order(number="o1", amount=100), idempotency_key="k")
        for amount in (5, 20, 5000):
            await mesh.start_run(Fulfil, {"amount": amount}, trigger="by_phone", queue="phones")
            await stage.work()
        await mesh.start_run(Fulfil, run_id=GIVEN.upper(), concurrency_key="one at a time")
        await stage.pass_time(MINUTE)
        await stage.pass_time(MINUTE)

    return Play(workflows=(Fulfil,), script=script)


def bulk() -> Play:
    async def script(stage: Stage) -> None:
        orders = [Order(number=f"o{number}", amount=number) for number in (1, 20, 70, 2000)]
        keys = ["a", None, "b", "c"]
        ids = await stage.mesh.start_runs(Fulfil, orders, queue="many", idempotency_keys=keys)
        stage.clock.advance(SECOND)
        again = await stage.mesh.start_runs(
            Fulfil, [*orders, None], trigger="by_hand", idempotency_keys=[*keys, None]
        )
        assert [mine == theirs for mine, theirs in zip(ids, again, strict=False)] == [
            True,
            False,
            True,
            True,
        ]
        for _ in range(2):
            await stage.pass_time(MINUTE)

    return Play(workflows=(Fulfil,), script=script)


class Moody:
    """A body that says something else each time it is asked."""

    def __init__(self, *sayings: object) -> None:
        self._sayings = list(sayings)

    def __call__(self) -> object:
        said = self._sayings.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def tries() -> Play:
    stand = Gate()

    async def stall() -> None:
        await stand.wait()

    class Trying(Workflow[Order]):
        name = "trying"
        by_hand = manual()
        ask = step(
            Moody(
                Deferred(SECOND * 30, reason="closed until nine"),
                TimeoutError(),
                Errored("busy", code="busy", retryable=True, details={"line": [1, None]}),
                Errored("later", retryable=True, retry_after=MINUTE),
                Deferred(SECOND),
                {"said": "yes"},
            ),
            retry=Retry(9, backoff_min=SECOND, backoff_max=MINUTE, jitter=0.5),
            output="answer",
        )
        hang = step(stall, timeout=SECOND * 5, retry=Retry(2, backoff_min=SECOND * 3))
        page = step(lambda: Errored("no", code="gone", details={"why": {"deep": True}}))
        note = log("it went wrong", level="error")
        odd = step(lambda: 7)
        lost = log("never")
        transitions = (
            path(ask, hang),
            hang.on_error(page, recovery="compensation"),
            path(page),
            page.on_error(note, recovery="undo"),
            note.on_ok(odd),
            path(odd),
            odd.on_error(lost, when=when("answer.said", equals="no")),
            path(lost),
        )

    async def script(stage: Stage) -> None:
        await stage.mesh.start_run(Trying)
        await stage.work()
        # Chance makes the first two delays half as long again at most.
        for seconds in (30, 1.5, 3, 60):
            await stage.pass_time(SECOND * seconds)
        for seconds in (1, 3):
            stage.clock.advance(seconds)
            async with at_work(stage.mesh, stand):
                stage.clock.advance(5)
                await stage.told.of("step.failed", "hang")
            stand.entered.clear()
            stand.opened.clear()

    return Play(workflows=(Trying,), script=script)


def losses() -> Play:
    fragile, deadly = Gate(), Gate()

    async def break_down(context: StepContext) -> dict[str, int]:
        if context.attempt == 1:
            await fragile.wait()
        if context.attempt == 2:
            raise ConnectionError
        return {"attempt": context.attempt, "fence": context.fence}

    async def kill() -> None:
        await deadly.wait()

    class Fragile(Workflow[Order]):
        name = "fragile"
        by_hand = manual()
        build = step(break_down, retry=Retry(2, backoff_min=SECOND))
        poison = step(kill, retry=Retry(9))
        page = step(lambda: {"paged": True})
        transitions = (path(build, poison), path(page), poison.on_error(page))

    class Doomed(Workflow[Order]):
        name = "doomed"
        by_hand = manual()
        poison = step(kill)

    async def script(stage: Stage) -> None:
        await stage.mesh.start_run(Fragile)
        await stage.lose(fragile)
        await stage.mesh.recover()
        await stage.work()
        stage.clock.advance(SECOND)
        await stage.lose(deadly)
        await stage.mesh.recover()
        await stage.lose(deadly)
        await stage.work()
        await stage.mesh.start_run(Doomed)
        await stage.lose(deadly)
        await stage.mesh.recover()
        await stage.lose(deadly)
        await stage.mesh.recover()

    return Play(workflows=(Fragile, Doomed), script=script, options={"max_deliveries": 2})


def late_reports() -> Play:
    late, claims = Gate(), list[str]()

    async def outlive(context: StepContext) -> dict[str, object]:
        if context.attempt == 1:
            claims.append(context.claim_id)
            await late.wait()
        return {"attempt": context.attempt, "fence": context.fence, "claim": context.claim_id}

    class Slow(Workflow[Order]):
        """Its first attempt comes back when another worker has done the second."""

        name = "slow"
        by_hand = manual()
        take = step(outlive, output="taken")
        file = step(lambda taken: {"filed": taken["attempt"]})
        transitions = path(take, file)

    async def script(stage: Stage) -> None:
        run = await stage.mesh.start_run(Slow)
        first: dict[str, Any] = {"kind": "step", "run_id": run.id, "step": "take", "attempt": 1}
        performing = asyncio.create_task(stage.runner.perform(first))
        await late.entered.wait()
        (held,) = claims
        # Nobody beats for this claim any more, as if its process stood still.
        (await stage.mesh.engine()).heart.let_go(held)
        stage.clock.advance(LEASE)
        async with stage.other(Slow) as other:
            await other.run_until_idle()
        late.opened.set()
        assert (await performing).reason == "stale_attempt"

    return Play(workflows=(Slow,), script=script)


class Judged(Workflow[Order]):
    """Two things that people do, one after the other."""

    name = "judged"
    by_hand = manual()
    check = pause(output="check")
    review = approval(output="review")
    pay = step(lambda review: {"paid_by": review["actor"]})
    file = log("filed")
    transitions = (path(check, review, pay), review.on_error(file), path(file))


class Bare(Workflow[Order]):
    """Manual steps that leave nothing, of which the first one begins the run."""

    name = "bare"
    by_hand = manual()
    hold = pause()
    review = approval()
    transitions = (path(hold, review), review.on_error(Workflow.complete))


def people() -> Play:
    async def script(stage: Stage) -> None:
        mesh = stage.mesh
        said: dict[str, Any] = {"comment": "as agreed", "metadata": {"ticket": [7, None]}}
        ada: Mapping[str, object] = {"name": "ada", "roles": ["boss"]}
        yes, no = await mesh.start_run(Judged), await mesh.start_run(Judged)
        bare, plain = await mesh.start_run(Bare), await mesh.start_run(Bare)
        await stage.work()
        stage.clock.advance(MINUTE)
        for run in (yes, no, bare, plain):
            for _ in range(2):
                await mesh.resume_run(run.id, actor=ada, idempotency_key="go on", **said)
        await stage.work()
        stage.clock.advance(MINUTE)
        for _ in range(2):
            await mesh.approve_run(yes.id, actor="bob", idempotency_key="yes", **said)
            await mesh.reject_run(no.id, actor=ada, idempotency_key="no", **said)
        await mesh.approve_run(bare.id, actor="bob")
        await mesh.reject_run(plain.id, actor="bob")
        await stage.work()

    return Play(workflows=(Judged, Bare), script=script)


def cancels() -> Play:
    gate = Gate()

    async def hold(context: StepContext) -> dict[str, bool]:
        before = context.cancelled
        await gate.wait()
        return {"before": before, "behind": context.cancelled}

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        held = step(hold)
        timer = wait(MINUTE)
        both = log("never", after=(held, timer))

    class Retrying(Workflow[Order]):
        name = "retrying"
        by_hand = manual()
        again = step(fail, retry=Retry(3, backoff_min=MINUTE, jitter=1.0))

    async def script(stage: Stage) -> None:
        mesh = stage.mesh
        for workflow in (Held, Retrying, Judged):
            run = await mesh.start_run(workflow)
            if workflow is not Held:
                await stage.work()
            stage.clock.advance(SECOND)
            for _ in range(2):
                await mesh.cancel_run(run.id, actor="ada", reason="late", idempotency_key="stop")
        held = await mesh.start_run(Held)
        async with at_work(mesh, gate):
            await mesh.cancel_run(held.id, actor={"id": 7}, reason="why not")
        gate.opened.clear()
        lost = await mesh.start_run(Held)
        gate.entered.clear()
        await die_at(mesh, gate)
        await mesh.cancel_run(lost.id)
        stage.clock.advance(LEASE)
        await mesh.recover()

    return Play(workflows=(Held, Retrying, Judged), script=script)


def joins() -> Play:
    told, gate, begun = Told(), Gate(), asyncio.Event()

    async def go_first() -> dict[str, object]:
        await begun.wait()
        return {"x": 1, "y": {"z": [1]}}

    async def go_second() -> str:
        begun.set()
        await told.of("step.completed", "left")
        return "second"

    async def go_third() -> None:
        await told.of("step.completed", "both")

    class Feast(Workflow[Order]):
        """A join of a join and a timer; meanwhile something goes on that nobody waits for."""

        name = "feast"
        by_hand = manual()
        left = step(go_first)
        right = step(go_second, output="right")
        rest = wait(MINUTE)
        both = step(lambda x, right: {"both": [x, right]}, after=(left, right))
        all_of = step(lambda both: {"x": len(both)}, after=(both, rest), irreversible=True)
        alone = step(go_third, after=left)

    async def go_wrong() -> Errored:
        await told.of("step.retry_scheduled", "again")
        return Errored("no", code="wrong")

    async def fly() -> dict[str, str]:
        await gate.wait()
        return {"done": "all the same"}

    class Siblings(Workflow[Order]):
        """One fails while others wait for another attempt, for their time, or are in flight."""

        name = "siblings"
        by_hand = manual()
        ready = step(lambda: {"ready": True}, compensate=lambda ready, output: None)
        wrong = step(go_wrong, after=ready)
        again = step(fail, retry=Retry(3, backoff_min=MINUTE), after=ready)
        flying = step(fly, compensate=lambda output, failure: None, after=ready)
        timer = wait(MINUTE, after=ready)
        join = log("never", after=(wrong, again, flying, timer))

    async def script(stage: Stage) -> None:
        await stage.mesh.start_run(Feast)
        await stage.work()
        await stage.pass_time(MINUTE)
        await stage.mesh.start_run(Siblings)
        async with at_work(stage.mesh, gate):
            await told.of("step.failed", "wrong")

    return Play(workflows=(Feast, Siblings), script=script, told=told)


def undoing() -> Play:
    stuck = Gate()

    async def stick(context: StepContext, output: object, failure: Mapping[str, Any]) -> None:
        if context.attempt == 1:
            await stuck.wait()

    def tell(output: object, number: str, failure: Mapping[str, Any], context: StepContext) -> str:
        return f"{output} {number} {failure['code']} {context.step} {context.idempotency_key}"

    class Trip(Workflow[Order]):
        name = "trip"
        by_hand = manual()
        flight = step(lambda: {"seat": 7}, output="flight", compensate=tell)
        hotel = step(lambda: "Ritz", output="hotel", compensate=stick)
        car = step(
            lambda: {"car": "red"},
            compensate=compensation(fail, retry=Retry(2, backoff_min=SECOND, jitter=0.25)),
        )
        meal = step(
            lambda: None,
            compensate=compensation(Moody(TimeoutError(), Errored("eaten", code="eaten"), None)),
        )
        bell = log("ring")
        visa = step(lambda: Errored("no visa", code="refused", details={"by": "consul"}))
        transitions = path(flight, hotel, car, meal, bell, visa)

    async def script(stage: Stage) -> None:
        await stage.mesh.start_run(Trip, Order(number="t1"))
        await stage.work()
        stage.clock.advance(SECOND)
        await stage.work()
        stage.clock.advance(SECOND * 2)
        await stage.lose(stuck)
        await stage.work()

    return Play(workflows=(Trip,), script=script)


def replays() -> Play:
    class Sent(Workflow[Order]):
        name = "sent"
        by_hand = manual()
        write = step(lambda number: f"dear {number}", output="text", compensate=fail)
        stamp = step(lambda: {"stamps": {"red": 1}})
        send = step(lambda text, stamps: {"sent": text, "stamps": {}}, irreversible=True)
        post = step(lambda: None, compensatable=False)
        check = step(Moody(None, None, None, Errored("no", code="late")))
        transitions = path(write, stamp, send, post, check)

    async def script(stage: Stage) -> None:
        mesh = stage.mesh
        run = await mesh.start_run(Sent, Order(number="o7"), tags={"a": "b"}, priority=-1)
        await stage.work()
        stage.clock.advance(MINUTE)
        for _ in range(2):
            await mesh.replay_run(
                run.id, allow_irreversible=True, actor="ada", comment="again", idempotency_key="r"
            )
        await stage.work()
        later = await mesh.replay_run(run.id, from_step="check", actor={"id": 1})
        await stage.work()
        await mesh.replay_run(later.id, from_step="send", allow_irreversible=True)
        await stage.work()

    return Play(workflows=(Sent,), script=script)


@attrs.frozen
class Digest:
    """What a clock can start: every field has a default."""

    topic: str = "squids"


class Daily(Workflow[Digest]):
    """Clocks of every kind, and a replay that keeps what they said."""

    name = "daily"
    by_hand = manual()
    plain = cron("0 9 * * 1-5", timezone="Europe/Lisbon")
    once = cron("*/5 * * * *", idempotency="return_existing_run")
    skipping = cron("0 0 1 * *", idempotency="skip_duplicate")
    write = step(lambda topic, context: {"digest": [topic, context.trigger, context.schedule]})


def clocks() -> Play:
    async def script(stage: Stage) -> None:
        window = {"start_at": "2030-01-01T09:00:00Z", "end_at": "2030-01-01T10:00:00Z"}
        ticks: list[dict[str, Any]] = [
            {"trigger": "plain"},
            {"trigger": "plain", "signal_id": "s1", "stranger": [1]},
            {"trigger": "once", "signal_id": "s1"},
            {"trigger": "once", "intended_window": window},
            {"trigger": "skipping", "intended_window": window},
        ]
        for again in ("started", "skipped"):
            stage.clock.advance(SECOND)
            for tick in ticks:
                report = await stage.runner.perform({"kind": "cron", "workflow": "daily", **tick})
                assert report.status == ("started" if tick["trigger"] == "plain" else again)
        await stage.work()
        source = (await stage.mesh.list_runs(limit=9)).runs[-3]
        await stage.mesh.replay_run(source.id)
        await stage.work()

    return Play(workflows=(Daily,), script=script)


def deliveries() -> Play:
    class Delivered(Workflow[Order]):
        """What an executor has to be told of: steps, retries, timers, joins and undoing."""

        name = "delivered"
        by_hand = manual()
        load = step(lambda number: {"id": number}, output="invoice", compensate=lambda: None)
        ask = step(
            Moody(TimeoutError(), "yes"), output="verdict", retry=Retry(2, backoff_min=SECOND)
        )
        rest = wait(SECOND * 5)
        review = approval()
        pay = step(lambda: Errored("no funds", code="funds"), queue="money")
        transitions = (path(load, ask, rest, review, pay), review.on_error(Workflow.complete))

    class Wide(Workflow[Order]):
        name = "wide"
        by_hand = manual()
        left = step(lambda: {"left": 1})
        right = step(lambda: {"right": 2})
        both = step(lambda left, right: {"sum": left + right}, after=(left, right))

    async def script(stage: Stage) -> None:
        mesh = stage.mesh
        run = await mesh.start_run(Delivered)
        first: dict[str, Any] = {"kind": "step", "run_id": run.id, "step": "load", "attempt": 1}
        assert await stage.deliver() == ["load 1", "ask 1"]
        for payload, reason in (
            (first, "stale_attempt"),
            ({**first, "step": "ask", "attempt": 2}, "not_yet_visible"),
            ({**first, "step": "pay"}, "not_scheduled"),
        ):
            assert (await stage.runner.perform(payload)).reason == reason
        stage.clock.advance(SECOND)
        assert await stage.deliver() == ["ask 2"]
        stage.clock.advance(SECOND * 5)
        assert await stage.deliver() == ["rest 1"]
        await mesh.approve_run(run.id, actor="ada")
        assert await stage.deliver() == ["pay 1", "compensate:load 1"]
        assert (await stage.runner.perform(first)).reason == "run_over"
        await mesh.start_run(Wide)
        assert await stage.deliver() == ["left 1", "right 1", "both 1"]

    return Play(workflows=(Delivered, Wide), script=script)


def on_a_connection() -> Play:
    """Commands on the host's connection, or without one on a store that has none."""

    async def script(stage: Stage) -> None:
        mesh, on = stage.mesh, stage.host
        await stage.roll_back(
            lambda: mesh.start_run(Judged, connection=on),
            lambda: mesh.start_runs(Judged, [None, None], connection=on),
        )
        first = await mesh.start_run(Judged, idempotency_key="k", connection=on)
        _, third = await mesh.start_runs(Judged, [None, {"number": "o3"}], connection=on)
        await stage.commit()
        await stage.work()
        await stage.roll_back(
            lambda: mesh.resume_run(first.id, connection=on),
            lambda: mesh.cancel_run(third, connection=on),
        )
        await mesh.resume_run(first.id, connection=on, comment="go on", actor="ada")
        await mesh.resume_run(third, connection=on, metadata={"a": 1})
        await stage.commit()
        await stage.work()
        await mesh.approve_run(first.id, actor="bob", idempotency_key="y", connection=on)
        await mesh.approve_run(first.id, actor="bob", idempotency_key="y", connection=on)
        await mesh.reject_run(third, actor="bob", connection=on)
        fresh = await mesh.start_run(Judged, connection=on)
        await mesh.cancel_run(fresh.id, reason="a slip", connection=on)
        await mesh.replay_run(fresh.id, actor="ada", connection=on)
        await stage.commit()
        await stage.work()

    return Play(workflows=(Judged,), script=script)


def in_transactions() -> Play:
    """Steps that share the transaction of their completion, on stores that have such a thing."""

    async def see(context: StepContext) -> dict[str, object]:
        await context.connection.execute("select 1")
        return {"looked": context.attempt}

    moody = Moody(Deferred(SECOND), ConnectionError("away"), Errored("no", code="no"))

    def feel(context: StepContext) -> object:
        context.connection.execute("select 1")
        return moody()

    class Sharing(Workflow[Order]):
        name = "sharing"
        by_hand = manual()
        look = step(see, transaction=True, compensate=lambda looked: None)
        mood = step(feel, transaction=True, retry=Retry(3, backoff_min=SECOND, jitter=0.5))
        transitions = path(look, mood)

    async def script(stage: Stage) -> None:
        await stage.mesh.start_run(Sharing)
        await stage.work()
        for _ in range(2):
            await stage.pass_time(SECOND * 2)

    return Play(workflows=(Sharing,), script=script)


SCRIPTS = (
    routes,
    bulk,
    tries,
    losses,
    late_reports,
    people,
    cancels,
    joins,
    undoing,
    replays,
    clocks,
    deliveries,
    on_a_connection,
)
"""What can be played on every store."""
