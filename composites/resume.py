"""Per-run selections and resuming a finished run: which results stand again, which steps run, and why. (spec 3.9)"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from taskcenter.errors import Problem, ValidationFailed

from .graph import descendants, wave_numbers
from .model import CompositeSpec, EdgeSpec, StepSpec
from .walk import Overrides

__all__ = ["Resume", "Reused", "apply_set", "decide_resume", "select", "step_digest"]


@dataclass(frozen=True, slots=True)
class Reused:
    """One step of a resumed run: whether its earlier result stands, and the sentence that says why."""

    key: str
    reuse: bool
    reason: str


@dataclass(frozen=True)
class Resume:
    decisions: tuple[Reused, ...]
    overrides: Overrides


def step_digest(spec: CompositeSpec, step: StepSpec, incoming: Iterable[EdgeSpec] = ()) -> str:
    """Changes when the step's own definition, the edges into it or the inputs do."""
    content = {
        "step": {**step.to_dict(), "position": 0},
        "edges": sorted((e.from_step_key, e.condition) for e in incoming),
        "inputs": dict(spec.inputs),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _known(spec: CompositeSpec, keys: Iterable[str], what: str) -> list[str]:
    have = {step.step_key for step in spec.steps}
    wanted = list(keys)
    missing = [Problem("unknown_step", what, f"there is no step {key!r}") for key in wanted if key not in have]
    if missing:
        raise ValidationFailed(f"the request for {spec.name!r}", missing)
    return wanted


def _downstream(spec: CompositeSpec, starts: Iterable[str]) -> set[str]:
    return descendants([step.step_key for step in spec.steps], _pairs(spec), starts)


def _pairs(spec: CompositeSpec) -> list[tuple[str, str]]:
    """What comes before what, also in a sequential composite that has no edges."""
    if spec.sequential and not spec.edges:
        return list(pairwise(step.step_key for step in sorted(spec.steps, key=lambda s: (s.position, s.step_key))))
    return [(e.from_step_key, e.to_step_key) for e in spec.edges]


def _incoming(spec: CompositeSpec) -> dict[str, list[EdgeSpec]]:
    found: dict[str, list[EdgeSpec]] = {}
    for edge in spec.edges:
        found.setdefault(edge.to_step_key, []).append(edge)
    return found


def select(
    spec: CompositeSpec,
    *,
    only: Sequence[str] = (),
    start_from: Sequence[str] = (),
    downstream_of: Sequence[str] = (),
    skip: Sequence[str] = (),
    hold: Sequence[str] = (),
    fail: Sequence[str] = (),
) -> Overrides:
    """The per-run overrides; raises ValidationFailed for a step that does not exist."""
    for what, keys in (("only", only), ("from", start_from), ("downstream_of", downstream_of)):
        _known(spec, keys, what)
    selected: frozenset[str] | None = None
    if only or start_from or downstream_of:
        chosen = {*only, *start_from} | _downstream(spec, [*start_from, *downstream_of])
        selected = frozenset(chosen)
    return Overrides(
        skip=frozenset(_known(spec, skip, "skip")),
        hold=frozenset(_known(spec, hold, "hold")),
        fail=frozenset(_known(spec, fail, "fail")),
        selected=selected,
    )


def apply_set(spec: CompositeSpec, changes: Mapping[str, Mapping[str, Any]]) -> CompositeSpec:
    """Set payload fields of steps for one run: ``{"copy": {"region": "us"}}``."""
    from dataclasses import replace

    _known(spec, changes, "set")
    steps = [
        replace(step, payload={**step.payload, **changes[step.step_key]}) if step.step_key in changes else step
        for step in spec.steps
    ]
    return spec.with_steps(steps)


def decide_resume(
    spec: CompositeSpec,
    previous: Mapping[str, Mapping[str, Any]],
    *,
    mode: str = "failed",
    step: str | None = None,
    earlier: CompositeSpec | None = None,
) -> Resume:
    """What a resume of a finished run reuses. ``previous`` maps step keys to their outputs in that run.

    ``mode``: ``failed`` (run all that did not succeed), ``from`` (``step`` and everything after it, reuse the
    rest), ``downstream`` (``step`` and what depends on it; nothing else), ``alone`` (``step`` alone). ``earlier``
    is the definition that run had; a step that changed since, or that comes after one that runs again, is run.
    """
    if mode not in ("failed", "from", "downstream", "alone"):
        raise ValidationFailed(
            "the resume", [Problem("unknown_mode", "mode", f"{mode!r}: failed, from, downstream or alone")]
        )
    if mode != "failed":
        if not step:
            raise ValidationFailed("the resume", [Problem("missing", "step", f"the mode {mode!r} needs a step")])
        _known(spec, [step], "step")
    changed: set[str] = set()
    if earlier is not None:
        now, then = _incoming(spec), _incoming(earlier)
        before = {s.step_key: step_digest(earlier, s, then.get(s.step_key, ())) for s in earlier.steps}
        changed = {
            s.step_key for s in spec.steps if before.get(s.step_key) != step_digest(spec, s, now.get(s.step_key, ()))
        }
    parents: dict[str, list[str]] = {}
    for source, target in _pairs(spec):
        parents.setdefault(target, []).append(source)
    wanted = {step} if step else set()
    if mode in ("from", "downstream") and step:
        wanted |= _downstream(spec, [step])
    again: set[str] = set()
    decisions: list[Reused] = []
    reused: dict[str, Any] = {}
    for one in _in_order(spec):
        key = one.step_key
        before_it = [p for p in parents.get(key, ()) if p in again]
        why = _why_again(key, previous.get(key), changed, wanted, before_it, mode)
        if why is None:
            reused[key] = previous[key].get("execution")
            decisions.append(Reused(key, True, "it succeeded, its definition and everything before it are unchanged"))
        else:
            again.add(key)
            decisions.append(Reused(key, False, why))
    selected: frozenset[str] | None = None
    if mode in ("downstream", "alone"):
        selected = frozenset(wanted)
        reused = {key: value for key, value in reused.items() if key not in selected}
    return Resume(tuple(decisions), Overrides(reused=reused, selected=selected))


def _in_order(spec: CompositeSpec) -> list[StepSpec]:
    waves = wave_numbers(spec)
    return sorted(spec.steps, key=lambda s: (waves[s.step_key], s.position, s.step_key))


def _why_again(
    key: str,
    output: Mapping[str, Any] | None,
    changed: set[str],
    wanted: set[str],
    parents_again: Sequence[str],
    mode: str,
) -> str | None:
    """The sentence that says why the step runs again; None when its result stands."""
    if key in wanted:
        return "it was asked for"
    if output is None:
        return "the earlier run has no result of it"
    if output.get("status") != "success":
        return f"it ended {output.get('status')} in the earlier run"
    if key in changed:
        return "its definition changed since the earlier run"
    if parents_again and mode != "alone":
        return f"{parents_again[0]} runs again, and its result may differ"
    return None
