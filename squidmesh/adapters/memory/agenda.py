"""Which attempts may be claimed when, which claims run out when, and who is to be told.

An open attempt is one `Slot`, which stands in several heaps at once: by the time from which it is
visible, by its place among the due ones, by the time at which its lease ends. Nothing is taken out
of the middle of a heap. A slot that has been closed, or whose time has moved on, is passed over
when it comes to the top, and heaps that hold too much of that are swept, so a claim costs the
same however many attempts lie behind it.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import count, islice
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs

from squidmesh.domain.dispatch import claim_order, is_due, is_lost
from squidmesh.domain.state import AttemptState, AttemptStatus
from squidmesh.ports.store import ClaimRequest

Key = TypeVar("Key", bound=Any)

Place: TypeAlias = tuple[int, datetime, str, int, str]
"""A key of `claim_order`."""

_SMALL: Final = 64


@attrs.define(eq=False)
class Slot:
    """An open attempt; *attempt* is its row, with ``lease_until`` and ``wake_at`` as stored."""

    run_id: str
    fingerprint: str
    priority: int
    attempt: AttemptState
    closed: bool = False


class _Heap(Generic[Key]):
    """Slots by a key that may change behind the heap's back; stale places are passed over."""

    def __init__(self, key: Callable[[Slot], Key | None]) -> None:
        self._key = key
        self._items: list[tuple[Key, int, Slot]] = []
        self._numbers = count()
        self._room = _SMALL

    def push(self, slot: Slot) -> None:
        """Give the slot a place by its present key; one without a key has none."""
        key = self._key(slot)
        if key is None:
            return
        heapq.heappush(self._items, (key, next(self._numbers), slot))
        if len(self._items) > self._room:
            self._sweep()

    def top(self) -> tuple[Key, Slot] | None:
        """The slot with the least key, if any is left."""
        while self._items and self._is_stale(self._items[0]):
            heapq.heappop(self._items)
        if not self._items:
            return None
        key, _, slot = self._items[0]
        return key, slot

    def pop(self) -> None:
        """Drop what `top` returned."""
        heapq.heappop(self._items)

    def pop_until(self, limit: Key) -> Iterator[Slot]:
        """Take out, in order, the slots whose key is at most *limit*."""
        while (head := self.top()) is not None and head[0] <= limit:
            self.pop()
            yield head[1]

    def __iter__(self) -> Iterator[Slot]:
        return (item[2] for item in self._items if not self._is_stale(item))

    def _is_stale(self, item: tuple[Key, int, Slot]) -> bool:
        key, _, slot = item
        return slot.closed or self._key(slot) != key

    def _sweep(self) -> None:
        self._items = [item for item in self._items if not self._is_stale(item)]
        heapq.heapify(self._items)
        self._room = max(_SMALL, 2 * len(self._items))


def _visible_at(slot: Slot) -> datetime:
    return slot.attempt.visible_at


def _order(slot: Slot) -> Place:
    return claim_order(slot.priority, slot.run_id, slot.attempt)


class _Lane:
    """Scheduled attempts of one queue and definition, perhaps of one step: to come, and due."""

    def __init__(self) -> None:
        self.waiting = _Heap(_visible_at)
        self.due = _Heap(_order)

    def put(self, slot: Slot, now: datetime) -> None:
        (self.due if is_due(slot.attempt, now) else self.waiting).push(slot)

    def move_on(self, now: datetime) -> None:
        for slot in self.waiting.pop_until(now):
            self.due.push(slot)

    def next_visible_at(self) -> datetime | None:
        due, waiting = self.due.top(), self.waiting.top()
        if due is not None:
            return due[1].attempt.visible_at
        return waiting[0] if waiting is not None else None


class Agenda:
    """Every open attempt of a store, found by what is to happen to it next."""

    def __init__(self) -> None:
        # By definition, then by queue, and by step where somebody lacks steps of the definition.
        self._lanes: dict[str, dict[tuple[str, str | None], _Lane]] = {}
        self._split: set[str] = set()
        self._leases = _Heap(_lease_until)
        self._lost: dict[Slot, None] = {}
        self._wakeups = _Heap(_wake_at)

    def put(self, slot: Slot, now: datetime) -> None:
        """Take up an attempt that is scheduled or claimed from here on."""
        if slot.attempt.status is AttemptStatus.CLAIMED:
            self._leases.push(slot)
            return
        self._lane_of(slot).put(slot, now)
        self._wakeups.push(slot)

    def prolonged(self, slot: Slot) -> None:
        """Note that the end of the slot's lease has moved."""
        self._leases.push(slot)

    def put_off_wakeup(self, slot: Slot) -> None:
        """Note that the slot's next wake-up is owed at another time."""
        self._wakeups.push(slot)

    def take_due(self, request: ClaimRequest, now: datetime) -> Sequence[Slot]:
        """Take out what the request may claim, in order; what is not asked for stays."""
        return list(islice(self._due(self._lanes_of(request), now), len(request.tickets)))

    def _due(self, lanes: Sequence[_Lane], now: datetime) -> Iterator[Slot]:
        """Take everything due out of *lanes*, one by one in the order of claims."""
        heads: list[tuple[Place, int]] = []
        for index, lane in enumerate(lanes):
            lane.move_on(now)
            _push_head(heads, index, lane)
        while heads:
            _, index = heapq.heappop(heads)
            lane = lanes[index]
            head = lane.due.top()
            if head is None:
                continue
            lane.due.pop()
            if is_due(head[1].attempt, now):
                yield head[1]
            else:  # the clock was set back
                lane.waiting.push(head[1])
            _push_head(heads, index, lane)

    def next_visible_at(self, request: ClaimRequest) -> datetime | None:
        """When the next attempt that the request may claim is due."""
        times = (lane.next_visible_at() for lane in self._lanes_of(request))
        return min((time for time in times if time is not None), default=None)

    def lost(self, now: datetime) -> tuple[Slot, ...]:
        """The claims whose lease is over and of which nobody has yet said what follows."""
        self._lost.update(dict.fromkeys(self._leases.pop_until(now)))
        self._lost = {slot: None for slot in self._lost if not slot.closed}
        return tuple(slot for slot in self._lost if is_lost(slot.attempt, now))

    def owed(self, now: datetime, limit: int) -> Sequence[Slot]:
        """The scheduled attempts whose wake-up is owed, the longest owed first."""
        found: dict[Slot, None] = {}  # a time that was noted twice gives a slot two places
        due = self._wakeups.pop_until(now)
        while len(found) < limit and (slot := next(due, None)) is not None:
            found[slot] = None
        for slot in found:
            self._wakeups.push(slot)
        return tuple(found)

    def visible(self, by: datetime, limit: int) -> Sequence[Slot]:
        """The scheduled attempts visible at *by*, the oldest first."""
        heaps = (
            heap
            for queues in self._lanes.values()
            for lane in queues.values()
            for heap in (lane.due, lane.waiting)
        )
        seen = (slot for heap in heaps for slot in heap if slot.attempt.visible_at <= by)
        return heapq.nsmallest(limit, seen, key=_age)

    def _lane_of(self, slot: Slot) -> _Lane:
        step = slot.attempt.step if slot.fingerprint in self._split else None
        lanes = self._lanes.setdefault(slot.fingerprint, {})
        key = (slot.attempt.queue, step)
        lane = lanes.get(key)
        if lane is None:
            lane = lanes[key] = _Lane()
        return lane

    def _lanes_of(self, request: ClaimRequest) -> list[_Lane]:
        for fingerprint, _ in request.lacking:
            if fingerprint not in self._split:
                self._split_up(fingerprint)
        wanted = None if request.queues is None else frozenset(request.queues)
        return [
            lane
            for fingerprint in dict.fromkeys(request.definitions)
            for (queue, step), lane in self._lanes.get(fingerprint, {}).items()
            if (wanted is None or queue in wanted) and (fingerprint, step) not in request.lacking
        ]

    def _split_up(self, fingerprint: str) -> None:
        """Give each step of a definition lanes of its own, so that none has to be passed over."""
        self._split.add(fingerprint)
        for lane in self._lanes.pop(fingerprint, {}).values():
            for slot in lane.due:
                self._lane_of(slot).due.push(slot)
            for slot in lane.waiting:
                self._lane_of(slot).waiting.push(slot)


def _push_head(heads: list[tuple[Place, int]], index: int, lane: _Lane) -> None:
    head = lane.due.top()
    if head is not None:
        heapq.heappush(heads, (head[0], index))


def _lease_until(slot: Slot) -> datetime | None:
    return slot.attempt.lease_until


def _wake_at(slot: Slot) -> datetime | None:
    return slot.attempt.wake_at


def _age(slot: Slot) -> tuple[datetime, str, int, str]:
    attempt = slot.attempt
    return (attempt.visible_at, slot.run_id, attempt.number, attempt.step)
