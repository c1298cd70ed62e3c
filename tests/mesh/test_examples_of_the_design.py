"""The three workflows that the design shows, word for word, with bodies that stand in."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import attrs
import pytest

from squidmesh import (
    Errored,
    Retry,
    Runner,
    SquidMesh,
    StepContext,
    UnsafeReplayError,
    Workflow,
    approval,
    cron,
    manual,
    path,
    step,
    wait,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    OpenMesh,
    audit_types,
    context_of,
    error_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio

# fmt: off

@attrs.frozen(kw_only=True)
class Recovery:                                   # a payload: attrs class, dataclass or TypedDict
    account_id: str
    invoice_id: str
    gateway_url: str = "https://gateway.example"
    opened_on: date = attrs.field(factory=date.today)

# fmt: on


@attrs.frozen(kw_only=True)
class Invoice:
    id: str
    total: int


@attrs.frozen(kw_only=True)
class Digest:
    day: date = date(2026, 11, 23)


@attrs.frozen(kw_only=True)
class Speech:
    words: str = "For Frodo."


class Effects:
    """What the bodies did, and what the gateway answers; set anew for every test."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.answers: list[Any] = []


effects = Effects()


@pytest.fixture(autouse=True)
def fresh_effects() -> Effects:
    effects.__init__()  # type: ignore[misc]
    return effects


async def load_invoice(invoice_id: str) -> Invoice:
    return Invoice(id=invoice_id, total=120)


async def ask_gateway(invoice: Invoice, gateway_url: str) -> Any:
    effects.done.append(f"asked {gateway_url} for {invoice.id}")
    answer = effects.answers.pop(0) if effects.answers else "settled"
    if isinstance(answer, Exception):
        raise answer
    return answer


async def issue_credit(account_id: str, invoice: Invoice) -> dict[str, Any]:
    effects.done.append(f"credited {account_id}")
    return {"credit_id": "c1", "amount": invoice.total}


async def withdraw_credit(output: dict[str, Any]) -> None:
    effects.done.append(f"withdrew {output['credit_id']}")


def tell_customer(account_id: str, verdict: str, context: StepContext) -> None:
    effects.done.append(f"told {account_id} {verdict} {context.idempotency_key}")


def page_somebody(invoice_id: str) -> None:
    effects.done.append(f"paged about {invoice_id}")


async def fetch_feed(day: date) -> list[str]:
    return [day.isoformat()]


def post_digest(feed: list[str]) -> None:
    effects.done.append(f"posted {feed[0]}")


def march_to_gate(words: str) -> None:
    effects.done.append(f"marched {words}")


def sneak_up() -> None:
    effects.done.append("sneaked")


def declare_victory() -> None:
    effects.done.append("won")


# fmt: off

class PaymentRecovery(Workflow[Recovery]):
    """Chase one failed payment until it settles or a person decides."""
    name = "payment_recovery"                     # optional; default is module and qualified name
    version = "2026-11"                           # optional label

    by_hand = manual()

    load = step(load_invoice, output="invoice")
    settle = wait(timedelta(seconds=5))
    ask = step(ask_gateway, output="verdict", retry=Retry(5, backoff_min=timedelta(seconds=1), backoff_max=timedelta(seconds=30)))  # noqa: E501
    review = approval(output="review")
    credit = step(issue_credit, output="credit", compensate=withdraw_credit)
    tell = step(tell_customer, irreversible=True)
    page = step(page_somebody)

    transitions = (
        path(load, settle, ask, review, credit, tell),          # on ok, one after the other, then the end  # noqa: E501
        path(page),
        ask.on_error(page, recovery="compensation"),
        review.on_error(page),
    )

class DailyDigest(Workflow[Digest]):              # every field of Digest has a default, so that a clock can start it  # noqa: E501
    every_morning = cron("0 9 * * 1-5", timezone="Europe/Lisbon", idempotency="return_existing_run")
    fetch = step(fetch_feed, output="feed")
    post = step(post_digest)
    transitions = path(fetch, post)

class FinalDistraction(Workflow[Speech]):         # dependency mode: no transitions, `after=` joins
    begin = manual()
    march = step(march_to_gate)
    sneak = step(sneak_up)
    feast = step(declare_victory, after=(march, sneak), irreversible=True)

# fmt: on


async def begun(mesh: SquidMesh, clock: VirtualClock) -> str:
    """A payment recovery that has asked its gateway once."""
    run = await mesh.start_run(PaymentRecovery, Recovery(account_id="a1", invoice_id="i7"))
    await mesh.run_until_idle()
    clock.advance(5)
    await mesh.run_until_idle()
    return run.id


async def test_a_payment_recovery_that_settles(open_mesh: OpenMesh, clock: VirtualClock) -> None:
    mesh = await open_mesh(PaymentRecovery)
    run_id = await begun(mesh, clock)
    waiting = await mesh.inspect_run(run_id)

    await mesh.approve_run(run_id, actor="ada")
    await mesh.run_until_idle()

    done = await history(mesh, run_id)
    assert waiting.status == "paused"
    assert done.status == "completed"
    assert effects.done == [
        "asked https://gateway.example for i7",
        "credited a1",
        f"told a1 settled {run_id}:tell",
    ]
    assert step_statuses(done)["page"] == "skipped"
    assert sorted(context_of(done)) == ["credit", "invoice", "review", "verdict"]
    with pytest.raises(UnsafeReplayError) as refused:
        await mesh.replay_run(run_id)
    assert refused.value.steps == ("tell",)


async def test_a_payment_recovery_whose_gateway_stays_away(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(PaymentRecovery)
    effects.answers = [ConnectionError("503")] * 5
    run_id = await begun(mesh, clock)
    for seconds in (1, 2, 4, 8):
        clock.advance(seconds)
        await mesh.run_until_idle()

    done = await history(mesh, run_id)
    assert done.status == "completed"
    assert effects.done[-1] == "paged about i7"
    assert len(step_of(done, "ask").attempts) == 5
    assert audit_types(done) == ["compensation_routed"]


async def test_a_payment_recovery_that_a_person_refuses(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(PaymentRecovery)
    run_id = await begun(mesh, clock)

    await mesh.reject_run(run_id, actor="ada", comment="not ours")
    await mesh.run_until_idle()

    assert effects.done[-1] == "paged about i7"
    assert (await mesh.inspect_run(run_id)).status == "completed"


async def test_a_payment_recovery_that_fails_behind_the_credit_takes_it_back(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(PaymentRecovery)
    effects.answers = [{"not": "a text"}]
    run_id = await begun(mesh, clock)

    await mesh.approve_run(run_id, actor="ada")
    await mesh.run_until_idle()

    failed = await history(mesh, run_id)
    assert failed.status == "failed"
    assert (error_of(failed)["code"], error_of(failed)["step"]) == ("invalid_input", "tell")
    assert effects.done[-1] == "withdrew c1"


async def test_a_payment_recovery_that_the_gateway_declines_is_not_asked_again(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(PaymentRecovery)
    effects.answers = [Errored("card declined", details={"network": "visa"})]
    run_id = await begun(mesh, clock)

    done = await history(mesh, run_id)
    assert len(step_of(done, "ask").attempts) == 1
    assert effects.done[-1] == "paged about i7"


async def test_a_daily_digest_is_started_by_its_clock_once_a_window(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(DailyDigest)
    activation: dict[str, Any] = {
        "kind": "cron",
        "workflow": DailyDigest.definition.name,
        "trigger": "every_morning",
        "signal_id": "monday",
    }

    reports = [await Runner(mesh).perform(activation) for _ in range(2)]
    await mesh.run_until_idle()

    assert [report.status for report in reports] == ["started", "skipped"]
    assert effects.done == ["posted 2026-11-23"]
    assert DailyDigest.definition.name == f"{__name__}.DailyDigest"


async def test_a_final_distraction_feasts_when_both_are_done(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(FinalDistraction)
    run = await mesh.start_run(FinalDistraction)
    await mesh.run_until_idle()

    assert (await mesh.inspect_run(run.id)).status == "completed"
    assert sorted(effects.done[:2]) == ["marched For Frodo.", "sneaked"]
    assert effects.done[2] == "won"
    with pytest.raises(UnsafeReplayError):
        await mesh.replay_run(run.id)


async def test_the_first_lines_of_the_design_run_as_they_stand(url: str) -> None:
    today = datetime.now(UTC).date()

    async with SquidMesh.open(url, workflows=[PaymentRecovery]) as mesh:
        run = await mesh.start_run(PaymentRecovery, Recovery(account_id="a1", invoice_id="i7"))

    assert run.status == "pending"
    assert abs((run.payload_as(Recovery).opened_on - today).days) <= 1
