"""The reference pages in ``docs/`` that are made from the code: ``python -m taskcenter_console.docs``.

A test compares the committed pages with these functions, so that no state, event or setting is undocumented.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import AliasChoices
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from taskcenter.events import EVENTS
from taskcenter.reasons import Reason, ReasonCode
from taskcenter.settings import VARIABLES
from taskcenter.status import RUN_TRANSITIONS, STEP_TRANSITIONS, RunPhase, RunStatus, StepStatus, TaskStatus, sentence
from taskcenter.task_types import GROUP, registry
from taskcenter_adapter.mapping import RUN_STATES, STEP_STATES

__all__ = ["PAGES", "write"]

FOLDER = Path(__file__).resolve().parent.parent / "docs"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _next(state: StrEnum, after: frozenset[StrEnum], order: type[StrEnum]) -> str:
    return ", ".join(f"`{s}`" for s in order if s in after) or "– (final)"


def lifecycle() -> str:
    """States of tasks, runs and steps, each with its sentence, and Prefect's states in our words."""
    runs: list[tuple[str, ...]] = [(f"`{s}`", sentence(s), _next(s, RUN_TRANSITIONS[s], RunStatus)) for s in RunStatus]
    steps: list[tuple[str, ...]] = [
        (f"`{s}`", sentence(s), _next(s, STEP_TRANSITIONS[s], StepStatus)) for s in StepStatus
    ]
    phases: list[tuple[str, ...]] = [(f"`{p}`", sentence(p)) for p in RunPhase]
    tasks: list[tuple[str, ...]] = [(f"`{t}`", sentence(t)) for t in TaskStatus]
    mapped: list[tuple[str, ...]] = [
        (kind, name or "any other", f"`{status}`", f"`{phase}`" if phase else "")
        for (kind, name), (status, phase) in RUN_STATES.items()
    ]
    mapped_steps: list[tuple[str, ...]] = [(kind, f"`{status}`") for kind, status in STEP_STATES.items()]
    reasons: list[tuple[str, ...]] = [
        (f"`{code}`", str(Reason(code, "a", "failed", "success", "b"))) for code in ReasonCode
    ]
    return "\n\n".join(
        [
            "# Lifecycles",
            "Made from `taskcenter/status.py`, `taskcenter/reasons.py` and `taskcenter_adapter/mapping.py`.",
            "## A task",
            _table(("status", "meaning"), tasks),
            "## A run",
            "One row per attempt; attempts of one root share `rootRunId`. A final state is never overwritten by a late "
            "report.",
            _table(("status", "meaning", "next"), runs),
            "Beside the status stands a phase, which says it more finely and decides nothing:",
            _table(("phase", "meaning"), phases),
            "## A step",
            "One row per run and step; the items of a mapped step have rows of their own (`count[0]`, `count[1]`, …).",
            _table(("status", "meaning", "next"), steps),
            "## Why a step was skipped",
            "Reasons are codes with data; this is how they read (for steps `a` → `b`):",
            _table(("code", "sentence"), reasons),
            "## Prefect's states in our words",
            _table(("flow run type", "name", "status", "phase"), mapped),
            _table(("task run type", "step status"), mapped_steps),
        ]
    )


def events() -> str:
    """The events of the outbox as a table."""
    rows: list[tuple[str, ...]] = [
        (f"`{name}`", ", ".join(f"`{field}`" for field in fields)) for name, fields in EVENTS.items()
    ]
    return "\n\n".join(
        [
            "# Events",
            "Each event is a row of `outbox_events`, written in the transaction of the change it tells of, and is "
            "given out in that order. Texts are redacted before they are stored. `GET /api/events` lists them.",
            _table(("event", "payload"), rows),
        ]
    )


def settings() -> str:
    """The environment variables that are read."""
    rows: list[tuple[str, ...]] = [(f"`{name}`", text) for name, text in VARIABLES.items()]
    return "\n\n".join(
        [
            "# Settings",
            "Read from the environment once, when a process starts. A value of the wrong kind is refused by name.",
            _table(("variable", "meaning"), rows),
        ]
    )


def commands() -> str:
    """Every command with its options and the exit codes."""
    from .commands.reference import page

    return page().rstrip("\n")


def task_type_fields() -> str:
    """Every field of every built-in task type, from the payload models."""
    from importlib.metadata import distribution

    keys = [point.name for point in distribution("taskcenter").entry_points if point.group == GROUP]
    parts = [
        "# The fields of the built-in task types",
        "Made from the payload models. Names are camelCase; snake_case is accepted too, and the other names given. "
        "How to use them: [task-types.md](task-types.md), [databases.md](databases.md).",
    ]
    for key in sorted(keys):
        kind = registry.get(key)
        said = (kind.function.__doc__ or "").strip().splitlines()[0]
        fields = [_field(name, field, kind.schema()) for name, field in kind.model.model_fields.items()]
        parts += [f"## {key}", said, _table(("field", "type", "default", "meaning"), fields)]
    return "\n\n".join(parts)


def _field(name: str, field: FieldInfo, schema: dict[str, Any]) -> tuple[str, ...]:
    own = field.serialization_alias or to_camel(name)
    alias = field.validation_alias
    spellings = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
    others = [f"`{s}`" for s in spellings if "_" not in s and s != own]
    found = schema["properties"].get(own) or schema["properties"].get(spellings[0] if spellings else name) or {}
    default = "required" if field.is_required() else f"`{json.dumps(found.get('default'), ensure_ascii=False)}`"
    meaning = (field.description or "") + (f" Also: {', '.join(others)}." if others else "")
    return f"`{own}`", _kind(found, schema), default, meaning.strip().replace("|", "\\|")


def _kind(found: dict[str, Any], schema: dict[str, Any]) -> str:
    """A JSON Schema in a few words: ``"sql" or "native"``, ``list of text``, ``whole number, 1 to 3600``."""
    if "$ref" in found:
        found = schema["$defs"][found["$ref"].rpartition("/")[2]]
    if "enum" in found:
        return " or ".join(f"`{json.dumps(value)}`" for value in found["enum"])
    if "const" in found:
        return f"`{json.dumps(found['const'])}`"
    if "anyOf" in found:
        kinds = [_kind(one, schema) for one in found["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    kind = str(found.get("type", "any JSON"))
    if kind == "array":
        return f"list of {_kind(found.get('items', {}), schema)}"
    low, high = found.get("minimum"), found.get("maximum")
    span = (
        f", {low:,.12g} to {high:,.12g}"
        if low is not None and high is not None
        else f", at least {low:,.12g}"
        if low is not None
        else ""
    )
    return names.get(kind, kind) + span


PAGES = {
    "task-type-fields.md": task_type_fields,
    "lifecycle.md": lifecycle,
    "events.md": events,
    "settings.md": settings,
    "cli.md": commands,
}


def write() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page() + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
