"""A host application around the workflow: how a program of yours would embed squidmesh.

Three things are all there is to it. `open_mesh` opens the database, with the workflows that this
application knows. `start_recoveries` is what a nightly job or a web request does: it starts runs,
and needs no worker for that. `work` is the main function of a worker process, of which there may
be as many as you like; they share nothing but the database.

    python -m examples.payment_recovery.host start --url sqlite:///app.db --gateway http://...
    python -m examples.payment_recovery.host worker --url sqlite:///app.db

The second is what `squidmesh worker --app examples.payment_recovery.workflow:PaymentRecovery` does
as well; write your own if your steps need something opened first.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import islice

from squidmesh import SquidMesh, Worker

# Relative, because this package lives at two addresses: in the checkout and inside the wheel.
from .workflow import PaymentRecovery, read_invoices  # noqa: TID252

LEASE = timedelta(seconds=60)


def open_mesh(url: str, *, lease: timedelta = LEASE) -> SquidMesh:
    """Return the application's mesh; use it with ``async with``.

    Every process of the application opens its own, web servers and workers alike.
    """
    return SquidMesh.open(url, workflows=[PaymentRecovery], lease=lease)


async def start_recoveries(
    mesh: SquidMesh, gateway_url: str, *, limit: int | None = None
) -> list[str]:
    """Start a run for each invoice in the books, and return the ids of the runs.

    The invoice is the idempotency key, so that starting them again starts nothing. The payloads
    are mappings on purpose: a key is bound to the payload *as given*, and an instance of Recovery
    would bring today's date along, so that tomorrow's repetition would be a conflict.
    """
    invoices = list(islice(read_invoices().values(), limit))
    payloads = [
        {
            "account_id": invoice.account_id,
            "invoice_id": invoice.invoice_id,
            "gateway_url": gateway_url,
        }
        for invoice in invoices
    ]
    keys = [invoice.invoice_id for invoice in invoices]
    return await mesh.start_runs(PaymentRecovery, payloads, idempotency_keys=keys)


async def work(
    url: str,
    *,
    lease: timedelta = LEASE,
    concurrency: int = 64,
    stop_with_input: bool = False,
) -> None:
    """Work until SIGTERM or Ctrl-C; then report what runs, claim nothing more, and return.

    With *stop_with_input* the end of standard input is such a sign as well: a worker that somebody
    started and forgot ends with its starter.
    """
    async with open_mesh(url, lease=lease) as mesh:
        worker = Worker(mesh, concurrency=concurrency)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # Windows knows no such handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, worker.stop)
        if stop_with_input:
            _call_at_end_of_input(loop, worker.stop)
        await worker.run()


def _call_at_end_of_input(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    def read() -> None:
        sys.stdin.buffer.read()
        if not loop.is_closed():
            loop.call_soon_threadsafe(call)

    threading.Thread(target=read, name="input", daemon=True).start()


async def start(url: str, gateway_url: str, limit: int | None) -> None:
    """Start the runs and say how many there are."""
    async with open_mesh(url) as mesh:
        runs = await start_recoveries(mesh, gateway_url, limit=limit)
    print(f"{len(runs)} runs stand in {url}; any worker may take them up.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the application."""
    given = _parser().parse_args(arguments)
    # The library logs to the loggers squidmesh.* and configures nothing; that is the host's part.
    logging.basicConfig(level=given.log.upper(), format="%(asctime)s %(name)s %(message)s")
    if given.command == "start":
        asyncio.run(start(given.url, given.gateway, given.limit))
    else:
        lease = timedelta(seconds=given.lease)
        asyncio.run(
            work(
                given.url,
                lease=lease,
                concurrency=given.concurrency,
                stop_with_input=given.stop_with_input,
            )
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Recovers failed payments.")
    parser.add_argument("--log", default="warning", help="level of the log on standard error")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="start a run for each invoice in the books")
    starting.add_argument("--gateway", required=True, help="address of the payment gateway")
    starting.add_argument("--limit", type=int, help="only the first so many invoices")
    working = commands.add_parser("worker", help="work until told to stop")
    working.add_argument("--lease", type=float, default=60.0, help="seconds")
    working.add_argument("--concurrency", type=int, default=64, help="steps at the same time")
    working.add_argument("--stop-with-input", action="store_true", help=argparse.SUPPRESS)
    for command in (starting, working):
        command.add_argument("--url", required=True, help="such as sqlite:///app.db")
    return parser


if __name__ == "__main__":
    sys.exit(main())
