"""What changed between two documents of a structure, by name, and what of it breaks those who read and write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from .document import column_type
from .narrowing import narrowed

__all__ = ["Change", "diff", "summary"]

Action = Literal["added", "removed", "changed"]
_PARTS = {
    "uniqueKeys": "unique key",
    "indexes": "index",
    "foreignKeys": "foreign key",
    "checks": "check",
}
_OBJECTS = {
    "views": "view",
    "routines": "routine",
    "triggers": "trigger",
    "sequences": "sequence",
    "types": "type",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One object that is new, gone or other. ``fields`` holds (before, after) of what changed in it.

    ``breaking`` says why it breaks; empty when it does not.
    """

    action: Action
    kind: str
    name: str
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    breaking: str = ""

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {"kind": self.kind, "name": self.name}
        if self.fields:
            made["fields"] = {key: {"before": a, "after": b} for key, (a, b) in self.fields.items()}
        if self.breaking:
            made["breaking"] = self.breaking
        return made


def diff(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """All changes, tables first, each kind by name. Breaking: a table or a column is gone, a column's type holds less,
    or a column takes no null any more."""
    made = list(_tables(before.get("tables", {}), after.get("tables", {})))
    for part, kind in _OBJECTS.items():
        made += _objects(kind, "", before.get(part, {}), after.get(part, {}))
    return made


def summary(changes: list[Change], limit: int = 1000) -> dict[str, Any]:
    """``{added: […], removed: […], changed: […]}``; of each at most ``limit``, and ``more`` says how many were cut."""
    made: dict[str, Any] = {}
    more = 0
    for action in ("added", "removed", "changed"):
        found = [change.to_json() for change in changes if change.action == action]
        made[action] = found[:limit]
        more += len(found[limit:])
    return {**made, "more": more} if more else made


def _tables(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            yield Change("added", "table", name)
        elif new is None:
            yield Change("removed", "table", name, breaking=f"the table {name} is gone")
        elif old != new:
            yield from _table(name, old, new)


def _table(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    own = {key: (old.get(key), new.get(key)) for key in ("options", "comment") if old.get(key) != new.get(key)}
    if own:
        yield Change("changed", "table", name, own)
    yield from _columns(name, old.get("columns", {}), new.get("columns", {}))
    keys = old.get("primaryKey"), new.get("primaryKey")
    if keys[0] != keys[1]:
        action: Action = "added" if keys[0] is None else "removed" if keys[1] is None else "changed"
        yield Change(action, "primary key", name, {"columns": keys} if action == "changed" else {})
    for part, kind in _PARTS.items():
        yield from _objects(kind, f"{name}.", old.get(part, {}), new.get(part, {}))


def _columns(table: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for column in sorted(before.keys() | after.keys()):
        name = f"{table}.{column}"
        old, new = before.get(column), after.get(column)
        if old is None:
            yield Change("added", "column", name)
        elif new is None:
            yield Change("removed", "column", name, breaking=f"the column {name} is gone")
        elif old != new:
            yield Change("changed", "column", name, _fields(old, new), _broken(name, old, new))


def _broken(name: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    why = []
    if narrowed(column_type(old), column_type(new)):
        if old["type"] != new["type"]:
            why.append(f"the type of {name} went from {old['type']} to {new['type']}, which holds less")
        else:  # an enum that is a type of its own
            why.append(f"the type {new['type']} of {name} holds less")
    if old["nullable"] and not new["nullable"]:
        why.append(f"{name} takes no null any more")
    return "; ".join(why)


def _objects(kind: str, prefix: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            yield Change("added", kind, prefix + name)
        elif new is None:
            yield Change("removed", kind, prefix + name)
        elif old != new:
            yield Change("changed", kind, prefix + name, _fields(old, new))


def _fields(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    shown = [key for key in keys if key != "meaning"] or keys
    return {key: (old.get(key), new.get(key)) for key in shown}
