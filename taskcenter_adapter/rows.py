"""Between models and rows: plain dicts that every store keeps, so that all of them give back the same.

What a database cannot hold is settled here, once: the character NUL and lone surrogates (PostgreSQL stores
neither) become U+FFFD, in texts and anywhere inside JSON; NaN, infinities and objects JSON does not know are
refused with the place they stand at. (spec 1.2, 3.1, 6.1)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from taskcenter.errors import Problem, ValidationFailed
from taskcenter.models import AuditEntry, LogLine, Model, OutboxEvent, Run, StepRun, Task, Trigger
from taskcenter.redaction import redact, redact_text

__all__ = [
    "TRIGGER_COLUMNS",
    "Row",
    "audit_row",
    "clean_json",
    "clean_text",
    "event_row",
    "json_text",
    "log_row",
    "run_row",
    "step_row",
    "task_of",
    "task_row",
    "trigger_rows",
]

Row = dict[str, Any]

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_TEXT_OR_POWER = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9.]+e\+[0-9]+')
"""A JSON text (to step over it) or a number with a power of ten."""


def clean_text(text: str) -> str:
    """The text as every store can keep it."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def json_text(value: Any) -> str:
    """JSON as the databases get it; raises ValueError for what JSON has no word for (NaN, infinities)."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    return _TEXT_OR_POWER.sub(_written_out, text) if "e+" in text else text


def _written_out(match: re.Match[str]) -> str:
    """``1e+23`` with all its digits and a point: JSONB would give the short form back as a whole number."""
    token = match[0]
    return token if token[0] == '"' else f"{Decimal(token):f}.0"


def _plain(value: Any) -> Any:
    """Models, times, sets and the like as JSON types; raises for what has no such form."""
    return to_jsonable_python(value, by_alias=True)


def clean_json(value: Any, place: str = "value") -> Any:
    """The value as it will be read again: JSON types only, storable texts. Raises ValidationFailed otherwise."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) is str:
        return clean_text(value)
    try:
        text = json_text(value)
    except (ValueError, TypeError, RecursionError, PydanticSerializationError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"is not JSON ({error})"
        raise ValidationFailed(
            "What was to be stored", [Problem("not_json", place, f"the value {reason}; make it plain JSON")]
        ) from error
    # NUL is written as an escape, so one search tells whether the slow way is needed at all.
    plain = "\\u0000" not in text and (text.isascii() or _UNSTORABLE.search(text) is None)
    return json.loads(text) if plain else _replace(json.loads(text))


def _replace(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_replace(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _replace(item) for key, item in value.items()}
    return value


def _row(model: Model, fields: Sequence[str], documents: frozenset[str]) -> Row:
    """The model's fields as column values. ``documents`` are the JSON columns."""
    row: Row = {}
    for name in fields:
        value = getattr(model, name)
        if value is None or value is True or value is False:
            pass
        elif name in documents:
            value = clean_json(value.to_json() if isinstance(value, Model) else value, name)
        elif isinstance(value, Enum):
            value = value.value
        elif isinstance(value, str):
            value = clean_text(value)
        row[name] = value
    return row


def _fields(model: type[BaseModel], *without: str) -> tuple[str, ...]:
    return tuple(name for name in model.model_fields if name not in without)


_RUN, _STEP, _LOG = _fields(Run), _fields(StepRun), _fields(LogLine)
_AUDIT, _EVENT = _fields(AuditEntry), _fields(OutboxEvent)
_TASK = _fields(Task, "triggers")
TRIGGER_COLUMNS = (
    *("id", "task_id", "type", "cron_expression", "interval_seconds", "anchor", "run_at", "timezone", "enabled"),
    *("retry_policy", "payload", "next_run_at", "last_run_at"),
)
"""The fields of a trigger that have a column; the others stand together in ``options``."""
_RUN_JSON, _STEP_JSON, _LOG_JSON = frozenset({"result"}), frozenset({"execution"}), frozenset({"metadata"})
_AUDIT_JSON, _EVENT_JSON = frozenset({"before", "after", "metadata"}), frozenset({"payload"})
_TASK_JSON = frozenset({"payload", "tags", "environment", "termination", "retry_policy"})
_TRIGGER_JSON = frozenset({"payload", "retry_policy"})


def run_row(run: Run) -> Row:
    return _row(run, _RUN, _RUN_JSON)


def step_row(step: StepRun) -> Row:
    return _row(step, _STEP, _STEP_JSON)


def log_row(line: LogLine) -> Row:
    return _row(line, _LOG, _LOG_JSON)


def audit_row(entry: AuditEntry) -> Row:
    """Without secrets, whoever wrote the entry: what is sealed can never be mended."""
    row = _row(entry, _AUDIT, _AUDIT_JSON)
    for name in _AUDIT_JSON:
        row[name] = redact(row[name])
    for name in ("message", "object"):
        row[name] = redact_text(row[name])
    return row


def event_row(event: OutboxEvent) -> Row:
    return _row(event, _EVENT, _EVENT_JSON)


def task_row(task: Task) -> Row:
    """The task's own row, with its order and search columns; its triggers are rows of their own."""
    row = _row(task, _TASK, _TASK_JSON)
    row["sort_name"] = row["name"].casefold()
    # The separator keeps a search from finding a text that begins in the name and ends in the description.
    row["search_text"] = f"{row['sort_name']}\x1f{(row['description'] or '').casefold()}"
    return row


def trigger_rows(task: Task) -> list[Row]:
    return [
        {
            **_row(trigger, TRIGGER_COLUMNS, _TRIGGER_JSON),
            "task_id": task.id,
            "position": position,
            "options": clean_json(trigger.model_dump(mode="json", exclude=set(TRIGGER_COLUMNS), exclude_defaults=True))
            or None,
        }
        for position, trigger in enumerate(task.triggers)
    ]


def task_of(row: Mapping[str, Any], triggers: Sequence[Mapping[str, Any]]) -> Task:
    """The task as it was saved. ``triggers`` are its trigger rows in order."""
    return Task(
        **{name: row[name] for name in _TASK},
        triggers=tuple(
            Trigger(**{name: trigger[name] for name in TRIGGER_COLUMNS}, **(trigger["options"] or {}))
            for trigger in triggers
        ),
    )
