"""What goes into one commit, and how a wide run's reports are told in the journal."""

import pytest

from squidmesh.domain.commands import CancelRun, Command, Succeeded
from squidmesh.runtime.asks import Ask
from squidmesh.runtime.batches import MOST_OF_ONE_RUN, next_batch
from squidmesh.runtime.changes import run_change
from tests.domain.builders import a_workflow, an_action
from tests.domain.script import Script, report_of

pytestmark = pytest.mark.anyio


def asks(run_id: str, count: int) -> list[Ask]:
    return [Ask(run_id, CancelRun()) for _ in range(count)]


async def test_what_waits_is_committed_together() -> None:
    waiting = [ask for number in range(100) for ask in asks(f"run-{number}", 2)]
    every = list(waiting)

    batch = next_batch(waiting)

    assert batch == every
    assert waiting == []


async def test_half_of_a_wide_run_waits_for_the_commit_of_the_other_half() -> None:
    wide, other = asks("wide", 2 * MOST_OF_ONE_RUN), asks("other", 1)
    waiting = [*wide, *other]

    batch = next_batch(waiting)

    assert batch == [*wide[:MOST_OF_ONE_RUN], *other]
    assert waiting == wide[MOST_OF_ONE_RUN:]


async def test_of_a_very_wide_run_half_is_more() -> None:
    wide = asks("wide", 6 * MOST_OF_ONE_RUN)
    waiting = list(wide)

    batch = next_batch(waiting)

    assert batch == wide[: 3 * MOST_OF_ONE_RUN]


def test_reports_that_come_together_are_one_row_of_the_journal_and_a_command_is_another() -> None:
    run = Script(a_workflow(*(an_action(name) for name in "abcd"))).start()
    claims = [run.claim(name) for name in "abcd"]
    before = run.state
    commands = [report_of(claim, Succeeded()) for claim in claims]
    given: list[Command] = [*commands[:2], CancelRun(), *commands[2:]]

    decided = [(command, run.do(command), None) for command in given]
    change = run_change(before, run.state, decided, run.now)

    entries = [entries for _, entries, _ in decided]
    assert [(row.cause, row.entries) for row in change.journal] == [
        ("report", entries[0] + entries[1]),
        ("cancel", entries[2]),
        ("report", entries[3] + entries[4]),
    ]
    assert change.journal[-1].revision == run.state.revision
    assert len(change.guards) == 4
