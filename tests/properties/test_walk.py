"""The laws of the walker (spec 3.7) over random graphs, outcomes, completion orders, limits and overrides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from composites.conditions import CONDITIONS
from composites.engine import StepCall
from composites.local import run_here
from composites.model import CompositeSpec, EdgeSpec, StepSpec
from composites.plan import make_plan
from composites.validate import check
from composites.walk import Outcome, Overrides, Walker, compile_graph, walk
from taskcenter.errors import StepFailed
from taskcenter.reasons import ReasonCode
from taskcenter.status import StepStatus
from tests.graphs import (
    EXPRESSIONS,
    FAILED,
    GOOD,
    SKIPPED,
    SUCCESS,
    Walked,
    act,
    edge_holds,
    expected_statuses,
    join_expression,
    join_holds,
    passed_over,
    walk_all,
)

LAW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Meaning = Mapping[str, Callable[[Mapping[str, StepStatus]], bool]]


@dataclass(frozen=True)
class Case:
    """A composite, what each of its steps will answer, and the seed of the order in which they answer."""

    spec: CompositeSpec
    outcomes: Mapping[str, Outcome]
    overrides: Overrides
    meaning: Meaning
    seed: int
    limit: int

    def chooser(self, salt: int = 0) -> Callable[[Any], str]:
        return random.Random(self.seed + salt).choice


RESULTS = st.sampled_from([{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}, {}])
ENDS = st.one_of(
    st.builds(Outcome, st.just(SUCCESS), RESULTS),
    st.builds(Outcome, st.just(FAILED), st.none(), st.just("it broke"), st.just("error")),
)


@st.composite
def cases(draw: st.DrawFn, *, halting: bool = True, overriding: bool = True) -> Case:
    count = draw(st.integers(1, 9))
    keys = [f"s{i}" for i in range(count)]
    pairs = [(a, b) for j, b in enumerate(keys) for a in keys[:j]]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=16)) if pairs else []
    conditions = st.sampled_from([*CONDITIONS, "success", "success", *EXPRESSIONS])
    edges = [EdgeSpec(a, b, draw(conditions)) for a, b in chosen]
    meaning: dict[str, Callable[[Mapping[str, StepStatus]], bool]] = {}
    steps = []
    for key in keys:
        sources = [edge.from_step_key for edge in edges if edge.to_step_key == key]
        join = draw(
            st.sampled_from(["all", "all", "any", "all_done", "none_failed", "any_failed", "at_least", "expression"])
        )
        if join == "at_least":
            join = f"at_least({draw(st.integers(1, max(1, len(sources))))})"
        if join == "expression":
            join = "all"
            if sources:
                join, meaning[key] = join_expression(sources, draw(st.integers(0, 3)))
        steps.append(
            StepSpec(
                key,
                position=draw(st.integers(0, 3)),
                task_type="noop",
                join=join,
                on_error=draw(st.sampled_from([None, "stop", "continue", "skip"])) if halting else "continue",
                enabled=draw(st.sampled_from([True, True, True, False])),
                priority=draw(st.sampled_from(["high", "normal", "low"])),
            )
        )
    some = st.frozensets(st.sampled_from(keys), max_size=2)
    any_of_them = st.frozensets(st.sampled_from(keys), min_size=1)
    nothing: st.SearchStrategy[frozenset[str]] = st.just(frozenset())
    rare = st.one_of(nothing, some) if overriding else nothing
    overrides = Overrides(
        skip=draw(rare),
        hold=draw(rare),
        fail=draw(rare),
        selected=draw(st.one_of(st.none(), any_of_them) if overriding else st.none()),
        reused={key: {"n": 3} for key in draw(rare)},
    )
    spec = CompositeSpec(
        "random",
        steps=tuple(draw(st.permutations(steps))),
        edges=tuple(draw(st.permutations(edges))),
        continue_on_error=draw(st.booleans()),
        fail_on_any_error=draw(st.booleans()),
        sequential=draw(st.booleans()),
        halt_mode=draw(st.sampled_from(["wait", "cancel"])),
        max_parallel=draw(st.integers(1, 4)),
    )
    if spec.sequential and not spec.edges:
        meaning = {}
    return Case(
        spec=spec,
        outcomes={key: draw(ENDS) for key in keys},
        overrides=overrides,
        meaning=meaning,
        seed=draw(st.integers(0, 1_000)),
        limit=draw(st.integers(1, 4)),
    )


def walked(case: Case, salt: int = 0, limit: int | None = None) -> Walked:
    graph = compile_graph(case.spec)
    return walk_all(graph, case.outcomes, case.chooser(salt), case.overrides, limit or case.limit)


@LAW
@given(cases())
def test_every_step_ends_in_exactly_one_terminal_state(case: Case) -> None:
    seen = walked(case)
    assert seen.walker.finished
    assert seen.decisions[-1].finished
    assert not seen.walker.running
    keys = sorted(step.step_key for step in case.spec.steps)
    ends = [key for d in seen.decisions for key, _ in d.skip]
    ends += [key for d in seen.decisions for key, _ in d.fail]
    ends += [key for d in seen.decisions for key in d.reuse]
    assert sorted(ends + seen.started) == keys, "each step starts once, or is said to end once, and never both"
    assert sorted(seen.statuses) == keys
    assert set(seen.statuses.values()) <= {SUCCESS, FAILED, SKIPPED}


@LAW
@given(cases())
def test_never_more_than_the_limit_run_at_once(case: Case) -> None:
    assert walked(case).most_running <= case.limit


@LAW
@given(cases())
def test_a_free_place_is_used_at_once(case: Case) -> None:
    """A limit delays steps, nothing else: with room for all, whatever the walker has decided to start is running."""
    seen = walked(case, limit=100)
    for decisions in seen.decisions:
        assert decisions.finished or seen.started or decisions.ready
    if not case.spec.sequential or case.spec.edges:
        roots = {s.step_key for s in case.spec.steps} - {e.to_step_key for e in case.spec.edges}
        run = [s for s in case.spec.steps if s.step_key in roots and not passed_over(s, case.overrides)]
        over = case.overrides
        run = [s for s in run if s.step_key not in {*over.hold, *over.fail, *over.reused}]
        if seen.walker.halted is None or seen.decisions[0].halt is None:
            assert {s.step_key for s in run} <= set(seen.decisions[0].ready)


@LAW
@given(cases())
def test_nothing_starts_before_its_join_holds(case: Case) -> None:
    """Asked of the moment it started: whatever the sources still open may do, the join holds already."""
    seen = walked(case)
    steps = {step.step_key: step for step in case.spec.steps}
    for key in seen.started:
        known = seen.known_at_start[key]
        into = [edge for edge in case.spec.edges if edge.to_step_key == key]
        ended = [edge for edge in into if edge.from_step_key in known]
        held = [
            edge_holds(
                edge.condition,
                known[edge.from_step_key],
                passed_over(steps[edge.from_step_key], case.overrides),
            )
            for edge in ended
        ]
        statuses = [known[edge.from_step_key].status for edge in ended]
        assert not passed_over(steps[key], case.overrides)
        if not into:
            continue
        join = steps[key].join
        if key in case.meaning:
            assert len(ended) == len(into)
            sources = {edge.from_step_key: known[edge.from_step_key].status for edge in into}
            assert case.meaning[key](sources)
        elif join in ("all", "all_done", "none_failed"):
            assert len(ended) == len(into), "it started before all its sources had ended"
            assert join_holds(join, held, statuses)
        else:
            assert join_holds(join, held, statuses)


@LAW
@given(cases())
def test_a_sequential_composite_without_edges_goes_by_position(case: Case) -> None:
    spec = replace(case.spec, edges=(), sequential=True)
    seen = walked(replace(case, spec=spec, meaning={}))
    steps = {step.step_key: step for step in spec.steps}
    assert seen.most_running <= 1
    assert seen.started == sorted(seen.started, key=lambda key: (steps[key].position, key))


@LAW
@given(cases())
def test_ready_steps_start_by_priority_then_position_then_key(case: Case) -> None:
    steps = {step.step_key: step for step in case.spec.steps}
    ranks = {"high": 0, "normal": 1, "low": 2}
    for decisions in walked(case).decisions:
        order = [(ranks[steps[k].priority], steps[k].position, k) for k in decisions.ready]
        assert order == sorted(order)


@LAW
@given(cases(halting=False))
def test_without_halts_the_ends_follow_from_the_outcomes_alone(case: Case) -> None:
    """Not from the order in which steps end, not from the limit; and they are what the second reading says."""
    assume(case.spec.edges or not case.spec.sequential)
    wanted = expected_statuses(case.spec, case.outcomes, case.overrides, case.meaning)
    for salt, limit in ((0, 1), (1, 2), (2, 100)):
        seen = walked(case, salt, limit)
        assert seen.walker.halted is None
        assert seen.statuses == wanted
    endings = {walked(case, salt).walker.final().failed for salt in range(3)}
    assert len(endings) == 1


@LAW
@given(cases())
def test_until_a_halt_the_ends_are_what_the_rules_say(case: Case) -> None:
    assume(case.spec.edges or not case.spec.sequential)
    wanted = expected_statuses(case.spec, case.outcomes, case.overrides, case.meaning)
    seen = walked(case)
    for key, status in seen.statuses.items():
        reason = seen.walker.reasons.get(key)
        if reason is None or reason.code is not ReasonCode.HALTED_BY:
            assert status is wanted[key], key


@LAW
@given(cases())
def test_every_skipped_step_has_a_reason_in_words(case: Case) -> None:
    seen = walked(case)
    for key, status in seen.statuses.items():
        reason = seen.walker.reasons.get(key)
        if status is not SKIPPED:
            assert reason is None
            continue
        assert reason is not None
        assert str(reason)
        if reason.step:
            assert reason.step in seen.statuses
            assert reason.step in str(reason)
        if reason.code is ReasonCode.EDGE_UNSATISFIED:
            assert EdgeSpec(reason.step, key, reason.condition) in case.spec.edges
            assert seen.statuses[reason.step] == reason.outcome


def catches(case: Case, seen: Walked, key: str, before: set[str]) -> bool:
    """Whether the graph itself says what comes after a failure of ``key``; ``before``: skipped steps by then."""
    for edge in case.spec.edges:
        if edge.from_step_key != key:
            continue
        target = next(step for step in case.spec.steps if step.step_key == edge.to_step_key)
        if passed_over(target, case.overrides) or target.step_key in before:
            continue
        looks_at_outcomes = target.step_key in case.meaning or target.join in ("all_done", "any_failed", "none_failed")
        if looks_at_outcomes and target.join != "none_failed":
            return True
        if not looks_at_outcomes and edge.condition in ("failed", "done", "always"):
            return True
    return False


def stops(case: Case, key: str) -> bool:
    on_error = next(step.on_error for step in case.spec.steps if step.step_key == key)
    return on_error == "stop" or (on_error is None and not case.spec.continue_on_error)


@LAW
@given(cases())
def test_the_run_halts_at_the_first_failure_that_stops_and_is_not_caught(case: Case) -> None:
    seen = walked(case)
    halting = None
    before: set[str] = set()
    for key, status in seen.statuses.items():  # in the order in which they ended
        if status is SKIPPED:
            before.add(key)
        elif status is FAILED and halting is None and stops(case, key) and not catches(case, seen, key, before):
            halting = key
    assert (seen.walker.halted.step if seen.walker.halted else None) == halting
    if halting is not None:
        told = [d.halt for d in seen.decisions if d.halt]
        assert [reason.step for reason in told] == [halting], "a halt is told once"
        at = next(i for i, d in enumerate(seen.decisions) if d.halt)
        assert not any(d.ready for d in seen.decisions[at:]), "nothing starts after a halt"
        for key, reason in seen.walker.reasons.items():
            if reason.code is ReasonCode.HALTED_BY:
                assert reason.step == halting, key


@LAW
@given(cases())
def test_the_run_fails_exactly_when_the_spec_says_so(case: Case) -> None:
    """Failed: halted, or a failure that no step was there for (when failOnAnyError). (spec 3.5)"""
    seen = walked(case)
    steps = {step.step_key: step for step in case.spec.steps}

    def handled(key: str) -> bool:
        for edge in case.spec.edges:
            target = steps[edge.to_step_key]
            by_edge = edge.condition in ("failed", "done") and (
                target.join in ("all", "any") or target.join.startswith("at_least")
            )
            there_for_it = edge.from_step_key == key and (by_edge or target.join == "any_failed")
            if there_for_it and seen.statuses[target.step_key] is not SKIPPED:
                return True
        return False

    failed = [key for key, status in seen.statuses.items() if status is FAILED]
    unhandled = [key for key in failed if not handled(key)]
    ending = seen.walker.final()
    assert ending.failed == (seen.walker.halted is not None or bool(unhandled and case.spec.fail_on_any_error))
    assert list(ending.unhandled) == unhandled
    assert sorted([*ending.unhandled, *ending.handled]) == sorted(failed)
    if ending.failed:
        assert f"{len(unhandled)} of {len(steps)} step" in ending.message
        assert repr(unhandled[0]) in ending.message
    assert f"{sum(s is SUCCESS for s in seen.statuses.values())} succeeded" in ending.message


@LAW
@given(cases())
def test_walking_step_by_step_is_the_same_as_one_pure_call(case: Case) -> None:
    graph = compile_graph(case.spec)
    walker = Walker(graph, case.overrides, case.limit)
    decisions = [walker.start()]
    outcomes: list[tuple[str, Outcome]] = []
    choose = case.chooser()
    while True:
        pure = walk(graph, outcomes, case.overrides, case.limit)
        assert pure == walk(graph, outcomes, case.overrides, case.limit)
        assert set(pure.ready) == walker.running
        assert pure.skip == tuple(item for d in decisions for item in d.skip)
        assert pure.fail == tuple(item for d in decisions for item in d.fail)
        assert pure.reuse == tuple(key for d in decisions for key in d.reuse)
        assert pure.halt == walker.halted
        assert pure.finished == walker.finished
        if not walker.running:
            break
        key = choose(sorted(walker.running))
        outcomes.append((key, case.outcomes[key]))
        decisions.append(walker.report({key: case.outcomes[key]}))


@LAW
@given(cases())
def test_outcomes_reported_together_are_all_taken_as_told(case: Case) -> None:
    """A halt by the first of them does not take the second, which has ended, for one that never ran."""
    walker = Walker(compile_graph(case.spec), case.overrides, case.limit)
    walker.start()
    for _ in case.spec.steps:
        batch = {key: case.outcomes[key] for key in sorted(walker.running)}
        walker.report(batch)
        for key, outcome in batch.items():
            assert walker.outcomes[key] == outcome
    assert walker.finished


@LAW
@given(cases())
def test_a_late_or_unknown_report_changes_nothing(case: Case) -> None:
    graph = compile_graph(case.spec)
    seen = walk_all(graph, case.outcomes, case.chooser(), case.overrides, case.limit)
    before = dict(seen.walker.outcomes)
    again = seen.walker.report({key: Outcome(FAILED, error="late") for key in before})
    assert (again.ready, again.skip, again.fail, again.halt) == ((), (), (), None)
    assert seen.walker.report({"nobody": GOOD}).ready == ()
    assert seen.walker.outcomes == before


@LAW
@given(cases(overriding=False), st.booleans())
def test_the_order_of_the_plan_is_a_possible_order_of_the_run(case: Case, with_history: bool) -> None:
    """Replay: every step succeeds, steps end in some order, and the walker lets exactly these steps start."""
    assume(not check(case.spec).errors)
    assume(all(edge.condition in CONDITIONS for edge in case.spec.edges))
    plan = make_plan(case.spec)
    assert sorted(step.key for step in plan.steps) == sorted(step.step_key for step in case.spec.steps)
    position = {key: i for i, key in enumerate(plan.order)}
    graph = compile_graph(case.spec)
    # of the running steps the one that started first ends first: all take equally long, as the plan imagines
    seen = walk_all(graph, {}, lambda running: running[0])
    assert sorted(seen.started) == sorted(plan.order)
    walker = Walker(graph)
    started = list(walker.start().ready)
    for _ in case.spec.steps:
        if not walker.running:
            break
        first = min(walker.running, key=position.__getitem__)
        started += walker.report({first: GOOD}).ready
    assert tuple(started) == plan.order


@LAW
@given(cases())
def test_cancelling_at_any_moment_leaves_every_step_ended(case: Case) -> None:
    from taskcenter.reasons import Reason

    graph = compile_graph(case.spec)
    walker = Walker(graph, case.overrides, case.limit)
    walker.start()
    choose = case.chooser()
    for _ in range(case.seed % (len(case.spec.steps) + 1)):
        if walker.running:
            key = choose(sorted(walker.running))
            walker.report({key: case.outcomes[key]})
    already = walker.halted
    if already is None:
        said = walker.halt(Reason(ReasonCode.CANCELLED))
        assert said.halt is not None
        assert said.ready == ()
    for key in sorted(walker.running):
        assert walker.report({key: Outcome(SKIPPED)}).ready == ()
    assert walker.finished
    assert walker.final().failed


# --- the same laws over the loop that really runs steps -------------------------------------------------------------

RUNS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RUNS
@given(cases())
def test_a_real_run_ends_as_the_walker_says(case: Case) -> None:
    """Steps take a few turns of the loop each; the walker is then told the same ends in the same order."""
    dice = random.Random(case.seed)
    turns = {step.step_key: dice.randrange(4) for step in case.spec.steps}
    running: set[str] = set()
    most = 0

    async def do(call: StepCall) -> Any:
        nonlocal most
        running.add(call.key)
        most = max(most, len(running))
        try:
            for _ in range(turns[call.key]):
                await asyncio.sleep(0)
            outcome = case.outcomes[call.key]
            if outcome.status is FAILED:
                raise StepFailed("it broke")
            return outcome.result
        finally:
            running.discard(call.key)

    result, recorder = asyncio.run(act(case.spec, do, overrides=case.overrides))
    assert most <= case.spec.max_parallel
    assert sorted(recorder.final) == sorted(step.step_key for step in case.spec.steps)
    for key in recorder.final:
        said = recorder.of(key)
        assert said[-1] in (SUCCESS, FAILED, SKIPPED)
        assert said in ([said[-1]], [StepStatus.RUNNING, said[-1]]), "running at most once, then one end"
        if said[-1] is SKIPPED:
            assert recorder.last(key).reason is not None, "a skipped step says why"
    assert {key: output["status"] for key, output in result.outputs.items()} == recorder.final

    walker = Walker(compile_graph(case.spec), case.overrides)
    walker.start()
    for change in recorder.changes:
        if change.key in walker.running and change.status in (SUCCESS, FAILED, SKIPPED):
            walker.report({change.key: Outcome(change.status, change.execution, change.error)})
    assert walker.finished
    assert {key: outcome.status for key, outcome in walker.outcomes.items()} == recorder.final
    assert walker.final().failed == result.ending.failed
    assert walker.final().message == result.ending.message


@RUNS
@given(cases(halting=False))
def test_run_here_ends_as_the_rules_say(case: Case) -> None:
    assume(case.spec.edges or not case.spec.sequential)
    assume(case.spec.halt_mode != "cancel")

    async def do(call: StepCall) -> Any:
        outcome = case.outcomes[call.key]
        if outcome.status is FAILED:
            raise StepFailed("it broke")
        return outcome.result

    result = run_here(case.spec, overrides=case.overrides, work=do)
    wanted = expected_statuses(case.spec, case.outcomes, case.overrides, case.meaning)
    assert {key: output["status"] for key, output in result.outputs.items()} == wanted


@RUNS
@given(cases(), st.integers(0, 12))
def test_a_cancelled_run_leaves_every_step_ended(case: Case, after: int) -> None:
    """The whole coroutine is cancelled after some turns of the loop; steps would otherwise go on for ever."""

    async def do(call: StepCall) -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
        if call.key in ("s1", "s3", "s4"):
            await asyncio.Event().wait()

    async def go() -> Any:
        from composites.engine import execute
        from taskcenter.clock import utc_now
        from tests.graphs import Recorder

        recorder = Recorder()
        task = asyncio.create_task(
            execute(case.spec, do, recorder, now=utc_now, scope={"inputs": {}}, overrides=case.overrides)
        )
        for _ in range(after + 1):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.done()
        return recorder

    recorder = asyncio.run(go())
    assert sorted(recorder.final) == sorted(step.step_key for step in case.spec.steps)
    assert set(recorder.final.values()) <= {SUCCESS, FAILED, SKIPPED}
    for key, status in recorder.final.items():
        if status is SKIPPED:
            assert recorder.last(key).reason is not None
