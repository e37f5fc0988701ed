"""The two tables of a comparison: which columns belong together, which are the key, whether it tells rows apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskcenter.errors import StepFailed

from ..database.model import Column, Table, TypeKind
from ..database.quoting import column_list
from .canonical import Canon, Form, canons
from .describe import describe, find_table, unknown_table
from .side import Side
from .sources import Reading

if TYPE_CHECKING:
    from ..data_compare_sync import DataComparePayload

__all__ = ["Pair", "find_pair", "order_by"]

_SAMPLES = 5
_NO_KEYS = (Form.JSON,)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both tables and their columns, side by side: key columns first."""

    source: Table
    target: Table
    keys: Sequence[tuple[Column, Column]]
    values: Sequence[tuple[Column, Column]]
    source_canons: Sequence[Canon]
    target_canons: Sequence[Canon]
    where: str

    @property
    def width(self) -> int:
        return len(self.keys)

    def table(self, left: bool) -> Table:
        return self.source if left else self.target

    def canons(self, left: bool) -> Sequence[Canon]:
        return self.source_canons if left else self.target_canons

    def reading(self, left: bool, tail: str = "", where: str = "") -> Reading:
        table = self.table(left)
        parts = [part for part in (self.where, where) if part]
        return Reading(table.schema, table.name, where=" AND ".join(f"({p})" for p in parts), tail=tail)


def find_pair(payload: DataComparePayload, source: Side, target: Side) -> Pair:
    """Look both tables up and match their columns. Every mistake is an error of its own."""
    left, right = _table(source, payload.source.table, "source"), _table(target, payload.target.table, "target")
    common = _common(left, right)
    if not common:
        raise StepFailed(
            f"{left.label} and {right.label} have no column in common (names match without case)",
            error_type="no_common_column",
        )
    keys = (
        _pick(common, payload.key_columns, "key", left, right) if payload.key_columns else _primary(common, left, right)
    )
    names = {a.name.lower() for a, _ in keys}
    if payload.compare_columns:
        values = _pick(common, payload.compare_columns, "compare", left, right)
        both = [a.name for a, _ in values if a.name.lower() in names]
        if both:
            raise StepFailed(
                f"a compare column cannot be a key column as well: {', '.join(both)}", error_type="compare_is_key"
            )
    else:
        values = [pair for pair in common if pair[0].name.lower() not in names]
    lefts, rights = canons([*keys, *values], source.dialect, target.dialect)
    for canon in lefts[: len(keys)]:
        if canon.form in _NO_KEYS:
            raise StepFailed(
                f"the column {canon.column.name!r} ({canon.column.type.sql}) cannot be a key: it has no order",
                error_type="no_key",
            )
    made = Pair(left, right, keys, values, lefts, rights, payload.where or "")
    for side, is_left in ((source, True), (target, False)):
        _check_unique(side, made, is_left)
    return made


def _table(side: Side, name: str, role: str) -> Table:
    found = find_table(side, name)
    if found is not None:
        return found
    try:
        schema, _, bare = name.rpartition(".")
        columns = describe(side, Reading(schema, bare))
    except side.errors:
        if side.dialect == "postgresql":
            side.run("ROLLBACK")
        raise unknown_table(side, name, role) from None
    return Table(schema, bare, tuple(columns))


def _common(left: Table, right: Table) -> list[tuple[Column, Column]]:
    found = []
    for a in left.columns:
        b = next((c for c in right.columns if c.name == a.name), None) or right.column(a.name)
        if b is not None:
            found.append((a, b))
    return found


def _pick(
    common: Sequence[tuple[Column, Column]], names: Sequence[str], role: str, left: Table, right: Table
) -> list[tuple[Column, Column]]:
    picked, unknown = [], []
    for name in names:
        pair = next((p for p in common if p[0].name == name), None) or next(
            (p for p in common if p[0].name.lower() == name.lower()), None
        )
        if pair is None:
            unknown.append(name)
        elif pair not in picked:
            picked.append(pair)
    if unknown:
        raise StepFailed(
            f"the {role} column{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))} cannot be found on "
            f"both sides; {left.label} and {right.label} have in common: {', '.join(a.name for a, _ in common)}",
            error_type="unknown_column",
        )
    return picked


def _primary(common: Sequence[tuple[Column, Column]], left: Table, right: Table) -> list[tuple[Column, Column]]:
    for table, place in ((left, 0), (right, 1)):
        if table.primary_key is None:
            continue
        keys = [p for name in table.primary_key.columns for p in common if p[place].name == name]
        if len(keys) == len(table.primary_key.columns):
            return keys
    raise StepFailed(
        f"neither {left.label} nor {right.label} has a primary key whose columns are on both sides: name keyColumns",
        error_type="no_key",
    )


def _check_unique(side: Side, pair: Pair, left: bool) -> None:
    """StepFailed with samples when a key value stands for several rows. A unique key saves the look."""
    table = pair.table(left)
    columns = [p[0 if left else 1] for p in pair.keys]
    names = {c.name for c in columns}
    unique = [set(table.primary_key.columns)] if table.primary_key else []
    if all(not c.nullable for c in columns):
        unique += [set(k.columns) for k in table.unique_keys]
        unique += [set(i.columns) for i in table.indexes if i.unique and i.columns and i.where is None]
    # SQLite keeps NULLs in a primary key that is no INTEGER PRIMARY KEY
    certain = side.dialect != "sqlite" or (len(columns) == 1 and columns[0].type.sql.lower() == "integer")
    if certain and any(found <= names for found in unique if found):
        return
    listed = column_list([c.name for c in columns], side.dialect)
    sql = pair.reading(left).sql(f"{listed}, count(*)", side.dialect)
    doubled = side.rows(f"{sql} GROUP BY {listed} HAVING count(*) > 1 LIMIT {_SAMPLES}")
    if doubled:
        shown = "; ".join(f"({', '.join(str(v) for v in row[:-1])}) {row[-1]} times" for row in doubled)
        raise StepFailed(
            f"the key ({', '.join(c.name for c in columns)}) does not tell the rows of the "
            f"{'source' if left else 'target'} {table.label} apart: {shown}",
            error_type="duplicate_key",
        )


def order_by(side: Side, columns: Sequence[Canon]) -> str:
    """ORDER BY that gives the same order on every engine: numbers by value, texts by their UTF-8 bytes, NULL first."""
    return "ORDER BY " + ", ".join(_order(side.dialect, c) for c in columns)


def _order(dialect: str, canon: Canon) -> str:
    from ..database.quoting import quote

    name = quote(canon.column.name, dialect)
    kind = canon.column.type.kind
    if canon.form in (Form.TEXT, Form.UUID):
        if dialect == "postgresql" and kind is not TypeKind.UUID:
            text = f"encode({name}, 'hex')" if kind is TypeKind.BYTES else f"{name}::text"
            name = f"rtrim({text})" if canon.padded else text
            name = (f"lower({name})" if canon.form is Form.UUID else name) + ' COLLATE "C"'
        elif dialect == "mysql":
            if kind is TypeKind.BYTES:
                name = f"LOWER(HEX({name}))"
            elif kind is TypeKind.BITS:
                name = f"LPAD(BIN({name} + 0), {canon.column.type.length or 1}, '0')"
            name = f"LOWER({name})" if canon.form is Form.UUID else name
            name = f"TRIM(TRAILING ' ' FROM {name})" if canon.padded else name
            name = f"CAST(CONVERT({name} USING utf8mb4) AS BINARY)"
        elif dialect == "sqlite":
            name = f"lower({name})" if canon.form is Form.UUID else name
            name = (f"rtrim({name}, ' ')" if canon.padded else name) + " COLLATE BINARY"
    elif dialect == "sqlite" and canon.form in (Form.DECIMAL, Form.FLOAT, Form.INTEGER) and kind not in _NUMERIC:
        name = f"CAST({name} AS NUMERIC)"
    if dialect == "postgresql" and canon.column.nullable:
        name += " NULLS FIRST"
    return name


_NUMERIC = (TypeKind.INTEGER, TypeKind.FLOAT, TypeKind.BOOLEAN)
