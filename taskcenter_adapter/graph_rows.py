"""A composite's graph, between the seed's JSON form and the rows of its three tables. (spec 3.1)

What has a column stands in it, so that the database can be asked about it; what has none (or has a value its
column would change, such as ``900.0`` for seconds or a join given as an object) stands in ``options`` with the
order of the keys. So the form that is read is the form that was saved, key for key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taskcenter.errors import Problem, ValidationFailed

from .rows import Row, clean_json

__all__ = ["join_graph", "split_graph"]

_LISTS = ("steps", "edges")


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> Any:
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return value if fits else None


def _number(value: Any) -> Any:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    return float(value) if fits else None


def _flag(value: Any) -> Any:
    return value if isinstance(value, bool) else None


def _document(value: Any) -> Any:
    return value


_Fit = Callable[[Any], Any]
_STEP: dict[str, tuple[str, _Fit]] = {
    "stepKey": ("step_key", _text),
    "position": ("position", _whole),
    "name": ("name", _text),
    "taskType": ("task_type", _text),
    "referencedTaskId": ("referenced_task_id", _text),
    "payload": ("payload", _document),
    "onError": ("on_error", _text),
    "enabled": ("enabled", _flag),
    "join": ("join", _text),
    "retries": ("retries", _whole),
    "retryBackoffMs": ("retry_backoff_ms", _whole),
    "timeoutSeconds": ("timeout_seconds", _number),
    "mapOver": ("map_over", _text),
    "priority": ("priority", _text),
}
_EDGE: dict[str, tuple[str, _Fit]] = {
    "fromStepKey": ("from_step_key", _text),
    "toStepKey": ("to_step_key", _text),
    "condition": ("condition", _text),
}


def _read(value: Any) -> Any:
    """A column's value as JSON would have it: whole seconds are written without a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _split(item: Mapping[str, Any], columns: Mapping[str, tuple[str, _Fit]]) -> Row:
    row: Row = {column: None for column, _ in columns.values()}
    extra: dict[str, Any] = {}
    for key, value in item.items():
        if key not in columns:
            extra[key] = value
            continue
        column, fit = columns[key]
        row[column] = fit(value)
        back = row[column] if fit is _document else _read(row[column])
        if type(back) is not type(value) or back != value:
            extra[key] = value
    row["options"] = {"keys": list(item), "extra": extra}
    return row


def _join(row: Mapping[str, Any], columns: Mapping[str, tuple[str, _Fit]]) -> dict[str, Any]:
    extra = row["options"]["extra"]
    item: dict[str, Any] = {}
    for key in row["options"]["keys"]:
        if key in extra:
            item[key] = extra[key]
        else:
            column, fit = columns[key]
            item[key] = row[column] if fit is _document else _read(row[column])
    return item


def split_graph(task_id: str, graph: Mapping[str, Any]) -> tuple[Row, list[Row], list[Row]]:
    """The composite's row, its step rows and its edge rows. Raises ValidationFailed for what no row can hold."""
    form = clean_json(dict(graph), "graph")
    problems = _problems(form)
    if problems:
        raise ValidationFailed("The graph", problems)
    settings = {key: value for key, value in form.items() if key not in _LISTS}
    composite = {"task_id": task_id, "settings": settings, "options": {"keys": list(form)}}
    steps, edges = (
        [{**_split(item, columns), "task_id": task_id, "ordinal": ordinal} for ordinal, item in enumerate(items)]
        for items, columns in ((form.get("steps", []), _STEP), (form.get("edges", []), _EDGE))
    )
    return composite, steps, edges


def join_graph(
    composite: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The graph as it was saved. Steps and edges come in the order of their ordinals."""
    lists = {"steps": [_join(row, _STEP) for row in steps], "edges": [_join(row, _EDGE) for row in edges]}
    return {key: lists[key] if key in lists else composite["settings"][key] for key in composite["options"]["keys"]}


def _problems(form: Mapping[str, Any]) -> list[Problem]:
    """Only what the tables themselves need; ``composites.validate`` says everything else, and says it before."""
    found: list[Problem] = []
    for name, required in (("steps", ("stepKey",)), ("edges", ("fromStepKey", "toStepKey"))):
        items = form.get(name, [])
        if not isinstance(items, list):
            found.append(Problem("not_a_list", name, f"{name} must be a list"))
            continue
        for index, item in enumerate(items):
            place = f"{name}[{index}]"
            if not isinstance(item, dict):
                found.append(Problem("not_an_object", place, "this must be an object"))
                continue
            found += [
                Problem("blank_key", f"{place}.{key}", f"{key} must be a text")
                for key in required
                if not isinstance(item.get(key), str)
            ]
    if not found:
        keys = [step["stepKey"] for step in form.get("steps", [])]
        for key in sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else ():
            found.append(Problem("duplicate_key", f"steps.{key}", f"the key {key!r} stands on more than one step"))
    return found
