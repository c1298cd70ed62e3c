"""What a replay would run again, and what that would do to the outside once more."""

from collections.abc import Sequence

from squidmesh.domain.commands import Failed, StartRun
from squidmesh.domain.definition import StepSpec, WorkflowDefinition
from squidmesh.domain.preview import Repetition, repetition
from squidmesh.domain.recovery import carried_over
from tests.domain.builders import (
    BROKEN,
    RUN,
    a_chain,
    a_pause,
    a_wait,
    a_workflow,
    an_action,
    an_undoable,
    seconds,
)
from tests.domain.script import Script

STEPS: Sequence[StepSpec] = (
    an_action("load"),
    an_undoable("charge"),
    an_action("ship", irreversible=True),
    an_action("bill", compensatable=False),
    an_action("tell"),
)


def repeated(
    run: Script, *, from_step: str | None = None, today: WorkflowDefinition | None = None
) -> Repetition:
    """What a replay of *run* under the definition of *today* does again."""
    current = run.definition if today is None else today
    brought = () if from_step is None else carried_over(run.definition, run.state, from_step)
    start = StartRun(
        run_id="run-2",
        workflow="orders",
        trigger="by_hand",
        fingerprint="f2",
        payload={},
        replayed_from=RUN,
        from_step=from_step,
        carried=tuple(item for item in brought if item.step in current.by_name),
    )
    return repetition(run.definition, current, run.state, start)


def done(*names: str, definition: WorkflowDefinition | None = None) -> Script:
    """A run of which these steps are completed."""
    run = Script(a_chain(*STEPS) if definition is None else definition).start()
    for name in names:
        run.ok(name)
    return run


def test_all_that_ran_runs_again_and_some_of_it_reaches_outside() -> None:
    run = done("load", "charge", "ship", "bill", "tell")

    assert repeated(run) == Repetition(
        again=("load", "charge", "ship", "bill", "tell"), effects=("charge", "ship", "bill")
    )


def test_from_a_step_on_what_came_before_it_is_not_repeated() -> None:
    run = done("load", "charge", "ship", "bill", "tell")

    assert repeated(run, from_step="ship") == Repetition(
        again=("ship", "bill", "tell"), effects=("ship", "bill")
    )


def test_what_nobody_began_is_no_repetition() -> None:
    run = done("load")

    assert repeated(run) == Repetition(again=("load",))


def test_an_effect_that_was_not_completed_is_none_to_repeat() -> None:
    run = done("load", "charge")
    run.report(run.claim("ship"), Failed(error=BROKEN))
    run.ok("compensate:charge")

    assert repeated(run) == Repetition(again=("load", "charge", "ship"), effects=("charge",))


def test_a_body_that_put_itself_off_has_run() -> None:
    run = done()
    run.defer("load", seconds(5))

    assert repeated(run).again == ("load",)


def test_a_decision_is_made_again_once_it_was_made() -> None:
    definition = a_chain(a_pause("hold"), a_pause("keep"), a_wait("rest", seconds(5)))
    open_, made = done(definition=definition), done(definition=definition)
    made.resume()

    assert repeated(open_).again == ()
    assert repeated(made).again == ("hold",)


def test_the_carried_policy_counts_and_the_order_of_today() -> None:
    run = done("load", "ship", definition=a_chain(STEPS[0], STEPS[2], STEPS[4]))
    today = a_workflow(an_action("ship"), an_action("load"))

    assert repeated(run, today=today) == Repetition(again=("ship", "load"), effects=("ship",))


def test_a_step_that_today_does_not_come_by_is_not_repeated() -> None:
    run = done("load", "charge", "ship", "bill", "tell")
    today = a_chain(STEPS[0], STEPS[1], STEPS[4], STEPS[2])

    assert repeated(run, today=today).again == ("load", "charge", "tell", "ship")
    assert repeated(run, today=today, from_step="ship").again == ("ship",)


def test_among_joins_everything_that_is_not_brought_along_runs_again() -> None:
    definition = a_workflow(
        an_undoable("root"),
        an_action("left", after=("root",)),
        an_undoable("right", after=("root",)),
        an_action("end", after=("left", "right")),
    )
    run = done("root", "left", "right", "end", definition=definition)

    assert repeated(run, from_step="left") == Repetition(
        again=("left", "right", "end"), effects=("right",)
    )


def test_what_a_replay_brought_along_counts_as_done_when_that_is_replayed_in_whole() -> None:
    source = done("load", "charge", "ship")
    brought = carried_over(source.definition, source.state, "bill")
    copy = Script(source.definition).start(from_step="bill", carried=brought)

    assert repeated(copy) == Repetition(
        again=("load", "charge", "ship"), effects=("charge", "ship")
    )
