"""Whether bodies of another release fit a run: what is ahead of it, and what each asks for."""

import attrs
import pytest

from squidmesh.domain.compatibility import (
    Misfit,
    MisfitCode,
    Signatures,
    demands,
    fields_of,
    is_in_payload,
    misfits,
    visits_ahead,
    would_fail,
    would_wait,
)
from squidmesh.domain.definition import ManualTrigger, Parameter, WorkflowDefinition
from squidmesh.domain.obstacles import Consequence, obstacle_of
from squidmesh.domain.payload import PayloadContract
from squidmesh.domain.typespec import Anything, PayloadField
from squidmesh.domain.validation_binding import bodies_of
from tests.domain.builders import (
    a_body,
    a_path,
    a_pause,
    a_workflow,
    an_action,
    an_approval,
    on_error,
    on_ok,
)
from tests.domain.script import Script
from tests.domain.stories import (
    FEAST,
    PAYMENT,
    a_run,
    at_review,
    at_tell,
    doomed,
    exhausted,
    feasted,
    undoing,
)


def signatures_of(definition: WorkflowDefinition, **asked: tuple[str, ...]) -> Signatures:
    """What the bodies of *definition* take, but for those visits that are *asked* otherwise."""
    found = {visit: body.parameters for visit, body in bodies_of(definition).items()}
    return found | {visit: tuple(map(Parameter, names)) for visit, names in asked.items()}


def without(signatures: Signatures, *visits: str) -> Signatures:
    return {visit: taken for visit, taken in signatures.items() if visit not in visits}


def failing(script: Script, **asked: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """The visits that would fail with bodies that ask for this, and for which parameter."""
    definition = script.definition
    signatures = signatures_of(definition, **asked)
    wanted = demands(definition, signatures)
    found = would_fail(definition, signatures, script.state, wanted)
    return [(misfit.visit, misfit.parameter) for misfit in found]


def test_a_definition_fits_the_bodies_that_it_was_written_for() -> None:
    assert misfits(PAYMENT, signatures_of(PAYMENT)) == ()
    assert misfits(FEAST, signatures_of(FEAST)) == ()


def test_a_body_that_nobody_has_does_not_fit_whether_it_does_a_step_or_undoes_one() -> None:
    found = misfits(PAYMENT, without(signatures_of(PAYMENT), "ask", "compensate:credit"))

    assert found == (
        Misfit(visit="ask", code="missing_body", body="ask"),
        Misfit(visit="compensate:credit", code="missing_body", body="withdraw"),
    )


def test_a_parameter_that_neither_steps_nor_payload_provide_does_not_fit() -> None:
    signatures = signatures_of(PAYMENT, ask=("invoice", "currency"), tell=("verdict",))

    assert misfits(PAYMENT, signatures) == (
        Misfit(visit="ask", code="missing_input", body="ask", parameter="currency"),
    )


def test_a_parameter_has_to_be_provided_under_every_payload_that_is_asked_about() -> None:
    signatures = signatures_of(PAYMENT)
    payloads = {"old": frozenset({"invoice_id"}), "new": frozenset({"invoice_id", "account"})}

    found = misfits(PAYMENT, signatures, payloads)

    assert [(misfit.visit, misfit.parameter) for misfit in found] == [("ask", "account")]


def test_all_that_a_path_may_come_by_is_ahead_of_it_and_the_undoing_of_that() -> None:
    ahead = visits_ahead(PAYMENT, a_run(PAYMENT).state)

    assert ahead == {*PAYMENT.by_name, "compensate:credit"}


def test_what_a_run_has_behind_it_is_not_ahead_but_for_its_undoing() -> None:
    assert visits_ahead(PAYMENT, at_review().state) == {
        "review", "credit", "tell", "page", "compensate:credit",
    }  # fmt: skip
    assert visits_ahead(PAYMENT, at_tell().state) == {"tell", "compensate:credit"}


def test_a_route_that_was_not_taken_is_not_ahead() -> None:
    script = at_review()
    script.reject()

    assert visits_ahead(PAYMENT, script.state) == {"page"}


def test_of_branches_those_are_ahead_that_have_not_ended() -> None:
    script = a_run(FEAST)
    script.ok("march", "north")

    assert visits_ahead(FEAST, script.state) == {
        "sneak", "rest", "feast", "note", "compensate:sneak",
    }  # fmt: skip


def test_a_run_that_undoes_has_only_the_undoing_ahead() -> None:
    assert visits_ahead(PAYMENT, undoing().state) == {"compensate:credit"}


def test_a_run_that_has_failed_has_only_what_is_in_flight_ahead() -> None:
    script, _ = doomed()

    assert visits_ahead(FEAST, script.state) == {"march"}


def test_nothing_is_ahead_of_a_run_that_is_over_or_being_cancelled() -> None:
    cancelling = a_run(FEAST)
    cancelling.claim("march")
    cancelling.cancel()

    for script in (feasted(), exhausted(), cancelling):
        assert visits_ahead(FEAST, script.state) == frozenset()


def test_a_run_waits_only_for_what_is_ahead_of_it() -> None:
    found = misfits(PAYMENT, without(signatures_of(PAYMENT), "load", "tell"))

    at_load, paused = a_run(PAYMENT), at_review()

    assert [one.visit for one in would_wait(PAYMENT, at_load.state, found)] == ["load", "tell"]
    assert [one.visit for one in would_wait(PAYMENT, paused.state, found)] == ["tell"]


def test_what_was_not_asked_for_before_is_a_demand_and_so_is_a_field_of_the_payload() -> None:
    signatures = {
        "load": (Parameter("invoice_id"), Parameter("region"), Parameter("now", required=False)),
        "tell": (Parameter("credit"), Parameter("ctx", is_context=True)),
        "compensate:credit": (Parameter("output"), Parameter("failure"), Parameter("reason")),
    }

    assert demands(PAYMENT, signatures) == {
        "load": (Parameter("invoice_id"), Parameter("region")),
        "compensate:credit": (Parameter("reason"),),
    }


def test_what_is_dug_out_of_a_field_is_no_demand_if_it_was_asked_for_before() -> None:
    digging = an_action("work", "area", inputs={"area": ("order", "area")})
    renaming = an_action("work", "area", inputs={"area": ("order",)})

    for work, wanted in ((digging, {}), (renaming, {"work": (Parameter("area"),)})):
        definition = a_workflow(work, takes=("order",))
        assert demands(definition, signatures_of(definition)) == wanted


def test_what_only_one_trigger_brings_is_no_demand_if_it_was_asked_for_before() -> None:
    wide = PayloadContract(fields=(PayloadField(name="region", type=Anything()),))
    plain = a_workflow(
        an_action("first"), an_action("last", "region"), transitions=a_path("first", "last")
    )
    both = attrs.evolve(plain, triggers=(*plain.triggers, ManualTrigger(name="wide", payload=wide)))

    assert demands(both, signatures_of(both)) == {}


def test_a_run_with_the_payload_of_another_release_fails_for_want_of_a_field() -> None:
    script = Script(PAYMENT).start({"invoice_id": "i7"})

    assert failing(script) == [("ask", "account")]


def test_an_optional_parameter_that_is_required_now_is_a_demand() -> None:
    before = a_workflow(an_action("work", Parameter("region", required=False)))

    assert demands(before, {"work": (Parameter("region"),)}) == {"work": (Parameter("region"),)}


def test_what_the_payload_or_an_earlier_step_brings_does_not_fail() -> None:
    assert failing(at_review(), tell=("account", "verdict"), page=("invoice",)) == []


def test_what_a_run_does_not_hold_fails_though_another_payload_might_have_it() -> None:
    script = Script(PAYMENT).start({"invoice_id": "i7"})

    assert ("tell", "account") in failing(script, tell=("account", "credit"))


MERGING = a_workflow(
    an_action("first"),
    an_approval("look"),
    an_action("last", undone_by=a_body("undo")),
    an_action("other"),
    transitions=(
        *a_path("first", "look", "last"),
        on_error("look", "other"),
        on_ok("other", None),
    ),
)
"""What its first step returns is merged, and nobody knows beforehand what that is."""


def test_what_a_step_may_still_leave_is_given_the_benefit_of_the_doubt() -> None:
    script = Script(MERGING).start()

    assert failing(script, last=("region",)) == []


def test_what_a_step_has_not_left_fails_and_what_it_has_left_does_not() -> None:
    script = Script(MERGING).start()
    script.ok("first", {"shelf": "a"})

    assert failing(script, last=("region", "shelf")) == [("last", "region")]


def test_an_open_step_is_judged_by_what_the_context_holds() -> None:
    script = Script(MERGING).start()
    script.ok("first", {"shelf": "a"})
    script.approve()

    assert failing(script, last=("region",)) == [("last", "region")]
    assert failing(script, last=("shelf",), other=("region",)) == []


def test_undoing_may_ask_for_what_the_undone_step_itself_may_leave() -> None:
    script = Script(MERGING).start()
    script.ok("first", {"shelf": "a"})
    script.approve()

    asked = {"compensate:last": ("output", "shelf", "region")}

    assert failing(script, **asked) == []


def test_an_undoing_under_way_is_judged_by_what_the_context_holds() -> None:
    asked = {"compensate:credit": ("output", "failure", "verdict", "region")}

    assert failing(undoing(), **asked) == [("compensate:credit", "region")]


def test_between_branches_only_what_comes_before_a_step_counts() -> None:
    script = a_run(FEAST)
    script.ok("sneak", "behind")

    assert failing(script, march=("south",)) == [("march", "south")]
    assert failing(script, feast=("south", "north")) == []


def test_a_value_is_dug_for_where_the_definition_says() -> None:
    definition = a_workflow(
        a_pause("hold"),
        an_action("work", "area", inputs={"area": ("order", "area")}),
        transitions=a_path("hold", "work"),
        takes=("order",),
    )
    before = attrs.evolve(definition, steps=(definition.steps[0], an_action("work")))
    signatures = signatures_of(definition)
    wanted = demands(before, signatures)
    there = Script(definition).start({"order": {"area": "north"}})
    elsewhere = Script(definition).start({"order": {}})

    assert would_fail(definition, signatures, there.state, wanted) == ()
    (found,) = would_fail(definition, signatures, elsewhere.state, wanted)
    assert (found.visit, found.parameter) == ("work", "area")


def test_a_run_that_is_over_fails_for_nothing_any_more() -> None:
    assert failing(feasted(), feast=("region",)) == []


def test_a_parameter_of_one_trigger_only_fails_the_runs_of_the_others() -> None:
    """Workers judge a definition as a whole, so what some of its runs can do is claimed for all."""
    wide = PayloadContract(fields=(PayloadField(name="region", type=Anything()),))
    plain = a_workflow(an_action("work"), takes=("number",))
    both = attrs.evolve(plain, triggers=(*plain.triggers, ManualTrigger(name="wide", payload=wide)))
    signatures = signatures_of(both, work=("region",))

    has_it = Script(both).start({"region": "north"})
    has_none = Script(both).start({"number": "1"})

    assert fields_of(both) == {"number", "region"}
    assert misfits(both, signatures) == ()
    assert failing(has_it, work=("region",)) == []
    assert failing(has_none, work=("region",)) == [("work", "region")]


def test_only_what_the_payload_has_under_its_own_name_is_told_by_the_payload_alone() -> None:
    definition = a_workflow(
        an_action("work", "area", undone_by=a_body("undo"), inputs={"area": ("order", "area")}),
        transitions=a_path("work"),
        takes=("order", "area", "region"),
    )
    state = Script(definition).start({"order": {}, "area": "north", "region": "south"}).state

    def told(visit: str, parameter: str) -> bool:
        return is_in_payload(definition, state, {visit: (Parameter(parameter),)})

    assert told("work", "region")
    assert not told("work", "colour")
    assert not told("work", "area")  # it is dug for in the order, which has none
    assert told("compensate:work", "area")
    assert is_in_payload(definition, state, {})


@pytest.mark.parametrize(
    ("visit", "parameter", "consequence", "words"),
    [
        ("pack", None, "waits", "Step 'pack' runs pack, which the workflow declares no more"),
        ("compensate:pack", None, "waits", "undoing of a run that fails waits"),
        ("pack", "area", "waits", "asks for 'area' now, and neither a step of its version nor any"),
        ("compensate:pack", "area", "fails", "What undoes step 'pack' asks for 'area' now"),
    ],
)
def test_an_obstacle_says_where_and_why_and_what_helps(
    visit: str, parameter: str | None, consequence: Consequence, words: str
) -> None:
    code: MisfitCode = "missing_body" if parameter is None else "missing_input"
    misfit = Misfit(visit=visit, code=code, body="pack", parameter=parameter)

    obstacle = obstacle_of(misfit, consequence)

    phase = "compensation" if visit.startswith("compensate:") else "forward"
    assert (obstacle.step, obstacle.phase, obstacle.code) == ("pack", phase, code)
    assert words in obstacle.message
    assert ("default" if parameter else "see 'Keeping what old runs need'") in obstacle.remedy
