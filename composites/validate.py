"""All problems of a composite at once, each with a code, the place and a sentence. (spec 3.2)

``check`` looks at one graph; what it cannot know by itself (task types, saved tasks) it asks through
:class:`Known`. Nothing here executes anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from taskcenter.errors import ExpressionError, MappingError, Problem
from taskcenter.status import Priority, StepStatus

from . import templates
from .conditions import CONDITIONS, OUTCOME_JOINS, Join, parse_condition, parse_join
from .expressions import Expression
from .graph import Ancestors, find_cycle, waves
from .model import CompositeSpec, StepSpec

__all__ = ["MAX_DEPTH", "Checked", "Known", "PayloadChecker", "check"]

MAX_DEPTH = 8
MAX_KEY = 200
MAX_PAYLOAD_DEPTH = 64
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PRIORITIES = frozenset(p.value for p in Priority)
_PLAIN = frozenset({str, int, float, bool, type(None)})


class PayloadChecker(Protocol):
    """A task type, as far as a check needs it."""

    def check(self, payload: Any, path: str = ...) -> list[Problem]: ...


@dataclass(frozen=True)
class Known:
    """What stands outside of the graph. ``find_type`` gives None for an unknown type; ``find_composite``
    gives the graph of a saved composite by id or slug, ``find_task`` whether a task of that id or slug exists
    (None where there is nothing to ask: references are then not checked)."""

    find_type: Callable[[str], PayloadChecker | None] | None = None
    type_names: Callable[[], Iterable[str]] = tuple
    find_task: Callable[[str], bool] | None = None
    find_composite: Callable[[str], CompositeSpec | None] | None = None
    max_steps: int = 10_000


@dataclass(frozen=True)
class Checked:
    """The problems, and the waves when the graph has an order (None otherwise)."""

    problems: Sequence[Problem]
    waves: Sequence[Sequence[str]] | None

    @property
    def errors(self) -> list[Problem]:
        return [p for p in self.problems if p.severity == "error"]


def check(spec: CompositeSpec, known: Known = Known()) -> Checked:
    """Every problem of ``spec``; ``waves`` when its edges are sound and acyclic."""
    problems: list[Problem] = []
    add = problems.append
    if not spec.steps:
        add(Problem("no_steps", "steps", "a composite needs at least one step"))
    if len(spec.steps) > known.max_steps:
        add(Problem("too_many_steps", "steps", f"has {len(spec.steps)} steps; at most {known.max_steps} are allowed"))
    _check_settings(spec, add)
    keys = _check_keys(spec, add)
    sound = _check_edges(spec, keys, add)
    generations = None
    if spec.steps:
        cycle = find_cycle(list(keys), sound)
        if cycle:
            drawn = cycle if len(cycle) <= 21 else [*cycle[:10], "…", *cycle[-10:]]
            add(Problem("cycle", "edges", f"the steps wait for each other: {' → '.join(drawn)}"))
        else:
            generations = waves(list(keys), sound)
    parents = _parents(spec, keys, sound)
    _check_steps(spec, known, add)
    _check_joins(spec, parents, add)
    _check_templates(spec, generations, parents, add)
    if generations is not None:
        _check_reachable(spec, generations, parents, add)
    _check_nesting(spec, known, add)
    return Checked(tuple(problems), generations)


def _place(index: int, step: StepSpec) -> str:
    return f"steps[{index}] ({step.step_key})" if step.step_key else f"steps[{index}]"


def _check_settings(spec: CompositeSpec, add: Callable[[Problem], None]) -> None:
    if not spec.name.strip():
        add(Problem("blank_name", "name", "the composite has no name"))
    if _is_too_deep(spec.inputs):
        add(Problem("payload_too_deep", "inputs", f"the inputs are nested deeper than {MAX_PAYLOAD_DEPTH} levels"))
    if spec.max_parallel < 1:
        add(Problem("out_of_range", "maxParallel", "must be at least 1"))
    if spec.halt_mode not in ("wait", "cancel"):
        add(Problem("unknown_halt_mode", "haltMode", f"{spec.halt_mode!r} is not known; known: wait, cancel"))


def _check_keys(spec: CompositeSpec, add: Callable[[Problem], None]) -> dict[str, StepSpec]:
    keys: dict[str, StepSpec] = {}
    for index, step in enumerate(spec.steps):
        key = step.step_key
        if not key:
            add(Problem("blank_key", f"steps[{index}].stepKey", "the step key is blank"))
        elif not _KEY.fullmatch(key):
            add(Problem("bad_key", f"steps[{index}].stepKey", f"{key!r} may hold only A-Z a-z 0-9 _ and -"))
        elif len(key) > MAX_KEY:
            add(Problem("bad_key", f"steps[{index}].stepKey", f"has {len(key)} characters; at most {MAX_KEY} fit"))
        if key and key in keys:
            add(Problem("duplicate_key", f"steps[{index}].stepKey", f"{key!r} is used by an earlier step too"))
        keys.setdefault(key, step)
    return keys


def _check_edges(
    spec: CompositeSpec, keys: Mapping[str, StepSpec], add: Callable[[Problem], None]
) -> list[tuple[str, str]]:
    sound: list[tuple[str, str]] = []
    seen: set[tuple[str, str]] = set()
    for index, edge in enumerate(spec.edges):
        place, pair = f"edges[{index}]", (edge.from_step_key, edge.to_step_key)
        ends_known = True
        for side, key in (("fromStepKey", pair[0]), ("toStepKey", pair[1])):
            if not key:
                add(Problem("edge_blank", f"{place}.{side}", "the end of the edge is blank"))
                ends_known = False
            elif key not in keys:
                add(Problem("edge_unknown", f"{place}.{side}", f"there is no step {key!r}"))
                ends_known = False
        if ends_known and pair[0] == pair[1]:
            add(Problem("edge_self", place, f"{pair[0]} → {pair[1]}: a step cannot wait for itself"))
        elif pair in seen:
            add(Problem("edge_duplicate", place, f"{pair[0]} → {pair[1]} stands twice"))
        elif ends_known:
            sound.append(pair)
        seen.add(pair)
        try:
            condition = parse_condition(edge.condition)
            if isinstance(condition, Expression) and condition.names - {"result"}:
                extra = ", ".join(sorted(condition.names - {"result"}))
                add(Problem("unknown_condition", f"{place}.condition", f"only 'result' is known here, not {extra}"))
        except ExpressionError as error:
            add(Problem("unknown_condition", f"{place}.condition", error.message))
    return sound


def _parents(
    spec: CompositeSpec, keys: Mapping[str, StepSpec], sound: Sequence[tuple[str, str]]
) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = {key: [] for key in keys}
    for source, target in sound:
        parents[target].append(source)
    return parents


def _check_steps(spec: CompositeSpec, known: Known, add: Callable[[Problem], None]) -> None:
    types: dict[str, PayloadChecker | None] = {}
    tasks: dict[str, bool] = {}
    for index, step in enumerate(spec.steps):
        place = _place(index, step)
        if step.on_error not in (None, "stop", "continue", "skip"):
            add(Problem("unknown_on_error", f"{place}.onError", f"{step.on_error!r}: known are stop, continue, skip"))
        if step.priority not in _PRIORITIES:
            add(Problem("unknown_priority", f"{place}.priority", f"{step.priority!r}: known are high, normal, low"))
        for name, value in (
            ("retries", step.retries),
            ("retryBackoffMs", step.retry_backoff_ms),
            ("tolerance", step.tolerance),
        ):
            if value < 0:
                add(Problem("out_of_range", f"{place}.{name}", "must not be negative"))
        if step.timeout_seconds is not None and not step.timeout_seconds > 0:  # NaN is not above 0 either
            add(Problem("out_of_range", f"{place}.timeoutSeconds", "must be above 0"))
        if step.map_parallel is not None and step.map_parallel < 1:
            add(Problem("out_of_range", f"{place}.mapParallel", "must be at least 1"))
        if step.map_max_items < 1:
            add(Problem("out_of_range", f"{place}.mapMaxItems", "must be at least 1"))
        if (
            step.map_over is not None
            and not isinstance(step.map_over, (list, tuple))
            and not (isinstance(step.map_over, str) and "{{" in step.map_over)
        ):
            add(Problem("bad_map", f"{place}.mapOver", "must be a list or a template that gives one"))
        _check_work(step, place, known, types, tasks, add)


def _check_work(
    step: StepSpec,
    place: str,
    known: Known,
    types: dict[str, PayloadChecker | None],
    tasks: dict[str, bool],
    add: Callable[[Problem], None],
) -> None:
    sound = False
    if not isinstance(step.payload, Mapping):
        kind = type(step.payload).__name__
        add(Problem("payload_not_object", f"{place}.payload", f"the payload must be a JSON object, not {kind}"))
    elif _is_too_deep(step.payload):
        text = f"the payload is nested deeper than {MAX_PAYLOAD_DEPTH} levels"
        add(Problem("payload_too_deep", f"{place}.payload", text))
    else:
        sound = True
    if step.task_type and step.referenced_task_id:
        add(Problem("two_kinds", place, "names both a task type and a saved task; give one of them"))
    elif step.referenced_task_id:
        ref = step.referenced_task_id
        if known.find_task is not None:
            if ref not in tasks:
                tasks[ref] = known.find_task(ref)
            if not tasks[ref]:
                add(Problem("task_missing", f"{place}.referencedTaskId", f"there is no task {ref!r}"))
    elif not step.task_type:
        add(Problem("no_type", place, "names neither a task type nor a saved task"))
    elif known.find_type is not None:
        if step.task_type not in types:
            types[step.task_type] = known.find_type(step.task_type)
        kind_ = types[step.task_type]
        if kind_ is None:
            names = ", ".join(known.type_names())
            add(
                Problem(
                    "unknown_type", f"{place}.taskType", f"there is no task type {step.task_type!r}; known: {names}"
                )
            )
        elif sound:
            for problem in kind_.check(step.payload, f"{place}.payload"):
                if not _may_come_later(problem, f"{place}.payload", step.payload):
                    add(problem)


def _is_too_deep(value: Any) -> bool:
    """Deeper than anything that is stored may be; asked level by level, so that no depth is too much for the asking."""
    level = [value]
    for _ in range(MAX_PAYLOAD_DEPTH):
        level = [
            inner
            for item in level
            if item.__class__ not in _PLAIN and isinstance(item, (Mapping, list, tuple))
            for inner in (item.values() if isinstance(item, Mapping) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, (Mapping, list, tuple)) for item in level)


def _may_come_later(problem: Problem, base: str, payload: Mapping[str, Any]) -> bool:
    """Whether the field holds a template: it is checked when its value is known."""
    if problem.path == base:  # a rule over several fields
        return templates.has_template(payload)
    value: Any = payload
    for part in problem.path[len(base) + 1 :].split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, (list, tuple)) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            break
    return (
        problem.code not in ("payload_missing", "payload_extra_forbidden")
        and value is not payload
        and templates.has_template(value)
    )


def _check_joins(spec: CompositeSpec, parents: Mapping[str, list[str]], add: Callable[[Problem], None]) -> None:
    odd = {(e.from_step_key, e.to_step_key): e.condition for e in spec.edges if e.condition != "success"}
    for index, step in enumerate(spec.steps):
        place = f"{_place(index, step)}.join"
        try:
            join = parse_join(step.join)
        except ExpressionError as error:
            add(Problem("unknown_join", place, error.message))
            continue
        sources = parents.get(step.step_key, [])
        if join.kind == "at_least" and join.count < 1:
            add(Problem("unknown_join", place, "at_least(0) asks for nothing; at_least(1) is the same as any"))
        elif join.kind == "at_least" and join.count > max(1, len(sources)):
            plural = "" if len(sources) == 1 else "s"
            text = f"at_least({join.count}) can never hold with {len(sources)} incoming edge{plural}"
            add(Problem("never_runs", place, text))
        if join.expression is not None:
            missing = join.expression.names - set(sources) - {"steps"}
            if missing:
                add(Problem("join_unknown_step", place, f"no edge comes from {', '.join(sorted(missing))}"))
        if not sources and step.join.strip() != "all":
            text = f"no edge leads here, so the join {step.join!r} is not asked and the step starts at once"
            add(Problem("join_without_edges", place, text, "warning"))
        if join.kind in OUTCOME_JOINS:
            ignored = [s for s in sources if (s, step.step_key) in odd]
            if ignored:
                edge = f"{ignored[0]} → {step.step_key}"
                text = f"the join {step.join!r} looks at outcomes; the condition on {edge} is not used"
                add(Problem("condition_ignored", place, text, "warning"))


def _check_templates(
    spec: CompositeSpec,
    generations: Sequence[Sequence[str]] | None,
    parents: Mapping[str, list[str]],
    add: Callable[[Problem], None],
) -> None:
    """``generations`` None: there is a cycle, and what comes before what cannot be said."""
    known = set(parents)
    ancestors: Ancestors | None = None
    implicit = _implicit_order(spec)
    for index, step in enumerate(spec.steps):
        for name, value in (("payload", step.payload), ("mapOver", step.map_over)):
            if _is_too_deep(value) or not templates.has_template(value):
                continue
            place = f"{_place(index, step)}.{name}"
            for where, text in templates.texts(value):
                path = f"{place}{where}" if where.startswith("[") else f"{place}.{where}" if where else place
                try:
                    found = [part for part in templates.parse(text).parts if isinstance(part, templates.Placeholder)]
                except MappingError as error:
                    add(Problem("template_syntax", path, error.message))
                    continue
                for placeholder in found:
                    shown, source = f"{{{{{placeholder.raw}}}}}", placeholder.step
                    if placeholder.secret and _in_argv(step, where):
                        text = f"{shown} would stand in a command line, which others can read; use the environment"
                        add(Problem("secret_in_argv", path, text))
                    if placeholder.secret and _in_parameters(step, where):
                        text = f"{shown} would stand in a flow run's parameters, which Prefect keeps in clear; "
                        add(Problem("secret_in_parameters", path, text + "let the step that needs it ask for it"))
                    if placeholder.root in ("item", "index") and (step.map_over is None or name == "mapOver"):
                        add(Problem("template_item", path, f"{shown} is only known in the payload of a mapped step"))
                    if source is None or source in parents[step.step_key]:
                        continue
                    if source not in known:
                        add(Problem("template_unknown_step", path, f"{shown}: there is no step {source!r}"))
                        continue
                    if generations is None:
                        continue
                    if implicit:
                        earlier = implicit[source] < implicit[step.step_key]
                    else:
                        ancestors = ancestors or Ancestors(generations, parents)
                        earlier = ancestors.contains(step.step_key, source)
                    if not earlier:
                        late = f"{shown}: {source!r} does not come before {step.step_key!r}"
                        add(Problem("template_not_ancestor", path, late))


def _in_argv(step: StepSpec, where: str) -> bool:
    return step.task_type in ("shell", "script") and not where.startswith(("environment", "stdin"))


def _in_parameters(step: StepSpec, where: str) -> bool:
    """Whether it is handed to another flow run. (A step that names a saved task is looked at when it runs.)"""
    field = {"composite": "payload", "prefect_deployment": "parameters"}.get(step.task_type or "")
    return field is not None and where.startswith(field)


def _implicit_order(spec: CompositeSpec) -> dict[str, int]:
    """Rank of each step in a sequential composite without edges; empty for every other."""
    if not spec.sequential or spec.edges:
        return {}
    ordered = sorted(spec.steps, key=lambda s: (s.position, s.step_key))
    return {step.step_key: rank for rank, step in enumerate(ordered)}


_RAN = frozenset({StepStatus.SUCCESS, StepStatus.FAILED})
_ANY = frozenset({StepStatus.SUCCESS, StepStatus.FAILED, StepStatus.SKIPPED})


def _check_reachable(
    spec: CompositeSpec,
    generations: Sequence[Sequence[str]],
    parents: Mapping[str, list[str]],
    add: Callable[[Problem], None],
) -> None:
    """Follow the outcomes each step can have, in order; a step whose join no combination satisfies never runs."""
    steps = {step.step_key: (i, step) for i, step in enumerate(spec.steps)}
    conditions = {(e.from_step_key, e.to_step_key): e.condition for e in spec.edges}
    can: dict[str, frozenset[StepStatus]] = {}
    for generation in generations:
        for key in generation:
            index, step = steps[key]
            if not step.enabled:
                can[key] = frozenset({StepStatus.SKIPPED})
                continue
            incoming = [(can[p], conditions.get((p, key), "success"), not steps[p][1].enabled) for p in parents[key]]
            can[key] = _possible(step.join, incoming)
            if _asks_for_too_many(step, parents[key]):
                can[key] = _ANY  # said already, at its join
            elif not can[key] & _RAN:
                text = f"no outcome of {', '.join(parents[key])} can satisfy its join {step.join!r}: it would never run"
                add(Problem("never_runs", _place(index, step), text))
                can[key] = _ANY


def _asks_for_too_many(step: StepSpec, sources: Sequence[str]) -> bool:
    try:
        join = parse_join(step.join)
    except ExpressionError:
        return False
    return join.kind == "at_least" and join.count > len(sources)


def _possible(join_text: str, incoming: Sequence[tuple[frozenset[StepStatus], str, bool]]) -> frozenset[StepStatus]:
    try:
        join: Join = parse_join(join_text)
    except ExpressionError:
        return _ANY
    if not incoming:
        return _RAN
    may = [passed or _may_satisfy(condition, outcomes) for outcomes, condition, passed in incoming]
    must = [passed or _must_satisfy(condition, outcomes) for outcomes, condition, passed in incoming]
    may_fail = [not passed and StepStatus.FAILED in outcomes for outcomes, _, passed in incoming]
    match join.kind:
        case "all":
            starts, surely = all(may), all(must)
        case "any":
            starts, surely = any(may), any(must)
        case "at_least":
            starts, surely = sum(may) >= join.count, sum(must) >= join.count
        case "all_done":
            starts, surely = True, True
        case "none_failed":
            starts, surely = True, not any(may_fail)
        case "any_failed":
            starts, surely = any(may_fail), False
        case _:
            starts, surely = True, False
    if not starts:
        return frozenset({StepStatus.SKIPPED})
    return _RAN if surely else _ANY


def _may_satisfy(condition: str, outcomes: frozenset[StepStatus]) -> bool:
    wanted = CONDITIONS.get(condition.strip())
    return StepStatus.SUCCESS in outcomes if wanted is None else bool(wanted & outcomes)


def _must_satisfy(condition: str, outcomes: frozenset[StepStatus]) -> bool:
    wanted = CONDITIONS.get(condition.strip())
    return wanted is not None and outcomes <= wanted


def _check_nesting(spec: CompositeSpec, known: Known, add: Callable[[Problem], None]) -> None:
    """Composites inside composites: at most MAX_DEPTH deep, and never back to where one came from."""
    if known.find_composite is None:
        return
    seen_at: dict[str, int] = {}
    asked: dict[str, CompositeSpec | None] = {}
    find = known.find_composite

    def visit(current: CompositeSpec, path: tuple[str, ...], first: str) -> None:
        for ref, place in _references(current):
            where = first or place
            if ref not in asked:
                asked[ref] = find(ref)
            inner = asked[ref]
            if inner is None:
                continue
            if inner.name in path:
                drawn = " → ".join((*path[path.index(inner.name) :], inner.name))
                add(Problem("composite_cycle", where, f"the composites contain each other: {drawn}"))
            elif len(path) >= MAX_DEPTH:
                drawn = " → ".join((*path, inner.name))
                add(Problem("too_deep", where, f"composites are nested deeper than {MAX_DEPTH}: {drawn}"))
            elif seen_at.get(inner.name, 0) < len(path):
                seen_at[inner.name] = len(path)
                visit(inner, (*path, inner.name), where)

    visit(spec, (spec.name,), "")


def _references(spec: CompositeSpec) -> Iterable[tuple[str, str]]:
    for index, step in enumerate(spec.steps):
        if step.referenced_task_id:
            yield step.referenced_task_id, f"{_place(index, step)}.referencedTaskId"
        elif step.task_type == "composite" and isinstance(step.payload, Mapping):
            ref = step.payload.get("composite")
            if isinstance(ref, str) and "{{" not in ref:
                yield ref, f"{_place(index, step)}.payload.composite"
