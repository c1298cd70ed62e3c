"""Every obligation that a port states has a test in a contract, and no test invents one."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import pytest

import squidmesh.ports
from squidmesh.testing import contracts
from squidmesh.testing.contracts import Promise, promises_of

NUMBERED: Final = re.compile(r"^\s*(\d+)\. ", re.MULTILINE)

CONTRACTS: Final = [
    each
    for name, each in vars(contracts).items()
    if name.endswith("Contract") and inspect.isclass(each)
]


def ports() -> Iterator[type]:
    for module in pkgutil.iter_modules(squidmesh.ports.__path__, "squidmesh.ports."):
        for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if each.__module__ == module.name and getattr(each, "_is_protocol", False):
                yield each


def obligations(port: type) -> Iterator[Promise]:
    """What each method of *port* promises: by number, or as a whole where nothing is numbered."""
    for name, method in vars(port).items():
        if not getattr(method, "__isabstractmethod__", False):
            continue
        numbers: list[int | None] = [
            int(number) for number in NUMBERED.findall(inspect.getdoc(method) or "")
        ]
        for number in numbers or [None]:
            yield Promise(f"{port.__name__}.{name}", number)


def promised(contract: type) -> list[Promise]:
    """What the tests in the body of *contract* are marked with, in the order they stand in."""
    return [promise for test in vars(contract).values() for promise in promises_of(test)]


KEPT: Final = {promise for contract in CONTRACTS for promise in promised(contract)}


@pytest.mark.parametrize("port", list(ports()), ids=lambda port: port.__name__)
def test_every_obligation_of_a_port_has_a_test(port: type) -> None:
    assert set(obligations(port)) - KEPT == set()


def test_every_promise_of_a_test_is_an_obligation_of_a_port() -> None:
    assert KEPT - {promise for port in ports() for promise in obligations(port)} == set()


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_a_contract_follows_the_order_of_the_obligations(contract: type) -> None:
    marks = promised(contract)

    for method in {mark.method for mark in marks}:
        numbers = [mark.number or 0 for mark in marks if mark.method == method]
        assert all(earlier <= later for earlier, later in pairwise(numbers)), method


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_every_test_of_a_contract_says_what_it_is_about(contract: type) -> None:
    tests = {name: each for name, each in vars(contract).items() if name.startswith("test_")}

    assert [name for name, test in tests.items() if not promises_of(test)] == []


def test_the_obligations_are_found_in_the_docstrings() -> None:
    found = [promise for port in ports() for promise in obligations(port)]

    assert Promise("Store.commit", 8) in found
    assert Promise("Store.close") in found
    assert len(found) == len(set(found))
