"""A payment gateway that cannot be trusted to answer, as a process of its own.

It keeps the one promise that real gateways keep: the first request under an idempotency key is
carried out, and every later one is told what the first one was. Everything else goes wrong now and
then, as the seed says: it fails, it is busy, it stalls until the client has given up, or it does
what it was asked and drops the connection before saying so.

What it did stands in an append-only file, synced line by line, so that nobody's memory is needed
to tell whether something was lost or done twice.

    python -m examples.payment_recovery.gateway --ledger effects.jsonl --seed 7

The first line of its output is its address, and `GET /effects` tells what it knows of each key. It
ends when it is told to, or when its standard input closes, so that it never outlives whoever
started it. It needs nothing but the standard library.
"""

import argparse
import contextlib
import enum
import json
import os
import random
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

KINDS: Final = {
    "/charges": "charge",
    "/credits": "credit",
    "/withdrawals": "withdrawal",
    "/receipts": "receipt",
}
STALL: Final = 1.6
"""Seconds; longer than the workflow's patience."""

MOST_TROUBLE: Final = 3
"""So many requests under one key may meet trouble; the workflow's steps try more often."""


class Trouble(enum.Enum):
    """What goes wrong with a request."""

    NONE = "none"
    FAIL = "fail"
    BUSY = "busy"
    STALL = "stall"
    DROP = "drop"


ODDS: Final = {Trouble.FAIL: 0.06, Trouble.BUSY: 0.03, Trouble.STALL: 0.02, Trouble.DROP: 0.04}

Order = Mapping[str, Any]
Mood = Callable[[str, Order, int], Trouble]
"""Which trouble the n-th request under one key meets, given its kind and what it orders."""


def seeded(seed: int) -> Mood:
    """Return a mood that depends on the request alone, not on when it comes or what came before."""

    def mood(kind: str, order: Order, nth: int) -> Trouble:
        if order.get("card") == "tok_issuer_down":
            return Trouble.FAIL
        draw = random.Random(f"{seed}:{kind}:{order['invoice']}:{order['cents']}:{nth}").random()
        for trouble, odds in ODDS.items():
            if draw < odds and nth <= MOST_TROUBLE:
                return trouble
            draw -= odds
        return Trouble.NONE

    return mood


def refusal_of(kind: str, order: Order) -> str | None:
    """Why a card refuses a charge: as with the test cards of real gateways, its token says so."""
    if kind != "charge":
        return None
    reasons = {
        "tok_closed": "card_closed",
        "tok_suspected_fraud": "suspected_fraud",
        "tok_insufficient_funds": "insufficient_funds",
    }
    # All but the closed ones have enough on them for what a credit leaves to be paid.
    if order.get("part") == "rest" and order["card"] != "tok_closed":
        return None
    return reasons.get(order["card"])


@dataclass(frozen=True)
class Answer:
    """What the first request under a key was told, and every later one is told again."""

    status: int
    body: Mapping[str, Any]


@dataclass
class Record:
    """What the gateway knows of one idempotency key."""

    key: str
    kind: str
    invoice: str
    cents: int
    first_at: str
    requests: int = 0
    effects: int = 0
    answer: Answer | None = None


@dataclass
class Ledger:
    """Who asked for what, and what was done; its file has a line for each decision."""

    path: Path
    records: dict[str, Record] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def received(self, key: str, kind: str, order: Order) -> int:
        """Count a request, and return which one under its key it is, from 1."""
        with self.lock:
            if key not in self.records:
                self.records[key] = Record(key, kind, order["invoice"], order["cents"], _now())
            self.records[key].requests += 1
            return self.records[key].requests

    def settle(self, key: str, order: Order) -> Answer:
        """Do what is asked if the key is new, and say what came of it when it was."""
        with self.lock:
            record = self.records[key]
            if record.answer is None:
                record.answer = self._decide(record, order)
            return record.answer

    def _decide(self, record: Record, order: Order) -> Answer:
        refusal = refusal_of(record.kind, order)
        if refusal is not None:
            self._write(record, done=False, said=refusal)
            return Answer(402, {"status": "refused", "reason": refusal})
        record.effects += 1
        identity = f"{record.kind}-{sum(one.effects for one in self.records.values())}"
        self._write(record, done=True, said=identity)
        return Answer(200, {"status": "done", "id": identity})

    def _write(self, record: Record, *, done: bool, said: str) -> None:
        line = {
            "at": _now(),
            "key": record.key,
            "kind": record.kind,
            "invoice": record.invoice,
            "cents": record.cents,
            "done": done,
            "said": said,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def to_dict(self) -> dict[str, Any]:
        """Everything about every key, for ``GET /effects``."""
        with self.lock:
            return {"keys": [asdict(record) for record in self.records.values()]}


def _now() -> str:
    return datetime.now(UTC).isoformat()


class Gateway(ThreadingHTTPServer):
    """The gateway on a free port of the loopback; as a context manager it serves in a thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, ledger: Path, mood: Mood) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ledger = Ledger(ledger)
        self.mood = mood
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about clients that did not wait; it is what half of the demo is about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # what it got


class _Handler(BaseHTTPRequestHandler):
    server: Gateway
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        if self.path == "/effects":
            self._say(Answer(200, self.server.ledger.to_dict()))
        else:
            self._say(Answer(404, {"reason": "no such page"}))

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        key, kind = self.headers.get("Idempotency-Key"), KINDS.get(self.path)
        if key is None or kind is None:
            self._say(Answer(400, {"reason": "no such order, or no Idempotency-Key"}))
            return
        nth = self.server.ledger.received(key, kind, order)
        match self.server.mood(kind, order, nth):
            case Trouble.NONE:
                self._say(self.server.ledger.settle(key, order))
            case Trouble.FAIL:
                self._say(Answer(500, {"reason": "the gateway has a bad day"}))
            case Trouble.BUSY:
                self._say(Answer(503, {"reason": "busy"}), {"Retry-After": "1"})
            case Trouble.STALL:
                answer = self.server.ledger.settle(key, order)
                self.server.closing.wait(STALL)
                self._say(answer)
            case Trouble.DROP:
                self.server.ledger.settle(key, order)
                self.connection.shutdown(socket.SHUT_RDWR)

    def _say(self, answer: Answer, headers: Mapping[str, str] | None = None) -> None:
        text = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Write no line per request: what matters is in the ledger."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(description="A payment gateway with moods.")
    parser.add_argument("--ledger", type=Path, required=True, help="the file of what was done")
    parser.add_argument("--seed", type=int, default=7, help="which requests meet trouble")
    given = parser.parse_args(arguments)
    with Gateway(given.ledger, seeded(given.seed)) as gateway:
        print(gateway.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
