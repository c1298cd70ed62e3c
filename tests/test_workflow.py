"""Authoring: what a class body, or a dictionary in its place, comes to."""

import enum
import functools
import os
import subprocess
import sys
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Generic, TypeVar

import attrs

from squidmesh.context import StepContext
from squidmesh.domain.definition import (
    COMPENSATION_RETRY,
    Action,
    Condition,
    CronIdempotency,
    CronTrigger,
    ManualTrigger,
    On,
    Operator,
    RecoveryMarker,
    Transition,
    Wait,
)
from squidmesh.workflow import (
    Retry,
    RetryPolicy,
    Workflow,
    approval,
    compensation,
    cron,
    log,
    manual,
    path,
    step,
    wait,
    when,
)


@attrs.frozen(kw_only=True)
class Invoice:
    id: str
    total: Decimal


@attrs.frozen(kw_only=True)
class Credit:
    id: str


@attrs.frozen(kw_only=True)
class Recovery:  # a payload: attrs class, dataclass or TypedDict
    account_id: str
    invoice_id: str
    gateway_url: str = "https://gateway.example"
    opened_on: date = attrs.field(factory=date.today)


@attrs.frozen(kw_only=True)
class Digest:
    day: date = attrs.field(factory=date.today)


@attrs.frozen(kw_only=True)
class Speech:
    words: str = "friends"


async def load_invoice(invoice_id: str) -> Invoice: ...  # type: ignore[empty-body]
async def ask_gateway(invoice: Invoice, gateway_url: str) -> str: ...  # type: ignore[empty-body]
def tell_customer(account_id: str, verdict: str, context: StepContext) -> None: ...
async def issue_credit(account_id: str) -> Credit: ...  # type: ignore[empty-body]
async def withdraw_credit(output: Credit, account_id: str) -> None: ...
def page_somebody(account_id: str) -> None: ...
def fetch_feed(day: date) -> list[str]: ...  # type: ignore[empty-body]
def post_digest(feed: list[str]) -> None: ...
def march_to_gate(words: str) -> None: ...
def sneak_up() -> None: ...
def declare_victory() -> None: ...
def sneak_to(place: str, time: str) -> None: ...


def body() -> None: ...


class PaymentRecovery(Workflow[Recovery]):
    """Chase one failed payment until it settles or a person decides."""

    name = "payment_recovery"  # optional; default is module and qualified name
    version = "2026-11"  # optional label

    by_hand = manual()

    load = step(load_invoice, output="invoice")
    settle = wait(timedelta(seconds=5))
    ask = step(
        ask_gateway,
        output="verdict",
        retry=Retry(5, backoff_min=timedelta(seconds=1), backoff_max=timedelta(seconds=30)),
    )
    review = approval(output="review")
    credit = step(issue_credit, output="credit", compensate=withdraw_credit)
    tell = step(tell_customer, irreversible=True)
    page = step(page_somebody)

    transitions = (
        path(load, settle, ask, review, credit, tell),  # on ok, one after the other, then the end
        path(page),
        ask.on_error(page, recovery="compensation"),
        review.on_error(page),
    )


class DailyDigest(
    Workflow[Digest]
):  # every field of Digest has a default, so that a clock can start it
    every_morning = cron("0 9 * * 1-5", timezone="Europe/Lisbon", idempotency="return_existing_run")
    fetch = step(fetch_feed, output="feed")
    post = step(post_digest)
    transitions = path(fetch, post)


class FinalDistraction(Workflow[Speech]):  # dependency mode: no transitions, `after=` joins
    begin = manual()
    march = step(march_to_gate)
    sneak = step(sneak_up)
    feast = step(declare_victory, after=(march, sneak), irreversible=True)


class Side(enum.Enum):
    LEFT = "left"


P = TypeVar("P")
Q = TypeVar("Q")


def test_the_definition_tells_what_the_class_declares() -> None:
    definition = PaymentRecovery.definition

    assert (definition.name, definition.version) == ("payment_recovery", "2026-11")
    assert list(definition.by_name) == ["load", "settle", "ask", "review", "credit", "tell", "page"]
    assert definition.by_name["settle"].kind == Wait(timedelta(seconds=5))
    assert definition.by_name["ask"].retry == RetryPolicy(
        max_attempts=5, backoff_min=timedelta(seconds=1), backoff_max=timedelta(seconds=30)
    )
    assert definition.by_name["tell"].blocks_replay
    assert definition.entry_steps == ("load",)


def test_a_path_is_a_chain_of_routes_that_ends_with_the_run() -> None:
    routes = [
        (one.source, one.on, one.target, one.recovery)
        for one in PaymentRecovery.definition.transitions
    ]

    assert routes == [
        ("load", On.OK, "settle", None),
        ("settle", On.OK, "ask", None),
        ("ask", On.OK, "review", None),
        ("review", On.OK, "credit", None),
        ("credit", On.OK, "tell", None),
        ("tell", On.OK, None, None),
        ("page", On.OK, None, None),
        ("ask", On.ERROR, "page", RecoveryMarker.COMPENSATION),
        ("review", On.ERROR, "page", None),
    ]


def test_functions_are_kept_by_the_visit_that_runs_them() -> None:
    bodies = PaymentRecovery.definition.bodies

    assert bodies["load"] is load_invoice
    assert bodies["compensate:credit"] is withdraw_credit
    assert "settle" not in bodies


def test_a_clock_may_start_a_workflow() -> None:
    (trigger,) = DailyDigest.definition.triggers

    assert isinstance(trigger, CronTrigger)
    assert (trigger.expression, trigger.timezone) == ("0 9 * * 1-5", "Europe/Lisbon")
    assert trigger.idempotency is CronIdempotency.RETURN_EXISTING_RUN
    assert DailyDigest.definition.payload_classes == {"every_morning": Digest}
    assert list(DailyDigest.definition.factories) == [f"{__name__}:Digest.day"]


def test_steps_without_transitions_wait_for_what_they_name() -> None:
    steps = FinalDistraction.definition.by_name

    assert steps["feast"].after == ("march", "sneak")
    assert not FinalDistraction.definition.follows_transitions
    assert FinalDistraction.definition.entry_steps == ("march", "sneak")


def test_a_workflow_goes_by_its_module_and_qualified_name_unless_it_says_otherwise() -> None:
    class Local(Workflow[None]):
        go = manual()
        a = step(body)

    assert DailyDigest.definition.name == f"{__name__}.DailyDigest"
    assert DailyDigest.name == DailyDigest.definition.name
    assert Local.name.endswith("<locals>.Local")


def test_a_subclass_does_not_inherit_the_name_of_a_workflow() -> None:
    class Other(PaymentRecovery): ...

    assert Other.name == f"{__name__}.{Other.__qualname__}"
    assert Other.definition.version == "2026-11"
    assert Other.definition.fingerprint != PaymentRecovery.definition.fingerprint


def test_a_workflow_needs_no_payload() -> None:
    class Bare(Workflow):  # type: ignore[type-arg]
        go = manual()
        a = step(body)

    assert Bare.definition.triggers[0].payload.fields == ()
    assert Bare.definition.payload_classes == {"go": None}


def test_each_trigger_may_have_a_payload_of_its_own_and_the_first_is_the_default() -> None:
    class Both(Workflow[Digest]):
        by_hand = manual(payload=Speech)
        nightly = cron("0 3 * * *")
        a = step(body)

    by_hand, nightly = Both.definition.triggers

    assert isinstance(by_hand, ManualTrigger)
    assert list(by_hand.payload.by_name) == ["words"]
    assert list(nightly.payload.by_name) == ["day"]


def test_an_abstract_base_is_not_judged_and_lends_what_it_declares() -> None:
    class Base(Workflow[P], Generic[P], abstract=True):
        go = manual()
        a = step(body)
        b = step(body)

    class Middle(Base[Q], Generic[Q], abstract=True): ...

    class Concrete(Middle[Digest]):
        b = step(march_to_gate, inputs={"words": "day"})
        c = step(body)
        transitions = path(Base.a, b, c)

    assert not hasattr(Base, "definition")
    assert list(Concrete.definition.by_name) == ["a", "b", "c"]
    assert Concrete.definition.bodies["b"] is march_to_gate
    assert list(Concrete.definition.triggers[0].payload.by_name) == ["day"]


def test_a_generic_base_without_its_payload_starts_with_nothing() -> None:
    class Base(Workflow[P], Generic[P], abstract=True):
        go = manual()

    class Concrete(Base):  # type: ignore[type-arg]
        a = step(body)

    assert Concrete.definition.triggers[0].payload.fields == ()


def test_the_payload_may_be_named_beside_a_base_that_names_none() -> None:
    class Base(Workflow, abstract=True):  # type: ignore[type-arg]
        go = manual()

    class Concrete(Base, Workflow[Digest]):
        a = step(body)

    assert list(Concrete.definition.triggers[0].payload.by_name) == ["day"]


def test_a_mixin_may_lend_steps() -> None:
    class Audited:
        audit = step(body)

    class Concrete(Audited, Workflow[Speech]):
        go = manual()
        a = step(body, after=Audited.audit)

    assert list(Concrete.definition.by_name) == ["audit", "a"]
    assert Concrete.definition.by_name["a"].after == ("audit",)


def test_routes_of_a_base_lead_to_the_steps_that_a_subclass_puts_in_their_place() -> None:
    class Base(Workflow[None], abstract=True):
        go = manual()
        a = step(body)
        b = step(body)
        transitions = path(a, b)

    class Concrete(Base):
        b = wait(timedelta(seconds=1))

    assert Concrete.definition.by_name["b"].kind == Wait(timedelta(seconds=1))
    assert Concrete.definition.transitions[0].target == "b"


def test_conditions_are_data() -> None:
    class Routed(Workflow[None]):
        go = manual()
        a = step(body)
        b = step(body)
        transitions = (
            a.on_ok(b, when=when("routing.decision", equals=Side.LEFT)),
            a.on_ok(b, when=when(("routing", "total"), greater_than=5)),
            a.on_ok(Workflow.complete, when=when("total", less_than=1.5)),
            a.on_error(b, when=when("total", equals=None)),
            path(b, Workflow.complete),
        )

    conditions = [one.condition for one in Routed.definition.transitions]

    assert conditions == [
        Condition(("routing", "decision"), Operator.EQUALS, "left"),
        Condition(("routing", "total"), Operator.GREATER_THAN, 5),
        Condition(("total",), Operator.LESS_THAN, 1.5),
        Condition(("total",), Operator.EQUALS, None),
        None,
    ]


def test_the_end_may_be_named_as_a_target() -> None:
    class Short(Workflow[None]):
        go = manual()
        a = step(body)
        transitions = a.on_ok(Workflow.complete)

    assert Short.definition.transitions == (Transition(source="a", on=On.OK, target=None),)


def test_paths_may_share_their_last_steps() -> None:
    class Joined(Workflow[None]):
        go = manual()
        a = step(body)
        b = step(body)
        c = step(body)
        d = step(body)
        transitions = (path(a, c, d), path(b, c, d), a.on_error(b))

    links = [(one.source, one.target) for one in Joined.definition.transitions]

    assert links == [("a", "c"), ("c", "d"), ("d", None), ("b", "c"), ("a", "b")]


def test_one_prerequisite_needs_no_tuple() -> None:
    class Errand(Workflow[None]):
        go = manual()
        a = step(body)
        b = step(body, after=a)
        c = log("done", level="debug", after=[a, b, a])

    assert Errand.definition.by_name["b"].after == ("a",)
    assert Errand.definition.by_name["c"].after == ("a", "b")


def test_inputs_dig_along_dots_or_keys() -> None:
    class Errand(Workflow[Speech]):
        go = manual()
        a = step(sneak_to, inputs={"place": "words.where", "time": ["words", "when.exactly"]})

    assert Errand.definition.by_name["a"].inputs == {
        "place": ("words", "where"),
        "time": ("words", "when.exactly"),
    }


def test_a_compensation_is_tried_three_times_unless_it_says_otherwise() -> None:
    class Errand(Workflow[None]):
        go = manual()
        a = step(body, compensate=body)
        b = step(body, compensate=compensation(body, Retry(9)))
        c = step(body, compensate=compensation(body, retry=Retry(2)))

    retries = [one.compensation.retry for one in Errand.definition.steps if one.compensation]

    assert retries == [COMPENSATION_RETRY, Retry(9), Retry(2)]


def test_a_step_is_compensatable_unless_it_is_irreversible_or_says_otherwise() -> None:
    class Errand(Workflow[None]):
        go = manual()
        a = step(body)
        b = step(body, irreversible=True)
        c = step(body, compensatable=False)

    assert [one.compensatable for one in Errand.definition.steps] == [True, False, False]


def test_the_same_function_may_be_the_body_of_several_steps() -> None:
    twice = functools.partial(march_to_gate, words="on")

    class Errand(Workflow[Speech]):
        go = manual()
        a = step(twice)
        b = step(march_to_gate)
        c = step(lambda: None)
        d = step(lambda words: words)

    definition = Errand.definition

    keys = [one.kind.body.key for one in definition.steps if isinstance(one.kind, Action)]
    assert keys[:2] == [f"{__name__}:march_to_gate"] * 2
    assert definition.bodies["a"] is twice
    assert definition.bodies["c"] is not definition.bodies["d"]


def test_an_object_that_is_callable_is_known_by_its_class() -> None:
    class Greeter:
        def __call__(self, words: str) -> None: ...

        def greet(self, words: str) -> None: ...

    class Errand(Workflow[Speech]):
        go = manual()
        a = step(Greeter())
        b = step(Greeter().greet)

    keys = [one.kind.body.key for one in Errand.definition.steps if isinstance(one.kind, Action)]

    assert [key.rpartition(".")[2] for key in keys] == ["Greeter", "greet"]


PROGRAM = """
from squidmesh import Workflow, manual, step


def work() -> None: ...


class Shop(Workflow[None]):
    name = "shop"
    by_hand = manual()
    work = step(work)


if __name__ == "__main__":
    print(Shop.definition.fingerprint)
"""


def test_a_function_of_the_program_itself_is_known_by_the_name_that_others_import_it_by(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    ways = (["app.py"], ["-m", "app"], ["-c", "import app; print(app.Shop.definition.fingerprint)"])

    told = [
        subprocess.run(
            [sys.executable, *way],
            cwd=tmp_path,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for way in ways
    ]

    assert len(set(told)) == 1
    assert told[0].strip()
