"""The walker: which steps may start, which are skipped and why, and when it is over. (spec 3.3–3.5, 3.7)

One walker serves the real run, the local run, the plan and the tests: they differ only in where outcomes come
from. It is incremental (each edge is looked at once, so a whole run costs O(steps + edges)), reads no clock and
starts nothing itself. ``walk`` is the same as one pure call.

Failure. A failed step *halts* the run when its ``onError`` is stop and no outgoing edge is there for failures.
An edge *catches* a failure when its condition is failed, done or always or its target joins by any_failed or
all_done: then the graph itself says what comes next and nothing is halted. A caught failure still fails the
run unless it is *handled*: by a condition failed or done or the join any_failed of a step that was not skipped
itself. ``always`` and ``all_done`` are for cleaning up, and a clean-up that succeeds does not hide a failure.

Errors in an edge's expression. Such an edge is not satisfied. When the join can do without it the step starts all
the same; else the step fails with the error's text once all its sources have ended, in whatever order they did.

Steps that are *passed over* (disabled, left out of this run, not selected) end skipped as soon as all their sources
have ended, so that what comes after them still comes after what stood before them, and their outgoing edges count
as satisfied; ``any_failed`` and expressions see them as skipped.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from taskcenter.errors import ExpressionError
from taskcenter.reasons import Reason, ReasonCode
from taskcenter.status import Priority, StepStatus

from .conditions import CONDITIONS, OUTCOME_JOINS, Join, Tally, Verdict, decide, parse_condition, parse_join
from .expressions import UNKNOWN, Expression
from .model import CompositeSpec, StepSpec

__all__ = ["Decisions", "Ending", "Graph", "Outcome", "Overrides", "Walker", "compile_graph", "output_of", "walk"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one step ended. ``result`` is its execution (``UNKNOWN`` in a plan)."""

    status: StepStatus
    result: Any = None
    error: str | None = None
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one run changes without changing the definition (spec 3.9)."""

    skip: frozenset[str] = frozenset()
    hold: frozenset[str] = frozenset()
    fail: frozenset[str] = frozenset()
    selected: frozenset[str] | None = None
    """None: all steps; else the steps this run is asked for."""
    reused: Mapping[str, Any] = field(default_factory=dict)
    """Step → the execution of an earlier run that stands in for it."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What follows from the outcomes so far. ``fail`` are steps that end failed without running."""

    ready: tuple[str, ...] = ()
    skip: tuple[tuple[str, Reason], ...] = ()
    fail: tuple[tuple[str, Outcome], ...] = ()
    reuse: tuple[str, ...] = ()
    halt: Reason | None = None
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How the whole composite ended, with the sentence that says so."""

    failed: bool
    message: str
    unhandled: tuple[str, ...] = ()
    handled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Edge:
    source: int
    target: int
    condition: str | Expression
    text: str
    implicit: bool = False


@dataclass(frozen=True)
class Graph:
    """A checked composite, compiled to indices. Make one with ``compile_graph``."""

    spec: CompositeSpec
    steps: tuple[StepSpec, ...]
    index: Mapping[str, int]
    outgoing: tuple[tuple[_Edge, ...], ...]
    incoming: tuple[tuple[_Edge, ...], ...]
    joins: tuple[Join, ...]
    asking: frozenset[int]
    """Steps with an incoming edge that carries an expression."""
    rank: tuple[tuple[int, int, str], ...]


def compile_graph(spec: CompositeSpec) -> Graph:
    """Prepare a composite that ``check`` found no error in. A sequential one without edges gets its order here."""
    steps = spec.steps
    index = {step.step_key: i for i, step in enumerate(steps)}
    edges = [
        _Edge(index[e.from_step_key], index[e.to_step_key], parse_condition(e.condition), e.condition)
        for e in spec.edges
    ]
    joins = [parse_join(step.join) for step in steps]
    if spec.sequential and not edges:
        order = sorted(range(len(steps)), key=lambda i: (steps[i].position, steps[i].step_key))
        edges = [_Edge(a, b, "always", "always", implicit=True) for a, b in pairwise(order)]
        joins = [Join("all")] * len(steps)
    outgoing: list[list[_Edge]] = [[] for _ in steps]
    incoming: list[list[_Edge]] = [[] for _ in steps]
    for edge in edges:
        outgoing[edge.source].append(edge)
        incoming[edge.target].append(edge)
    return Graph(
        spec=spec,
        steps=steps,
        index=index,
        outgoing=tuple(map(tuple, outgoing)),
        incoming=tuple(map(tuple, incoming)),
        joins=tuple(joins),
        asking=frozenset(edge.target for edge in edges if isinstance(edge.condition, Expression)),
        rank=tuple((Priority(s.priority).rank, s.position, s.step_key) for s in steps),
    )


class Walker:
    """Walks one graph once. ``start`` first, then ``report`` each outcome; both give what follows.

    ``limit`` is how many steps may run at once (default: the composite's ``max_parallel``).
    """

    def __init__(self, graph: Graph, overrides: Overrides = Overrides(), limit: int | None = None) -> None:
        self.graph = graph
        self.overrides = overrides
        self.limit = limit or graph.spec.max_parallel
        count = len(graph.steps)
        self.outcomes: dict[str, Outcome] = {}
        self.reasons: dict[str, Reason] = {}
        self.running: set[str] = set()
        self.halted: Reason | None = None
        self.assumed: dict[str, tuple[str, ...]] = {}
        """Step → the sources whose unknown results were taken for true (only in a plan)."""
        self._tally = [Tally(edges=len(incoming)) for incoming in graph.incoming]
        self._decided = [False] * count
        self._heap: list[tuple[tuple[int, int, str], int]] = []
        self._cause: dict[int, Reason] = {}
        self._errors: dict[int, dict[int, ExpressionError]] = {}
        self._passed: dict[int, Reason] = {}

    # driving -----------------------------------------------------------------------------------------

    def start(self) -> Decisions:
        """Decide every step that waits for nothing."""
        news = _News()
        for i, step in enumerate(self.graph.steps):
            reason = self._passed_over(step)
            if reason is not None:
                self._passed[i] = reason
        for i, incoming in enumerate(self.graph.incoming):
            if not incoming:
                self._admit(i, news)
        return self._decisions(news)

    def report(self, outcomes: Mapping[str, Outcome]) -> Decisions:
        """Take the outcomes of running steps. An outcome of a step that already ended is ignored."""
        news = _News()
        for key, outcome in outcomes.items():
            if key in self.running:
                self.running.discard(key)
                news.todo.append(_End(self.graph.index[key], outcome))
                self._drain(news)  # one after another: a halt by the first must not take the second for pending
        return self._decisions(news)

    def halt(self, reason: Reason) -> Decisions:
        """Stop from outside (a cancel): nothing new starts, what is pending is skipped."""
        news = _News()
        self._halt(reason, news)
        return self._decisions(news)

    @property
    def finished(self) -> bool:
        return len(self.outcomes) == len(self.graph.steps)

    def final(self) -> Ending:
        """The end of a finished walk, in one sentence with the count, the first failing step and its error."""
        failed = [key for key, outcome in self.outcomes.items() if outcome.status is StepStatus.FAILED]
        handled = tuple(key for key in failed if self._is_handled(self.graph.index[key]))
        answered = set(handled)
        unhandled = tuple(key for key in failed if key not in answered)
        counts = {
            s: sum(o.status is s for o in self.outcomes.values()) for s in (StepStatus.SUCCESS, StepStatus.SKIPPED)
        }
        total = len(self.graph.steps)
        bad = self.halted is not None or (bool(unhandled) and self.graph.spec.fail_on_any_error)
        tail = f"{counts[StepStatus.SUCCESS]} succeeded, {len(failed)} failed, {counts[StepStatus.SKIPPED]} skipped"
        if not bad:
            note = f"; handled: {', '.join(handled)}" if handled else ""
            return Ending(False, f"{total} steps: {tail}{note}", unhandled, handled)
        first = next(iter(unhandled), None) or (self.halted.step if self.halted else "")
        error = self.outcomes[first].error if first in self.outcomes else None
        if not first:
            return Ending(True, f"stopped: {self.halted}; {tail}", unhandled, handled)
        plural = "s" if total != 1 else ""
        said = (error or "no message").splitlines()[0]
        text = f"{len(unhandled)} of {total} step{plural} failed, first {first!r}: {said} ({tail})"
        return Ending(True, text, unhandled, handled)

    # deciding ----------------------------------------------------------------------------------------

    def _passed_over(self, step: StepSpec) -> Reason | None:
        key, over = step.step_key, self.overrides
        if key in over.reused or key in over.fail:
            return None
        if not step.enabled:
            return Reason(ReasonCode.DISABLED)
        if key in over.skip:
            return Reason(ReasonCode.OVERRIDE_SKIP)
        if over.selected is not None and key not in over.selected:
            return Reason(ReasonCode.NOT_SELECTED)
        return None

    def _admit(self, i: int, news: _News) -> None:
        """The join of step ``i`` holds, or does not matter because it is passed over."""
        self._decided[i] = True
        key = self.graph.steps[i].step_key
        if i in self._passed:
            news.todo.append(_End(i, Outcome(StepStatus.SKIPPED), self._passed[i]))
        elif key in self.overrides.reused:
            outcome = Outcome(StepStatus.SUCCESS, self.overrides.reused[key])
            news.todo.append(_End(i, outcome, reused=True))
        elif key in self.overrides.fail:
            outcome = Outcome(StepStatus.FAILED, error="made to fail for this run", error_type="override")
            news.todo.append(_End(i, outcome, unrun=True))
        elif key in self.overrides.hold:
            news.todo.append(_End(i, Outcome(StepStatus.SKIPPED), Reason(ReasonCode.HELD)))
        else:
            heapq.heappush(self._heap, (self.graph.rank[i], i))

    def _drain(self, news: _News) -> None:
        """Record each end and follow its edges, which may end further steps: a worklist, however deep the graph."""
        at = 0
        while at < len(news.todo):
            end = news.todo[at]
            at += 1
            key = self.graph.steps[end.step].step_key
            self._decided[end.step] = True
            if key in self.outcomes:
                continue
            self.outcomes[key] = end.outcome
            if end.reason is not None:
                self.reasons[key] = end.reason
                news.skip.append((key, end.reason))
            if end.reused:
                news.reuse.append(key)
            if end.unrun:
                news.fail.append((key, end.outcome))
            if end.outcome.status is StepStatus.FAILED:
                self._judge_failure(end.step, news)
            if self.halted is None:
                for edge in self.graph.outgoing[end.step]:
                    self._follow(edge, end.outcome, news)
        news.todo.clear()

    def _judge_failure(self, i: int, news: _News) -> None:
        step = self.graph.steps[i]
        caught = False
        for edge in self.graph.outgoing[i]:
            join, target = self.graph.joins[edge.target].kind, self.graph.steps[edge.target].step_key
            ended = self.outcomes.get(target)
            if edge.implicit or edge.target in self._passed or (ended and ended.status is StepStatus.SKIPPED):
                continue  # a step that will not run, or was skipped by another edge, catches nothing
            by_condition = join not in OUTCOME_JOINS and edge.condition in ("failed", "done", "always")
            caught |= by_condition or join in ("any_failed", "all_done", "expression")
        stops = step.on_error == "stop" or (step.on_error is None and not self.graph.spec.continue_on_error)
        if stops and not caught and self.halted is None:
            self._halt(Reason(ReasonCode.HALTED_BY, step=step.step_key), news)

    def _is_handled(self, i: int) -> bool:
        """Whether a step that is there for this failure was not skipped itself."""
        for edge in self.graph.outgoing[i]:
            join, target = self.graph.joins[edge.target].kind, self.graph.steps[edge.target].step_key
            by_condition = join not in OUTCOME_JOINS and edge.condition in ("failed", "done")
            ended = self.outcomes.get(target)
            ran = ended is not None and ended.status is not StepStatus.SKIPPED
            if ran and (by_condition or join == "any_failed"):
                return True
        return False

    def _halt(self, reason: Reason, news: _News) -> None:
        self.halted = news.halt = reason
        self._heap.clear()
        for i, step in enumerate(self.graph.steps):
            key = step.step_key
            if key not in self.outcomes and key not in self.running:
                self._decided[i] = True
                self.outcomes[key] = Outcome(StepStatus.SKIPPED)
                self.reasons[key] = reason
                news.skip.append((key, reason))

    def _follow(self, edge: _Edge, outcome: Outcome, news: _News) -> None:
        i, tally = edge.target, self._tally[edge.target]
        source, target = self.graph.steps[edge.source].step_key, self.graph.steps[i]
        join = self.graph.joins[i]
        try:
            satisfied = i in self._passed or join.kind in OUTCOME_JOINS or self._ask_edge(edge, outcome)
        except ExpressionError as error:
            self._errors.setdefault(i, {})[edge.source] = error
            satisfied = False
        tally.satisfied += satisfied
        tally.unsatisfied += not satisfied
        tally.failed += outcome.status is StepStatus.FAILED
        if not satisfied:
            self._cause[i] = Reason(
                ReasonCode.EDGE_UNSATISFIED, source, outcome.status.value, edge.text, target.step_key
            )
        if self._decided[i]:
            return
        if i in self._passed:
            if not tally.open:
                self._admit(i, news)
            return
        verdict = decide(join, tally)
        if verdict is Verdict.NEVER and i in self.graph.asking:
            if tally.open:
                return  # an expression that is still to come may fail, and an error is never hidden by a skip
            if i in self._errors:
                first = next(e.source for e in self.graph.incoming[i] if e.source in self._errors[i])
                self._fail_unrun(i, self._errors[i][first], news)
                return
        if verdict == "evaluate":
            try:
                verdict = self._ask_join(i, join)
            except ExpressionError as error:
                self._fail_unrun(i, error, news)
                return
        if verdict is Verdict.READY:
            self._admit(i, news)
        elif verdict is Verdict.NEVER:
            reason = self._cause.get(i) if join.kind in ("all", "any", "at_least") else None
            named = Reason(ReasonCode.JOIN_UNSATISFIED, source, outcome.status.value, target.join, target.step_key)
            self._decided[i] = True
            news.todo.append(_End(i, Outcome(StepStatus.SKIPPED), reason or named))

    def _fail_unrun(self, i: int, error: ExpressionError, news: _News) -> None:
        self._decided[i] = True
        outcome = Outcome(StepStatus.FAILED, error=error.message, error_type="expression")
        news.todo.append(_End(i, outcome, unrun=True))

    def _ask_edge(self, edge: _Edge, outcome: Outcome) -> bool:
        if edge.source in self._passed:
            return True
        if isinstance(edge.condition, str):
            return outcome.status in CONDITIONS[edge.condition]
        if outcome.status is not StepStatus.SUCCESS:
            return False
        value = edge.condition.evaluate({"result": outcome.result})
        if value is UNKNOWN:
            self._assume(edge.target, edge.source)
        return bool(value)

    def _ask_join(self, i: int, join: Join) -> Verdict:
        assert join.expression is not None
        scope: dict[str, Any] = {}
        for edge in self.graph.incoming[i]:
            key = self.graph.steps[edge.source].step_key
            scope[key] = _seen(self.outcomes[key])
        value = join.expression.evaluate({**scope, "steps": scope})
        if value is UNKNOWN:
            for edge in self.graph.incoming[i]:
                self._assume(i, edge.source)
        return Verdict.READY if value else Verdict.NEVER

    def _assume(self, target: int, source: int) -> None:
        key, on = self.graph.steps[target].step_key, self.graph.steps[source].step_key
        self.assumed[key] = (*self.assumed.get(key, ()), on)

    def _decisions(self, news: _News) -> Decisions:
        self._drain(news)
        ready: list[str] = []
        while self._heap and len(self.running) < self.limit:
            _, i = heapq.heappop(self._heap)
            key = self.graph.steps[i].step_key
            self.running.add(key)
            ready.append(key)
        return Decisions(tuple(ready), tuple(news.skip), tuple(news.fail), tuple(news.reuse), news.halt, self.finished)


@dataclass(frozen=True, slots=True)
class _End:
    """A step that ends: ``unrun`` failed without running, ``reused`` has the result of an earlier run."""

    step: int
    outcome: Outcome
    reason: Reason | None = None
    unrun: bool = False
    reused: bool = False


@dataclass(slots=True)
class _News:
    """What one call brings about."""

    todo: list[_End] = field(default_factory=list)
    skip: list[tuple[str, Reason]] = field(default_factory=list)
    fail: list[tuple[str, Outcome]] = field(default_factory=list)
    reuse: list[str] = field(default_factory=list)
    halt: Reason | None = None


_FLAGS: Final = {
    "success": StepStatus.SUCCESS,
    "failed": StepStatus.FAILED,
    "skipped": StepStatus.SKIPPED,
}


def _seen(outcome: Outcome) -> dict[str, Any]:
    """One step as an expression sees it."""
    seen: dict[str, Any] = {name: outcome.status is status for name, status in _FLAGS.items()}
    seen["done"] = not seen["skipped"]
    seen["status"] = outcome.status.value
    seen["result"] = outcome.result
    return seen


def output_of(outcome: Outcome, duration_ms: int | None, reason: Reason | None = None) -> dict[str, Any]:
    """What later steps read under ``steps.<key>`` (spec 3.6)."""
    if outcome.status is StepStatus.SUCCESS:
        return {"status": "success", "execution": outcome.result, "durationMs": duration_ms}
    if outcome.status is StepStatus.FAILED:
        return {"status": "failed", "error": outcome.error, "errorType": outcome.error_type, "durationMs": duration_ms}
    return {"status": "skipped", "execution": None, "reason": str(reason) if reason else None}


def walk(
    graph: Graph,
    outcomes: Mapping[str, Outcome] | Iterable[tuple[str, Outcome]] = (),
    overrides: Overrides = Overrides(),
    limit: int | None = None,
) -> Decisions:
    """What may start, is skipped or ends after ``outcomes`` (in this order), as one pure call.

    Everything decided since the beginning is in the answer; ``ready`` holds the steps that should be running
    now. A caller that walks step by step keeps a :class:`Walker` instead.
    """
    walker = Walker(graph, overrides, limit)
    decisions: list[Decisions] = [walker.start()]
    items: Sequence[tuple[str, Outcome]] = list(outcomes.items() if isinstance(outcomes, Mapping) else outcomes)
    decisions.extend(walker.report({key: outcome}) for key, outcome in items)
    return Decisions(
        ready=tuple(sorted(walker.running, key=lambda key: graph.rank[graph.index[key]])),
        skip=_joined(d.skip for d in decisions),
        fail=_joined(d.fail for d in decisions),
        reuse=_joined(d.reuse for d in decisions),
        halt=walker.halted,
        finished=walker.finished,
    )


def _joined(parts: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(item for part in parts for item in part)
