"""A workflow as data, and the questions that it answers about its own shape."""

from hypothesis import given
from hypothesis import strategies as st

from squidmesh.domain.definition import (
    Condition,
    CronTrigger,
    ManualTrigger,
    On,
    Operator,
    WorkflowDefinition,
)
from squidmesh.domain.payload import PayloadContract
from tests.domain.builders import (
    a_chain,
    a_log,
    a_path,
    a_pause,
    a_workflow,
    an_action,
    an_approval,
    on_error,
    on_ok,
    unchecked,
)


def a_diamond() -> WorkflowDefinition:
    """One step, two behind it, and one behind both."""
    return a_workflow(
        an_action("end", after=("left", "right")),
        an_action("left", after=("root",)),
        an_action("right", after=("root",)),
        an_action("root"),
    )


def a_detour() -> WorkflowDefinition:
    """A path with an error route around its middle."""
    return a_workflow(
        an_action("load"),
        an_action("pay"),
        an_action("page"),
        an_action("tell"),
        transitions=(
            *a_path("load", "pay", "tell"),
            on_error("pay", "page"),
            on_ok("page", "tell"),
        ),
    )


def test_steps_and_triggers_are_found_by_name_in_declaration_order() -> None:
    workflow = WorkflowDefinition(
        name="digest",
        triggers=(
            ManualTrigger(name="by_hand", payload=PayloadContract()),
            CronTrigger(name="daily", payload=PayloadContract(), expression="0 9 * * *"),
        ),
        steps=(an_action("fetch"), an_action("post")),
    )

    assert list(workflow.by_name) == ["fetch", "post"]
    assert list(workflow.by_trigger) == ["by_hand", "daily"]
    assert workflow.by_trigger["daily"] is workflow.triggers[1]
    assert workflow.position == {"fetch": 0, "post": 1}


def test_routes_are_numbered_as_declared_over_the_whole_workflow() -> None:
    workflow = a_detour()

    routes = workflow.routes

    assert [number for number, _ in routes[("pay", On.OK)]] == [1]
    assert [number for number, _ in routes[("pay", On.ERROR)]] == [3]
    assert ("tell", On.ERROR) not in routes


def test_a_graph_of_joins_begins_with_every_step_that_has_no_prerequisites() -> None:
    assert a_diamond().entry_steps == ("root",)
    assert not a_diamond().follows_transitions


def test_a_graph_of_routes_begins_where_none_leads_to() -> None:
    assert a_detour().entry_steps == ("load",)
    assert a_detour().follows_transitions


def test_the_dependents_of_a_step_are_those_that_name_it() -> None:
    assert a_diamond().dependents == {
        "end": (),
        "left": ("end",),
        "right": ("end",),
        "root": ("left", "right"),
    }


def test_a_last_step_is_one_that_no_other_step_waits_for() -> None:
    assert a_diamond().last_steps == {"end"}


def test_a_last_step_is_one_whose_ok_routes_all_lead_to_the_end() -> None:
    workflow = unchecked(
        an_action("load"),
        an_action("pay"),
        an_action("tell"),
        an_action("astray"),
        transitions=(
            on_ok("load", "tell", when=Condition(("load",), Operator.EQUALS, 1)),
            on_ok("load", None),
            on_ok("pay", None),
            on_error("pay", "tell"),
            on_ok("tell", None),
        ),
    )

    assert workflow.last_steps == {"pay", "tell"}


def test_a_prerequisite_that_does_not_exist_has_no_dependents() -> None:
    workflow = unchecked(an_action("end", after=("nowhere",)))

    assert workflow.dependents == {"end": ()}
    assert workflow.prerequisites == {"end": frozenset({"nowhere"})}
    assert workflow.in_order == ("end",)


def test_prerequisites_are_what_leads_to_a_step_directly() -> None:
    assert a_detour().prerequisites == {
        "load": frozenset(),
        "pay": frozenset({"load"}),
        "page": frozenset({"pay"}),
        "tell": frozenset({"pay", "page"}),
    }


def test_each_step_stands_behind_its_prerequisites_in_order() -> None:
    assert a_diamond().in_order == ("root", "left", "right", "end")


def test_steps_on_a_circle_have_no_place_in_the_order() -> None:
    workflow = unchecked(
        an_action("root"), an_action("a", after=("b",)), an_action("b", after=("a",))
    )

    assert workflow.in_order == ("root",)
    assert not workflow.precedes("a", "b")


def test_a_step_precedes_those_that_some_way_leads_to_from_it() -> None:
    workflow = a_detour()

    assert workflow.precedes("load", "tell")
    assert workflow.precedes("page", "tell")
    assert not workflow.precedes("tell", "load")
    assert not workflow.precedes("page", "pay")
    assert not workflow.precedes("pay", "pay")


def test_a_step_behind_an_unknown_one_is_preceded_by_no_known_one() -> None:
    workflow = unchecked(an_action("a"), an_action("b", after=("nowhere",)))

    assert not workflow.precedes("a", "b")
    assert not workflow.precedes("b", "b")


def test_a_key_is_provided_by_named_outputs_and_by_whatever_may_merge_it() -> None:
    workflow = a_chain(
        an_action("named", output="order"),
        an_action("typed", merges=("order", "note")),
        an_action("other", merges=("note",)),
        an_action("untyped"),
        an_action("silent", merges=()),
        a_pause("hold", output="hold"),
        a_log("done"),
    )

    assert workflow.providers_of("order") == ("named", "typed", "untyped")
    assert workflow.providers_of("note") == ("typed", "other", "untyped")
    assert workflow.providers_of("hold") == ("hold", "untyped")


def test_manual_steps_are_those_that_a_person_ends() -> None:
    assert a_pause("hold").is_manual
    assert an_approval("review").is_manual
    assert not an_action("load").is_manual
    assert not a_log("done").is_manual


def test_a_step_blocks_replay_if_it_cannot_be_undone() -> None:
    assert an_action("ship", irreversible=True).blocks_replay
    assert an_action("bill", compensatable=False).blocks_replay
    assert not an_action("load").blocks_replay


@given(st.data())
def test_precedence_is_reachability_in_any_graph(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 8))
    names = data.draw(st.permutations([f"s{n}" for n in range(size)]))
    after = {
        name: tuple(data.draw(st.lists(st.sampled_from(names[:place]), unique=True)))
        for place, name in enumerate(names[1:], start=1)
    }
    workflow = a_workflow(
        *(an_action(name, after=after.get(name) or None) for name in sorted(names))
    )

    for later in names:
        ancestors: set[str] = set()
        ahead = list(after.get(later, ()))
        while ahead:
            ancestors.add(name := ahead.pop())
            ahead.extend(after.get(name, ()))
        assert {name for name in names if workflow.precedes(name, later)} == ancestors
