"""A guided tour of composites. Read from top to bottom: each test teaches one idea.

Nothing here needs a server. ``work`` stands in for what a step does, so that the tour is about how steps are joined.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from composites import Composite
from composites.engine import CompositeResult, StepCall
from composites.local import run_here
from composites.plan import make_plan
from composites.render import to_tree
from composites.resume import decide_resume, select
from composites.validate import check
from taskcenter.errors import StepFailed


def try_out(composite: Composite, answers: dict[str, Any] | None = None, **more: Any) -> CompositeResult:
    """Run it here and now. ``answers``: step → what it returns, an exception it raises, or a function of its call."""

    async def work(call: StepCall) -> Any:
        answer = (answers or {}).get(call.step.step_key)
        if isinstance(answer, Exception):
            raise answer
        return answer(call) if callable(answer) else answer

    return run_here(composite.spec, work=work, **more)


def ends(result: CompositeResult) -> dict[str, str]:
    return {key: output["status"] for key, output in result.outputs.items()}


BROKEN = StepFailed("the disk is full")


# --- writing ------------------------------------------------------------------------------------------------------


def test_a_composite_is_steps_and_arrows() -> None:
    nightly = Composite("nightly-sales")
    before = nightly.step("snapshot", "schema_snapshot", connection="prod")
    copy = nightly.step("copy_orders", "data_transfer_migration", retries=2, timeout=900)
    check_ = nightly.step("check", "sql_script", sql="select count(*) from orders", connection="dw")

    before >> copy >> check_

    assert to_tree(nightly.spec).splitlines() == [
        "nightly-sales  3 steps, 3 waves, 8 at once",
        "└─ snapshot  schema_snapshot",
        "   └─ copy_orders  data_transfer_migration  (retries 2)",
        "      └─ check  sql_script",
    ]


def test_lists_stand_on_either_side_of_an_arrow() -> None:
    load = Composite("load")
    start, orders, customers, done = (load.step(key, "noop") for key in ("start", "orders", "customers", "done"))

    start >> [orders, customers] >> done

    assert check(load.spec).waves == [["start"], ["orders", "customers"], ["done"]]


def test_a_composite_is_data_and_equal_to_its_json_form() -> None:
    one = Composite("one")
    one.step("a", "noop", text="hello") >> one.step("b", "noop")

    stored = json.dumps(one.to_dict())

    assert Composite.from_dict(json.loads(stored)) == one


# --- checking -----------------------------------------------------------------------------------------------------


def test_all_mistakes_are_shown_at_once_and_a_cycle_is_drawn() -> None:
    wrong = Composite("wrong")
    a, b = wrong.step("a", "noop"), wrong.step("b", "noop", text="{{steps.ghost.rows}}")
    a >> b >> a
    wrong.edge(a, "nowhere")

    assert [problem.message for problem in check(wrong.spec).problems] == [
        "there is no step 'nowhere'",
        "the steps wait for each other: a → b → a",
        "{{steps.ghost.rows}}: there is no step 'ghost'",
    ]


# --- planning -----------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_happen_and_executes_nothing() -> None:
    load = Composite("load", inputs={"day": "monday"})
    copy = load.step("copy", "noop", day="{{inputs.day}}")
    count = load.step("count", "noop", rows="{{steps.copy.rows}}")
    alarm = load.step("alarm", "noop", join="any_failed")
    copy >> count
    [copy, count] >> alarm

    plan = {step.key: step for step in make_plan(load.spec).steps}

    assert plan["copy"].resolved_payload == {"day": "monday"}
    assert plan["count"].resolved_payload == {"rows": "‹from steps.copy.rows›"}
    assert (plan["alarm"].predicted, plan["alarm"].certain) == ("skipped", False)
    assert plan["alarm"].depends_on == ("copy", "count")


def test_a_plan_has_a_hash_that_changes_when_anything_that_matters_does() -> None:
    load = Composite("load", inputs={"day": "monday"})
    load.step("copy", "noop")

    assert make_plan(load.spec).hash == make_plan(load.spec).hash
    assert make_plan(load.spec).hash != make_plan(load.spec, inputs={"day": "tuesday"}).hash


# --- conditions ---------------------------------------------------------------------------------------------------


def test_an_edge_says_which_outcome_it_asks_for() -> None:
    load = Composite("load")
    copy = load.step("copy", "noop")
    load.edge(copy, load.step("publish", "noop"))
    load.edge(copy, load.step("roll_back", "noop"), when="failed")
    load.edge(copy, load.step("clean_up", "noop"), when="always")

    assert ends(try_out(load)) == {
        "copy": "success", "publish": "success", "roll_back": "skipped", "clean_up": "success",
    }  # fmt: skip
    assert ends(try_out(load, {"copy": BROKEN})) == {
        "copy": "failed", "publish": "skipped", "roll_back": "success", "clean_up": "success",
    }  # fmt: skip


def test_an_edge_may_ask_about_the_result() -> None:
    load = Composite("load")
    copy, big = load.step("copy", "noop"), load.step("big", "noop")
    load.edge(copy, big, when="result.rows > 1000")

    assert ends(try_out(load, {"copy": {"rows": 5_000}}))["big"] == "success"
    few = try_out(load, {"copy": {"rows": 5}})
    assert few.outputs["big"]["reason"] == ("copy ended success, and the edge copy → big asks for result.rows > 1000")


# --- joins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("join", "runs"),
    [
        ("all", False),
        ("any", True),
        ("at_least(2)", False),
        ("all_done", True),
        ("none_failed", False),
        ("any_failed", True),
        ("a.success and b.failed", True),
    ],
)
def test_a_join_says_what_several_edges_mean_together(join: str, runs: bool) -> None:
    """``a`` succeeds and ``b`` fails. docs/joins.md has the whole table."""
    two = Composite("two", continue_on_error=True)
    [two.step("a", "noop"), two.step("b", "noop")] >> two.step("child", "noop", join=join)

    assert ends(try_out(two, {"b": BROKEN}))["child"] == ("success" if runs else "skipped")


# --- failure ------------------------------------------------------------------------------------------------------


def test_a_failure_stops_the_rest_and_every_step_says_why_it_did_not_run() -> None:
    load = Composite("load", max_parallel=1)
    load.step("copy", "noop") >> load.step("publish", "noop")
    load.step("report", "noop")

    result = try_out(load, {"copy": BROKEN})

    assert ends(result) == {"copy": "failed", "publish": "skipped", "report": "skipped"}
    assert result.outputs["report"]["reason"] == "copy failed and the composite stops on failure (halted_by copy)"
    assert result.ending.message == (
        "1 of 3 steps failed, first 'copy': the disk is full (0 succeeded, 1 failed, 2 skipped)"
    )


def test_with_continue_on_error_the_rest_goes_on_and_the_run_still_fails() -> None:
    load = Composite("load", continue_on_error=True)
    load.step("copy", "noop")
    load.step("report", "noop")

    result = try_out(load, {"copy": BROKEN})

    assert ends(result) == {"copy": "failed", "report": "success"}
    assert result.ending.failed


def test_a_failure_that_a_step_is_there_for_is_handled() -> None:
    load = Composite("load")
    copy = load.step("copy", "noop")
    load.edge(copy, load.step("alarm", "noop"), when="failed")

    result = try_out(load, {"copy": BROKEN})

    assert not result.ending.failed
    assert result.ending.handled == ("copy",)


def test_a_clean_up_that_succeeds_hides_no_failure() -> None:
    load = Composite("load")
    copy = load.step("copy", "noop")
    load.edge(copy, load.step("clean_up", "noop"), when="always")

    result = try_out(load, {"copy": BROKEN})

    assert ends(result)["clean_up"] == "success"
    assert result.ending.failed


# --- data between steps -------------------------------------------------------------------------------------------


def test_a_step_reads_what_earlier_steps_returned() -> None:
    load = Composite("load", inputs={"day": "monday"})
    copy = load.step("copy", "noop")
    copy >> load.step("mail", "noop", rows="{{steps.copy.rows}}", text="{{inputs.day}}: {{steps.copy.rows}} rows")

    result = try_out(load, {"copy": {"rows": 42}, "mail": lambda call: call.payload})

    assert result.outputs["mail"]["execution"] == {"rows": 42, "text": "monday: 42 rows"}


def test_a_path_that_is_not_there_fails_the_step_and_says_what_was() -> None:
    load = Composite("load")
    load.step("copy", "noop") >> load.step("mail", "noop", rows="{{steps.copy.rowz}}")

    result = try_out(load, {"copy": {"rows": 42}})

    assert result.outputs["mail"]["error"] == (
        "{{steps.copy.rowz}} cannot be resolved: steps.copy.execution has no 'rowz'; it is an object with the keys rows"
    )


# --- map ----------------------------------------------------------------------------------------------------------


def test_a_map_runs_one_step_once_per_item() -> None:
    load = Composite("load")
    tables = load.step("tables", "noop")
    copy = load.step("copy", "noop", table="{{item}}", number="{{index}}").map("{{steps.tables.names}}", parallel=2)
    tables >> copy

    result = try_out(load, {"tables": {"names": ["orders", "customers"]}, "copy": lambda call: call.payload})

    assert result.outputs["copy"]["execution"] == [
        {"table": "orders", "number": 0},
        {"table": "customers", "number": 1},
    ]


# --- one run, differently -----------------------------------------------------------------------------------------


def test_one_run_may_leave_steps_out_or_hold_them() -> None:
    load = Composite("load")
    load.step("copy", "noop") >> load.step("check", "noop") >> load.step("publish", "noop")

    skipped = try_out(load, overrides=select(load.spec, skip=["check"]))
    held = try_out(load, overrides=select(load.spec, hold=["check"]))
    only = try_out(load, overrides=select(load.spec, only=["publish"]))

    assert ends(skipped) == {"copy": "success", "check": "skipped", "publish": "success"}
    assert ends(held) == {"copy": "success", "check": "skipped", "publish": "skipped"}
    assert ends(only) == {"copy": "skipped", "check": "skipped", "publish": "success"}


def test_a_finished_run_is_resumed_from_what_failed() -> None:
    load = Composite("load")
    load.step("copy", "noop") >> load.step("check", "noop") >> load.step("publish", "noop")
    first = try_out(load, {"copy": {"rows": 42}, "check": BROKEN})
    assert ends(first) == {"copy": "success", "check": "failed", "publish": "skipped"}

    resume = decide_resume(load.spec, first.outputs, earlier=load.spec)

    assert [(step.key, step.reuse) for step in resume.decisions] == [
        ("copy", True), ("check", False), ("publish", False),
    ]  # fmt: skip
    ran: list[str] = []
    second = try_out(load, {key: lambda call: ran.append(call.key) for key in ("copy", "check", "publish")},
                     overrides=resume.overrides)  # fmt: skip
    assert ran == ["check", "publish"]
    assert second.outputs["copy"]["execution"] == {"rows": 42}
    assert not second.ending.failed
