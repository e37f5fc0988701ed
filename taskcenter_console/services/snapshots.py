"""The kept snapshots of the users' databases: which there are, one of them, and what lies between two. (spec 2.3)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taskcenter.errors import NotFound, Refused
from taskcenter.models import SchemaSnapshot

from .center import Center

__all__ = ["Between", "between", "get", "listing"]

_SHORTEST = 6


@dataclass(frozen=True)
class Between:
    """Two snapshots, and what changed from the first to the second."""

    before: SchemaSnapshot
    after: SchemaSnapshot
    diff: dict[str, Any]
    breaking: Sequence[str]

    @property
    def changed(self) -> bool:
        return self.before.schema_hash != self.after.schema_hash


def listing(
    center: Center, connection: str | None = None, *, limit: int = 100, offset: int = 0
) -> Sequence[SchemaSnapshot]:
    """Last seen first, without their structures."""
    return center.store.snapshots.page(connection, limit=limit, offset=offset)


def get(center: Center, id: str) -> SchemaSnapshot:
    """By its id, or by the beginning of it (6 characters or more). Raises NotFound; Refused when several begin so."""
    found = center.store.snapshots.find(id)
    if found is None and len(id) >= _SHORTEST:
        like = center.store.snapshots.ids(id)
        if len(like) > 1:
            raise Refused(f"more than one snapshot has an id that begins with {id!r}: name more of it", id=id)
        found = center.store.snapshots.find(like[0]) if like else None
    if found is None:
        raise NotFound(f"there is no snapshot {id!r}; `taskcenter snapshot list` shows those that are kept", id=id)
    return found


def between(center: Center, id: str, other: str | None = None) -> Between:
    """From ``other`` to ``id``; without ``other`` from the one of the same database that was seen before it.

    Raises NotFound, and Refused for two engines, whose types have nothing in common.
    """
    from flows.task_types.database.structure_diff import diff, summary

    after = get(center, id)
    before = get(center, other) if other is not None else center.store.snapshots.before(after)
    if before is None:
        raise NotFound(
            f"no snapshot of {after.connection} was seen before {after.id[:8]}: name the other one", id=after.id
        )
    if before.dialect != after.dialect:
        raise Refused(
            f"the structure of a {after.dialect} database cannot be compared with that of a {before.dialect} one", id=id
        )
    changes = [] if before.schema_hash == after.schema_hash else diff(before.structure, after.structure)
    return Between(before, after, summary(changes), [c.breaking for c in changes if c.breaking])
