"""`squidmesh demo`: where the example is found; what it shows is tested with the example."""

import inspect

from squidmesh.cli.demo import find_demo
from tests.cli.support import ask


def test_the_example_is_found_and_takes_what_the_command_gives() -> None:
    entry = find_demo()

    parameters = inspect.signature(entry).parameters
    assert {"directory", "json_output", "invoices", "seed"} <= parameters.keys()


def test_a_demo_needs_an_invoice_at_least() -> None:
    reply = ask("demo", "--invoices", "0")

    assert reply.status == 2
    assert "--invoices" in reply.err
