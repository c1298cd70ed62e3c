"""The workflows that the command line's tests ask about; `--app tests.cli.shop`."""

import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs

from squidmesh import (
    Errored,
    Retry,
    Workflow,
    approval,
    log,
    manual,
    path,
    pause,
    step,
    wait,
    when,
)


@attrs.frozen(kw_only=True)
class Sale:
    """What is sold; *refused* makes the bank say no."""

    item: str = "squid"
    refused: bool = False


def look_up(item: str) -> dict[str, Any]:
    return {"name": item, "cents": 900}


def charge(goods: Mapping[str, Any], refused: bool) -> object:
    if refused:
        return Errored("the bank said no", code="refused")
    return {"of": goods["name"]}


def refund() -> None:
    """Give the money back."""


def send() -> None:
    """Put it in the post, from which nothing comes back."""


class Selling(Workflow[Sale]):
    """Sell something, if somebody approves."""

    name = "selling"
    version = "v1"
    by_hand = manual()
    find = step(look_up, output="goods")
    review = approval(output="review")
    pay = step(charge, output="payment", compensate=refund)
    ship = step(send, irreversible=True)
    turn_down = step(send)
    transitions = (
        path(find, review, pay, ship),
        path(turn_down),
        review.on_error(turn_down),
    )


class Holding(Workflow[Sale]):
    """Hold something back until somebody lets it go, and a little longer."""

    name = "holding"
    by_hand = manual()
    hold = pause()
    rest = wait(timedelta(hours=1))
    ship = step(send)
    transitions = path(hold, rest, ship)


def fail() -> None:
    raise ValueError("the bank is closed")


class Trying(Workflow[Sale]):
    """Try again, much later."""

    name = "trying"
    by_hand = manual()
    pay = step(fail, retry=Retry(3, backoff_min=timedelta(hours=1)))
    transitions = path(pay)


@attrs.frozen(kw_only=True)
class Signal:
    """The files by which a step says that it began, and is told to end."""

    began: str
    may_end: str


def block(began: str, may_end: str) -> None:
    Path(began).touch()
    deadline = time.monotonic() + 30
    while not Path(may_end).exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: TID251  a body that takes its time, in a process of its own


class Blocking(Workflow[Signal]):
    """Take as long as somebody wants."""

    name = "blocking"
    by_hand = manual()
    block = step(block)
    transitions = path(block)


@attrs.frozen(kw_only=True)
class Order:
    """What somebody ordered."""

    cents: int = 900


def weigh(cents: int) -> dict[str, int]:
    return {"cents": cents}


class Branching(Workflow[Order]):
    """Ask somebody about large orders only."""

    name = "branching"
    by_hand = manual()
    weigh = step(weigh, output="goods")
    large = approval()
    small = step(send)
    ship = step(send)
    note = log("shipped")
    transitions = (
        weigh.on_ok(large, when=when("goods.cents", greater_than=1000)),
        weigh.on_ok(small),
        path(large, ship, note),
        large.on_error(small),
        small.on_ok(ship),
    )


@attrs.frozen(kw_only=True)
class Parcel:
    """What is sent in vain; *refundable* says whether the money can be given back."""

    refundable: bool = True


def give_back(refundable: bool) -> object:
    return None if refundable else Errored("the account is gone", code="account_closed")


def lose() -> object:
    return Errored("no such street", code="carrier_refused")


class Sending(Workflow[Parcel]):
    """Take money for what cannot be sent."""

    name = "sending"
    by_hand = manual()
    note = step(lambda: {"noted": True})
    pay = step(lambda: "a receipt", output="receipt", compensate=give_back)
    ship = step(lose)
    transitions = path(note, pay, ship)


workflows = (Selling, Holding, Trying, Blocking, Branching, Sending)
