"""The virtual clock, the repeatable identities, and the real ones that they stand in for."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from math import inf

import pytest

from squidmesh.ports.clock import Clock
from squidmesh.system import SystemClock, SystemIds, SystemRandom
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contracts import ClockContract, IdsContract, RandomContract
from squidmesh.testing.ids import SeededRandom, SequentialIds


class TestVirtualClock(ClockContract):
    @pytest.fixture
    def clock(self) -> VirtualClock:
        return VirtualClock()

    def pass_time(self, clock: Clock, seconds: float) -> None:
        assert isinstance(clock, VirtualClock)
        clock.advance(seconds)


class TestSystemClock(ClockContract):
    @pytest.fixture
    def clock(self) -> SystemClock:
        return SystemClock()


class TestSequentialIds(IdsContract):
    @pytest.fixture
    def ids(self) -> SequentialIds:
        return SequentialIds()


class TestSystemIds(IdsContract):
    @pytest.fixture
    def ids(self) -> SystemIds:
        return SystemIds()

    def test_a_claim_token_has_more_than_128_bits(self, ids: SystemIds) -> None:
        assert len(ids.claim_token()) >= 43

    def test_a_forked_process_makes_other_ones_than_its_parent(self) -> None:
        program = (
            "import os; from squidmesh.system import SystemIds; ids = SystemIds(); ids.claim_id();"
            "child = os.fork(); said = f'{ids.claim_id()} {ids.claim_token()} ';"
            "os.write(1, said.encode());"
            "child and os.waitpid(child, 0)"
        )

        said = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout.split()

        assert len(set(said)) == 4


class TestSeededRandom(RandomContract):
    @pytest.fixture
    def chance(self) -> SeededRandom:
        return SeededRandom()


class TestSystemRandom(RandomContract):
    @pytest.fixture
    def chance(self) -> SystemRandom:
        return SystemRandom()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
async def sleepers(clock: VirtualClock, woken: list[str]) -> AsyncIterator[None]:
    """Four tasks that sleep for 3, 1, 2 and again 1 seconds and then say their names."""

    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    lengths = {"three": 3, "one": 1, "two": 2, "also one": 1}
    async with asyncio.TaskGroup() as group:
        for name, seconds in lengths.items():
            group.create_task(sleep(name, seconds))
        await settle(clock)
        yield
        clock.advance(10)


async def settle(clock: VirtualClock) -> None:
    for _ in range(5):
        await clock.sleep(0)


def test_time_stands_still_until_it_is_advanced(clock: VirtualClock) -> None:
    before = (clock.now(), clock.monotonic())

    after = clock.advance(1.5)

    assert before == (datetime(2030, 1, 1, tzinfo=UTC), 0.0)
    assert after == clock.now() == before[0] + timedelta(seconds=1.5)
    assert clock.monotonic() == 1.5


def test_a_clock_may_start_at_any_instant_and_tells_it_in_utc() -> None:
    lisbon_in_summer = timezone(timedelta(hours=1))

    clock = VirtualClock(datetime(2030, 7, 1, 9, tzinfo=lisbon_in_summer))

    assert clock.now().isoformat() == "2030-07-01T08:00:00+00:00"


def test_time_does_not_run_backwards(clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


@pytest.mark.anyio
@pytest.mark.usefixtures("sleepers")
async def test_sleepers_wake_in_the_order_of_their_times_and_of_falling_asleep(
    clock: VirtualClock, woken: list[str]
) -> None:
    clock.advance(3)
    await settle(clock)

    assert woken == ["one", "also one", "two", "three"]


@pytest.mark.anyio
@pytest.mark.usefixtures("sleepers")
async def test_a_sleeper_wakes_exactly_when_its_time_has_come(
    clock: VirtualClock, woken: list[str]
) -> None:
    clock.advance(timedelta(seconds=1, microseconds=-1))
    await settle(clock)
    early = list(woken)

    clock.advance(timedelta(microseconds=1))
    await settle(clock)

    assert early == []
    assert woken == ["one", "also one"]


@pytest.mark.anyio
@pytest.mark.usefixtures("sleepers")
async def test_the_clock_knows_who_sleeps_and_who_wakes_next(clock: VirtualClock) -> None:
    asleep = (clock.sleepers, clock.next_wake_at)

    clock.advance(2)

    assert asleep == (4, datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC))
    assert (clock.sleepers, clock.next_wake_at) == (1, datetime(2030, 1, 1, 0, 0, 3, tzinfo=UTC))


@pytest.mark.anyio
async def test_a_cancelled_sleeper_is_forgotten(clock: VirtualClock) -> None:
    sleeper = asyncio.create_task(clock.sleep(inf))
    await settle(clock)

    sleeper.cancel()
    await asyncio.wait([sleeper])

    assert (clock.sleepers, clock.next_wake_at) == (0, None)


@pytest.mark.anyio
async def test_time_may_be_advanced_from_another_thread(clock: VirtualClock) -> None:
    sleeper = asyncio.create_task(clock.sleep(5))
    await settle(clock)

    thread = threading.Thread(target=clock.advance, args=(5,))
    thread.start()
    await sleeper
    thread.join()

    assert clock.monotonic() == 5


def test_identities_count_up_and_repeat_themselves() -> None:
    first, second = SequentialIds(), SequentialIds()

    made = [
        (ids.run_id(), ids.claim_id(), ids.claim_token(), ids.owner()) for ids in (first, second)
    ]

    assert made[0] == made[1]
    assert made[0] == ("00000000-0001-7000-8000-000000000000", "claim-1", "token-1", "worker-1")


def test_identities_of_different_prefixes_do_not_meet() -> None:
    left, right = SequentialIds("left-"), SequentialIds("right-")

    assert left.run_id() != right.run_id()
    assert (left.owner(), right.owner()) == ("left-worker-1", "right-worker-1")


def test_one_seed_draws_the_same_numbers_and_another_draws_others() -> None:
    seven, again, eight = SeededRandom(7), SeededRandom(7), SeededRandom(8)

    drawn = [[chance.draw() for _ in range(5)] for chance in (seven, again, eight)]

    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
