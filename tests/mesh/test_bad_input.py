"""Bad input at every door: the named error with its code, and no trace of it in the store."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from squidmesh import (
    DefinitionError,
    InvalidOptionError,
    InvalidRunIdError,
    RunNotFoundError,
    SquidMesh,
    SquidMeshError,
    StoreUnavailableError,
    UnknownTriggerError,
    UnknownWorkflowError,
    Worker,
    Workflow,
    log,
    manual,
    path,
    pause,
    step,
)
from squidmesh.errors import InvalidPayloadError
from tests.mesh.support import OpenMesh, Order, contents

pytestmark = pytest.mark.anyio

SOMEBODY = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


class Sale(Workflow[Order]):
    name = "sale"
    by_hand = manual()
    hold = pause()
    only = log("only")
    transitions = path(hold, only)


class Stranger(Workflow[Order]):
    name = "stranger"
    by_hand = manual()
    only = log("only")


@attrs.frozen
class Case:
    """A call that must fail, with the error that it must fail with."""

    arguments: dict[str, Any]
    error: type[SquidMeshError]
    code: str


STARTS: list[Case] = [
    Case({"workflow": "unknown"}, UnknownWorkflowError, "unknown_workflow"),
    Case({"workflow": Stranger}, UnknownWorkflowError, "unknown_workflow"),
    Case({"workflow": Stranger.definition}, UnknownWorkflowError, "unknown_workflow"),
    Case({"workflow": Workflow}, UnknownWorkflowError, "unknown_workflow"),
    Case({"workflow": 7}, UnknownWorkflowError, "unknown_workflow"),
    Case({"workflow": None}, UnknownWorkflowError, "unknown_workflow"),
    Case({"workflow": ""}, UnknownWorkflowError, "unknown_workflow"),
    Case({"workflow": "sale\x00"}, UnknownWorkflowError, "unknown_workflow"),
    Case({"trigger": "unknown"}, UnknownTriggerError, "unknown_trigger"),
    Case({"trigger": ""}, UnknownTriggerError, "unknown_trigger"),
    Case({"trigger": 7}, UnknownTriggerError, "unknown_trigger"),
    Case({"trigger": ["by_hand"]}, UnknownTriggerError, "unknown_trigger"),
    Case({"payload": {"nubmer": "x"}}, InvalidPayloadError, "invalid_payload"),
    Case({"payload": {"amount": "x"}}, InvalidPayloadError, "invalid_payload"),
    Case({"payload": "text"}, InvalidPayloadError, "invalid_payload"),
    Case({"run_id": "garbage"}, InvalidRunIdError, "invalid_run_id"),
    Case({"run_id": ""}, InvalidRunIdError, "invalid_run_id"),
    Case({"run_id": 7}, InvalidRunIdError, "invalid_run_id"),
    Case({"run_id": SOMEBODY + "0"}, InvalidRunIdError, "invalid_run_id"),
    Case({"idempotency_key": ""}, InvalidOptionError, "invalid_option"),
    Case({"idempotency_key": 7}, InvalidOptionError, "invalid_option"),
    Case({"idempotency_key": "x" * 10_000}, InvalidOptionError, "invalid_option"),
    Case({"idempotency_key": "a\x00"}, InvalidOptionError, "invalid_option"),
    Case({"queue": ""}, InvalidOptionError, "invalid_option"),
    Case({"queue": None}, InvalidOptionError, "invalid_option"),
    Case({"queue": "half \ud800"}, InvalidOptionError, "invalid_option"),
    Case({"priority": "high"}, InvalidOptionError, "invalid_option"),
    Case({"priority": True}, InvalidOptionError, "invalid_option"),
    Case({"priority": 1.5}, InvalidOptionError, "invalid_option"),
    Case({"priority": 2**80}, InvalidOptionError, "invalid_option"),
    Case({"concurrency_key": 7}, InvalidOptionError, "invalid_option"),
    Case({"concurrency_key": ""}, InvalidOptionError, "invalid_option"),
    Case({"tags": "blue"}, InvalidOptionError, "invalid_option"),
    Case({"tags": {"a": 7}}, InvalidOptionError, "invalid_option"),
    Case({"tags": {7: "a"}}, InvalidOptionError, "invalid_option"),
    Case({"tags": {"a": "b\x00"}}, InvalidOptionError, "invalid_option"),
    Case({"tags": {"": "b"}}, InvalidOptionError, "invalid_option"),
    Case({"connection": object()}, InvalidOptionError, "invalid_option"),
]


@pytest.mark.parametrize("case", STARTS, ids=lambda case: str(case.arguments)[:40])
async def test_a_start_that_makes_no_sense_is_refused_and_leaves_no_trace(
    open_mesh: OpenMesh, case: Case
) -> None:
    mesh = await open_mesh(Sale)
    before, listed = await contents(mesh), await mesh.list_runs()

    with pytest.raises(case.error) as refused:
        await mesh.start_run(**{"workflow": Sale, **case.arguments})

    assert refused.value.code == case.code
    assert await contents(mesh) == before
    assert await mesh.list_runs() == listed


BULK: list[Case] = [
    Case({"workflow": "unknown"}, UnknownWorkflowError, "unknown_workflow"),
    Case({"trigger": "unknown"}, UnknownTriggerError, "unknown_trigger"),
    Case({"payloads": [{}, 7]}, InvalidPayloadError, "invalid_payload"),
    Case({"queue": ""}, InvalidOptionError, "invalid_option"),
    Case({"idempotency_keys": []}, InvalidOptionError, "invalid_option"),
    Case({"idempotency_keys": ["", "a"]}, InvalidOptionError, "invalid_option"),
    Case({"idempotency_keys": [7, "a"]}, InvalidOptionError, "invalid_option"),
    Case({"idempotency_keys": 7}, InvalidOptionError, "invalid_option"),
    Case({"payloads": 7}, InvalidOptionError, "invalid_option"),
]


@pytest.mark.parametrize("case", BULK, ids=lambda case: str(case.arguments)[:40])
async def test_a_bulk_start_that_makes_no_sense_is_refused_and_leaves_no_trace(
    open_mesh: OpenMesh, case: Case
) -> None:
    mesh = await open_mesh(Sale)
    before = await contents(mesh)

    with pytest.raises(case.error) as refused:
        await mesh.start_runs(**{"workflow": Sale, "payloads": [{}, {}], **case.arguments})

    assert refused.value.code == case.code
    assert await contents(mesh) == before


CALLS: dict[str, dict[str, Any]] = {
    "inspect_run": {},
    "explain_run": {},
    "graph": {},
    "cancel_run": {},
    "resume_run": {},
    "approve_run": {"actor": "ada"},
    "reject_run": {"actor": "ada"},
    "replay_run": {},
}
GARBAGE: list[Any] = ["", "garbage", 7, None, b"x", "'; drop table runs; --", SOMEBODY[:-1], "é"]


@pytest.mark.parametrize("call", CALLS)
async def test_what_is_no_run_id_is_refused_everywhere(open_mesh: OpenMesh, call: str) -> None:
    mesh = await open_mesh(Sale)

    for run_id in GARBAGE:
        with pytest.raises(InvalidRunIdError) as refused:
            await getattr(mesh, call)(run_id, **CALLS[call])

        assert isinstance(refused.value, ValueError)
        assert refused.value.code == "invalid_run_id"


@pytest.mark.parametrize("call", CALLS)
async def test_a_run_that_is_not_there_is_not_found_anywhere(
    open_mesh: OpenMesh, call: str
) -> None:
    mesh = await open_mesh(Sale)
    before = await contents(mesh)

    with pytest.raises(RunNotFoundError) as refused:
        await getattr(mesh, call)(SOMEBODY, **CALLS[call])

    assert isinstance(refused.value, LookupError)
    assert refused.value.code == "run_not_found"
    assert refused.value.details["run_id"] == SOMEBODY
    assert await contents(mesh) == before


@pytest.mark.parametrize(
    "call", ["inspect_run", "explain_run", "graph", "resume_run", "replay_run"]
)
async def test_a_run_id_is_found_in_any_spelling_of_the_uuid(
    open_mesh: OpenMesh, call: str
) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale, run_id=SOMEBODY)

    await getattr(mesh, call)(run.id.upper(), **CALLS[call])


COMMANDS = ["cancel_run", "resume_run", "approve_run", "reject_run", "replay_run"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_an_idempotency_key_is_a_short_text(open_mesh: OpenMesh, command: str) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale)
    before = await contents(mesh)

    for key in ("", 7, "x" * 10_000, "a\x00", "\ud800"):
        with pytest.raises(InvalidOptionError) as refused:
            await getattr(mesh, command)(run.id, **CALLS[command], idempotency_key=key)

        assert refused.value.details["option"] == "idempotency_key"
    assert await contents(mesh) == before


REPLAYS: list[Any] = [7, ["only"], b"only", object()]


@pytest.mark.parametrize("from_step", REPLAYS, ids=range(len(REPLAYS)))
async def test_a_step_to_replay_from_is_a_name(open_mesh: OpenMesh, from_step: Any) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale)

    with pytest.raises(InvalidOptionError) as refused:
        await mesh.replay_run(run.id, from_step=from_step)

    assert refused.value.details["option"] == "from_step"


@pytest.mark.parametrize("step_name", REPLAYS, ids=range(len(REPLAYS)))
async def test_a_step_to_explain_is_a_name(open_mesh: OpenMesh, step_name: Any) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale)

    with pytest.raises(InvalidOptionError) as refused:
        await mesh.explain_run(run.id, step=step_name)

    assert refused.value.details["option"] == "step"


@pytest.mark.parametrize("option", [{"older_than": 5}, {"older_than": None}], ids=range(2))
async def test_recovering_takes_a_timedelta(open_mesh: OpenMesh, option: dict[str, Any]) -> None:
    mesh = await open_mesh(Sale)

    with pytest.raises(InvalidOptionError) as refused:
        await mesh.recover(**option)

    assert refused.value.details["option"] == "older_than"


@pytest.mark.parametrize("timeout", [5, "1", timedelta(0) - timedelta(1)], ids=range(3))
async def test_working_until_idle_takes_a_timedelta(open_mesh: OpenMesh, timeout: Any) -> None:
    mesh = await open_mesh(Sale)

    with pytest.raises(InvalidOptionError) as refused:
        await mesh.run_until_idle(timeout=timeout)

    assert refused.value.details["option"] == "timeout"


URLS: list[tuple[Any, str]] = [
    ("", "invalid_option"),
    ("app.db", "invalid_option"),
    ("mysql://host/db", "invalid_option"),
    ("sqlite://", "invalid_option"),
    ("sqlite:///", "invalid_option"),
    ("sqlite://host/app.db", "invalid_option"),
    ("sqlite:///a\x00b.db", "invalid_option"),
    ("memory", "invalid_option"),
    (7, "invalid_option"),
    (None, "invalid_option"),
    (Path("app.db"), "invalid_option"),
    ("http://[", "invalid_option"),
]


@pytest.mark.parametrize(("url", "code"), URLS, ids=range(len(URLS)))
async def test_a_url_that_names_no_store_is_refused(
    url: Any, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InvalidOptionError) as refused:
        async with SquidMesh.open(url):
            pass

    assert refused.value.code == code
    assert refused.value.details["option"] == "url"
    assert os.listdir(tmp_path) == []  # noqa: PTH208  a plain look, and pathlib is for threads


async def test_a_file_in_a_folder_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError) as refused:
        async with SquidMesh.open(f"sqlite:///{tmp_path}/nowhere/app.db"):
            pass

    assert refused.value.code == "store_unavailable"


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("dear diary, " * 1000)

    with pytest.raises(SquidMeshError):
        async with SquidMesh.open(f"sqlite:///{file}"):
            pass

    assert file.read_text() == "dear diary, " * 1000


OPTIONS: list[dict[str, Any]] = [
    {"lease": timedelta(0)},
    {"lease": timedelta(seconds=-1)},
    {"lease": 60},
    {"max_deliveries": 0},
    {"max_deliveries": "5"},
    {"max_deliveries": True},
    {"max_payload_bytes": 0},
    {"max_payload_bytes": 1.5},
    {"telemetry": object()},
    {"pool_size": 5},
    {"workfows": []},
    {"workflows": [Sale, Sale]},
    {"workflows": Sale},
    {"workflows": 7},
    {"clock": 7},
    {"executor": 7},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: str(options)[:40])
async def test_an_option_of_open_that_makes_no_sense_is_refused(
    url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidOptionError) as refused:
        async with SquidMesh.open(url, **options):
            pass

    assert refused.value.code == "invalid_option"
    assert refused.value.details["option"] in options


@pytest.mark.parametrize("workflow", [7, "sale", object, None])
async def test_what_is_no_workflow_cannot_be_registered(url: str, workflow: Any) -> None:
    with pytest.raises((UnknownWorkflowError, InvalidOptionError)):
        async with SquidMesh.open(url, workflows=[workflow]):
            pass


WORKERS: list[dict[str, Any]] = [
    {"queues": ()},
    {"queues": "default"},
    {"queues": ("",)},
    {"queues": (7,)},
    {"queues": 7},
    {"concurrency": 0},
    {"concurrency": "64"},
    {"concurrency": True},
    {"lease": timedelta(0)},
    {"lease": 60},
]


@pytest.mark.parametrize("options", WORKERS, ids=str)
async def test_an_option_of_a_worker_that_makes_no_sense_is_refused(
    open_mesh: OpenMesh, options: dict[str, Any]
) -> None:
    mesh = await open_mesh(Sale)

    with pytest.raises(InvalidOptionError) as refused:
        Worker(mesh, **options)

    assert refused.value.details["option"] in options


async def test_a_closed_mesh_says_so(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)
    await mesh.aclose()
    await mesh.aclose()

    with pytest.raises(InvalidOptionError):
        await mesh.start_run(Sale)


def test_a_broken_definition_is_refused_with_all_its_problems() -> None:
    with pytest.raises(DefinitionError) as refused:

        class Broken(Workflow[Order]):
            name = "broken"
            by_hand = manual()
            a = step(lambda nobody: nobody, timeout=timedelta(0))
            b = step(7)  # type: ignore[arg-type]
            transitions = (path(a, b), a.on_error(b, recovery="sideways"))

    codes = {problem.code for problem in refused.value.problems}
    assert codes >= {
        "unknown_parameter",
        "invalid_timeout",
        "invalid_action",
        "invalid_recovery",
    }
    assert refused.value.code == "definition"


async def test_a_message_never_repeats_what_was_given_as_a_value(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)

    with pytest.raises(InvalidPayloadError) as refused:
        await mesh.start_run(Sale, {"number": 4711, "amount": "hunter2"})

    assert "4711" not in str(refused.value)
    assert "hunter2" not in f"{refused.value!r} {refused.value.details}"
