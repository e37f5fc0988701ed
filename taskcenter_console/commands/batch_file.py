"""Reading the sets of arguments of a batch: JSON, JSON lines, CSV or YAML. (spec 1.4)"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from taskcenter.errors import Problem, ValidationFailed

from .common import assignments, read_document, read_text

__all__ = ["read_items"]

_MOST_PROBLEMS = 100


def read_items(name: str) -> tuple[list[Any], list[str]]:
    """The items of a file (``-``: stdin), and where in it each stands. The name's end says what it is; else JSON."""
    if name.endswith(".csv"):
        return _csv(read_text(name), name)
    if name.endswith((".jsonl", ".ndjson")):
        return _lines(read_text(name), name)
    data = read_document(name)
    where = "stdin" if name == "-" else name
    if isinstance(data, dict) and set(data) == {"items"}:
        data = data["items"]
    if not isinstance(data, list):
        raise ValidationFailed(where, [Problem("not_list", "", "must hold a list: one object for each run")])
    return data, [f"item {number}" for number in range(1, len(data) + 1)]


def _lines(text: str, name: str) -> tuple[list[Any], list[str]]:
    items: list[Any] = []
    places: list[str] = []
    problems: list[Problem] = []
    for line, part in enumerate(text.split("\n"), 1):
        if not part.strip():
            continue
        places.append(f"item {len(places) + 1} (line {line})")
        try:
            items.append(json.loads(part))
        except ValueError as error:
            problems.append(Problem("not_json", places[-1], f"is not JSON: {error}"))
    _refuse(name, problems)
    return items, places


def _csv(text: str, name: str) -> tuple[list[Any], list[str]]:
    """The first line names the fields (dots go deeper); a value is JSON when it reads as such; empty is left out."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    items: list[Any] = []
    places: list[str] = []
    problems: list[Problem] = []
    try:
        head = [field.strip() for field in next(rows, [])]
        if not head or not all(head) or len(set(head)) < len(head) or any("=" in field for field in head):
            said = "must begin with a line that names the fields, each once and without ="
            raise ValidationFailed(name, [Problem("no_head", "line 1", said)])
        for row in rows:
            if not row:
                continue
            places.append(f"item {len(places) + 1} (line {rows.line_num})")
            if len(row) != len(head):
                said = f"has {len(row)} fields, and the first line names {len(head)}"
                problems.append(Problem("fields", places[-1], said))
                continue
            pairs = [f"{field}={value}" for field, value in zip(head, row, strict=True) if value != ""]
            items.append(assignments(pairs, places[-1]))
    except csv.Error as error:
        problems.append(Problem("not_csv", f"line {rows.line_num}", f"is not CSV: {error}"))
    _refuse(name, problems)
    return items, places


def _refuse(name: str, problems: list[Problem]) -> None:
    if problems:
        raise ValidationFailed(name, problems[:_MOST_PROBLEMS])
