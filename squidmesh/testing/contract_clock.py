"""What `Clock`, `Ids` and `Random` promise."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from squidmesh.ports.clock import Clock, Ids, Random
from squidmesh.testing.contract_base import promises

MANY = 1000


@pytest.mark.anyio
class ClockContract:
    """The promises a `Clock` makes; a subclass provides `clock`, and says how its time passes."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def clock(self) -> Clock:
        raise NotImplementedError(f"{type(self).__name__} provides no `clock` fixture")

    def pass_time(self, clock: Clock, seconds: float) -> None:
        """Let time pass, if it does not do so by itself."""

    @promises("Clock.is_virtual")
    async def test_time_passes_by_itself_unless_the_clock_is_virtual(self, clock: Clock) -> None:
        before = clock.monotonic()

        moved = any(clock.monotonic() > before for _ in range(100 * MANY))

        assert moved is not clock.is_virtual

    @promises("Clock.now")
    async def test_the_present_is_in_utc(self, clock: Clock) -> None:
        assert clock.now().utcoffset() == timedelta(0)

    @promises("Clock.now")
    async def test_the_present_moves_on_with_time(self, clock: Clock) -> None:
        before = clock.now()

        await self._sleep(clock, 0.01)

        assert clock.now() >= before + timedelta(seconds=0.009)

    @promises("Clock.monotonic")
    async def test_seconds_never_run_backwards(self, clock: Clock) -> None:
        read = [clock.monotonic() for _ in range(MANY)]

        assert read == sorted(read)

    @promises("Clock.sleep")
    async def test_a_sleep_lasts_as_long_as_was_asked_for(self, clock: Clock) -> None:
        before = clock.monotonic()

        await self._sleep(clock, 0.01)

        # A real clock may be read in coarser steps than it sleeps in.
        assert clock.monotonic() - before >= 0.009

    @promises("Clock.sleep")
    async def test_a_sleep_of_no_time_lets_others_run(self, clock: Clock) -> None:
        ran: list[str] = []

        async def other() -> None:
            ran.append("other")

        task = asyncio.create_task(other())
        await clock.sleep(0)
        await clock.sleep(0)

        assert ran == ["other"]
        await task

    @promises("Clock.sleep")
    async def test_a_sleeper_can_be_cancelled(self, clock: Clock) -> None:
        sleeper = asyncio.create_task(clock.sleep(3600))
        await clock.sleep(0)

        sleeper.cancel()

        with pytest.raises(asyncio.CancelledError):
            await sleeper

    async def _sleep(self, clock: Clock, seconds: float) -> None:
        sleeper = asyncio.create_task(clock.sleep(seconds))
        await clock.sleep(0)
        self.pass_time(clock, seconds)
        await sleeper


class IdsContract:
    """The promises that `Ids` make; a subclass provides `ids`."""

    @pytest.fixture
    def ids(self) -> Ids:
        raise NotImplementedError(f"{type(self).__name__} provides no `ids` fixture")

    @promises("Ids.run_id")
    def test_run_ids_are_uuids_of_version_7(self, ids: Ids) -> None:
        run_id = ids.run_id()

        assert UUID(run_id).version == 7
        assert run_id == str(UUID(run_id))

    @promises("Ids.run_id")
    def test_later_run_ids_sort_behind_earlier_ones(self, ids: Ids) -> None:
        made = [ids.run_id() for _ in range(MANY)]

        assert made == sorted(set(made))

    @promises("Ids.claim_id")
    @promises("Ids.claim_token")
    @promises("Ids.owner")
    def test_no_claim_token_or_owner_is_made_twice(self, ids: Ids) -> None:
        for make in (ids.claim_id, ids.claim_token, ids.owner):
            assert len({make() for _ in range(MANY)}) == MANY


class RandomContract:
    """The promises a `Random` makes; a subclass provides `chance`."""

    @pytest.fixture
    def chance(self) -> Random:
        raise NotImplementedError(f"{type(self).__name__} provides no `chance` fixture")

    @promises("Random.draw")
    def test_draws_lie_between_minus_one_and_one_on_both_sides_of_zero(
        self, chance: Random
    ) -> None:
        drawn = [chance.draw() for _ in range(MANY)]

        assert all(-1 <= each <= 1 for each in drawn)
        assert min(drawn) < -0.5
        assert max(drawn) > 0.5
