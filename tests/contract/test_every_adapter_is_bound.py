"""No adapter without its contract: what implements a port is tested as the port demands."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

import squidmesh.adapters
from squidmesh.ports.executor import Executor
from squidmesh.ports.journal import Journal
from squidmesh.ports.store import AttemptStore, Hints, Presence, RunStore, Schema, Store
from squidmesh.ports.tools import Tool
from squidmesh.ports.transactions import Transactions
from squidmesh.testing.contracts import (
    AttemptStoreContract,
    ExecutorContract,
    HintsContract,
    JournalContract,
    PresenceContract,
    RunStoreContract,
    SchemaContract,
    StoreContract,
    ToolContract,
    TransactionsContract,
)

# Heartbeats are not on the list: a store makes them, and its contract tests them.
CONTRACT_OF: Final[Mapping[type, type]] = {
    AttemptStore: AttemptStoreContract,
    Executor: ExecutorContract,
    Hints: HintsContract,
    Journal: JournalContract,
    Presence: PresenceContract,
    RunStore: RunStoreContract,
    Schema: SchemaContract,
    Store: StoreContract,
    Tool: ToolContract,
    Transactions: TransactionsContract,
}


def adapters() -> Iterator[type]:
    packages = pkgutil.walk_packages(squidmesh.adapters.__path__, "squidmesh.adapters.")
    for module in packages:
        for _, each in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if each.__module__ == module.name:
                yield each


def duties() -> list[tuple[type, type]]:
    """Each adapter with each port that it implements."""
    return [
        (adapter, port) for adapter in adapters() for port in CONTRACT_OF if port in adapter.__mro__
    ]


def heirs(contract: type) -> Iterator[type]:
    children: list[type] = contract.__subclasses__()
    for heir in children:
        yield heir
        yield from heirs(heir)


def names_in(test_class: type) -> set[str]:
    """The names that a test class and its mixins speak of; those that contracts speak of aside."""
    return {
        node.id
        for each in test_class.__mro__
        if each.__module__.startswith("tests.")
        for node in ast.walk(ast.parse(dedent(inspect.getsource(each))))
        if isinstance(node, ast.Name)
    }


@pytest.fixture(scope="module", autouse=True)
def every_binding_is_imported() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.contract.{path.stem}")


@pytest.mark.parametrize(("adapter", "port"), duties(), ids=lambda each: each.__name__)
def test_an_adapter_of_a_port_stands_in_a_subclass_of_its_contract(
    adapter: type, port: type
) -> None:
    bound = [
        heir
        for heir in heirs(CONTRACT_OF[port])
        if heir.__name__.startswith("Test") and adapter.__name__ in names_in(heir)
    ]

    assert bound != []


def test_there_are_adapters_to_look_at() -> None:
    assert ("MemoryStore", "Store") in {
        (adapter.__name__, port.__name__) for adapter, port in duties()
    }
