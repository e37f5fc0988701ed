"""Before anything moves: how the target's tables differ from what would come, and what that would do. (spec 2.5)"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..database.model import Column, ColumnType, Table, TypeKind
from ..database.quoting import qualified, quote
from .create import create_table, mapped
from .load import Job
from .texts import Field

__all__ = ["Preflight", "preflight"]


@dataclass(slots=True)
class Preflight:
    """What was found, a sentence each. ``statements`` is SQL for a person to run; it is never run here."""

    differences: list[str] = field(default_factory=list)
    breaking: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)

    @property
    def blocks(self) -> bool:
        return bool(self.breaking or self.unsupported)

    def refusal(self) -> str:
        found = [*self.breaking, *self.unsupported]
        return (
            f"the comparison of the tables found {len(self.breaking)} breaking and {len(self.unsupported)} unsupported "
            "differences, so nothing was moved (lockGuard):\n" + "\n".join(f"  - {sentence}" for sentence in found)
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.blocks,
            "differences": self.differences,
            "breaking": self.breaking,
            "unsupported": self.unsupported,
            "statements": self.statements,
        }


def preflight(found: Preflight, job: Job, target: Table | None, source: str, to: str) -> None:
    """Add what is to be said of one object. ``source`` and ``to`` are the engines."""
    label = job.label()
    fields = [Field(c, Column(name, c.type, nullable=c.nullable), cast) for c, name, cast in job.columns]
    for made in fields:
        if source != to and made.source.type.kind is TypeKind.OTHER and made.source.type.sql:
            found.unsupported.append(
                f"{label}.{made.target.name}: {made.source.type.sql} has no counterpart on the target; "
                "cast it with columns"
            )
    if target is None:
        found.differences.append(f"{label} is not there and will be made")
        found.statements.append(create_table(qualified(job.schema, job.table, to), fields, job.key, source, to) + ";")
        return
    for made in fields:
        column = target.column(made.target.name)
        if column is None:
            found.breaking.append(f"{label} has no column {made.target.name}")
            kind = mapped(made.source.type, source, to)
            name, added = qualified(target.schema, target.name, to), quote(made.target.name, to)
            found.statements.append(f"ALTER TABLE {name} ADD COLUMN {added} {kind};")
            continue
        _column(found, label, made.source, column, bool(made.cast))
    names = {made.target.name.lower() for made in fields}
    for column in target.columns:
        if column.name.lower() not in names and column.writable:
            if not column.nullable and column.default is None and not column.identity:
                found.breaking.append(f"{label}.{column.name} must not be NULL and gets no value")
            else:
                found.differences.append(f"{label}.{column.name} gets no value")


def _column(found: Preflight, label: str, source: Column, target: Column, cast: bool) -> None:
    where = f"{label}.{target.name}"
    if source.nullable and not target.nullable:
        found.breaking.append(f"{where} must not be NULL, the source may be")
    why = "" if cast else _narrower(source.type, target.type)
    if why:
        found.breaking.append(f"{where}: {source.type.sql or 'any'} into {target.type.sql or 'any'} {why}")
    elif source.type.kind is not target.type.kind:
        found.differences.append(f"{where} is {target.type.sql or 'any'}, the source {source.type.sql or 'any'}")


def _narrower(source: ColumnType, target: ColumnType) -> str:
    """Why not every value of ``source`` fits, or nothing."""
    if source.kind is TypeKind.TEXT and target.kind is TypeKind.TEXT:
        if target.length and (source.length or 1 << 62) > target.length:
            return "may be too long"
    elif source.kind is TypeKind.INTEGER and target.kind is TypeKind.INTEGER:
        if (source.bits or 64) + source.unsigned > (target.bits or 64) + target.unsigned:
            return "may be too large"
    elif source.kind is TypeKind.DECIMAL and target.kind is TypeKind.DECIMAL and target.precision:
        whole = (source.precision or 1 << 30) - (source.scale or 0)
        if whole > target.precision - (target.scale or 0) or (source.scale or 0) > (target.scale or 0):
            return "may lose digits"
    elif source.kind in (TypeKind.FLOAT, TypeKind.DECIMAL) and target.kind is TypeKind.INTEGER:
        return "loses the fraction"
    elif source.kind is TypeKind.TEXT and target.kind not in (TypeKind.TEXT, TypeKind.JSON, TypeKind.OTHER):
        return "may not be readable as such"
    elif source.kind is TypeKind.FLOAT and source.bits == 64 and target.kind is TypeKind.FLOAT and target.bits == 32:
        return "loses digits"
    return ""
