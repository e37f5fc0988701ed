"""A structure as one JSON document: what is hashed, kept and compared. No rows, no order, no name of the database.

``{"dialect": …, "tables": {label: {…}}, "views": …, "routines": …, "triggers": …, "sequences": …, "types": …}``
where a table holds ``columns``, ``primaryKey``, ``uniqueKeys``, ``indexes``, ``foreignKeys``, ``checks``, ``options``,
``comment``. The order of columns is left out, as is who made what and when.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from ..sql_split import tokens
from .model import Column, ColumnType, ForeignKey, Index, Structure, Table, TypeKind

__all__ = ["column_type", "schema_hash", "to_document"]

Item = TypeVar("Item")


def schema_hash(document: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no white space, UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def to_document(structure: Structure) -> dict[str, Any]:
    """The document of a structure. SQLite's and MySQL's texts come without their white space and comments."""

    def text(sql: str) -> str:
        return sql if structure.dialect == "postgresql" else _plain(sql, structure.dialect)

    return {
        "dialect": structure.dialect,
        "tables": {table.label: _table(table, structure.dialect) for table in structure.tables},
        "views": {
            view.label: _filled(
                definition=text(view.definition),
                materialized=view.materialized,
                options=view.options,
                indexes=_named((i.name, _index(i)) for i in view.indexes),
            )
            for view in structure.views
        },
        "routines": {
            routine.label: {"kind": routine.kind, "definition": text(routine.definition)}
            for routine in structure.routines
        },
        "triggers": {
            trigger.label: _filled(
                definition=text(trigger.definition), enabled="" if trigger.enabled == "O" else trigger.enabled
            )
            for trigger in structure.triggers
        },
        "sequences": {s.label: {"definition": s.definition} for s in structure.sequences if not s.of_identity},
        "types": {kind.label: {"definition": kind.definition} for kind in structure.types},
    }


def _plain(sql: str, dialect: str) -> str:
    return " ".join(token.text for token in tokens(sql, dialect) if not token.silent)


def _filled(**fields: Any) -> dict[str, Any]:
    """Without what is empty, so that a new kind of field does not change old hashes."""
    return {
        key: value
        for key, value in fields.items()
        if value is not None and value is not False and value not in ("", [], {}, ())
    }


def _named(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """By name; nameless ones by what they are. Two of the same name get a number."""
    made: dict[str, Any] = {}
    for name, item in items:
        key, count = name or json.dumps(item, sort_keys=True), 2
        while key in made:
            key, count = f"{name} ({count})", count + 1
        made[key] = item
    return made


def _table(table: Table, dialect: str) -> dict[str, Any]:
    return _filled(
        columns={column.name: _column(column, dialect) for column in table.columns},
        primaryKey=list(table.primary_key.columns) if table.primary_key else None,
        uniqueKeys=_named(
            (key.name, _filled(columns=list(key.columns), definition=_tail(key.definition)))
            for key in sorted(table.unique_keys, key=lambda k: (k.name, k.columns))
        ),
        indexes=_named((index.name, _index(index)) for index in table.indexes),
        foreignKeys=_named(
            (key.name, _foreign(key)) for key in sorted(table.foreign_keys, key=lambda k: (k.name, k.columns))
        ),
        checks=_named((check.name, {"expression": check.expression}) for check in table.checks),
        options=dict(table.options),
        comment=table.comment,
    )


def _tail(definition: str) -> str:
    """What a key says beyond its columns: INCLUDE, DEFERRABLE, NULLS NOT DISTINCT."""
    return re.sub(r"^(UNIQUE|PRIMARY KEY)( NULLS NOT DISTINCT)?\s*(\(.*?\))?", r"\2", definition).strip()


def _index(index: Index) -> dict[str, Any]:
    # PostgreSQL's own text also says what is included, how it sorts and by which class
    own = index.definition if index.definition.startswith("CREATE") and " USING " in index.definition else ""
    return _filled(parts=list(index.parts), unique=index.unique, method=index.method, where=index.where, definition=own)


def _foreign(key: ForeignKey) -> dict[str, Any]:
    target = f"{key.to_schema}.{key.to_table}" if key.to_schema else key.to_table
    return _filled(
        columns=list(key.columns),
        table=target,
        toColumns=list(key.to_columns),
        onUpdate="" if key.on_update == "NO ACTION" else key.on_update,
        onDelete="" if key.on_delete == "NO ACTION" else key.on_delete,
        deferrable=key.deferrable,
    )


def _column(column: Column, dialect: str) -> dict[str, Any]:
    expression = column.generated
    if expression is not None and dialect == "sqlite":
        expression = _plain(expression, dialect)
    return {
        "type": column.type.sql,
        "nullable": column.nullable,
        **_filled(
            meaning=_type(column.type),
            default=column.default,
            generated=expression,
            stored=column.stored,
            identity=column.identity,
            collation=column.collation,
            onUpdate=column.on_update,
            comment=column.comment,
        ),
    }


def _type(kind: ColumnType) -> dict[str, Any]:
    return {
        "kind": kind.kind.value,
        **_filled(
            bits=kind.bits,
            unsigned=kind.unsigned,
            length=kind.length,
            fixed=kind.fixed,
            precision=kind.precision,
            scale=kind.scale,
            element=_type(kind.element) if kind.element else None,
            values=list(kind.values),
        ),
    }


def column_type(column: dict[str, Any]) -> ColumnType:
    """The type of a column of a document, back as a model."""
    return _read(column["type"], column.get("meaning") or {"kind": "other"})


def _read(sql: str, found: dict[str, Any]) -> ColumnType:
    return ColumnType(
        sql=sql,
        kind=TypeKind(found["kind"]),
        bits=found.get("bits"),
        unsigned=found.get("unsigned", False),
        length=found.get("length"),
        fixed=found.get("fixed", False),
        precision=found.get("precision"),
        scale=found.get("scale"),
        element=_read(sql.removesuffix("[]"), found["element"]) if "element" in found else None,
        values=tuple(found.get("values", ())),
    )
