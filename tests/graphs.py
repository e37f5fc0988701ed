"""Small composites for tests, steps that do what they are told, and a second reading of the rules of spec 3.3–3.5.

The second reading (``expected_statuses``) shares no code with the walker: it looks at whole graphs whose outcomes are
all known, while the walker decides as soon as it can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from composites.engine import CompositeResult, StepCall, StepChange, execute
from composites.local import try_step
from composites.model import CompositeSpec, EdgeSpec, StepSpec
from composites.walk import Decisions, Graph, Outcome, Overrides, Walker
from taskcenter.clock import utc_now
from taskcenter.status import StepStatus

SUCCESS, FAILED, SKIPPED = StepStatus.SUCCESS, StepStatus.FAILED, StepStatus.SKIPPED
GOOD = Outcome(SUCCESS, {"n": 1})
BAD = Outcome(FAILED, error="it broke", error_type="error")


def composite(
    steps: Mapping[str, Mapping[str, Any]] | str,
    edges: Iterable[tuple[str, str] | tuple[str, str, str]] = (),
    **settings: Any,
) -> CompositeSpec:
    """``composite("a b c", [("a", "b"), ("b", "c", "failed")])``, or steps with their fields as a mapping."""
    named: Mapping[str, Mapping[str, Any]] = {key: {} for key in steps.split()} if isinstance(steps, str) else steps
    return CompositeSpec(
        settings.pop("name", "test"),
        steps=tuple(
            StepSpec(**{"step_key": key, "task_type": "noop", "position": i, **fields})
            for i, (key, fields) in enumerate(named.items())
        ),
        edges=tuple(EdgeSpec(*edge) for edge in edges),
        **settings,
    )


class Recorder:
    """Keeps every change in order; ``final`` is the last word about each step or item."""

    def __init__(self) -> None:
        self.changes: list[StepChange] = []

    def __call__(self, change: StepChange) -> None:
        self.changes.append(change)

    @property
    def final(self) -> dict[str, StepStatus]:
        return {change.key: change.status for change in self.changes}

    def of(self, key: str) -> list[StepStatus]:
        return [change.status for change in self.changes if change.key == key]

    def last(self, key: str) -> StepChange:
        return [change for change in self.changes if change.key == key][-1]


Do = Callable[[StepCall], Any]


async def act(
    spec: CompositeSpec, do: Do, *, seconds: float = 20, inputs: Mapping[str, Any] | None = None, **more: Any
) -> tuple[CompositeResult, Recorder]:
    """Run with ``do`` as the work of every step (a value, an exception to raise, or an awaitable)."""
    recorder = Recorder()

    async def once(call: StepCall) -> Any:
        said = do(call)
        if asyncio.iscoroutine(said):
            said = await said
        if isinstance(said, BaseException):
            raise said
        return said

    scope = {
        "inputs": {**spec.inputs, **(inputs or {})},
        "run": {"id": "r-1", "slot": None},
        "task": {"slug": spec.name},
        "env": {"HOME": "/home/x"},
    }
    scope.update(more.pop("scope", {}))
    running = execute(spec, lambda call: try_step(call, once), recorder, now=utc_now, scope=scope, **more)
    async with asyncio.timeout(seconds):  # only a bound: a run that hangs is a failure, not a wait
        return await running, recorder


def run(spec: CompositeSpec, do: Do, **more: Any) -> tuple[CompositeResult, Recorder]:
    return asyncio.run(act(spec, do, **more))


class Walked:
    """One whole walk: what was decided, in order, and what was running meanwhile."""

    def __init__(self, walker: Walker) -> None:
        self.walker = walker
        self.started: list[str] = []
        self.known_at_start: dict[str, dict[str, Outcome]] = {}
        """Step → every outcome that was known when it started."""
        self.decisions: list[Decisions] = []
        self.most_running = 0

    def take(self, decisions: Decisions) -> None:
        self.decisions.append(decisions)
        for key in decisions.ready:
            self.started.append(key)
            self.known_at_start[key] = dict(self.walker.outcomes)
        self.most_running = max(self.most_running, len(self.walker.running))

    @property
    def statuses(self) -> dict[str, StepStatus]:
        return {key: outcome.status for key, outcome in self.walker.outcomes.items()}


def walk_all(
    graph: Graph,
    outcomes: Mapping[str, Outcome],
    choose: Callable[[Sequence[str]], str] = lambda running: running[0],
    overrides: Overrides = Overrides(),
    limit: int | None = None,
) -> Walked:
    """Walk to the end; ``choose`` says which of the running steps ends next (they stand in the order they started)."""
    walked = Walked(Walker(graph, overrides, limit))
    walked.take(walked.walker.start())
    for _ in range(len(graph.steps) + 1):
        running = [key for key in walked.started if key in walked.walker.running]
        if not running:
            break
        key = choose(running)
        walked.take(walked.walker.report({key: outcomes.get(key, GOOD)}))
    return walked


# --- the second reading of the rules ------------------------------------------------------------------------------

EXPRESSIONS: dict[str, Callable[[Any], bool | None]] = {
    "result.n > 1": lambda result: result["n"] > 1 if result else None,
    "result.n == 1 or result.n == 3": lambda result: result["n"] in (1, 3) if result else None,
}
"""Edge expression → its value over a result; None where it ends in an error."""


def edge_holds(condition: str, outcome: Outcome, passed: bool) -> bool | None:
    """Whether an edge is satisfied; None: its expression fails."""
    if passed:
        return True
    if condition in EXPRESSIONS:
        return EXPRESSIONS[condition](outcome.result) if outcome.status is SUCCESS else False
    return {
        "success": outcome.status is SUCCESS,
        "failed": outcome.status is FAILED,
        "done": outcome.status is not SKIPPED,
        "skipped": outcome.status is SKIPPED,
        "always": True,
    }[condition]


def join_expression(keys: Sequence[str], shape: int) -> tuple[str, Callable[[Mapping[str, StepStatus]], bool]]:
    """One of a few expressions over named sources, with its meaning."""
    first, last = keys[0], keys[-1]
    return [
        (f"{first}.success", lambda s: s[first] is SUCCESS),
        (f"not {last}.failed", lambda s: s[last] is not FAILED),
        (f"{first}.success or steps['{last}'].failed", lambda s: s[first] is SUCCESS or s[last] is FAILED),
        (f"{first}.done and not {last}.skipped", lambda s: s[first] is not SKIPPED and s[last] is not SKIPPED),
    ][shape % 4]


def join_holds(join: str, edges: Sequence[bool | None], sources: Sequence[StepStatus]) -> bool:
    """Whether a named join holds, all sources having ended: word by word from the spec."""
    if join == "all":
        return all(edge is True for edge in edges)
    if join == "any":
        return any(edge is True for edge in edges)
    if join.startswith("at_least"):
        return sum(edge is True for edge in edges) >= int(join[9:-1])
    if join == "all_done":
        return True
    if join == "none_failed":
        return FAILED not in sources
    if join == "any_failed":
        return FAILED in sources
    raise AssertionError(join)


def passed_over(step: StepSpec, overrides: Overrides) -> bool:
    key = step.step_key
    if key in overrides.reused or key in overrides.fail:
        return False
    left_out = overrides.selected is not None and key not in overrides.selected
    return not step.enabled or key in overrides.skip or left_out


def expected_statuses(
    spec: CompositeSpec,
    outcomes: Mapping[str, Outcome],
    overrides: Overrides,
    meaning: Mapping[str, Callable[[Mapping[str, StepStatus]], bool]],
) -> dict[str, StepStatus]:
    """How every step ends when nothing halts. Recursive from each step to its sources; ``meaning``: step → its join
    where that is an expression."""
    steps = {step.step_key: step for step in spec.steps}
    ends: dict[str, Outcome] = {}

    def end(key: str) -> Outcome:
        if key not in ends:
            ends[key] = decide_end(key)
        return ends[key]

    def decide_end(key: str) -> Outcome:
        step = steps[key]
        if passed_over(step, overrides):
            return Outcome(SKIPPED)
        into = [edge for edge in spec.edges if edge.to_step_key == key]
        if into:
            sources = {edge.from_step_key: end(edge.from_step_key).status for edge in into}
            held = [
                edge_holds(edge.condition, end(edge.from_step_key), passed_over(steps[edge.from_step_key], overrides))
                for edge in into
            ]
            holds = meaning[key](sources) if key in meaning else join_holds(step.join, held, list(sources.values()))
            if not holds:
                error = None in held and (step.join in ("all", "any") or step.join.startswith("at_least"))
                return Outcome(FAILED) if error else Outcome(SKIPPED)
        if key in overrides.reused:
            return Outcome(SUCCESS, overrides.reused[key])
        if key in overrides.fail:
            return Outcome(FAILED)
        if key in overrides.hold:
            return Outcome(SKIPPED)
        return outcomes.get(key, GOOD)

    return {key: end(key).status for key in steps}
