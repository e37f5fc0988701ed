"""PostgreSQL's catalogue as a ``Structure``. The server's own ``pg_get_…def`` texts are kept: it reads them back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from .catalog import rows, scalar
from .model import ColumnType, CustomType, Routine, Structure, Trigger, View
from .model import Sequence as SequenceModel
from .quoting import quote
from .reflect_postgresql_tables import OWN, USER, indexes_of, known_types, read_tables, type_of

__all__ = ["empty_search_path", "reflect_postgresql", "result_types"]


def reflect_postgresql(connection: sa.Connection, only: tuple[str, ...] | None = None) -> Structure:
    """See :func:`flows.task_types.database.reflect.reflect`."""
    current = scalar(connection, "SELECT coalesce(current_schema(), 'public')")
    with empty_search_path(connection):
        tables = read_tables(connection, only)
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
                r[0] for r in rows(connection, f"SELECT nspname FROM pg_namespace n WHERE {USER} ORDER BY 1")
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


def _views(connection: sa.Connection) -> tuple[View, ...]:
    found = rows(
        connection,
        f"""SELECT c.oid::bigint, n.nspname, c.relname, pg_get_viewdef(c.oid), c.relkind = 'm',
            coalesce(array_to_string(c.reloptions, ', '), ''),
            (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('v', 'm') AND {USER} AND {OWN.format("c", "pg_class")} ORDER BY n.nspname, c.relname""",
    )
    indexes = indexes_of(connection, [row[0] for row in found])
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
        WHERE {USER} AND {OWN.format("p", "pg_proc")} ORDER BY 1, 2, 4""",
    )
    kinds = {"f": "function", "p": "procedure", "a": "aggregate", "w": "window function"}
    return tuple(Routine(s, name, kinds[kind], args, (text or "").strip()) for s, name, kind, args, text in found)


def _triggers(connection: sa.Connection) -> tuple[Trigger, ...]:
    found = rows(
        connection,
        f"""SELECT n.nspname, c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled::text
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {USER} AND {OWN.format("c", "pg_class")}
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
        WHERE c.relpersistence <> 't' AND {USER} AND {OWN.format("c", "pg_class")} ORDER BY 1, 2""",
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
          AND {USER} AND {OWN.format("t", "pg_type")} ORDER BY 2, 3""",
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
    types = known_types(connection)
    sql = rows(
        connection,
        "SELECT format_type(t, m) FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS u(t, m, n) ORDER BY n",
        [[oid for oid, _ in found], [modifier for _, modifier in found]],
    )
    return [type_of(text, oid, types) for (text,), (oid, _) in zip(sql, found, strict=True)]
