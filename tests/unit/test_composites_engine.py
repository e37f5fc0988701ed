"""Running a composite: what each step is given, what is recorded, failures, cancelling and maps. (spec 3.5–3.11)"""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from typing import Any

import pytest

from composites import Composite
from composites.engine import StepCall, StepChange, execute
from composites.local import run_here
from composites.model import StepSpec
from composites.walk import Outcome, Overrides, output_of
from taskcenter.clock import utc_now
from taskcenter.context import Cancelled
from taskcenter.errors import Refused, StepFailed
from taskcenter.reasons import Reason, ReasonCode
from taskcenter.status import StepStatus
from tests.graphs import FAILED, SKIPPED, SUCCESS, Recorder, composite, run

RUNNING = StepStatus.RUNNING


def fine(call: StepCall) -> Any:
    return {"key": call.key}


def test_each_step_runs_once_in_order_and_every_change_is_told() -> None:
    result, seen = run(composite("a b", [("a", "b")]), fine)
    assert [(c.key, c.status) for c in seen.changes] == [
        ("a", RUNNING), ("a", SUCCESS), ("b", RUNNING), ("b", SUCCESS),
    ]  # fmt: skip
    last = seen.last("b")
    assert (last.wave, last.attempts, last.execution) == (1, 1, {"key": "b"})
    assert last.started_at is not None
    assert last.duration_ms is not None
    assert not result.ending.failed
    assert result.ending.message == "2 steps: 2 succeeded, 0 failed, 0 skipped"


def test_outputs_have_the_shape_later_steps_read() -> None:
    assert output_of(Outcome(SUCCESS, [1]), 7) == {"status": "success", "execution": [1], "durationMs": 7}
    assert output_of(Outcome(FAILED, error="no", error_type="x"), 7) == {
        "status": "failed", "error": "no", "errorType": "x", "durationMs": 7,
    }  # fmt: skip
    skipped = output_of(Outcome(SKIPPED), None, Reason(ReasonCode.DISABLED))
    assert skipped == {"status": "skipped", "execution": None, "reason": "it is disabled in the definition"}


def test_data_goes_from_step_to_step() -> None:
    steps = {
        "a": {},
        "b": {"payload": {"rows": "{{steps.a.rows}}", "text": "{{inputs.day}}: {{steps.a.rows}} by {{task.slug}}"}},
    }
    calls: dict[str, StepCall] = {}

    def do(call: StepCall) -> Any:
        calls[call.key] = call
        return {"rows": [1, 2]}

    run(composite(steps, [("a", "b")], inputs={"day": "mon"}), do, inputs={"day": "tue"})
    assert calls["b"].payload == {"rows": [1, 2], "text": "tue: [1, 2] by test"}


def test_a_path_that_is_not_there_fails_the_step_before_it_runs() -> None:
    spec = composite({"a": {}, "b": {"payload": {"x": "{{steps.a.nope}}"}}}, [("a", "b")])
    result, seen = run(spec, fine)
    assert seen.of("b") == [FAILED]
    last = seen.last("b")
    assert last.error_type == "mapping"
    assert last.error == (
        "{{steps.a.nope}} cannot be resolved: steps.a.execution has no 'nope'; it is an object with the keys key"
    )
    assert result.outputs["b"]["errorType"] == "mapping"
    assert result.ending.message.startswith("1 of 2 steps failed, first 'b': {{steps.a.nope}} cannot be resolved")


def test_a_secret_that_is_not_there_fails_the_step_and_nothing_hangs() -> None:
    def none(name: str, step: str) -> str:
        raise Refused(f"no secret named {name!r}")

    spec = composite(
        {"a": {"payload": {"p": '{{secret("db")}}'}}, "b": {"map_over": [1], "payload": {"p": '{{secret("db")}}'}}}
    )
    result, seen = run(spec, fine, secret=none)
    assert {seen.final["a"], seen.final["b"]} <= {FAILED, SKIPPED}
    assert result.outputs["a"]["error"] == "no secret named 'db'"


def test_a_secret_reaches_the_work_and_nothing_else() -> None:
    given: list[Any] = []
    asked: list[tuple[str, str]] = []

    def secret(name: str, step: str) -> str:
        asked.append((name, step))
        return "s3cret"

    spec = composite({"a": {"payload": {"p": 'x{{secret("db")}}'}}})
    result, seen = run(spec, lambda call: given.append(call.payload), secret=secret)
    assert given == [{"p": "xs3cret"}]
    assert asked == [("db", "a")]
    assert "s3cret" not in repr(seen.changes) + repr(result)


def test_a_local_run_refuses_secrets_instead_of_passing_their_names_on() -> None:
    spec = composite({"a": {"payload": {"p": '{{secret("db")}}'}}})
    result = run_here(spec, work=lambda call: asyncio.sleep(0, call.payload))
    assert result.outputs["a"]["error"] == "no secret named 'db' can be resolved here"


def test_an_output_that_looks_like_a_template_is_not_rendered() -> None:
    given: dict[str, Any] = {}

    def do(call: StepCall) -> Any:
        given[call.key] = call.payload
        return {"text": '{{secret("db")}}{{env.HOME}}'}

    def secret(name: str, step: str) -> str:
        raise AssertionError("nobody asked for a secret")

    payload = {"x": "{{steps.a.text}}", "y": "<{{item}}>"}
    spec = composite({"a": {}, "b": {"payload": payload, "map_over": ["{{steps.a.text}}"]}}, [("a", "b")])
    run(spec, do, secret=secret)
    assert given["b[0]"] == {"x": '{{secret("db")}}{{env.HOME}}', "y": '<{{secret("db")}}{{env.HOME}}>'}


def test_what_a_step_does_to_its_payload_changes_nobody_elses() -> None:
    steps = {key: {"payload": {"l": "{{steps.a.l}}", "own": {"n": [1]}}} for key in ("b", "c")}
    spec = composite({"a": {}, **steps}, [("a", "b"), ("b", "c")])

    def do(call: StepCall) -> Any:
        if call.key == "a":
            return {"l": [1]}
        call.payload["l"].append(2)
        call.payload["own"]["n"].append(2)
        return call.payload

    plain = composite({"b": {"payload": {"own": {"n": [1]}, "l": []}}})
    result, _ = run(spec, do)
    assert result.outputs["c"]["execution"] == {"l": [1, 2], "own": {"n": [1, 2]}}
    assert result.outputs["a"]["execution"] == {"l": [1]}
    run(plain, do)
    assert plain.steps[0].payload == {"own": {"n": [1]}, "l": []}


@pytest.mark.parametrize(
    ("raised", "error", "kind"),
    [
        (StepFailed("no disk", error_type="disk"), "no disk", "disk"),
        (Refused("not allowed"), "not allowed", "refused"),
        (Cancelled("asked to stop"), "asked to stop", "cancelled"),
        (RuntimeError("boom"), "RuntimeError: boom", "RuntimeError"),
        (KeyError(), "KeyError", "KeyError"),
        (TimeoutError("the server is slow"), "TimeoutError: the server is slow", "TimeoutError"),
        (SystemExit(3), "SystemExit: 3", "SystemExit"),
        (asyncio.CancelledError(), "its work was cancelled from within", "cancelled"),
    ],
)
def test_whatever_the_work_raises_is_the_failure_of_its_step(raised: BaseException, error: str, kind: str) -> None:
    for steps in ({"a": {}}, {"a": {"map_over": [1]}}):
        result, seen = run(composite(steps), lambda call: raised)
        assert seen.final["a"] is FAILED
        assert error in (seen.last("a").error or "")
        assert seen.last("a").error_type == kind
        assert result.ending.failed


def test_a_result_that_json_cannot_hold_is_a_failure() -> None:
    _, seen = run(composite("a"), lambda call: {"x": object()})
    assert seen.final["a"] is FAILED
    assert "result.x" in (seen.last("a").error or "")


def test_a_failure_stops_the_rest_with_a_reason() -> None:
    """Running steps finish, nothing new starts, nothing stays pending."""
    spec = composite("a b c d", [("b", "c")], max_parallel=2)
    free = asyncio.Event()

    async def do(call: StepCall) -> Any:
        if call.key == "a":
            raise StepFailed("no")
        free.set()
        await asyncio.sleep(0)

    result, seen = run(spec, do)
    assert seen.final == {"a": FAILED, "b": SUCCESS, "c": SKIPPED, "d": SKIPPED}
    for key in ("c", "d"):
        assert seen.of(key) == [SKIPPED]
        assert str(seen.last(key).reason) == "a failed and the composite stops on failure (halted_by a)"
    assert result.ending.message == "1 of 4 steps failed, first 'a': no (1 succeeded, 1 failed, 2 skipped)"


def test_halt_mode_cancel_ends_running_steps_too() -> None:
    spec = composite("a b c", [("b", "c")], halt_mode="cancel")
    told: list[bool] = []

    async def do(call: StepCall) -> Any:
        if call.key == "a":
            await asyncio.sleep(0)
            raise StepFailed("no")
        try:
            await asyncio.Event().wait()
        finally:
            told.append(call.cancel.is_set())

    _, seen = run(spec, do)
    assert seen.of("b") == [RUNNING, SKIPPED]
    assert seen.of("c") == [SKIPPED]
    assert told == [True]
    assert seen.last("b").reason == Reason(ReasonCode.HALTED_BY, step="a")


def test_halt_mode_cancel_reaches_a_step_that_was_let_start_in_the_same_moment() -> None:
    """``a`` ends and lets ``c`` start; ``b`` fails before ``c`` has had its first turn."""
    spec = composite("a b c", [("a", "c")], halt_mode="cancel")

    async def do(call: StepCall) -> Any:
        await asyncio.sleep(0)
        if call.key == "b":
            raise StepFailed("no")
        if call.key == "c":
            await asyncio.Event().wait()

    _, seen = run(spec, do)
    assert seen.final == {"a": SUCCESS, "b": FAILED, "c": SKIPPED}
    assert seen.last("c").reason == Reason(ReasonCode.HALTED_BY, step="b")


def test_a_step_that_insists_on_finishing_keeps_its_result() -> None:
    spec = composite("a b", halt_mode="cancel")

    async def do(call: StepCall) -> Any:
        if call.key == "a":
            await asyncio.sleep(0)
            raise StepFailed("no")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"

    _, seen = run(spec, do)
    assert seen.last("b").execution == "done all the same"
    assert seen.final == {"a": FAILED, "b": SUCCESS}


def test_asked_to_stop_the_running_are_cancelled_and_the_rest_skipped() -> None:
    spec = composite("a b c d", [("a", "c"), ("b", "d")])
    stop: list[bool] = []

    async def do(call: StepCall) -> Any:
        if call.key == "a":
            await asyncio.sleep(0)
            stop.append(True)
            return None
        await asyncio.Event().wait()

    result, seen = run(spec, do, should_stop=lambda: bool(stop))
    assert seen.final == {"a": SUCCESS, "b": SKIPPED, "c": SKIPPED, "d": SKIPPED}
    assert {str(seen.last(key).reason) for key in "bcd"} == {"the run was cancelled"}
    assert result.ending.failed
    assert result.ending.message == "stopped: the run was cancelled; 1 succeeded, 0 failed, 3 skipped"


def test_asked_to_stop_while_it_waits_for_the_last_steps_of_a_halt() -> None:
    spec = composite("a b c", max_parallel=3)
    stop: list[bool] = []

    async def do(call: StepCall) -> Any:
        if call.key == "a":
            raise StepFailed("no")
        if call.key == "b":
            await asyncio.sleep(0)
            stop.append(True)
            return None
        await asyncio.Event().wait()

    _, seen = run(spec, do, should_stop=lambda: bool(stop))
    assert seen.final == {"a": FAILED, "b": SUCCESS, "c": SKIPPED}
    assert seen.last("c").reason == Reason(ReasonCode.HALTED_BY, step="a")


def test_cancelled_from_outside_every_step_is_told_ended_before_it_leaves() -> None:
    spec = composite({"a": {}, "b": {"map_over": [1, 2, 3], "map_parallel": 2}, "c": {}}, [("a", "c")])

    async def go() -> Recorder:
        seen, entered = Recorder(), asyncio.Event()

        async def work(call: StepCall) -> Any:
            if call.key == "b[1]":
                entered.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(execute(spec, work, seen, now=utc_now, scope={"inputs": {}}))
        await asyncio.wait_for(entered.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen

    seen = asyncio.run(go())
    assert seen.final == {"a": SKIPPED, "b": SKIPPED, "c": SKIPPED, "b[0]": SKIPPED, "b[1]": SKIPPED}
    assert {str(seen.last(key).reason) for key in seen.final} == {"the run was cancelled"}


def test_when_the_record_cannot_be_kept_nothing_goes_on_unseen() -> None:
    """``observe`` fails: its error comes out, and the steps that were running are gone."""
    spec = composite("a b")
    left: list[str] = []

    def observe(change: StepChange) -> None:
        if change.key == "a" and change.status is SUCCESS:
            raise OSError("the database is away")

    async def work(call: StepCall) -> Any:
        if call.key == "b":
            try:
                await asyncio.Event().wait()
            finally:
                left.append("b")

    async def go() -> None:
        async with asyncio.timeout(10):
            with pytest.raises(OSError, match="the database is away"):
                await execute(spec, work, observe, now=utc_now, scope={"inputs": {}})
        assert left == ["b"]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(go())


# --- retries and time-outs of a run in this process ---------------------------------------------------------------


def test_a_step_is_tried_again_as_often_as_it_says() -> None:
    tries: list[str] = []

    def do(call: StepCall) -> Any:
        tries.append(call.key)
        return "at last" if len(tries) == 3 else StepFailed("not yet")

    _, seen = run(composite({"a": {"retries": 2}}), do)
    assert (seen.final["a"], seen.last("a").attempts, len(tries)) == (SUCCESS, 3, 3)
    tries.clear()
    _, seen = run(composite({"a": {"retries": 1}}), do)
    assert (seen.final["a"], seen.last("a").attempts) == (FAILED, 2)


def test_a_time_out_of_the_work_itself_is_tried_again_too() -> None:
    tries: list[int] = []
    _, seen = run(composite({"a": {"retries": 2}}), lambda call: tries.append(1) or TimeoutError("slow"))
    assert len(tries) == 3
    assert seen.last("a").error == "TimeoutError: slow"


def test_a_step_over_its_limit_is_stopped_and_told_so() -> None:
    cancels: list[asyncio.Event] = []

    async def do(call: StepCall) -> Any:
        cancels.append(call.cancel)
        await asyncio.Event().wait()

    _, seen = run(composite({"a": {"timeout_seconds": 0.01, "retries": 1}}), do)
    assert seen.last("a").error == "stopped after 0.01 s"
    assert seen.last("a").error_type == "timeout"
    assert len({id(event) for event in cancels}) == 2
    assert all(event.is_set() for event in cancels), "the attempt that was stopped stays asked to stop"


# --- maps ---------------------------------------------------------------------------------------------------------


def test_a_mapped_step_runs_once_per_item_and_its_result_is_the_list() -> None:
    steps = {"a": {}, "b": {"map_over": "{{steps.a}}", "payload": {"t": "{{item.t}}", "i": "{{index}}"}}}
    spec = composite({**steps, "b": {**steps["b"], "map_over": "{{steps.a.tables}}"}}, [("a", "b")])

    def do(call: StepCall) -> Any:
        return {"tables": [{"t": "x"}, {"t": "y"}]} if call.key == "a" else call.payload

    result, seen = run(spec, do)
    assert result.outputs["b"]["execution"] == [{"t": "x", "i": 0}, {"t": "y", "i": 1}]
    assert seen.of("b") == [RUNNING, SUCCESS]
    assert seen.of("b[1]") == [RUNNING, SUCCESS]
    assert seen.last("b[1]").step.name == "b[1]"
    assert sorted(result.outputs) == ["a", "b"]


@pytest.mark.parametrize(("parallel", "composite_parallel", "most"), [(3, 8, 3), (1, 8, 1), (None, 4, 4), (50, 2, 10)])
def test_items_run_side_by_side_up_to_the_bound(parallel: int | None, composite_parallel: int, most: int) -> None:
    spec = composite({"a": {"map_over": list(range(10)), "map_parallel": parallel}}, max_parallel=composite_parallel)
    running: set[str] = set()
    seen_most = 0

    async def do(call: StepCall) -> Any:
        nonlocal seen_most
        running.add(call.key)
        seen_most = max(seen_most, len(running))
        await asyncio.sleep(0)
        running.discard(call.key)

    run(spec, do)
    assert seen_most == most


@pytest.mark.parametrize(("tolerance", "status"), [(0, FAILED), (1, FAILED), (2, SUCCESS), (5, SUCCESS)])
def test_a_map_tolerates_as_many_failures_as_it_says(tolerance: int, status: StepStatus) -> None:
    spec = composite({"a": {"map_over": [0, 1, 2, 3], "tolerance": tolerance, "payload": {"i": "{{item}}"}}})

    def do(call: StepCall) -> Any:
        return StepFailed("odd", error_type="odd") if call.payload["i"] % 2 else call.payload["i"]

    result, seen = run(spec, do)
    assert seen.final["a"] is status
    assert [seen.final[f"a[{i}]"] for i in range(4)] == [SUCCESS, FAILED, SUCCESS, FAILED]
    if status is SUCCESS:
        assert result.outputs["a"]["execution"] == [0, None, 2, None]
    else:
        assert seen.last("a").error == "2 of 4 items failed, first a[1]: odd"
        assert seen.last("a").error_type == "odd"


def test_an_item_whose_template_cannot_be_resolved_fails_alone() -> None:
    spec = composite({"a": {"map_over": [{"x": 1}, {}], "tolerance": 1, "payload": {"x": "{{item.x}}"}}})
    _, seen = run(spec, fine)
    assert seen.final == {"a": SUCCESS, "a[0]": SUCCESS, "a[1]": FAILED}
    assert seen.last("a[1]").error_type == "mapping"


@pytest.mark.parametrize(
    ("over", "limit", "says"),
    [
        ("{{inputs.text}}", 9, "mapOver gave a str, not a list"),
        ("{{inputs.none}}", 9, "mapOver gave a NoneType, not a list"),
        ("{{inputs.nope}}", 9, "inputs has no 'nope'"),
        ("{{inputs.many}}", 9, "mapOver gave 10 items; at most 9 are allowed"),
        (list(range(1_001)), 1_000, "mapOver gave 1001 items; at most 1000 are allowed"),
    ],
)
def test_a_map_over_something_else_fails_before_it_runs(over: Any, limit: int, says: str) -> None:
    inputs = {"text": "abc", "none": None, "many": list(range(10))}
    _, seen = run(composite({"a": {"map_over": over, "map_max_items": limit}}, inputs=inputs), fine)
    assert seen.of("a") == [FAILED]
    assert says in (seen.last("a").error or "")
    assert seen.last("a").error_type == "mapping"


def test_a_map_over_nothing_is_a_success_with_nothing() -> None:
    result, seen = run(composite({"a": {"map_over": []}}), fine)
    assert (seen.final, result.outputs["a"]["execution"]) == ({"a": SUCCESS}, [])


def test_a_halt_with_cancel_ends_the_items_of_a_map() -> None:
    spec = composite({"a": {}, "b": {"map_over": [1, 2], "map_parallel": 1}}, halt_mode="cancel")

    async def do(call: StepCall) -> Any:
        if call.key == "a":
            await asyncio.sleep(0)
            raise StepFailed("no")
        await asyncio.Event().wait()

    _, seen = run(spec, do)
    assert seen.final == {"a": FAILED, "b": SKIPPED, "b[0]": SKIPPED}, "the second item never began"
    assert seen.last("b[0]").reason == Reason(ReasonCode.HALTED_BY, step="a")


# --- per-run overrides --------------------------------------------------------------------------------------------


def test_overrides_of_one_run() -> None:
    spec = composite("a b c d e", [("a", "b"), ("b", "c"), ("c", "d")], continue_on_error=True)
    over = Overrides(skip=frozenset({"b"}), hold=frozenset({"d"}), fail=frozenset({"e"}), reused={"a": {"rows": 1}})
    result, seen = run(spec, fine, overrides=over)
    assert seen.final == {"a": SUCCESS, "b": SKIPPED, "c": SUCCESS, "d": SKIPPED, "e": FAILED}
    assert seen.of("a") == [SUCCESS]
    assert seen.last("a").reused
    assert result.outputs["a"]["execution"] == {"rows": 1}
    assert str(seen.last("b").reason) == "it was left out for this run"
    assert str(seen.last("d").reason) == "it was held for this run; resume the run from here to let it go"
    assert seen.last("e").error == "made to fail for this run"


def test_what_comes_after_a_step_that_is_left_out_still_waits_for_what_stood_before_it() -> None:
    """a → b → c without b is a → c, not a beside c."""
    for changes in ({"enabled": False}, {}):
        spec = composite({"a": {}, "b": changes, "c": {}}, [("a", "b"), ("b", "c")])
        over = Overrides() if changes else Overrides(skip=frozenset({"b"}))
        ended: list[str] = []

        async def do(call: StepCall, ended: list[str] = ended) -> Any:
            if call.key == "c":
                assert ended == ["a"]
            await asyncio.sleep(0)
            ended.append(call.key)

        _, seen = run(spec, do, overrides=over)
        assert seen.final == {"a": SUCCESS, "b": SKIPPED, "c": SUCCESS}
    in_turn = composite({"a": {}, "b": {"enabled": False}, "c": {}}, sequential=True)
    _, seen = run(in_turn, fine)
    assert [c.key for c in seen.changes if c.status is not RUNNING] == ["a", "b", "c"]


def test_two_disabled_steps_in_a_row_stay_disabled() -> None:
    spec = composite({"a": {"enabled": False}, "b": {"enabled": False}, "c": {}}, [("a", "b"), ("b", "c")])
    _, seen = run(spec, fine)
    assert seen.final == {"a": SKIPPED, "b": SKIPPED, "c": SUCCESS}
    assert seen.of("b") == [SKIPPED]


# --- conditions on results ----------------------------------------------------------------------------------------


def test_an_error_in_a_condition_is_a_failure_with_its_text() -> None:
    spec = composite("a b", [("a", "b", "result.nope > 1")])
    _, seen = run(spec, fine)
    assert seen.of("b") == [FAILED]
    assert seen.last("b").error_type == "expression"
    assert seen.last("b").error == "the expression 'result.nope > 1' failed: there is no 'nope'; there are: key"


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize(
    ("join", "end"), [("any", SUCCESS), ("all", FAILED), ("at_least(2)", FAILED), ("all_done", SUCCESS)]
)
def test_an_error_in_one_of_two_conditions_does_not_depend_on_who_is_first(
    first: str, join: str, end: StepStatus
) -> None:
    spec = composite({"a": {}, "b": {}, "c": {"join": join}}, [("a", "c"), ("b", "c", "result.nope")])

    async def do(call: StepCall) -> Any:
        for _ in range(0 if call.key == first else 5):
            await asyncio.sleep(0)
        return {}

    _, seen = run(spec, do)
    assert seen.final["c"] is end


def test_a_failure_is_handled_only_by_a_step_that_was_there_for_it() -> None:
    """The alarm waits for two failures; only one comes, so the alarm is skipped and hides nothing."""
    spec = composite("a b alarm", [("a", "alarm", "failed"), ("b", "alarm", "failed")])
    for first in "ab":

        async def do(call: StepCall, first: str = first) -> Any:
            for _ in range(0 if call.key == first else 5):
                await asyncio.sleep(0)
            if call.key == "a":
                raise StepFailed("no")

        result, seen = run(spec, do)
        assert seen.final["alarm"] is SKIPPED
        assert result.ending.failed
        assert result.ending.unhandled == ("a",)


def test_a_handled_failure_is_named_and_a_cleaned_up_one_still_fails_the_run() -> None:
    def do(call: StepCall) -> Any:
        return StepFailed("no") if call.key == "a" else None

    result, _ = run(composite("a b", [("a", "b", "failed")]), do)
    assert (result.ending.failed, result.ending.handled) == (False, ("a",))
    assert result.ending.message == "2 steps: 1 succeeded, 1 failed, 0 skipped; handled: a"
    result, seen = run(composite("a b", [("a", "b", "always")]), do)
    assert seen.final["b"] is SUCCESS
    assert result.ending.failed


def test_a_deep_chain_runs_without_running_out_of_stack() -> None:
    count = 3 * sys.getrecursionlimit()
    keys = [f"s{i}" for i in range(count)]
    spec = composite({key: {} for key in keys}, list(pairwise(keys)))
    disabled = spec.with_steps([StepSpec(s.step_key, s.position, "noop", enabled=False) for s in spec.steps])
    for one in (spec, disabled):
        result, _ = run(one, lambda call: None)
        assert len(result.outputs) == count
    result, _ = run(spec, lambda call: StepFailed("no"))
    assert result.to_dict()["skipped"] == count - 1


@pytest.mark.parametrize("turns", range(10))
def test_a_cancel_meets_a_step_that_has_just_ended(turns: int) -> None:
    """Whatever the turn of the loop: on Python 3.13 the end of a task could be known before its callback was called."""
    graph = Composite("brief")
    graph.step("only", "noop")
    seen: list[str] = []

    async def work(call: StepCall) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    async def go() -> None:
        task = asyncio.create_task(
            execute(graph.spec, work, lambda c: seen.append(c.status.value), now=utc_now, scope={"inputs": {}})
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(go())
    assert seen == [] or seen[-1] in ("success", "skipped")
