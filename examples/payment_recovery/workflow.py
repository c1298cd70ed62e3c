"""The workflow: chase one failed payment until it settles or a person decides.

    load > settle > ask
      ask: paid ............................ > tell
      ask: suspected fraud, large amount ... > review
      ask: refused otherwise ............... > credit > collect > tell
      ask: no answer after all attempts .... > page
      review: approved ..................... > credit > collect > tell
      review: rejected ..................... > page

A card that refuses the whole amount is offered a credit on the invoice and asked for the rest. If
it refuses that too, the run fails, and the credit that nobody earned is withdrawn.
"""

import csv
import functools
import logging
import ssl
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import attrs
import httpx

from squidmesh import (
    Errored,
    Retry,
    StepContext,
    Workflow,
    approval,
    compensation,
    manual,
    path,
    step,
    wait,
    when,
)

INVOICES: Final = Path(__file__).with_name("invoices.csv")
LARGE: Final = 500_00
"""In cents: about a credit on more than this a person decides."""

USUAL_CREDIT: Final = 20
PATIENCE: Final = timedelta(seconds=1)
"""How long one request to the gateway may take."""

log = logging.getLogger("payment_recovery")


@attrs.frozen(kw_only=True)
class Recovery:
    """What a run starts with."""

    account_id: str
    invoice_id: str
    gateway_url: str = "https://gateway.example"
    opened_on: date = attrs.field(factory=date.today)


@attrs.frozen(kw_only=True)
class Invoice:
    """An invoice as the books have it.

    Money is counted in cents: whole numbers are exact everywhere, and routes can compare them.
    """

    invoice_id: str
    account_id: str
    customer: str
    email: str
    cents: int
    currency: str
    due_on: date
    card: str


@attrs.frozen(kw_only=True)
class Verdict:
    """What the gateway said when it was asked for the whole amount."""

    status: str
    reason: str | None = None
    charge_id: str | None = None


@attrs.frozen(kw_only=True)
class Credit:
    """A part of an invoice that the customer need not pay."""

    credit_id: str
    cents: int


@functools.cache
def read_invoices() -> Mapping[str, Invoice]:
    """The books, by invoice; a real host would ask its database."""
    with INVOICES.open(encoding="utf-8", newline="") as lines:
        return {row["invoice"]: _invoice(row) for row in csv.DictReader(lines)}


def _invoice(row: Mapping[str, str]) -> Invoice:
    return Invoice(
        invoice_id=row["invoice"],
        account_id=row["account"],
        customer=row["customer"],
        email=row["email"],
        cents=int(Decimal(row["amount"]) * 100),
        currency=row["currency"],
        due_on=date.fromisoformat(row["due"]),
        card=row["card"],
    )


def load_invoice(invoice_id: str, account_id: str) -> Invoice | Errored:
    """Look the invoice up; a plain function, so it runs in a thread and may block."""
    invoice = read_invoices().get(invoice_id)
    if invoice is None or invoice.account_id != account_id:
        return Errored("The books have no such invoice.", code="unknown_invoice")
    return invoice


async def ask_gateway(
    invoice: Invoice, gateway_url: str, context: StepContext
) -> Verdict | Errored:
    """Ask for the whole amount. A refusal is an answer: what follows is the routes' business."""
    order = _charge(invoice, invoice.cents, "whole")
    answer = await _post(gateway_url, "/charges", order, context)
    if isinstance(answer, Errored):
        return answer
    if answer.status_code == httpx.codes.PAYMENT_REQUIRED:
        return Verdict(status="refused", reason=answer.json()["reason"])
    return Verdict(status="paid", charge_id=answer.json()["id"])


async def issue_credit(
    invoice: Invoice,
    gateway_url: str,
    context: StepContext,
    review: Mapping[str, object] | None = None,
) -> Credit | Errored:
    """Grant a part of the invoice; whoever approved may have said how many percent."""
    cents = invoice.cents * _percent(review) // 100
    order = {"invoice": invoice.invoice_id, "account": invoice.account_id, "cents": cents}
    answer = await _post(gateway_url, "/credits", order, context)
    if isinstance(answer, Errored):
        return answer
    return Credit(credit_id=answer.json()["id"], cents=cents)


def _percent(review: Mapping[str, object] | None) -> int:
    metadata = review.get("metadata") if review is not None else None
    percent = metadata.get("percent") if isinstance(metadata, Mapping) else None
    return percent if isinstance(percent, int) else USUAL_CREDIT


async def withdraw_credit(
    output: Credit, invoice: Invoice, gateway_url: str, context: StepContext
) -> dict[str, str] | Errored:
    """Undo `issue_credit`, whose *output* this is.

    It runs as a step of its own, with attempts and an idempotency key of its own.
    """
    order = {
        "invoice": invoice.invoice_id,
        "account": invoice.account_id,
        "cents": output.cents,
        "credit": output.credit_id,
    }
    answer = await _post(gateway_url, "/withdrawals", order, context)
    if isinstance(answer, Errored):
        return answer
    return {"withdrawal_id": answer.json()["id"]}


async def collect_rest(
    invoice: Invoice, credit: Credit, gateway_url: str, context: StepContext
) -> dict[str, str] | Errored:
    """Charge what the credit leaves; a second refusal is final and fails the run."""
    order = _charge(invoice, invoice.cents - credit.cents, "rest")
    answer = await _post(gateway_url, "/charges", order, context)
    if isinstance(answer, Errored):
        return answer
    if answer.status_code == httpx.codes.PAYMENT_REQUIRED:
        return Errored(
            "The card refused the rest as well.",
            code="card_refused",
            details={"reason": answer.json()["reason"]},
        )
    return {"charge_id": answer.json()["id"]}


async def tell_customer(
    invoice: Invoice, gateway_url: str, context: StepContext, credit: Credit | None = None
) -> Errored | None:
    """Have the receipt sent; what is sent cannot be unsent, so the step is irreversible."""
    paid = invoice.cents - (credit.cents if credit is not None else 0)
    receipt = {"invoice": invoice.invoice_id, "to": invoice.email, "cents": paid}
    answer = await _post(gateway_url, "/receipts", receipt, context)
    return answer if isinstance(answer, Errored) else None


def page_somebody(invoice_id: str, context: StepContext) -> dict[str, str]:
    """Leave the invoice to a person; the key lets the pager drop a repetition."""
    log.warning("somebody has to look at %s (%s)", invoice_id, context.idempotency_key)
    return {"ticket": f"recover-{invoice_id}"}


def _charge(invoice: Invoice, cents: int, part: str) -> dict[str, object]:
    return {
        "part": part,
        "invoice": invoice.invoice_id,
        "account": invoice.account_id,
        "card": invoice.card,
        "cents": cents,
        "currency": invoice.currency,
    }


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)


async def _post(
    gateway_url: str, resource: str, order: Mapping[str, object], context: StepContext
) -> httpx.Response | Errored:
    """Ask the gateway under the step's own key, which is the same for every attempt of the step.

    Whatever this raises (no answer in time, a broken connection, a 500) uses up the attempt and is
    tried again as the step's Retry says. A 503 says itself when to come back.
    """
    async with httpx.AsyncClient(
        base_url=gateway_url,
        timeout=PATIENCE.total_seconds(),
        verify=_tls(),
        trust_env=False,  # the demo's gateway is on the loopback, where no proxy leads
    ) as client:
        key = {"Idempotency-Key": context.idempotency_key}
        answer = await client.post(resource, json=dict(order), headers=key)
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        seconds = float(answer.headers.get("Retry-After", "1"))
        return Errored(
            "The gateway is busy.",
            code="gateway_busy",
            retryable=True,
            retry_after=timedelta(seconds=seconds),
        )
    if answer.status_code != httpx.codes.PAYMENT_REQUIRED:
        answer.raise_for_status()
    return answer


AGAIN: Final = Retry(
    6,
    backoff_min=timedelta(milliseconds=200),
    backoff_max=timedelta(seconds=2),
    jitter=0.5,
)


class PaymentRecovery(Workflow[Recovery]):
    """Chase one failed payment until it settles or a person decides."""

    name = "payment_recovery"
    version = "2026-11"

    by_hand = manual()

    load = step(load_invoice, output="invoice")
    settle = wait(timedelta(milliseconds=500))
    ask = step(ask_gateway, output="verdict", retry=AGAIN, timeout=timedelta(seconds=5))
    review = approval(output="review")
    credit = step(
        issue_credit,
        output="credit",
        retry=AGAIN,
        compensate=compensation(withdraw_credit, retry=AGAIN),
    )
    collect = step(collect_rest, output="collected", retry=AGAIN)
    tell = step(tell_customer, retry=AGAIN, irreversible=True)
    page = step(page_somebody)

    transitions = (
        path(load, settle, ask, credit, collect, tell),
        ask.on_ok(tell, when=when("verdict.status", equals="paid")),
        ask.on_ok(review, when=when("verdict.reason", equals="suspected_fraud")),
        ask.on_ok(review, when=when("invoice.cents", greater_than=LARGE)),
        ask.on_error(page),
        review.on_ok(credit),
        review.on_error(page),
        path(page),
    )
