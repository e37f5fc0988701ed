"""PostgreSQL's catalogue as a ``Structure``. The server's own ``pg_get_…def`` texts are kept: it reads them back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from .catalog import rows, scalar
from .model import (
    Check,
    Column,
    ColumnType,
    CustomType,
    ForeignKey,
    Identity,
    Index,
    Key,
    Routine,
    Structure,
    Table,
    Trigger,
    TypeKind,
    View,
)
from .model import (
    Sequence as SequenceModel,
)
from .quoting import quote

__all__ = ["empty_search_path", "reflect_postgresql", "result_types"]

_USER = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
# What an extension brought is the extension's.
_OWN = (
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


def reflect_postgresql(connection: sa.Connection, only: tuple[str, ...] | None = None) -> Structure:
    """See :func:`flows.task_types.database.reflect.reflect`."""
    current = scalar(connection, "SELECT coalesce(current_schema(), 'public')")
    with empty_search_path(connection):
        tables = _tables(connection, only)
        common = {
            "dialect": "postgresql",
            "version": scalar(connection, "SHOW server_version"),
            "database": scalar(connection, "SELECT current_database()"),
            "tables": tables,
            "default_schema": current,
        }
        if only is not None:
            return Structure(**common)
        return Structure(
            **common,
            views=_views(connection),
            routines=_routines(connection),
            triggers=_triggers(connection),
            sequences=_sequences(connection),
            types=_types(connection),
            schemas=tuple(
                r[0] for r in rows(connection, f"SELECT nspname FROM pg_namespace n WHERE {_USER} ORDER BY 1")
            ),
        )


@contextmanager
def empty_search_path(connection: sa.Connection) -> Iterator[None]:
    """Every name in a definition then comes with its schema, whoever asks."""
    before = scalar(connection, "SELECT current_setting('search_path')")
    rows(connection, "SELECT set_config('search_path', '', false)")
    try:
        yield
    finally:
        # after an error the transaction is lost, and the setting with it
        with suppress(connection.dialect.loaded_dbapi.Error):
            rows(connection, "SELECT set_config('search_path', %s, false)", [before])


def _tables(connection: sa.Connection, only: tuple[str, ...] | None) -> tuple[Table, ...]:
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
          AND {_USER.replace("%", "%%") if values else _USER} AND {_OWN.format("c", "pg_class")} {wanted}
        ORDER BY n.nspname, c.relname""",
        values,
    )
    oids = [row[0] for row in found]
    columns, keys = _columns(connection, oids), _constraints(connection, oids)
    indexes = _indexes(connection, oids)
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
    types = _known_types(connection)
    identities: dict[str, Identity] = {"a": "always", "d": "by_default"}
    made: dict[int, list[Column]] = defaultdict(list)
    for oid, name, sql, type_oid, required, default, generated, identity, collation, comment in found:
        made[oid].append(
            Column(
                name=name,
                type=_type(sql, type_oid, types),
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


def _known_types(connection: sa.Connection) -> dict[int, tuple[str, str, int, int, tuple[str, ...]]]:
    """Per type: name, letter of its kind, element of an array, base of a domain, labels of an enum."""
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
    return {row[0]: (row[1], row[2], row[3], row[4], tuple(row[5] or ()), row[6]) for row in found}  # type: ignore[misc]


def _type(sql: str, oid: int, types: dict[int, Any], meant: str | None = None) -> ColumnType:
    """``sql`` is what the column says; ``meant`` what a domain stands for."""
    name, letter, element, base, labels, base_sql = types.get(oid, ("", "", 0, 0, (), None))
    if letter == "d":
        return _type(sql, base, types, base_sql)
    text = meant or sql
    if letter == "A":
        inner = _type(text.removesuffix("[]"), element, types)
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


def _indexes(connection: sa.Connection, oids: Sequence[int]) -> dict[int, list[Index]]:
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


def _views(connection: sa.Connection) -> tuple[View, ...]:
    found = rows(
        connection,
        f"""SELECT c.oid::bigint, n.nspname, c.relname, pg_get_viewdef(c.oid), c.relkind = 'm',
            coalesce(array_to_string(c.reloptions, ', '), ''),
            (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('v', 'm') AND {_USER} AND {_OWN.format("c", "pg_class")} ORDER BY n.nspname, c.relname""",
    )
    indexes = _indexes(connection, [row[0] for row in found])
    return tuple(
        View(schema, name, definition.strip().rstrip(";"), tuple(columns or ()), kept, options, tuple(indexes[oid]))
        for oid, schema, name, definition, kept, options, columns in found
    )


def _routines(connection: sa.Connection) -> tuple[Routine, ...]:
    found = rows(
        connection,
        f"""SELECT n.nspname, p.proname, p.prokind::text, pg_get_function_identity_arguments(p.oid),
            CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE {_USER} AND {_OWN.format("p", "pg_proc")} ORDER BY 1, 2, 4""",
    )
    kinds = {"f": "function", "p": "procedure", "a": "aggregate", "w": "window function"}
    return tuple(Routine(s, name, kinds[kind], args, (text or "").strip()) for s, name, kind, args, text in found)


def _triggers(connection: sa.Connection) -> tuple[Trigger, ...]:
    found = rows(
        connection,
        f"""SELECT n.nspname, c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {_USER} AND {_OWN.format("c", "pg_class")}
        ORDER BY 1, 2, 3""",
    )
    return tuple(Trigger(*row) for row in found)


def _sequences(connection: sa.Connection) -> tuple[SequenceModel, ...]:
    found = rows(
        connection,
        f"""SELECT n.nspname, c.relname, format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
            s.seqcache, s.seqcycle, d.deptype::text,
            oc.nspname || '.' || o.relname,
            a.attname::text
        FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
          AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
        LEFT JOIN pg_class o ON o.oid = d.refobjid LEFT JOIN pg_namespace oc ON oc.oid = o.relnamespace
        LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE c.relpersistence <> 't' AND {_USER} AND {_OWN.format("c", "pg_class")} ORDER BY 1, 2""",
    )
    return tuple(
        SequenceModel(
            schema=schema,
            name=name,
            definition=f"AS {kind} START WITH {start} INCREMENT BY {step} MINVALUE {low} MAXVALUE {high} CACHE {cache}"
            + (" CYCLE" if cycle else " NO CYCLE"),
            owner_table=table or "",
            owner_column=column or "",
            of_identity=how == "i",
        )
        for schema, name, kind, start, step, low, high, cache, cycle, how, table, column in found
    )


def _types(connection: sa.Connection) -> tuple[CustomType, ...]:
    """Enums, domains, composite types and ranges."""
    labels = defaultdict(list)
    for oid, label in rows(
        connection, "SELECT enumtypid::bigint, enumlabel::text FROM pg_enum ORDER BY enumtypid, enumsortorder"
    ):
        labels[oid].append(label)
    found = rows(
        connection,
        f"""SELECT t.oid::bigint, n.nspname, t.typname, t.typtype::text,
            CASE t.typtype
              WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
                || CASE WHEN t.typcollation <> b.typcollation THEN ' COLLATE ' ||
                     (SELECT quote_ident(cn.nspname) || '.' || quote_ident(co.collname) FROM pg_collation co
                        JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = t.typcollation) ELSE '' END
                || coalesce(' DEFAULT ' || t.typdefault, '') || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
                || coalesce((SELECT string_agg(' CONSTRAINT ' || quote_ident(k.conname) || ' '
                                               || pg_get_constraintdef(k.oid), '' ORDER BY k.conname)
                               FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'), '')
              WHEN 'c' THEN (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod),
                                               ', ' ORDER BY a.attnum) FROM pg_attribute a
                              WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
              WHEN 'r' THEN (SELECT 'subtype = ' || format_type(r.rngsubtype, NULL) FROM pg_range r
                              WHERE r.rngtypid = t.oid)
            END
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
        LEFT JOIN pg_type b ON b.oid = t.typbasetype
        WHERE (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c'))
          AND {_USER} AND {_OWN.format("t", "pg_type")} ORDER BY 2, 3""",
    )
    kinds = {"e": "enum", "d": "domain", "c": "composite", "r": "range"}
    made = []
    for oid, schema, name, letter, text in found:
        head = f"{quote(schema, 'postgresql')}.{quote(name, 'postgresql')}"
        if letter == "d":
            definition = f"CREATE DOMAIN {head} AS {text}"
        elif letter == "e":
            quoted = ", ".join("'" + label.replace("'", "''") + "'" for label in labels[oid])
            definition = f"CREATE TYPE {head} AS ENUM ({quoted})"
        else:
            definition = f"CREATE TYPE {head} AS {'RANGE ' if letter == 'r' else ''}({text or ''})"
        made.append(CustomType(schema, name, kinds[letter], definition, tuple(labels[oid])))
    return tuple(made)


def result_types(connection: sa.Connection, found: Sequence[tuple[int, int]]) -> list[ColumnType]:
    """The types of a query's columns from what libpq says of them: oid and modifier of each."""
    types = _known_types(connection)
    sql = rows(
        connection,
        "SELECT format_type(t, m) FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS u(t, m, n) ORDER BY n",
        [[oid for oid, _ in found], [modifier for _, modifier in found]],
    )
    return [_type(text, oid, types) for (text,), (oid, _) in zip(sql, found, strict=True)]
