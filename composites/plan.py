"""The plan: what a composite would do, by the same walker on imagined outcomes. Nothing executes. (spec 3.8)

Every step is imagined to succeed with a result that is not known yet; what follows from that alone is
``certain``. Steps that need a failure, or a value that only the run will know, say what they depend on. The order
is one the real run could take: it comes from the walker, with expected durations where history has them.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import taskcenter
from taskcenter.context import PlanNote, RunContext
from taskcenter.errors import MappingError
from taskcenter.redaction import redacts_many
from taskcenter.status import StepStatus

from . import templates
from .expressions import UNKNOWN
from .graph import wave_numbers
from .model import CompositeSpec, StepSpec
from .walk import Decisions, Outcome, Overrides, Walker, compile_graph, output_of

__all__ = ["Expectation", "Plan", "PlanStep", "Planner", "make_plan", "plan_hash"]


class Planner(Protocol):
    """A task type, as far as a plan needs it."""

    @property
    def danger(self) -> str | None: ...
    @property
    def expensive(self) -> bool: ...
    def preview(self, payload: Mapping[str, Any], ctx: RunContext) -> PlanNote | None: ...


@dataclass(frozen=True, slots=True)
class Expectation:
    """Seconds a step took before: median, 95th percentile, and over how many runs."""

    p50: float
    p95: float
    n: int


@dataclass(frozen=True)
class PlanStep:
    """One step of a plan. ``predicted`` is what the walk with only successes gives it."""

    number: int
    key: str
    name: str
    task_type: str
    position: int
    wave: int
    certain: bool
    predicted: str
    depends_on: tuple[str, ...] = ()
    reason: str | None = None
    resolved_payload: Any = None
    mapping_error: str | None = None
    note: PlanNote | None = None
    note_error: str | None = None
    danger: str | None = None
    expensive: bool = False
    secrets: tuple[str, ...] = ()
    connections: Mapping[str, bool | None] = field(default_factory=dict)
    expected: Expectation | None = None
    expected_start: float | None = None
    expected_end: float | None = None
    items: int | None = None

    def to_dict(self) -> dict[str, Any]:
        expected = {"p50": self.expected.p50, "p95": self.expected.p95, "n": self.expected.n} if self.expected else None
        return {
            "step": self.number,
            "stepKey": self.key,
            "name": self.name,
            "taskType": self.task_type,
            "position": self.position,
            "wave": self.wave,
            "status": "planned",
            "certain": self.certain,
            "dependsOn": list(self.depends_on),
            "predicted": self.predicted,
            "reason": self.reason,
            "resolvedPayload": self.resolved_payload,
            "mappingError": self.mapping_error,
            "note": self.note.to_dict() if self.note else None,
            "noteError": self.note_error,
            "danger": self.danger,
            "expensive": self.expensive,
            "secrets": list(self.secrets),
            "connections": dict(self.connections),
            "expectedSeconds": expected,
            "expectedStart": self.expected_start,
            "expectedEnd": self.expected_end,
            "items": self.items,
        }


@dataclass(frozen=True)
class Plan:
    """A whole plan; ``steps`` stand in the order in which they would start (or be skipped)."""

    name: str
    steps: tuple[PlanStep, ...]
    hash: str
    continue_on_error: bool
    fail_on_any_error: bool
    max_parallel: int
    task_id: str | None = None
    revision: int | None = None
    waves: int = 0
    critical_path: tuple[str, ...] = ()
    expected_total: float | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """The steps that would run, in the order they would start."""
        return tuple(step.key for step in self.steps if step.predicted == "success")

    def to_dict(self) -> dict[str, Any]:
        return {
            "executor": "composite",
            "taskId": self.task_id,
            "name": self.name,
            "dryRun": True,
            "totalSteps": len(self.steps),
            "waves": self.waves,
            "continueOnError": self.continue_on_error,
            "failOnAnyError": self.fail_on_any_error,
            "maxParallel": self.max_parallel,
            "revision": self.revision,
            "planHash": self.hash,
            "criticalPath": list(self.critical_path),
            "expectedSeconds": self.expected_total,
            "steps": [step.to_dict() for step in self.steps],
        }


def plan_hash(spec: CompositeSpec, *, inputs: Mapping[str, Any], revision: int | None, overrides: Overrides) -> str:
    """Hash over definition, revision, static inputs, per-run overrides and code version; nothing volatile."""
    content = {
        "definition": spec.to_dict(),
        "revision": revision,
        "inputs": dict(inputs),
        "skip": sorted(overrides.skip),
        "hold": sorted(overrides.hold),
        "fail": sorted(overrides.fail),
        "selected": None if overrides.selected is None else sorted(overrides.selected),
        "reused": sorted(overrides.reused),
        "code": taskcenter.__version__,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_plan(
    spec: CompositeSpec,
    *,
    find_type: Callable[[str], Planner | None] | None = None,
    inputs: Mapping[str, Any] | None = None,
    scope: Mapping[str, Any] | None = None,
    overrides: Overrides = Overrides(),
    history: Mapping[str, Expectation] | None = None,
    has_connection: Callable[[str], bool | None] | None = None,
    task_id: str | None = None,
    revision: int | None = None,
) -> Plan:
    """The plan of a composite that ``check`` found no error in.

    ``history`` maps step keys to durations; ``has_connection`` tells whether a saved connection exists (None:
    cannot be told from here).
    """
    merged = {**spec.inputs, **(inputs or {})}
    walker = Walker(compile_graph(spec), overrides)
    known = {key: {"status": "success", "execution": value} for key, value in overrides.reused.items()}
    steps = {step.step_key: step for step in spec.steps}
    full_scope = {
        "run": UNKNOWN,
        "env": UNKNOWN,
        "item": UNKNOWN,
        "index": UNKNOWN,
        "task": {"slug": spec.name},
        **(scope or {}),
        "inputs": merged,
        "steps": {key: known.get(key, UNKNOWN) for key in steps},
    }
    imagined = _imagine(walker, steps, history or {})
    waves = wave_numbers(spec)
    graph = walker.graph
    parents = {key: [spec.steps[e.source].step_key for e in graph.incoming[i]] for key, i in graph.index.items()}
    for key, predicted in imagined.sequence:  # what is left out by definition has nothing that could be read later
        if predicted == "skipped" and _decided_by_definition(walker, key):
            full_scope["steps"][key] = output_of(Outcome(StepStatus.SKIPPED), None, walker.reasons[key])
    uncertain: dict[str, tuple[str, ...]] = {}
    planned: list[PlanStep] = []
    redact = redacts_many()
    for number, (key, predicted) in enumerate(imagined.sequence, start=1):
        on = tuple(dict.fromkeys((*walker.assumed.get(key, ()), *(p for p in parents[key] if p in uncertain))))
        if on or (predicted == "skipped" and not _decided_by_definition(walker, key)):
            uncertain[key] = on or tuple(parents[key])
        planned.append(
            _plan_step(
                number, steps[key], waves[key], predicted, uncertain.get(key, ()), key not in uncertain,
                walker, full_scope, find_type, has_connection, (history or {}).get(key), imagined.times.get(key),
                redact,
            )
        )  # fmt: skip
    return Plan(
        name=spec.name,
        steps=tuple(planned),
        hash=plan_hash(spec, inputs=merged, revision=revision, overrides=overrides),
        continue_on_error=spec.continue_on_error,
        fail_on_any_error=spec.fail_on_any_error,
        max_parallel=spec.max_parallel,
        task_id=task_id,
        revision=revision,
        waves=1 + max(waves.values(), default=-1),
        critical_path=_critical_path(planned, parents, history or {}),
        expected_total=imagined.total,
    )


@dataclass
class _Imagined:
    sequence: list[tuple[str, str]]
    times: dict[str, tuple[float | None, float | None]]
    total: float | None


def _imagine(walker: Walker, steps: Mapping[str, StepSpec], history: Mapping[str, Expectation]) -> _Imagined:
    """Drive the walker on a virtual clock. A step without history counts as one second, and from the first of
    those on the expected times are not said."""
    clock = 0.0
    running: list[tuple[float, int, str]] = []
    sequence: list[tuple[str, str]] = []
    times: dict[str, tuple[float | None, float | None]] = {}
    known = bool(steps)

    def apply(decisions: Decisions) -> None:
        nonlocal known
        sequence.extend((key, "skipped") for key, _ in decisions.skip)
        sequence.extend((key, "failed") for key, _ in decisions.fail)
        sequence.extend((key, "reused") for key in decisions.reuse)
        for key in decisions.ready:
            expected = history.get(key)
            known = known and expected is not None
            end = clock + (expected.p50 if expected else 1.0)
            times[key] = (clock, end) if known else (None, None)
            sequence.append((key, "success"))
            heapq.heappush(running, (end, len(sequence), key))

    apply(walker.start())
    while running:
        clock, _, key = heapq.heappop(running)
        apply(walker.report({key: Outcome(StepStatus.SUCCESS, UNKNOWN)}))
    return _Imagined(sequence, times, clock if known else None)


def _decided_by_definition(walker: Walker, key: str) -> bool:
    """Skipped whatever happens: disabled, left out, held or not selected."""
    reason = walker.reasons.get(key)
    return reason is not None and not reason.step


def _plan_step(
    number: int,
    step: StepSpec,
    wave: int,
    predicted: str,
    depends_on: tuple[str, ...],
    certain: bool,
    walker: Walker,
    scope: Mapping[str, Any],
    find_type: Callable[[str], Planner | None] | None,
    has_connection: Callable[[str], bool | None] | None,
    expected: Expectation | None,
    times: tuple[float | None, float | None] | None,
    redact: Callable[[Any], Any],
) -> PlanStep:
    payload = step.payload
    secrets: tuple[str, ...] = ()
    items, mapping_error = _items(step, scope)
    if templates.has_template(payload):
        secrets = tuple(dict.fromkeys(p.secret for _, p in templates.placeholders(payload) if p.secret))
        try:
            payload = templates.render(payload, scope, None)
        except MappingError as error:
            mapping_error = error.message
    kind = find_type(step.task_type) if find_type and step.task_type else None
    note, note_error = _preview(kind, payload) if kind and mapping_error is None else (None, None)
    names = dict.fromkeys(
        [str(v) for k, v in payload.items() if k in ("connection", "connectionId") and isinstance(v, str)]
        + list(note.connections if note else ())
    ) if isinstance(payload, Mapping) else {}  # fmt: skip
    reason = walker.reasons.get(step.step_key)
    start, end = times or (None, None)
    return PlanStep(
        number=number,
        key=step.step_key,
        name=step.name or step.step_key,
        task_type=step.task_type or f"→ {step.referenced_task_id}",
        position=step.position,
        wave=wave,
        certain=certain,
        predicted=predicted,
        depends_on=depends_on,
        reason=str(reason) if reason else None,
        resolved_payload=redact(payload),
        mapping_error=mapping_error,
        note=note,
        note_error=note_error,
        danger=kind.danger if kind else None,
        expensive=kind.expensive if kind else False,
        secrets=secrets,
        connections={name: has_connection(name) if has_connection else None for name in names},
        expected=expected,
        expected_start=start,
        expected_end=end,
        items=items,
    )


def _items(step: StepSpec, scope: Mapping[str, Any]) -> tuple[int | None, str | None]:
    """How many items a mapped step has, where that can be known, or what is wrong with them."""
    if step.map_over is None:
        return None, None
    try:
        items = templates.render(step.map_over, scope, None)
    except MappingError as error:
        return None, error.message
    if isinstance(items, list):
        too_many = f"mapOver gave {len(items)} items; at most {step.map_max_items} are allowed"
        return len(items), too_many if len(items) > step.map_max_items else None
    if isinstance(items, str) and items.startswith("‹from "):
        return None, None
    return None, f"mapOver gave a {type(items).__name__}, not a list"


def _preview(kind: Planner, payload: Mapping[str, Any]) -> tuple[PlanNote | None, str | None]:
    """The type's own note. A payload with values still to come may not be complete enough for one."""
    try:
        return kind.preview(payload, RunContext(dry_run=True)), None
    except Exception as error:  # a preview is a help: whatever is wrong with it, the plan is still shown
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, f"no preview before its values are known ({first})"


def _critical_path(
    planned: Sequence[PlanStep], parents: Mapping[str, Sequence[str]], history: Mapping[str, Expectation]
) -> tuple[str, ...]:
    """The chain of steps that run and take longest; a step without history counts as one second."""
    runs = {step.key for step in planned if step.predicted == "success"}
    longest: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for step in sorted((s for s in planned if s.key in runs), key=lambda s: s.wave):
        took = history[step.key].p50 if step.key in history else 1.0
        best = max((p for p in parents[step.key] if p in longest), key=lambda p: longest[p], default=None)
        longest[step.key] = took + (longest[best] if best is not None else 0.0)
        before[step.key] = best
    at = max(longest, key=lambda key: longest[key], default=None)
    path: list[str] = []
    while at is not None:
        path.append(at)
        at = before[at]
    return tuple(reversed(path))
