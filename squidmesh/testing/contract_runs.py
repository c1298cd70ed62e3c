"""What `RunStore` promises: the right runs in the right order, keys and definitions."""

from datetime import timedelta
from itertools import product

import attrs
import pytest

from squidmesh.domain.state import RunState, RunStatus
from squidmesh.ports.store import RunQuery, RunSummary
from squidmesh.testing.builders import (
    FIRST,
    cancel,
    complete,
    definition,
    finish,
    key,
    request,
    run_id,
    start,
    take,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    MICROSECOND,
    Storage,
    StorageContract,
    begin,
    promises,
)
from squidmesh.testing.samples import TEXTS

HOUR = timedelta(hours=1)


LIVE = frozenset({RunStatus.PENDING, RunStatus.RUNNING, RunStatus.CANCELLING})
STATUSES: tuple[frozenset[RunStatus] | None, ...] = (
    None,
    LIVE,
    frozenset({RunStatus.RUNNING}),
    frozenset({RunStatus.PENDING, RunStatus.COMPLETED}),
    frozenset({RunStatus.COMPLETED, RunStatus.CANCELLED}),
)


async def found(store: Storage, query: RunQuery) -> list[str]:
    """The ids of the runs that the query brings, in order."""
    return [summary.state.run_id for summary in await store.list_runs(query)]


async def pages(store: Storage, query: RunQuery) -> list[str]:
    """The ids of all runs that the query brings, page after page."""
    ids: list[str] = []
    while page := await store.list_runs(query):
        ids += [summary.state.run_id for summary in page]
        query = attrs.evolve(query, behind=(page[-1].state.facts.at, ids[-1]))
    return ids


async def many_runs(store: Storage, clock: VirtualClock) -> list[RunState]:
    """Runs of two workflows that stand anywhere, two at a time, newest first."""
    states: list[RunState] = []
    for number in range(30):
        workflow = "orders" if number % 3 else "refunds"
        tags = {"team": "blue"} if number % 4 == 0 else {}
        at = clock.now()
        begun = start(run_id(number), at=at, workflow=workflow, fingerprint=workflow, tags=tags)
        course = [begun]
        if number % 5:
            course.append(take(course[-1].state, "load", at=at))
        if number % 5 == 4:
            course.append(cancel(course[-1].state, at=at))
        if number % 5 in {2, 3} and number < 20:
            course.append(complete(course[-1].state, "load", at=at))
            course.append(finish(course[-1].state, at=at))
        await begin(store, *course)
        states.append(course[-1].state)
        clock.advance(number % 2)
    return states[::-1]


class RunStoreContract(StorageContract):
    """The promises a `RunStore` makes."""

    @promises("RunStore.list_runs", 1)
    async def test_runs_are_listed_newest_first_and_among_equals_by_id(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, *(start(run_id(number), at=clock.now()) for number in (2, 4, 3)))
        clock.advance(1)
        await begin(store, start(run_id(1), at=clock.now()))

        assert await found(store, RunQuery()) == [run_id(number) for number in (1, 4, 3, 2)]

    @promises("RunStore.list_runs", 1)
    async def test_a_run_is_listed_with_its_facts_status_and_current_step(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        started = start(at=clock.now(), payload={"a": 1}, tags={"team": "blue"})
        taken = take(started.state, "load", at=clock.now())
        report = complete(taken.state, "load", at=clock.now(), output=7, then="ship")
        await begin(store, started, taken, report)

        (summary,) = await store.list_runs(RunQuery())

        state = report.state
        assert summary == RunSummary(state=summary.state, current_step="ship")
        assert (summary.state.started, summary.state.status) == (state.started, state.status)
        assert (summary.state.revision, summary.state.updated_at) == (
            state.revision,
            state.updated_at,
        )
        assert (dict(summary.state.steps), dict(summary.state.context)) == ({}, {})

    @promises("RunStore.list_runs", 1)
    async def test_a_run_that_is_over_is_listed_with_its_end(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        started = start(at=clock.now())
        clock.advance(1)
        await begin(store, started, finish(started.state, at=clock.now()))

        (summary,) = await store.list_runs(RunQuery())

        assert summary.state.status is RunStatus.COMPLETED
        assert summary.state.ended_at == clock.now()
        assert summary.current_step is None

    @promises("RunStore.list_runs", 1)
    async def test_runs_are_listed_by_workflow(self, store: Storage, clock: VirtualClock) -> None:
        for number, workflow in enumerate(("orders", "Orders", "orders_2"), 1):
            change = start(
                run_id(number), at=clock.now(), workflow=workflow, fingerprint=f"of-{workflow}"
            )
            await begin(store, change)

        assert await found(store, RunQuery(workflow="orders")) == [run_id(1)]
        assert await found(store, RunQuery(workflow="nothing")) == []

    @promises("RunStore.list_runs", 1)
    async def test_runs_are_listed_by_status_as_it_is_now(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        pending, running, cancelled = (start(run_id(n), at=clock.now()) for n in (1, 2, 3))
        await begin(store, pending, running, cancelled)
        await begin(
            store,
            take(running.state, "load", at=clock.now()),
            cancel(cancelled.state, at=clock.now()),
        )

        wanted = [
            frozenset({RunStatus.PENDING}),
            frozenset({RunStatus.RUNNING, RunStatus.CANCELLED}),
            frozenset[RunStatus](),
            None,
        ]
        listed = [await found(store, RunQuery(statuses=statuses)) for statuses in wanted]

        assert listed == [
            [run_id(1)],
            [run_id(3), run_id(2)],
            [],
            [run_id(3), run_id(2), run_id(1)],
        ]

    @promises("RunStore.list_runs", 1)
    async def test_a_claim_changes_the_status_under_which_a_run_is_listed(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))

        await store.claim(request())

        assert await found(store, RunQuery(statuses=frozenset({RunStatus.RUNNING}))) == [FIRST]
        assert await found(store, RunQuery(statuses=frozenset({RunStatus.PENDING}))) == []

    @promises("RunStore.list_runs", 1)
    async def test_runs_are_listed_by_tags_all_of_which_they_carry(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        tags: tuple[dict[str, str], ...] = (
            {},
            {"team": "blue"},
            {"team": "blue", "tier": "1"},
            {"team": "Blue", "tier": "1"},
        )
        for number, carried in enumerate(tags, 1):
            await begin(store, start(run_id(number), at=clock.now(), tags=carried))

        assert await found(store, RunQuery(tags={"team": "blue"})) == [run_id(3), run_id(2)]
        assert await found(store, RunQuery(tags={"team": "blue", "tier": "1"})) == [run_id(3)]
        assert await found(store, RunQuery(tags={"team": "1"})) == []

    @promises("RunStore.list_runs", 1)
    async def test_a_tag_of_any_text_finds_its_run(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        tags = {text: name for name, text in TEXTS.items() if name != "long"}
        await begin(store, start(at=clock.now(), tags=tags))

        missed = [
            name
            for text, name in tags.items()
            if not await found(store, RunQuery(tags={text: name}))
        ]

        assert missed == []

    @promises("RunStore.list_runs", 1)
    async def test_runs_are_listed_from_a_start_inclusive_to_an_end_exclusive(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        began = clock.now()
        for number in (1, 2, 3):
            await begin(store, start(run_id(number), at=clock.now()))
            clock.advance(HOUR)

        second = began + HOUR
        listed = [
            await found(store, RunQuery(started_after=second)),
            await found(store, RunQuery(started_before=second)),
            await found(store, RunQuery(started_after=second, started_before=second + MICROSECOND)),
            await found(store, RunQuery(started_after=second, started_before=second)),
        ]

        assert listed == [[run_id(3), run_id(2)], [run_id(1)], [run_id(2)], []]

    @promises("RunStore.list_runs", 1)
    async def test_filters_hold_together_and_the_limit_counts_what_they_leave(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        for number in range(1, 9):
            tags = {"parity": "even" if number % 2 == 0 else "odd"}
            await begin(store, start(run_id(number), at=clock.now(), tags=tags))
            clock.advance(1)

        query = RunQuery(
            workflow="orders",
            statuses=frozenset({RunStatus.PENDING}),
            tags={"parity": "even"},
            started_before=clock.now() - timedelta(seconds=1),
            limit=2,
        )

        assert await found(store, query) == [run_id(6), run_id(4)]

    @promises("RunStore.list_runs", 1)
    @pytest.mark.parametrize("limit", [1, 4, 50])
    @pytest.mark.parametrize("workflow", [None, "refunds"])
    async def test_pages_are_the_same_whatever_is_asked_for_and_however_large_they_are(
        self, store: Storage, clock: VirtualClock, limit: int, workflow: str | None
    ) -> None:
        states = await many_runs(store, clock)
        between = (states[-4].facts.at, states[3].facts.at)

        for statuses, tags, (after, before) in product(
            STATUSES, ({}, {"team": "blue"}), ((None, None), between)
        ):
            query = RunQuery(
                workflow=workflow,
                statuses=statuses,
                tags=tags,
                started_after=after,
                started_before=before,
                limit=limit,
            )
            assert await pages(store, query) == [
                state.run_id for state in states if _is_asked_for(state, query)
            ]

    @promises("RunStore.list_runs", 2)
    async def test_paging_shows_each_run_once_also_while_runs_start_in_between(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        for number in range(1, 8):
            await begin(store, start(run_id(number), at=clock.now()))
            if number % 3 == 0:
                clock.advance(1)
        seen: list[str] = []
        behind = None

        for _ in range(5):
            page = await store.list_runs(RunQuery(limit=2, behind=behind))
            if not page:
                break
            seen += [summary.state.run_id for summary in page]
            behind = (page[-1].state.facts.at, page[-1].state.run_id)
            await begin(store, start(run_id(100 + len(seen)), at=clock.now()))

        assert seen == [run_id(number) for number in range(7, 0, -1)]

    @promises("RunStore.find_key")
    async def test_a_key_that_was_never_used_is_not_found(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), keys=(key("k"),)))

        assert await store.find_key("orders:by_hand", "K") is None
        assert await store.find_key("orders", "k") is None

    @promises("RunStore.find_key")
    async def test_keys_of_any_text_are_found(self, store: Storage, clock: VirtualClock) -> None:
        records = tuple(
            key(text, scope=f"scope {text}") for name, text in TEXTS.items() if name != "long"
        )
        await begin(store, start(at=clock.now(), keys=records))

        assert tuple([await store.find_key(each.scope, each.key) for each in records]) == records

    @promises("RunStore.definitions")
    async def test_the_definitions_of_the_workflows_that_are_asked_for_are_named(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        for number, (workflow, fingerprint) in enumerate(
            [("orders", "a"), ("orders", "b"), ("refunds", "c"), ("orders", "a")]
        ):
            change = start(
                run_id(number), at=clock.now(), workflow=workflow, fingerprint=fingerprint
            )
            await begin(store, change)

        assert sorted(await store.definitions()) == ["a", "b", "c"]
        assert sorted(await store.definitions(["orders"])) == ["a", "b"]
        assert sorted(await store.definitions(["refunds", "unknown"])) == ["c"]
        assert await store.definitions([]) == ()

    @promises("RunStore.definition")
    async def test_a_definition_comes_back_byte_for_byte(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        document = '{ "b": 1.0,\n "a": "' + "".join(TEXTS.values()) + '", "a": 1e2 }'
        change = start(at=clock.now())
        stored = definition(document=document)

        await begin(store, attrs.evolve(change, definition=stored))

        assert await store.definition(stored.fingerprint) == stored
        assert await store.definition("unknown") is None


def _is_asked_for(state: RunState, query: RunQuery) -> bool:
    facts = state.facts
    return (
        query.workflow in {None, facts.workflow}
        and (query.statuses is None or state.status in query.statuses)
        and query.tags.items() <= facts.tags.items()
        and (query.started_after is None or query.started_after <= facts.at)
        and (query.started_before is None or facts.at < query.started_before)
    )
