"""The store's clock as the shell follows it."""

from datetime import timedelta

import pytest

from squidmesh.runtime.store_time import StoreTime
from squidmesh.testing.clock import VirtualClock

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def time(clock: VirtualClock) -> StoreTime:
    return StoreTime(clock)


def test_before_the_first_answer_the_local_clock_has_to_do(
    clock: VirtualClock, time: StoreTime
) -> None:
    assert time.now() == clock.now()


def test_a_wrong_local_clock_does_not_matter(clock: VirtualClock, time: StoreTime) -> None:
    time.observe(clock.now() + HOUR)
    clock.advance(2)

    assert time.now() == clock.now() + HOUR


def test_an_answer_that_was_read_late_does_not_hold_the_time_back(
    clock: VirtualClock, time: StoreTime
) -> None:
    time.observe(clock.now())
    asked = clock.now()
    clock.advance(0.3)

    time.observe(asked)

    assert time.now() == clock.now()


def test_a_store_whose_clock_was_set_back_is_followed_after_two_windows(
    clock: VirtualClock, time: StoreTime
) -> None:
    time.observe(clock.now() + HOUR)

    for _ in range(2):
        clock.advance(6)
        time.observe(clock.now())

    assert time.now() == clock.now()
