"""The example application: every way through its workflow, its gateway, its audit and its demo."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from examples.payment_recovery import demo
from examples.payment_recovery.audit import Audit, Record, audit
from examples.payment_recovery.demo import Stage
from examples.payment_recovery.gateway import Gateway, Mood, Order, Trouble, seeded
from examples.payment_recovery.host import start_recoveries
from examples.payment_recovery.report import as_json, graph_lines, show
from examples.payment_recovery.screen import Plain
from examples.payment_recovery.workflow import (
    LARGE,
    Invoice,
    PaymentRecovery,
    Recovery,
    read_invoices,
)
from squidmesh import Run, SquidMesh
from squidmesh.testing.clock import VirtualClock

GOOD: Mapping[tuple[str, int], Trouble] = {}
MORE_THAN_ENOUGH = 20


def scripted(troubles: Mapping[tuple[str, int], Trouble]) -> Mood:
    """A mood by kind and number of the request; there is no trouble where nothing is said."""

    def mood(kind: str, _order: Order, nth: int) -> Trouble:
        return troubles.get((kind, nth), Trouble.NONE)

    return mood


def always(trouble: Trouble) -> Mood:
    """A mood that never changes."""
    return lambda _kind, _order, _nth: trouble


def an_invoice(card: str, *, large: bool = False) -> Invoice:
    """The first invoice in the books that is to be paid with such a card."""
    return next(
        invoice
        for invoice in read_invoices().values()
        if invoice.card == card and (invoice.cents > LARGE) is large
    )


@attrs.frozen(kw_only=True)
class World:
    """A mesh on virtual time, and a gateway to talk to."""

    mesh: SquidMesh
    clock: VirtualClock
    gateway: Gateway

    async def start(self, invoice: Invoice) -> str:
        """Start the recovery of an invoice."""
        payload = Recovery(
            account_id=invoice.account_id,
            invoice_id=invoice.invoice_id,
            gateway_url=self.gateway.url,
        )
        return (await self.mesh.start_run(PaymentRecovery, payload)).id

    async def play(self, run_id: str) -> Run:
        """Let time pass until the run has ended, or waits for a person."""
        for _ in range(MORE_THAN_ENOUGH):
            await self.mesh.run_until_idle(timeout=timedelta(seconds=30))
            run = await self.mesh.inspect_run(run_id, include_history=True)
            if run.status in ("completed", "failed", "paused"):
                return run
            self.clock.advance(timedelta(seconds=5))
        raise AssertionError("the run has not ended")

    async def recover(self, invoice: Invoice) -> Run:
        """Start the recovery of an invoice, and play it."""
        return await self.play(await self.start(invoice))

    @property
    def records(self) -> list[dict[str, Any]]:
        """What the gateway knows of each key."""
        keys: list[dict[str, Any]] = self.gateway.ledger.to_dict()["keys"]
        return keys

    @property
    def effects(self) -> dict[str, int]:
        """How often the gateway did what."""
        done = Counter[str]()
        for record in self.records:
            done[record["kind"]] += record["effects"]
        return {kind: times for kind, times in done.items() if times}


Make = Callable[[Mood], World]


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Callable[[Mood], Gateway]]:
    running: list[Gateway] = []

    def start(mood: Mood) -> Gateway:
        gateway = Gateway(tmp_path / "effects.jsonl", mood).__enter__()
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        gateway.__exit__(None, None, None)


@pytest.fixture
async def world(gateways: Callable[[Mood], Gateway]) -> AsyncIterator[Make]:
    clock = VirtualClock()
    async with SquidMesh.open("memory://", workflows=[PaymentRecovery], clock=clock) as mesh:
        yield lambda mood: World(mesh=mesh, clock=clock, gateway=gateways(mood))


def ways(run: Run) -> list[str]:
    """The steps that were tried, in order, each once."""
    return list(dict.fromkeys(attempt.step for attempt in run.attempts or ()))


def step_of(run: Run, name: str) -> Any:
    return next(step for step in run.steps or () if step.name == name)


@pytest.mark.anyio
class TestTheWorkflow:
    async def test_a_card_that_pays_is_charged_once_and_receipted_once(self, world: Make) -> None:
        there = world(scripted(GOOD))

        run = await there.recover(an_invoice("tok_ok"))

        assert run.status == "completed"
        assert ways(run) == ["load", "settle", "ask", "tell"]
        assert there.effects == {"charge": 1, "receipt": 1}

    async def test_a_charge_whose_answer_was_lost_is_asked_for_again_and_not_repeated(
        self, world: Make
    ) -> None:
        there = world(scripted({("charge", 1): Trouble.DROP}))

        run = await there.recover(an_invoice("tok_ok"))

        (charge,) = (record for record in there.records if record["kind"] == "charge")
        assert run.status == "completed"
        assert (charge["requests"], charge["effects"]) == (2, 1)
        assert [attempt.status for attempt in step_of(run, "ask").attempts] == [
            "failed",
            "completed",
        ]

    async def test_a_busy_gateway_is_asked_again_when_it_said(self, world: Make) -> None:
        there = world(scripted({("charge", 1): Trouble.BUSY}))

        run = await there.recover(an_invoice("tok_ok"))

        first, second = step_of(run, "ask").attempts
        assert first.error["code"] == "gateway_busy"
        assert second.visible_at - first.ended_at == timedelta(seconds=1)

    async def test_a_gateway_that_never_works_is_asked_six_times_and_left_to_a_person(
        self, world: Make
    ) -> None:
        there = world(always(Trouble.FAIL))

        run = await there.recover(an_invoice("tok_ok"))

        assert run.status == "completed"
        assert ways(run) == ["load", "settle", "ask", "page"]
        assert [attempt.status for attempt in step_of(run, "ask").attempts] == ["failed"] * 6
        assert there.effects == {}

    async def test_a_small_refused_invoice_gets_a_credit_and_pays_the_rest(
        self, world: Make
    ) -> None:
        there, invoice = world(scripted(GOOD)), an_invoice("tok_insufficient_funds")

        run = await there.recover(invoice)

        credit = step_of(run, "credit").output["cents"]
        charged = sum(one["cents"] for one in there.records if one["kind"] == "charge")
        assert run.status == "completed"
        assert credit == invoice.cents // 5
        assert charged == invoice.cents + (invoice.cents - credit)  # the first one was refused
        assert there.effects == {"charge": 1, "credit": 1, "receipt": 1}

    async def test_a_large_refused_invoice_waits_for_a_person_who_says_how_much(
        self, world: Make
    ) -> None:
        there, invoice = world(scripted(GOOD)), an_invoice("tok_insufficient_funds", large=True)
        waiting = await there.recover(invoice)
        explanation = await there.mesh.explain_run(waiting.id)

        await there.mesh.approve_run(waiting.id, actor="ana", metadata={"percent": 30})
        run = await there.play(waiting.id)

        assert explanation.reason == "paused_for_approval"
        assert run.status == "completed"
        assert step_of(run, "credit").output["cents"] == invoice.cents * 30 // 100

    async def test_a_rejected_credit_is_left_to_a_person_and_not_granted(self, world: Make) -> None:
        there = world(scripted(GOOD))
        waiting = await there.recover(an_invoice("tok_suspected_fraud"))

        await there.mesh.reject_run(waiting.id, actor="ana", comment="call them first")
        run = await there.play(waiting.id)

        assert run.status == "completed"
        assert ways(run)[-1] == "page"
        assert there.effects == {}

    async def test_a_card_that_refuses_for_good_has_its_credit_withdrawn(self, world: Make) -> None:
        there = world(scripted({("withdrawal", 1): Trouble.BUSY, ("withdrawal", 2): Trouble.DROP}))

        run = await there.recover(an_invoice("tok_closed"))

        (withdrawal,) = (one for one in there.records if one["kind"] == "withdrawal")
        assert run.status == "failed"
        assert run.error is not None
        assert run.error["code"] == "card_refused"
        assert there.effects == {"credit": 1, "withdrawal": 1}
        assert withdrawal["key"] == f"{run.id}:compensate:credit"
        assert withdrawal["requests"] == 3

    async def test_an_invoice_of_somebody_else_is_not_asked_for(self, world: Make) -> None:
        there = world(scripted(GOOD))

        run = await there.recover(attrs.evolve(an_invoice("tok_ok"), account_id="acct_1"))

        assert run.error is not None
        assert run.error["code"] == "unknown_invoice"
        assert there.records == []

    async def test_starting_the_books_twice_starts_each_invoice_once(self, world: Make) -> None:
        there = world(scripted(GOOD))

        first = await start_recoveries(there.mesh, there.gateway.url, limit=12)
        second = await start_recoveries(there.mesh, there.gateway.url, limit=12)

        assert len(set(first)) == 12
        assert second == first


class TestTheGateway:
    def test_it_does_once_what_it_is_asked_for_twice_under_one_key(
        self, gateways: Callable[[Mood], Gateway]
    ) -> None:
        gateway = gateways(always(Trouble.NONE))
        order = {"invoice": "i7", "cents": 100}

        with httpx.Client(base_url=gateway.url, trust_env=False) as client:
            key = {"Idempotency-Key": "k1"}
            said = [client.post("/credits", json=order, headers=key).json() for _ in range(2)]
            (record,) = client.get("/effects").json()["keys"]

        assert said[0] == said[1]
        assert (record["requests"], record["effects"]) == (2, 1)
        assert len(gateway.ledger.path.read_text(encoding="utf-8").splitlines()) == 1

    def test_it_takes_no_order_without_a_key(self, gateways: Callable[[Mood], Gateway]) -> None:
        gateway = gateways(always(Trouble.NONE))

        with httpx.Client(base_url=gateway.url, trust_env=False) as client:
            answer = client.post("/credits", json={"invoice": "i7", "cents": 100})

        assert answer.status_code == 400
        assert gateway.ledger.records == {}

    def test_its_moods_follow_from_the_seed_alone_and_do_not_last(self) -> None:
        orders = [{"invoice": f"i{number}", "cents": 100} for number in range(300)]

        moods = [
            [seeded(seed)("charge", order, nth) for order in orders for nth in (1, 2, 4)]
            for seed in (7, 7, 8)
        ]

        assert moods[0] == moods[1]
        assert moods[0] != moods[2]
        assert set(moods[0]) == set(Trouble)
        assert set(moods[0][2::3]) == {Trouble.NONE}


@pytest.mark.anyio
class TestTheAudit:
    async def test_it_finds_nothing_wrong_with_what_went_right(self, world: Make) -> None:
        there = world(scripted({("charge", 1): Trouble.DROP}))
        run = await there.recover(an_invoice("tok_closed"))

        found = audit([run], there.records, killed_at=None)

        assert found.is_clean
        assert [dict(one.causes) for one in found.repetitions] == [{"retry": 1}, {"retry": 1}]

    @pytest.mark.parametrize(
        ("spoil", "promise"),
        [
            (lambda charge: {}, "nothing is lost"),
            (lambda charge: charge | {"key": "nobody's"}, "nothing is forgotten"),
            (lambda charge: charge | {"effects": 2}, "under no key was anything done twice"),
            (lambda charge: charge | {"requests": 3}, "is explained"),
        ],
    )
    async def test_it_finds_what_went_wrong(
        self, world: Make, spoil: Callable[[Record], Record], promise: str
    ) -> None:
        there = world(scripted(GOOD))
        run = await there.recover(an_invoice("tok_ok"))
        spoilt = [spoil(one) if one["kind"] == "charge" else one for one in there.records]

        found = audit([run], [record for record in spoilt if record], killed_at=None)

        assert any(promise in failed for failed in broken(found))
        assert not found.is_clean

    async def test_it_finds_an_invoice_that_was_charged_under_two_keys(self, world: Make) -> None:
        there = world(scripted(GOOD))
        run = await there.recover(an_invoice("tok_ok"))
        again = [one | {"key": "another"} for one in there.records if one["kind"] == "charge"]

        found = audit([run], [*there.records, *again], killed_at=None)

        assert "no invoice was charged, credited or receipted twice" in broken(found)

    async def test_it_finds_a_run_that_has_not_ended(self, world: Make) -> None:
        there = world(scripted(GOOD))
        run = await there.recover(an_invoice("tok_suspected_fraud"))

        found = audit([run], there.records, killed_at=None)

        assert broken(found) == ["every run has ended"]


def broken(found: Audit) -> list[str]:
    """The promises that do not hold."""
    return [check.promise for check in found.checks if not check.holds]


@pytest.mark.slow
def test_the_demo_survives_its_kill_and_says_what_happened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(screen=Plain(), directory=tmp_path, seed=7, invoices=40)

    report = asyncio.run(stage.perform())
    show(report, Plain())

    said, document = capsys.readouterr().out, json.loads(json.dumps(as_json(report)))
    assert report.audit.is_clean, broken(report.audit)
    assert document["ok"] is True
    assert sum(document["runs"].values()) == 40
    assert len(document["workers"]) == 2
    assert document["kill"]["pid"] == document["workers"][0]
    assert document["run"]["explanation"]["reason"] == "paused_for_approval"
    assert "Worker 1 was killed with SIGKILL" in said
    assert "Nothing was lost, and nothing was done twice." in said
    assert "  ==> settle" in [row[0] for row in graph_lines(report.graph)]


def test_the_demo_does_not_write_over_an_earlier_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.db").touch()

    status = demo.main(directory=tmp_path)

    assert status == 2
    assert "holds an earlier demo" in capsys.readouterr().err
