"""`squidmesh worker`: processes that work, say so, and stop when they are told to."""

import asyncio
import gc
import io
import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from squidmesh import SquidMesh
from squidmesh.cli import logs
from squidmesh.cli.worker import SIGNALS, _less_collecting, _stopped_by_signals
from squidmesh.logs import logger
from tests.cli.shop import Blocking, Signal
from tests.cli.support import APP, Shop, ask, start

PATIENCE = 30


def working(shop: Shop, *arguments: str) -> "subprocess.Popen[str]":
    """A worker that has said that it works."""
    process = start("worker", "--app", APP, *arguments, cwd=shop.folder, SQUIDMESH_URL=shop.url)
    stream = process.stdout if "--json" in arguments else process.stderr
    assert stream is not None
    line = stream.readline()
    assert "selling, holding, trying" in line, line
    return process


def blocked(shop: Shop) -> tuple[str, Path, Path]:
    """A run whose only step takes as long as we want; its id, and the files that steer it."""
    began, may_end = shop.folder / "began", shop.folder / "may_end"

    async def started(mesh: SquidMesh) -> str:
        payload = Signal(began=str(began), may_end=str(may_end))
        return (await mesh.start_run(Blocking, payload)).id

    return shop.with_mesh(started), began, may_end


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    while not path.exists():
        assert process.poll() is None


@pytest.mark.slow
def test_a_worker_runs_what_is_due_and_stops_when_it_is_told(shop: Shop) -> None:
    (run_id,) = shop.sell()
    shop.ask("runs", "approve", run_id)
    process = working(shop)

    watch = shop.ask("runs", "watch", run_id, "--timeout", "30s", "--interval", "0.05")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)

    assert watch.status == 0
    assert process.returncode == 0
    assert out == ""
    assert "worker.stopping" in err
    assert "worker.stopped" in err


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_first_ends_what_it_runs(shop: Shop) -> None:
    run_id, began, may_end = blocked(shop)
    process = working(shop)
    wait_for(began, process)

    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "worker.stopping" not in process.stderr.readline():
        assert process.poll() is None
    may_end.touch()
    process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert shop.inspect(run_id).status == "completed"


@pytest.mark.slow
def test_a_worker_that_is_told_twice_leaves_at_once(shop: Shop) -> None:
    run_id, began, _ = blocked(shop)
    process = working(shop)
    wait_for(began, process)

    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while "worker.stopping" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)

    assert process.returncode == 128 + signal.SIGTERM
    assert shop.inspect(run_id).status == "running"


@pytest.mark.slow
def test_in_json_every_line_on_stdout_is_an_object(shop: Shop) -> None:
    shop.sell(work=False)
    process = working(shop, "--json", "--lease", "5s", "--queue", "default", "--queue", "fast")

    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)

    events = [json.loads(line) for line in [first, *out.splitlines()]]
    assert {"event", "level", "timestamp", "logger"} <= events[0].keys()
    assert events[-1]["event"] == "worker.stopped"
    assert err == ""


@pytest.mark.slow
def test_a_worker_makes_the_store_it_is_pointed_to_and_says_so(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    process = start("worker", "--app", APP, "--url", shop.url, cwd=tmp_path)

    assert process.stderr is not None
    line = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)

    assert f"store {shop.url} (new)" in line
    assert shop.path.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "[no_app]"),
        (("--app", "nowhere_at_all"), "[app_module_not_found]"),
        (("--app", APP, "--concurrency", "0"), "[usage]"),
        (("--app", APP, "--lease", "soon"), "[usage]"),
        (("--app", APP, "--lease", "0"), "[invalid_option]"),
        (("--app", APP, "--queue", ""), "[invalid_option]"),
    ],
)
def test_a_worker_that_cannot_begin_says_why_and_makes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    shop = Shop(tmp_path)

    reply = ask("worker", "--url", shop.url, *arguments)

    assert reply.status == 2
    assert said in reply.err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def own_logging() -> Iterator[io.StringIO]:
    """A stream to log to; what logged before this does so again afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    # basicConfig closes the handlers that it finds, and pytest still needs its own.
    root.handlers.clear()
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_log_for_people_is_a_line_with_the_facts(own_logging: io.StringIO) -> None:
    logs.configure(as_json=False, stream=own_logging, level="info", color=False)

    logger("worker").info("claim.failed", reason="the disk is full")
    logger("worker").debug("too.quiet")
    logging.getLogger("theirs").warning("on %s", "fire")

    first, second = own_logging.getvalue().splitlines()
    assert first.split("Z ", 1)[1].split() == (
        ["[info", "]", "claim.failed", "[squidmesh.worker]", "reason='the", "disk", "is", "full'"]
    )
    assert "on fire" in second


def test_a_log_for_programs_is_an_object_with_the_same_facts(own_logging: io.StringIO) -> None:
    logs.configure(as_json=True, stream=own_logging, level="warning", color=False)

    logger("worker").warning("claim.failed", reason="the disk is full", seconds=3)
    structlog.get_logger("theirs").error("on fire")
    logging.getLogger("theirs").error("burning", exc_info=ValueError("smoke"))

    first, second, third = map(json.loads, own_logging.getvalue().splitlines())
    assert (first["event"], first["reason"], first["seconds"]) == (
        "claim.failed", "the disk is full", 3,
    )  # fmt: skip
    assert (second["event"], second["logger"]) == ("on fire", "theirs")
    assert "ValueError: smoke" in third["exception"]


def test_garbage_is_looked_for_less_often_while_a_worker_works_and_as_before_behind_it() -> None:
    before = gc.get_threshold()

    with _less_collecting():
        during, spared = gc.get_threshold(), gc.get_freeze_count()

    assert during[0] > before[0]
    assert spared > 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_first_signal_stops_and_leaves_the_handlers_as_they_were(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stopped = asyncio.Event()

    async def told() -> None:
        with _stopped_by_signals(stopped.set):
            os.kill(os.getpid(), number)
            async with asyncio.timeout(PATIENCE):
                await stopped.wait()

    asyncio.run(told())

    assert stopped.is_set()
    assert signal.getsignal(number) is before
