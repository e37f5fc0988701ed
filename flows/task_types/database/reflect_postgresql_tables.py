"""PostgreSQL's tables with their columns, constraints and indexes, and what its types mean."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from .catalog import rows
from .model import Check, Column, ColumnType, ForeignKey, Identity, Index, Key, Table, TypeKind

__all__ = ["OWN", "USER", "indexes_of", "known_types", "read_tables", "type_of"]

USER = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
# What an extension brought is the extension's.
OWN = (
    "NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.objid = {0}.oid AND e.classid = '{1}'::regclass AND e.deptype = 'e')"
)

_KINDS = {
    "int2": (TypeKind.INTEGER, 16),
    "int4": (TypeKind.INTEGER, 32),
    "int8": (TypeKind.INTEGER, 64),
    "numeric": (TypeKind.DECIMAL, None),
    "float4": (TypeKind.FLOAT, 32),
    "float8": (TypeKind.FLOAT, 64),
    "bool": (TypeKind.BOOLEAN, None),
    "text": (TypeKind.TEXT, None),
    "varchar": (TypeKind.TEXT, None),
    "bpchar": (TypeKind.TEXT, None),
    "name": (TypeKind.TEXT, None),
    "citext": (TypeKind.TEXT, None),
    "bytea": (TypeKind.BYTES, None),
    "date": (TypeKind.DATE, None),
    "time": (TypeKind.TIME, None),
    "timestamp": (TypeKind.TIMESTAMP, None),
    "timestamptz": (TypeKind.TIMESTAMP_TZ, None),
    "interval": (TypeKind.INTERVAL, None),
    "json": (TypeKind.JSON, None),
    "jsonb": (TypeKind.JSON, None),
    "uuid": (TypeKind.UUID, None),
    "bit": (TypeKind.BITS, None),
    "varbit": (TypeKind.BITS, None),
}
_NUMBERS = re.compile(r"\((\d+)(?:,(-?\d+))?\)")
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def read_tables(connection: sa.Connection, only: tuple[str, ...] | None) -> tuple[Table, ...]:
    wanted, values = "", None
    if only is not None:
        wanted = "AND (lower(c.relname) = ANY(%s) OR lower(n.nspname || '.' || c.relname) = ANY(%s))"
        values = [[name.lower() for name in only]] * 2
    found = rows(
        connection,
        f"""SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
            CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
            pg_get_expr(c.relpartbound, c.oid), coalesce(obj_description(c.oid, 'pg_class'), ''),
            CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END, array_to_string(c.reloptions, ', '),
            (SELECT string_agg(pn.nspname || '.' || p.relname, ', ' ORDER BY i.inhseqno)
               FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
              WHERE i.inhrelid = c.oid),
            c.relrowsecurity, c.relforcerowsecurity, c.relreplident::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
          AND {USER.replace("%", "%%") if values else USER} AND {OWN.format("c", "pg_class")} {wanted}
        ORDER BY n.nspname, c.relname""",
        values,
    )
    oids = [row[0] for row in found]
    columns, keys = _columns(connection, oids), _constraints(connection, oids)
    indexes = indexes_of(connection, oids)
    made = []
    for (
        oid,
        schema,
        name,
        kind,
        persistence,
        partition_key,
        bound,
        comment,
        estimate,
        settings,
        parents,
        *rest,
    ) in found:
        secured, forced, _ = rest
        options = {
            "kind": {"r": "", "p": "partitioned", "f": "foreign"}[kind],
            "unlogged": "yes" if persistence == "u" else "",
            "partitionBy": partition_key or "",
            "parents": parents or "",
            "bound": bound or "",
            "with": settings or "",
            "rowSecurity": "forced" if forced else "yes" if secured else "",
        }
        own = keys[oid]
        made.append(
            Table(
                schema=schema,
                name=name,
                columns=tuple(columns[oid]),
                primary_key=next((k for t, k in own if t == "p"), None),
                unique_keys=tuple(k for t, k in own if t == "u"),
                foreign_keys=tuple(k for t, k in own if t == "f"),
                checks=tuple(k for t, k in own if t in ("c", "x")),
                indexes=tuple(indexes[oid]),
                options={key: value for key, value in options.items() if value},
                comment=comment,
                row_estimate=estimate,
            )
        )
    return tuple(made)


def _columns(connection: sa.Connection, oids: Sequence[int]) -> dict[int, list[Column]]:
    found = rows(
        connection,
        """SELECT a.attrelid::bigint, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid::bigint, a.attnotnull,
            pg_get_expr(d.adbin, d.adrelid), a.attgenerated::text, a.attidentity::text,
            CASE WHEN a.attcollation <> t.typcollation THEN
                (SELECT quote_ident(cn.nspname) || '.' || quote_ident(co.collname)
                   FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
                  WHERE co.oid = a.attcollation) END,
            coalesce(col_description(a.attrelid, a.attnum), '')
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum""",
        [list(oids)],
    )
    types = known_types(connection)
    identities: dict[str, Identity] = {"a": "always", "d": "by_default"}
    made: dict[int, list[Column]] = defaultdict(list)
    for oid, name, sql, type_oid, required, default, generated, identity, collation, comment in found:
        made[oid].append(
            Column(
                name=name,
                type=type_of(sql, type_oid, types),
                nullable=not required,
                default=None if generated else default,
                generated=default if generated else None,
                stored=generated == "s",
                identity=identities.get(identity, ""),
                collation=collation,
                comment=comment,
            )
        )
    return made


def known_types(connection: sa.Connection) -> dict[int, tuple[str, str, int, int, tuple[str, ...], str | None]]:
    """Per type: name, letter of its kind, element of an array, base of a domain, labels of an enum, a domain's type."""
    found = rows(
        connection,
        """SELECT t.oid::bigint, t.typname, CASE WHEN t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A' THEN 'A'
                  ELSE t.typtype::text END, t.typelem::bigint, t.typbasetype::bigint,
            CASE WHEN t.typtype = 'e' THEN
                (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_enum e
                  WHERE e.enumtypid = t.oid) END,
            CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END
        FROM pg_type t WHERE t.typtype IN ('b', 'd', 'e')""",
    )
    return {row[0]: (row[1], row[2], row[3], row[4], tuple(row[5] or ()), row[6]) for row in found}


def type_of(sql: str, oid: int, types: dict[int, Any], meant: str | None = None) -> ColumnType:
    """``sql`` is what the column says; ``meant`` what a domain stands for."""
    name, letter, element, base, labels, base_sql = types.get(oid, ("", "", 0, 0, (), None))
    if letter == "d":
        return type_of(sql, base, types, base_sql)
    text = meant or sql
    if letter == "A":
        inner = type_of(text.removesuffix("[]"), element, types)
        return ColumnType(sql=sql, kind=TypeKind.ARRAY, element=inner)
    if letter == "e":
        return ColumnType(sql=sql, kind=TypeKind.ENUM, values=labels)
    kind, bits = _KINDS.get(name, (TypeKind.OTHER, None))
    match = _NUMBERS.search(text)
    first, second = (int(match[1]), int(match[2] or 0)) if match else (None, None)
    sized = kind in (TypeKind.TEXT, TypeKind.BITS)
    timed = kind in (TypeKind.TIME, TypeKind.TIMESTAMP, TypeKind.TIMESTAMP_TZ, TypeKind.INTERVAL)
    return ColumnType(
        sql=sql,
        kind=kind,
        bits=bits,
        length=first if sized else None,
        fixed=name in ("bpchar", "bit"),
        precision=first if timed or kind is TypeKind.DECIMAL else None,
        scale=second if kind is TypeKind.DECIMAL else None,
    )


def _constraints(connection: sa.Connection, oids: Sequence[int]) -> dict[int, list[tuple[str, Any]]]:
    found = rows(
        connection,
        """SELECT c.conrelid::bigint, c.contype::text, c.conname, pg_get_constraintdef(c.oid),
            (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(c.conkey) WITH ORDINALITY k(num, n)
               JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num),
            tn.nspname, t.relname,
            (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(c.confkey) WITH ORDINALITY k(num, n)
               JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.num),
            c.confupdtype::text, c.confdeltype::text, c.condeferrable, c.condeferred, c.conparentid <> 0
        FROM pg_constraint c
        LEFT JOIN pg_class t ON t.oid = c.confrelid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
        WHERE c.conrelid = ANY(%s) AND c.contype IN ('p', 'u', 'f', 'c', 'x')
          AND (c.conparentid = 0 OR c.contype IN ('p', 'u')) AND (c.contype <> 'c' OR c.conislocal)
        ORDER BY c.conrelid, c.conname""",
        [list(oids)],
    )
    made: dict[int, list[tuple[str, Any]]] = defaultdict(list)
    for oid, letter, name, definition, columns, to_schema, to_table, to_columns, update, delete, *rest in found:
        may, later, inherited = rest
        item: Key | ForeignKey | Check
        if letter in ("p", "u"):
            item = Key(name, tuple(columns or ()), definition, inherited)
        elif letter == "f":
            item = ForeignKey(
                name=name,
                columns=tuple(columns or ()),
                to_schema=to_schema,
                to_table=to_table,
                to_columns=tuple(to_columns or ()),
                on_update=_ACTIONS[update],
                on_delete=_ACTIONS[delete],
                deferrable="initially deferred" if later else "deferrable" if may else "",
                definition=definition,
            )
        else:
            item = Check(name, definition)
        made[oid].append((letter, item))
    return made


def indexes_of(connection: sa.Connection, oids: Sequence[int]) -> dict[int, list[Index]]:
    """All but those that belong to a constraint or to a partition's parent."""
    found = rows(
        connection,
        """SELECT i.indrelid::bigint, c.relname, i.indisunique, m.amname, pg_get_indexdef(i.indexrelid),
            pg_get_expr(i.indpred, i.indrelid),
            (SELECT array_agg(pg_get_indexdef(i.indexrelid, k.n::int, true)
                              || CASE WHEN i.indoption[k.n - 1] & 1 = 1 THEN ' DESC' ELSE '' END ORDER BY k.n)
               FROM generate_series(1, i.indnkeyatts) k(n)),
            (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(i.indkey) WITH ORDINALITY k(num, n)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
              WHERE k.n <= i.indnkeyatts), i.indexprs IS NULL AND i.indpred IS NULL
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
        WHERE i.indrelid = ANY(%s)
          AND NOT EXISTS (SELECT 1 FROM pg_constraint k
                           WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
          AND NOT EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
        ORDER BY i.indrelid, c.relname""",
        [list(oids)],
    )
    made: dict[int, list[Index]] = defaultdict(list)
    for oid, name, unique, method, definition, where, parts, columns, simple in found:
        made[oid].append(
            Index(
                name=name,
                parts=tuple(parts or ()),
                unique=unique,
                method=method,
                where=where,
                columns=tuple(columns or ()) if simple else (),
                definition=definition,
            )
        )
    return made
