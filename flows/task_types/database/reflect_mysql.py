"""MySQL's and MariaDB's catalogue as a ``Structure``: one database, which is what others call a schema."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import sqlalchemy as sa

from ..sql_split import Kind, tokens
from .catalog import rows, scalar
from .model import (
    Check,
    Column,
    ColumnType,
    ForeignKey,
    Index,
    Key,
    Routine,
    Structure,
    Table,
    Trigger,
    TypeKind,
    View,
)
from .quoting import quote

__all__ = ["reflect_mysql"]

_KINDS: dict[str, tuple[TypeKind, int | None]] = {
    "tinyint": (TypeKind.INTEGER, 8),
    "smallint": (TypeKind.INTEGER, 16),
    "mediumint": (TypeKind.INTEGER, 24),
    "int": (TypeKind.INTEGER, 32),
    "bigint": (TypeKind.INTEGER, 64),
    "year": (TypeKind.INTEGER, 16),
    "decimal": (TypeKind.DECIMAL, None),
    "float": (TypeKind.FLOAT, 32),
    "double": (TypeKind.FLOAT, 64),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), (TypeKind.TEXT, None)),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), (TypeKind.BYTES, None)),
    "date": (TypeKind.DATE, None),
    "time": (TypeKind.TIME, None),
    "datetime": (TypeKind.TIMESTAMP, None),
    "timestamp": (TypeKind.TIMESTAMP_TZ, None),
    "json": (TypeKind.JSON, None),
    "uuid": (TypeKind.UUID, None),
    "bit": (TypeKind.BITS, None),
    "enum": (TypeKind.ENUM, None),
    "set": (TypeKind.SET, None),
}
_LABEL = re.compile(r"'((?:[^']|'')*)'")
_JSON_CHECK = re.compile(r"^json_valid\(`((?:[^`]|``)+)`\)$", re.IGNORECASE)
_DEFINER = re.compile(r"\sDEFINER\s*=\s*(?:`(?:[^`]|``)*`|\S+?)@(?:`(?:[^`]|``)*`|\S+)", re.IGNORECASE)


def reflect_mysql(connection: sa.Connection, only: tuple[str, ...] | None = None) -> Structure:
    """See :func:`flows.task_types.database.reflect.reflect`. Who defined a view or a routine is left out."""
    database = scalar(connection, "SELECT database()")
    version = str(scalar(connection, "SELECT version()"))
    maria = "mariadb" in version.lower()
    names = rows(
        connection,
        "SELECT table_name, table_type, engine, table_collation, create_options, table_comment, table_rows "
        "FROM information_schema.tables WHERE table_schema = database() ORDER BY table_name",
    )
    wanted = None if only is None else {name.lower() for name in only}
    bases = [
        row
        for row in names
        if row[1] in ("BASE TABLE", "SYSTEM VERSIONED", "SEQUENCE")
        and (wanted is None or row[0].lower() in wanted or f"{database}.{row[0]}".lower() in wanted)
    ]
    sequences = [row[0] for row in bases if row[1] == "SEQUENCE"]
    bases = [row for row in bases if row[1] != "SEQUENCE"]
    checks = _checks(connection, maria, version)
    columns, keys = _columns(connection, checks, maria, database), _keys(connection)
    foreign = _foreign_keys(connection, database)
    tables = []
    for name, kind, engine, collation, options, comment, estimate in bases:
        definition = _unqualified(rows(connection, f"SHOW CREATE TABLE {quote(name, 'mysql')}")[0][1], database)
        primary, unique, indexes = keys[name]
        settings = {"engine": engine or "", "collation": collation or "", "options": _options(options)}
        if kind == "SYSTEM VERSIONED":
            settings["versioned"] = "yes"
        tables.append(
            Table(
                schema="",
                name=name,
                columns=tuple(columns[name]),
                primary_key=primary,
                unique_keys=tuple(unique),
                indexes=tuple(indexes),
                foreign_keys=tuple(foreign[name]),
                checks=tuple(c for c in checks[name] if not _JSON_CHECK.match(c.expression)),
                options={key: value for key, value in settings.items() if value},
                comment=comment,
                row_estimate=estimate,
                definition=definition,
            )
        )
    common: dict[str, Any] = {"dialect": "mysql", "version": version, "database": database, "tables": tuple(tables)}
    if only is not None:
        return Structure(**common)
    return Structure(
        **common,
        views=_views(connection, [row[0] for row in names if row[1] == "VIEW"], database),
        routines=_routines(connection),
        triggers=_triggers(connection),
        sequences=_sequences(connection, sequences),
    )


def _options(text: str | None) -> str:
    """Table options such as ``row_format=COMPRESSED``; ``partitioned`` is in the definition already."""
    return " ".join(sorted(word for word in (text or "").split() if word != "partitioned"))


def _columns(
    connection: sa.Connection, checks: dict[str, list[Check]], maria: bool, database: str
) -> dict[str, list[Column]]:
    json_columns = {
        (table, m[1].replace("``", "`"))
        for table, own in checks.items()
        for c in own
        if (m := _JSON_CHECK.match(c.expression))
    }
    found = rows(
        connection,
        "SELECT c.table_name, c.column_name, c.column_default, c.is_nullable, c.data_type, c.character_maximum_length, "
        "c.character_octet_length, c.numeric_precision, c.numeric_scale, c.datetime_precision, c.collation_name, "
        "c.column_type, c.extra, c.generation_expression, c.column_comment, t.table_collation "
        "FROM information_schema.columns c JOIN information_schema.tables t "
        "ON t.table_schema = c.table_schema AND t.table_name = c.table_name "
        "WHERE c.table_schema = database() AND t.table_type <> 'VIEW' ORDER BY c.table_name, c.ordinal_position",
    )
    made: dict[str, list[Column]] = defaultdict(list)
    for (
        table,
        name,
        default,
        nullable,
        kind,
        chars,
        octets,
        digits,
        scale,
        fraction,
        collation,
        text,
        extra,
        *rest,
    ) in found:
        expression, comment, usual = rest
        more = extra.lower()
        update = re.search(r"on update (\S+)", extra, re.IGNORECASE)
        if (table, name) in json_columns:
            kind = "json"
        made[table].append(
            Column(
                name=name,
                type=_type(text, kind, chars, octets, digits, scale, fraction),
                nullable=nullable == "YES",
                default=None
                if expression or default is None
                else _default(_unqualified(default, database), kind, extra, maria),
                generated=_unqualified(expression, database) if expression else None,
                stored="stored" in more or "persistent" in more,
                identity="auto_increment" if "auto_increment" in more else "",
                collation=collation if collation != usual else None,
                on_update=update[1] if update else None,
                comment=comment,
            )
        )
    return made


def _default(text: str, kind: str, extra: str, maria: bool) -> str | None:
    """The default as an expression: MariaDB gives one, MySQL gives a bare value unless it says DEFAULT_GENERATED."""
    if maria and text == "NULL":
        return None
    if (
        maria
        or "DEFAULT_GENERATED" in extra
        or kind in ("int", "bigint", "smallint", "tinyint", "decimal", "float", "double")
    ):
        return text
    if kind in ("timestamp", "datetime") and text.lower().startswith("current_timestamp"):
        return text
    return text if kind == "bit" else "'" + text.replace("'", "''") + "'"


def _type(
    text: str,
    kind: str,
    chars: int | None,
    octets: int | None,
    digits: int | None,
    scale: int | None,
    fraction: int | None,
) -> ColumnType:
    meant, bits = _KINDS.get(kind, (TypeKind.OTHER, None))
    if text == "tinyint(1)":
        meant, bits = TypeKind.BOOLEAN, None
    listed = meant in (TypeKind.ENUM, TypeKind.SET)
    length = (
        chars
        if meant is TypeKind.TEXT
        else octets
        if meant is TypeKind.BYTES
        else digits
        if meant is TypeKind.BITS
        else None
    )
    return ColumnType(
        sql=text,
        kind=meant,
        bits=bits,
        unsigned="unsigned" in text.split("(")[-1] or kind == "year",
        length=length,
        fixed=kind in ("char", "binary"),
        precision=digits if meant is TypeKind.DECIMAL else fraction,
        scale=scale if meant is TypeKind.DECIMAL else None,
        values=tuple(label.replace("''", "'") for label in _LABEL.findall(text)) if listed else (),
    )


def _keys(connection: sa.Connection) -> dict[str, tuple[Key | None, list[Key], list[Index]]]:
    """Primary key, unique keys of whole columns, and the other indexes of every table."""
    maria_has_expressions = rows(
        connection,
        "SELECT 1 FROM information_schema.columns WHERE table_schema = 'information_schema' "
        "AND table_name = 'STATISTICS' AND column_name = 'EXPRESSION'",
    )
    expression = "expression" if maria_has_expressions else "NULL"
    found = rows(
        connection,
        f"SELECT table_name, index_name, non_unique, column_name, sub_part, index_type, collation, {expression} "
        "FROM information_schema.statistics WHERE table_schema = database() "
        "ORDER BY table_name, index_name, seq_in_index",
    )
    grouped: dict[str, dict[str, list[tuple[Any, ...]]]] = defaultdict(lambda: defaultdict(list))
    for table, index, *rest in found:
        grouped[table][index].append(tuple(rest))
    made: dict[str, tuple[Key | None, list[Key], list[Index]]] = defaultdict(lambda: (None, [], []))
    for table, indexes in grouped.items():
        primary: Key | None = None
        unique: list[Key] = []
        others: list[Index] = []
        for name, parts in indexes.items():
            shown = tuple(_part(*part[1:3], *part[4:]) for part in parts)
            plain = tuple(p[1] for p in parts) if all(p[1] and not p[2] for p in parts) else ()
            if name == "PRIMARY":
                primary = Key(name, tuple(p[1] for p in parts), f"PRIMARY KEY ({', '.join(shown)})")
            elif not parts[0][0] and plain:
                unique.append(Key(name, plain, f"UNIQUE ({', '.join(shown)})"))
            else:
                others.append(Index(name, shown, not parts[0][0], parts[0][3].lower(), None, plain))
        made[table] = (primary, unique, others)
    return made


def _part(column: str | None, length: int | None, direction: str | None, expression: str | None) -> str:
    text = quote(column, "mysql") if column else f"({expression})"
    return text + (f"({length})" if length else "") + (" DESC" if direction == "D" else "")


def _foreign_keys(connection: sa.Connection, database: str) -> dict[str, list[ForeignKey]]:
    found = rows(
        connection,
        "SELECT k.table_name, k.constraint_name, k.column_name, k.referenced_table_schema, k.referenced_table_name, "
        "k.referenced_column_name, r.update_rule, r.delete_rule FROM information_schema.key_column_usage k "
        "JOIN information_schema.referential_constraints r ON r.constraint_schema = k.constraint_schema "
        "AND r.constraint_name = k.constraint_name AND r.table_name = k.table_name "
        "WHERE k.table_schema = database() AND k.referenced_table_name IS NOT NULL "
        "ORDER BY k.table_name, k.constraint_name, k.ordinal_position",
    )
    grouped: dict[tuple[str, str], list[tuple[Any, ...]]] = defaultdict(list)
    for table, name, *rest in found:
        grouped[table, name].append(tuple(rest))
    made: dict[str, list[ForeignKey]] = defaultdict(list)
    for (table, name), parts in grouped.items():
        _, schema, target, _, update, delete = parts[0]
        made[table].append(
            ForeignKey(
                name=name,
                columns=tuple(p[0] for p in parts),
                to_schema="" if schema == database else schema,
                to_table=target,
                to_columns=tuple(p[3] for p in parts),
                # the two mean the same here, and which one is shown depends on the version
                on_update="NO ACTION" if update == "RESTRICT" else update,
                on_delete="NO ACTION" if delete == "RESTRICT" else delete,
            )
        )
    return made


def _checks(connection: sa.Connection, maria: bool, version: str) -> dict[str, list[Check]]:
    made: dict[str, list[Check]] = defaultdict(list)
    if maria:
        sql = (
            "SELECT table_name, constraint_name, check_clause FROM information_schema.check_constraints "
            "WHERE constraint_schema = database() ORDER BY table_name, constraint_name"
        )
    elif version.startswith("5."):
        return made
    else:
        sql = (
            "SELECT t.table_name, c.constraint_name, c.check_clause FROM information_schema.check_constraints c "
            "JOIN information_schema.table_constraints t USING (constraint_schema, constraint_name) "
            "WHERE c.constraint_schema = database() ORDER BY t.table_name, c.constraint_name"
        )
    for table, name, clause in rows(connection, sql):
        made[table].append(Check(name, clause))
    return made


def _views(connection: sa.Connection, names: list[str], database: str) -> tuple[View, ...]:
    made = []
    for name in names:
        text = rows(connection, f"SHOW CREATE VIEW {quote(name, 'mysql')}")[0][1]
        columns = rows(
            connection,
            "SELECT column_name FROM information_schema.columns WHERE table_schema = database() AND table_name = %s "
            "ORDER BY ordinal_position",
            [name],
        )
        made.append(
            View("", name, _unqualified(_DEFINER.sub("", text, count=1), database), tuple(row[0] for row in columns))
        )
    return tuple(made)


def _routines(connection: sa.Connection) -> tuple[Routine, ...]:
    """Functions, procedures and events."""
    found = rows(
        connection,
        "SELECT routine_name, routine_type FROM information_schema.routines WHERE routine_schema = database() "
        "AND routine_type IN ('FUNCTION', 'PROCEDURE') "
        "UNION ALL SELECT event_name, 'EVENT' FROM information_schema.events WHERE event_schema = database() "
        "ORDER BY 1, 2",
    )
    made = []
    for name, kind in found:
        row = rows(connection, f"SHOW CREATE {kind} {quote(name, 'mysql')}")[0]
        text = row[3] if kind == "EVENT" else row[2]
        made.append(Routine("", name, kind.lower(), "", _DEFINER.sub("", text or "", count=1)))
    return tuple(made)


def _triggers(connection: sa.Connection) -> tuple[Trigger, ...]:
    found = rows(
        connection,
        "SELECT event_object_table, trigger_name FROM information_schema.triggers WHERE trigger_schema = database() "
        "ORDER BY event_object_table, action_timing, event_manipulation, action_order",
    )
    made = []
    for table, name in found:
        text = rows(connection, f"SHOW CREATE TRIGGER {quote(name, 'mysql')}")[0][2]
        made.append(Trigger("", table, name, _DEFINER.sub("", text or "", count=1)))
    return tuple(made)


def _sequences(connection: sa.Connection, names: list[str]) -> tuple[Any, ...]:
    from .model import Sequence

    made = []
    for name in names:
        text = rows(connection, f"SHOW CREATE SEQUENCE {quote(name, 'mysql')}")[0][1]
        made.append(Sequence("", name, text.split(quote(name, "mysql"), 1)[1].strip()))
    return tuple(made)


def _unqualified(sql: str, database: str) -> str:
    """Without the database's own name before names: the same structure under another name is the same."""
    own = quote(database, "mysql")
    if own not in sql:
        return sql
    found = list(tokens(sql, "mysql"))
    made: list[str] = []
    skip = False
    for index, token in enumerate(found):
        if skip:
            skip = False
            continue
        if token.kind is Kind.NAME and token.text == own and index + 1 < len(found) and found[index + 1].text == ".":
            skip = True
            continue
        made.append(token.text)
    return "".join(made)
