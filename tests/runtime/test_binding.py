"""How a body is called: by names, with values of the types that it asks for."""

import functools
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any, Final

import attrs
import pytest

from squidmesh import StepContext, path, step
from squidmesh.context import StepContext as Renamed
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    Order,
    attempts_of,
    ended,
    error_of,
    in_a_row,
    only,
    step_of,
    workflow,
)

pytestmark = pytest.mark.anyio

Said = dict[str, Any]


async def asynchronous(number: str, amount: int) -> Said:
    return {"number": number, "amount": amount}


def plain(number: str, amount: int) -> Said:
    return {"number": number, "amount": amount}


def positional(number: str, amount: int, /) -> Said:
    return {"number": number, "amount": amount}


def mixed(number: str, /, amount: int = 7) -> Said:
    return {"number": number, "amount": amount}


def by_name(*, number: str, amount: int) -> Said:
    return {"number": number, "amount": amount}


def greedy(number: str, *more: object, amount: int, **others: object) -> Said:
    assert (more, others) == ((), {})
    return {"number": number, "amount": amount}


def unannotated(number, amount):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  bodies may be
    return {"number": number, "amount": amount}


def quoted(number: "str", amount: "int") -> "Said":
    return {"number": number, "amount": amount}


def passed_on(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)

    return wrapper


def awaited(function: Callable[..., Any]) -> Callable[..., Awaitable[object]]:
    @functools.wraps(function)
    async def wrapper(*args: object, **kwargs: object) -> object:
        said = function(*args, **kwargs)
        return await said if isinstance(said, Awaitable) else said

    return wrapper


class Body:
    def __call__(self, number: str, amount: int) -> Said:
        return {"number": number, "amount": amount}

    def method(self, number: str, amount: int) -> Said:
        return {"number": number, "amount": amount}

    @classmethod
    def of_class(cls, number: str, amount: int) -> Said:
        return {"number": number, "amount": amount}


class AsyncBody:
    async def __call__(self, number: str, amount: int) -> Said:
        return {"number": number, "amount": amount}

    async def method(self, number: str, amount: int) -> Said:
        return {"number": number, "amount": amount}


CALLABLES: Final[dict[str, Callable[..., object]]] = {
    "async": asynchronous,
    "plain": plain,
    "positional only": positional,
    "partly positional": mixed,
    "keywords only": by_name,
    "greedy": greedy,
    "unannotated": unannotated,
    "quoted annotations": quoted,
    "a wrapper of plain": passed_on(plain),
    "a wrapper of async": passed_on(asynchronous),
    "wrapped twice": passed_on(passed_on(asynchronous)),
    "an async wrapper of async": awaited(asynchronous),
    "an async wrapper of plain": awaited(plain),
    "an async wrapper of a wrapper": awaited(passed_on(plain)),
    "a partial": functools.partial(plain),
    "an async partial": functools.partial(asynchronous),
    "a partial of a wrapper": functools.partial(passed_on(asynchronous)),
    "a partial of an async object": functools.partial(AsyncBody()),
    "an object": Body(),
    "a method": Body().method,
    "a method of a class": Body.of_class,
    "an async object": AsyncBody(),
    "an async method": AsyncBody().method,
}


@pytest.mark.parametrize("function", CALLABLES.values(), ids=CALLABLES.keys())
async def test_values_are_given_by_the_names_of_parameters(
    composed: OpenMesh, function: Callable[..., object]
) -> None:
    made = only(function, output="said")
    mesh = await composed(made)

    run = await ended(mesh, made, {"number": "o9", "amount": 3})

    assert run.context == {"said": {"number": "o9", "amount": 3}}


async def test_a_partial_keeps_what_it_has_and_takes_the_rest(composed: OpenMesh) -> None:
    made = in_a_row(
        "partials",
        functools.partial(plain, "fixed"),
        functools.partial(plain, amount=1),
        functools.partial(asynchronous, number="named"),
        output="said",
    )
    mesh = await composed(made)

    run = await ended(mesh, made, {"number": "o9", "amount": 3})

    assert [step_of(run, name).output for name in ("first", "second", "third")] == [
        {"number": "fixed", "amount": 3},
        {"number": "o9", "amount": 3},
        {"number": "o9", "amount": 3},
    ]


async def test_a_parameter_with_a_default_is_optional_whatever_its_kind(
    composed: OpenMesh,
) -> None:
    def gaps(
        number: str, missing: str = "left out", amount: int = 0, /, other: str = "too"
    ) -> Said:
        return {"number": number, "missing": missing, "amount": amount, "other": other}

    made = only(gaps, output="said")
    mesh = await composed(made)

    run = await ended(mesh, made, {"number": "o9", "amount": 3})

    assert run.context == {
        "said": {"number": "o9", "missing": "left out", "amount": 3, "other": "too"}
    }


def annotated(this: StepContext) -> str:
    return this.step


def optional(this: StepContext | None) -> str:
    assert this is not None
    return this.step


def named(context) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001  found by its name
    assert isinstance(context, StepContext)
    return context.step


def renamed(context: Renamed, /) -> str:
    return context.step


def defaulted(context: StepContext | None = None) -> str:
    assert context is not None
    return context.step


async def asynchronously(context: "StepContext") -> str:
    return context.step


@pytest.mark.parametrize(
    "function", [annotated, optional, named, renamed, defaulted, asynchronously]
)
async def test_one_parameter_gets_the_context(
    composed: OpenMesh, function: Callable[..., object]
) -> None:
    made = only(function, output="said")
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.context == {"said": "first"}


async def test_a_parameter_called_context_of_another_type_is_an_ordinary_one(
    composed: OpenMesh,
) -> None:
    @attrs.frozen(kw_only=True)
    class Letter:
        context: str

    def body(context: str) -> str:
        return context

    made = workflow(
        "letter", Letter, first=(first := step(body, output="said")), transitions=path(first)
    )
    mesh = await composed(made)

    run = await ended(mesh, made, {"context": "as given"})

    assert run.context == {"said": "as given"}


async def test_values_are_of_the_annotated_types(composed: OpenMesh) -> None:
    @attrs.frozen
    class Receipt:
        number: str
        on: date

    seen: list[object] = []

    def give() -> Receipt:
        return Receipt("r1", date(2030, 1, 2))

    def take(receipt: Receipt, amount: float) -> None:
        seen.extend((receipt, amount, type(amount)))

    first = step(give, output="receipt")
    second = step(take)
    made = workflow("typed", first=first, second=second, transitions=path(first, second))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert seen == [Receipt("r1", date(2030, 1, 2)), 100.0, float]


async def test_what_a_body_does_to_its_values_stays_in_the_body(composed: OpenMesh) -> None:
    def make() -> dict[str, list[int]]:
        return {"numbers": [1]}

    def spoil(numbers: list[int], context: StepContext) -> None:
        numbers.append(2)
        known = context.state["context"]
        assert isinstance(known, dict)
        known.clear()

    def look(numbers: list[int]) -> dict[str, list[int]]:
        return {"seen": numbers}

    made = in_a_row("spoiled", make, spoil, look)
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.context == {"numbers": [1], "seen": [1]}


def wants_a_number(number: int) -> None: ...


def wants_half_a_receipt(amount: "list[str]") -> None: ...


class Strange:
    pass


def wants_what_json_cannot_be(number: Strange) -> None: ...


@pytest.mark.parametrize(
    "function", [wants_a_number, wants_half_a_receipt, wants_what_json_cannot_be]
)
async def test_a_value_that_cannot_be_converted_is_invalid_input_and_final(
    composed: OpenMesh, function: Callable[..., object]
) -> None:
    made = only(function)
    mesh = await composed(made)

    run = await ended(mesh, made, {"number": "secret-9", "amount": 3})

    assert run.status == "failed"
    assert error_of(run)["code"] == "invalid_input"
    assert error_of(run)["details"] == {"parameter": next(iter(function.__annotations__))}
    assert error_of(run)["retryable"] is False
    assert "secret-9" not in str(error_of(run))


async def test_a_validator_that_says_no_is_invalid_input(composed: OpenMesh) -> None:
    def grumble(_instance: object, _field: object, value: int) -> None:
        if value:
            raise ZeroDivisionError(f"not {value}")

    @attrs.frozen
    class Nothing:
        amount: int = attrs.field(validator=grumble)

    def make() -> dict[str, object]:
        return {"nothing": {"amount": 3}}

    def take(nothing: Nothing) -> None: ...

    made = in_a_row("validated", make, take)
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert error_of(run)["code"] == "invalid_input"
    assert error_of(run)["step"] == "second"


async def test_a_validator_that_wants_to_leave_fails_the_attempt_alone(composed: OpenMesh) -> None:
    def leave(_instance: object, _field: object, _value: int) -> None:
        raise SystemExit("enough")

    @attrs.frozen
    class Nothing:
        amount: int = attrs.field(validator=leave)

    def make() -> dict[str, object]:
        return {"nothing": {"amount": 3}}

    def take(nothing: Nothing) -> None: ...

    made = in_a_row("validated", make, take)
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "failed"
    assert error_of(run)["type"] == "SystemExit"


async def test_what_nothing_provided_is_missing_input_and_final(composed: OpenMesh) -> None:
    def make() -> dict[str, object]:
        return {"other": 1}

    def take(wanted: int) -> None: ...

    made = in_a_row("missing", make, take)
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "failed"
    assert error_of(run)["code"] == "missing_input"
    assert error_of(run)["details"]["parameter"] == "wanted"
    assert attempts_of(run, "second") == ["failed"]


async def test_a_renamed_input_is_dug_out_of_what_is_there(composed: OpenMesh) -> None:
    def make() -> Said:
        return {"deep": {"er": [1]}}

    def take(found: list[int]) -> Said:
        return {"took": found}

    first, second = step(make, output="box"), step(take, inputs={"found": "box.deep.er"})
    made = workflow("dug", first=first, second=second, transitions=path(first, second))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.context is not None
    assert run.context["took"] == [1]


async def test_a_compensation_is_given_the_output_and_the_failure(composed: OpenMesh) -> None:
    seen: list[object] = []

    async def undo(number: str, output: Said, failure: Said, context: StepContext) -> Said:
        seen.extend((number, output["amount"], failure["code"], context.step, context.attempt))
        return {"undone": True}

    def fail() -> None:
        raise ValueError("no")

    first, second = step(plain, output="said", compensate=undo), step(fail)
    made = workflow("undone", first=first, second=second, transitions=path(first, second))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "failed"
    assert seen == ["o1", 100, "step_exception", "compensate:first", 1]
    assert run.context == {"said": {"number": "o1", "amount": 100}}
    assert step_of(run, "compensate:first").output == {"undone": True}


async def test_a_compensation_without_its_input_fails_for_good_and_is_listed(
    composed: OpenMesh,
) -> None:
    def undo(wanted: str) -> None: ...

    def give() -> Said:
        return {}

    def fail() -> None:
        raise ValueError("no")

    first, second = step(give, compensate=undo), step(fail)
    made = workflow("undone", Order, first=first, second=second, transitions=path(first, second))
    mesh = await composed(made)

    run = await ended(mesh, made)

    (failure,) = error_of(run)["details"]["compensation_failures"]
    assert failure["code"] == "missing_input"
    assert step_of(run, "compensate:first").attempts[0].status == "failed"
