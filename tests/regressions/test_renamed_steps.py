"""A deploy renames a step: whose function may an older run take, and whose never.

Found by renaming a step whose body was a lambda: every lambda of a class body has the same
module and qualified name, so a run under way refunded where it had to charge.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squidmesh import SquidMesh, Workflow, manual, path, pause, step

pytestmark = pytest.mark.anyio

Function = Callable[..., object]


def move(cents: int = 5, *, sign: int = 1) -> dict[str, int]:
    return {"moved": sign * cents}


def made(sign: int) -> Function:
    def body() -> dict[str, int]:
        return move(sign=sign)

    return body


class Account:
    def __init__(self, sign: int) -> None:
        self.sign = sign

    def move(self) -> dict[str, int]:
        return move(sign=self.sign)

    def __call__(self) -> dict[str, int]:
        return self.move()


def payments(**steps: Function) -> type[Workflow[Any]]:
    """A workflow of a pause and one step of the given name and function."""
    (name,) = steps
    gate, body = pause(), step(steps[name])
    members = {"name": "payments", "by_hand": manual(), "gate": gate, name: body}
    return type("Payments", (Workflow,), {**members, "transitions": path(gate, body)})


async def story(url: str, before: type[Workflow[Any]], after: type[Workflow[Any]]) -> Any:
    """What has become of a run that was paused under *before* and resumed under *after*."""
    async with SquidMesh.open(url, workflows=[before]) as yesterday:
        run = await yesterday.start_run(before)
        await yesterday.run_until_idle()
    async with SquidMesh.open(url, workflows=[after]) as today:
        await today.resume_run(run.id)
        await today.run_until_idle()
        return await today.inspect_run(run.id)


@pytest.mark.parametrize(
    ("charge", "refund"),
    [
        (lambda: move(sign=-1), lambda: move(sign=1)),
        (made(-1), made(1)),
        (functools.partial(move, sign=-1), functools.partial(move, sign=1)),
        (Account(-1).move, Account(1).move),
        (Account(-1), Account(1)),
    ],
    ids=["lambda", "closure", "partial", "method", "callable"],
)
async def test_a_function_without_a_place_of_its_own_is_never_taken_for_another(
    charge: Function, refund: Function, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"

    run = await story(url, payments(charge=charge), payments(refund=refund))

    assert (run.status, run.context) == ("running", {})


async def test_a_plain_function_is_found_under_the_new_name_of_its_step(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"

    run = await story(url, payments(charge=move), payments(take=move))

    assert (run.status, run.context) == ("completed", {"moved": 5})


async def test_a_lambda_goes_by_the_name_of_its_step(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"

    run = await story(url, payments(charge=lambda: {"by": 1}), payments(charge=lambda: {"by": 2}))

    assert (run.status, run.context) == ("completed", {"by": 2})
