"""A composite or its plan as a tree for the terminal, Mermaid, DOT or JSON. Text in, text out. (spec 3.8)"""

from __future__ import annotations

import json
from collections.abc import Mapping

from .graph import wave_numbers
from .model import CompositeSpec, EdgeSpec, StepSpec
from .plan import Plan, PlanStep

__all__ = ["FORMATS", "render", "render_plan", "to_dot", "to_mermaid", "to_tree"]

FORMATS = ("tree", "mermaid", "dot", "json")
_DEEPEST = 90
"""A chain of 10,000 steps would otherwise be indented off every screen, and its text grow with the square."""
_MARK = {"success": "●", "failed": "✗", "skipped": "○", "running": "▶", "pending": "·", "reused": "↺"}


def render(spec: CompositeSpec, form: str, status: Mapping[str, str] | None = None) -> str:
    """``form`` is one of FORMATS; ``status`` (step → state of a run) marks the steps."""
    match form:
        case "tree":
            return to_tree(spec, status)
        case "mermaid":
            return to_mermaid(spec, status)
        case "dot":
            return to_dot(spec, status)
        case "json":
            return json.dumps(spec.to_dict(), indent=2, ensure_ascii=False)
    raise ValueError(f"{form!r} is not one of {', '.join(FORMATS)}")


def _label(step: StepSpec) -> str:
    return step.task_type or f"task {step.referenced_task_id}"


def _notes(step: StepSpec) -> list[str]:
    notes = []
    if step.join != "all":
        notes.append(f"join {step.join}")
    if step.map_over is not None:
        notes.append("for each " + (step.map_over if isinstance(step.map_over, str) else f"of {len(step.map_over)}"))
    if step.retries:
        notes.append(f"retries {step.retries}")
    if not step.enabled:
        notes.append("disabled")
    return notes


def to_tree(spec: CompositeSpec, status: Mapping[str, str] | None = None) -> str:
    """Each step once, under the parent it waits for longest; further parents are named beside it."""
    waves = wave_numbers(spec)
    steps = {step.step_key: step for step in spec.steps}
    incoming: dict[str, list[EdgeSpec]] = {key: [] for key in steps}
    for edge in spec.edges:
        incoming[edge.to_step_key].append(edge)
    children: dict[str | None, list[str]] = {}
    main: dict[str, EdgeSpec | None] = {}
    for step in sorted(spec.steps, key=lambda s: (waves[s.step_key], s.position, s.step_key)):
        into = incoming[step.step_key]
        longest = max(into, key=lambda e: waves[e.from_step_key]) if into else None
        main[step.step_key] = longest
        children.setdefault(longest.from_step_key if longest else None, []).append(step.step_key)
    count = max(waves.values(), default=-1) + 1
    lines = [f"{spec.name}  {len(steps)} steps, {count} waves, {spec.max_parallel} at once"]
    stack = [(key, "", i == len(children.get(None, [])) - 1) for i, key in enumerate(children.get(None, []))][::-1]
    while stack:
        key, indent, last = stack.pop()
        step, over = steps[key], main[key]
        when = f"[{over.condition}] " if over and over.condition != "success" else ""
        also = [e.from_step_key for e in incoming[key] if over and e.from_step_key != over.from_step_key]
        notes = [*_notes(step), *([f"also after {_few(also)}"] if also else [])]
        mark = f"{_MARK.get(status.get(key, 'pending'), '·')} " if status else ""
        tail = f"  ({'; '.join(notes)})" if notes else ""
        lines.append(f"{indent}{'└─' if last else '├─'} {mark}{when}{key}  {_label(step)}{tail}")
        below = children.get(key, [])
        deeper = indent + ("   " if last else "│  ") if len(indent) < _DEEPEST else indent
        stack.extend([(child, deeper, i == len(below) - 1) for i, child in enumerate(below)][::-1])
    return "\n".join(lines)


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


_CLASSES = {
    "success": "fill:#d7f0dd,stroke:#2e7d4f",
    "failed": "fill:#f9d9d6,stroke:#b3261e",
    "skipped": "fill:#eeeeee,stroke:#888888,stroke-dasharray:4",
    "running": "fill:#d6e6fb,stroke:#1f5fbf",
    "reused": "fill:#e9f5ec,stroke:#2e7d4f,stroke-dasharray:2",
}


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def to_mermaid(spec: CompositeSpec, status: Mapping[str, str] | None = None) -> str:
    """A Mermaid flowchart. Step keys may be anything, so nodes are numbered."""
    number = {step.step_key: f"s{i}" for i, step in enumerate(spec.steps)}
    lines = ["flowchart LR"]
    for step in spec.steps:
        text = _quoted(step.step_key) + "<br/><small>" + _quoted("; ".join([_label(step), *_notes(step)])) + "</small>"
        lines.append(f'  {number[step.step_key]}["{text}"]')
    for edge in spec.edges:
        label = f'|"{_quoted(edge.condition)}"|' if edge.condition != "success" else ""
        lines.append(f"  {number[edge.from_step_key]} -->{label} {number[edge.to_step_key]}")
    if status:
        lines += [f"  classDef {name} {style}" for name, style in _CLASSES.items()]
        lines += [f"  class {number[k]} {v}" for k, v in status.items() if k in number and v in _CLASSES]
    return "\n".join(lines)


def to_dot(spec: CompositeSpec, status: Mapping[str, str] | None = None) -> str:
    """Graphviz DOT."""

    def text(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = [f"digraph {text(spec.name)} {{", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    for step in spec.steps:
        label = "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in (step.step_key, _label(step)))
        state = f", tooltip={text(status[step.step_key])}" if status and step.step_key in status else ""
        lines.append(f'  {text(step.step_key)} [label="{label}"{state}];')
    for edge in spec.edges:
        label = f" [label={text(edge.condition)}]" if edge.condition != "success" else ""
        lines.append(f"  {text(edge.from_step_key)} -> {text(edge.to_step_key)}{label};")
    return "\n".join([*lines, "}"])


def render_plan(plan: Plan, form: str, spec: CompositeSpec) -> str:
    """A plan in words (tree), or as the graph with what is predicted (mermaid, dot), or as JSON."""
    predicted = {step.key: step.predicted for step in plan.steps}
    if form == "json":
        return json.dumps(plan.to_dict(), indent=2, ensure_ascii=False, default=str)
    if form != "tree":
        return render(spec, form, predicted)
    head = [
        f"Plan of {plan.name}: {len(plan.steps)} steps in {plan.waves} waves, at most {plan.max_parallel} at once",
        f"  hash {plan.hash}" + (f", revision {plan.revision}" if plan.revision is not None else ""),
    ]
    if len(plan.critical_path) > 1:
        head.append(f"  longest chain: {' → '.join(_ends(plan.critical_path))}")
    return "\n".join([*head, *(line for step in plan.steps for line in _plan_lines(step))])


def _ends(path: tuple[str, ...]) -> list[str]:
    return list(path) if len(path) <= 8 else [*path[:4], f"… {len(path) - 6} more …", *path[-2:]]


def _plan_lines(step: PlanStep) -> list[str]:
    mark = _MARK.get(step.predicted, "?") if step.certain else "?"
    facts = [f"wave {step.wave + 1}"]
    if step.items is not None:
        facts.append(f"{step.items} items")
    if step.expected is not None:
        facts.append(f"about {step.expected.p50:.1f} s (n={step.expected.n})")
    if step.expensive:
        facts.append("expensive")
    lines = [f"{step.number:4d} {mark} {step.key}  {step.task_type}  {', '.join(facts)}"]

    def more(text: str) -> None:
        lines.append(f"       {text}")

    if step.note is not None:
        more(step.note.summary)
        lines.extend(f"       ! {danger}" for danger in step.note.danger)
    elif step.note_error is not None:
        more(step.note_error)
    if step.danger:
        more(f"! {step.danger}")
    if not step.certain and step.depends_on:
        more(f"only if: depends on {_few(list(step.depends_on))}")
    if step.reason and step.predicted == "skipped":
        more(f"if all goes well: skipped, because {step.reason}")
    if step.mapping_error:
        more(f"✗ {step.mapping_error}")
    for name, there in step.connections.items():
        more(f"connection {name}" + ("" if there is None else " (found)" if there else " (MISSING)"))
    if step.secrets:
        more(f"secrets: {', '.join(step.secrets)}")
    return lines
