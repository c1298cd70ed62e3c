"""The fake that hosts test with keeps the promises of an executor, as far as it makes them."""

from collections.abc import Sequence
from datetime import datetime

import pytest

from squidmesh.ports.executor import EnqueueOptions, Executor, ExecutorCapabilities
from squidmesh.testing.contracts import Delivery, Engine, ExecutorContract
from squidmesh.testing.executors import RecordingExecutor


class ByHand(Engine):
    """The test as the engine: it delivers what was enqueued, at once."""

    def __init__(self, executor: RecordingExecutor) -> None:
        self._executor = executor

    async def deliveries(self, until: datetime) -> Sequence[Delivery]:
        return [Delivery(one.payload, one.options.queue) for one in self._executor.enqueued]

    async def cut_off(self) -> None:
        self._executor.fail_with(OSError("cut off"))


class TestRecordingExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return RecordingExecutor()

    @pytest.fixture
    def engine(self, executor: Executor) -> Engine:
        assert isinstance(executor, RecordingExecutor)
        return ByHand(executor)


@pytest.mark.anyio
async def test_it_answers_what_it_was_told_and_lists_what_it_refused() -> None:
    wanted = ExecutorCapabilities(transactional=True)
    executor = RecordingExecutor(wanted, metadata={"job_id": 7})

    answer = await executor.enqueue_step({"kind": "step"}, EnqueueOptions(key="a"))
    executor.fail_with(ValueError("full"))
    with pytest.raises(ValueError, match="full"):
        await executor.enqueue_steps([({"kind": "step"}, EnqueueOptions(key="b"))])
    executor.recover()
    await executor.enqueue_cron({"kind": "cron"}, EnqueueOptions(key="c"))

    assert executor.capabilities is wanted
    assert answer == {"job_id": 7}
    assert [one.options.key for one in executor.refused] == ["b"]
    assert [one.options.key for one in executor.enqueued] == ["a", "c"]
    assert executor.payloads == [{"kind": "step"}, {"kind": "cron"}]
