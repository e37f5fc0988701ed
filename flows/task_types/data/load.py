"""Loading one table from one other: append, replace and upsert, each in one transaction of the target."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from taskcenter.errors import StepFailed

from ..database.model import Column, Table, TypeKind
from ..database.quoting import column_list, qualified, quote
from .create import create_table
from .describe import find_table
from .pg_copy import CopyIn, copy_out
from .side import Guard, Side
from .sinks import insert_rows, writing
from .sources import Reading, chunks, tuples
from .texts import Field, select_list

__all__ = ["Counter", "Job", "Mode", "begin", "load", "stage"]

Mode = Literal["append", "replace", "upsert"]
_STAGE = "tc_load"
_SAMPLES = 5


@dataclass(slots=True)
class Counter:
    """What has been moved so far; ``report(rows)`` is called about once a second."""

    report: Callable[[int], None] = lambda rows: None
    rows: int = 0
    bytes: int = 0
    _next: float = field(default_factory=time.monotonic)

    def add(self, rows: int, size: int) -> None:
        self.rows += rows
        self.bytes += size
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1.0
            self.report(self.rows)


@dataclass(frozen=True, slots=True)
class Job:
    """One table to be loaded. ``columns`` are the pairs (source column, target name, cast) in order."""

    reading: Reading
    columns: Sequence[tuple[Column, str, str]]
    schema: str
    table: str
    mode: Mode
    key: Sequence[str] = ()
    """Columns of the target that tell rows apart: what upsert goes by, and the primary key of a new table."""

    def label(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table


def begin(target: Side) -> None:
    """Begin the transaction that a load happens in."""
    target.run({"postgresql": "BEGIN", "mysql": "START TRANSACTION", "sqlite": "BEGIN IMMEDIATE"}[target.dialect])


def load(
    job: Job, source: Side, target: Side, guard: Guard, counter: Counter, temp: Path,
    verify: Callable[[Table, Sequence[Field]], Any] | None = None,
) -> tuple[int, bool, Any]:  # fmt: skip
    """Load the table of ``job``: rows written, whether the table is new, and what ``verify`` said.

    All or nothing: an error, a cancel, the deadline and the death of this process leave the target's rows as they
    were. ``verify`` is called within the transaction, before the commit. Raises the drivers' errors and StepFailed.
    """
    existing = find_table(target, job.label())
    if existing is None and target.dialect == "mysql":
        # a CREATE cannot be undone there: a failed load takes the new, empty table away again
        table = _create(job, source, target)
        try:
            begin(target)
            return _fill(job, source, target, table, guard, counter, temp, verify, is_new=True)
        except BaseException:
            with suppress(target.errors):  # a lost connection cannot clean up; its error is what counts
                target.run("ROLLBACK")
                target.run(f"DROP TABLE IF EXISTS {qualified(table.schema, table.name, 'mysql')}")
            raise
    begin(target)
    table = existing or _create(job, source, target)
    return _fill(job, source, target, table, guard, counter, temp, verify, is_new=existing is None)


def _fill(
    job: Job, source: Side, target: Side, table: Table, guard: Guard, counter: Counter, temp: Path,
    verify: Callable[[Table, Sequence[Field]], Any] | None, *, is_new: bool,
) -> tuple[int, bool, Any]:  # fmt: skip
    fields = fields_of(job, table)
    name = qualified(table.schema, table.name, target.dialect)
    if job.mode == "upsert" and not is_new:
        written = _upsert(job, source, target, table, fields, guard, counter, temp)
    elif job.mode == "replace" and not is_new:
        written = _replace(job, source, target, name, fields, guard, counter, temp)
    else:
        written = stage(job.reading, source, target, name, fields, guard, counter, temp)
    _advance_sequences(target, table, fields)
    proof = verify(table, fields) if verify else None
    guard.check()
    target.run("COMMIT")
    return written, is_new, proof


def fields_of(job: Job, table: Table) -> list[Field]:
    """The pairs of columns. StepFailed names every column that the target does not have or computes itself."""
    fields: list[Field] = []
    unknown: list[str] = []
    for column, name, cast in job.columns:
        found = table.column(name)
        if found is None:
            unknown.append(name)
        elif found.writable:
            fields.append(Field(column, found, cast))
        elif column.generated is None:
            raise StepFailed(
                f"the column {found.name!r} of the target table {table.label} is computed by the database and cannot "
                "be written: leave it out with columns",
                error_type="columns",
            )
    if unknown:
        has = ", ".join(c.name for c in table.columns)
        raise StepFailed(
            f"the target table {table.label} has no column {', '.join(map(repr, unknown))} (it has {has}): "
            "name the pairs with columns, or change the table",
            error_type="columns",
        )
    if not fields:
        raise StepFailed(f"no column of the source goes to the target table {table.label}", error_type="columns")
    return fields


def _create(job: Job, source: Side, target: Side) -> Table:
    pairs = [(column, Column(name, column.type, nullable=column.nullable), cast) for column, name, cast in job.columns]
    fields = [Field(column, made, cast) for column, made, cast in pairs]
    collation = ""
    if target.dialect == "mysql":
        # texts are told apart by all their characters, as everywhere else
        version = str(target.value("SELECT version()")).lower()
        collation = "COLLATE utf8mb4_nopad_bin" if "mariadb" in version else "COLLATE utf8mb4_0900_bin"
    name = qualified(job.schema, job.table, target.dialect)
    target.run(create_table(name, fields, job.key, source.dialect, target.dialect, text_collation=collation))
    made = find_table(target, job.label())
    if made is None:
        raise StepFailed(f"the new table {job.label()} cannot be found again on the target", error_type="missing_table")
    return made


def stage(
    reading: Reading, source: Side, target: Side, table: str, fields: Sequence[Field], guard: Guard, counter: Counter,
    temp: Path,
) -> int:  # fmt: skip
    """Move the rows into ``table`` (quoted) within the open transaction; how many the server took."""
    if source.dialect == target.dialect == "postgresql" and _is_binary(fields):
        return _binary(reading, source, target, table, fields, guard, counter)
    if source.dialect == target.dialect == "sqlite":
        return _direct(reading, source, target, table, fields, guard, counter)
    with writing(target, table, fields, temp) as writer:
        for chunk in chunks(source, reading, fields, target.dialect):
            guard.check()
            writer.write(chunk)
            counter.add(chunk[1], len(chunk[0]))
    if writer.rows != counter.rows:
        raise StepFailed(
            f"the target took {writer.rows} rows of {counter.rows}; nothing was kept", error_type="incomplete"
        )
    return writer.rows


def _is_binary(fields: Sequence[Field]) -> bool:
    """Whether PostgreSQL's binary form means the same on both sides: the same built-in types."""
    return all(
        f.source.type.sql == f.target.type.sql
        and not f.cast
        and f.source.type.kind not in (TypeKind.ENUM, TypeKind.OTHER)
        and (f.source.type.element is None or f.source.type.element.kind not in (TypeKind.ENUM, TypeKind.OTHER))
        for f in fields
    )


def _binary(
    reading: Reading, source: Side, target: Side, table: str, fields: Sequence[Field], guard: Guard, counter: Counter
) -> int:
    sql = reading.sql(select_list(fields, "postgresql", "postgresql"), "postgresql")
    columns = column_list([f.target.name for f in fields], "postgresql")
    with CopyIn(target.driver, f"COPY {table} ({columns}) FROM STDIN (FORMAT binary)") as copy:
        for data in copy_out(source.driver, f"COPY ({sql}) TO STDOUT (FORMAT binary)", counter):
            guard.check()
            copy.write(data)
        rows = copy.finish()
    counter.rows = rows  # without the trailer
    return rows


def _direct(
    reading: Reading, source: Side, target: Side, table: str, fields: Sequence[Field], guard: Guard, counter: Counter
) -> int:
    """SQLite to SQLite: values keep the storage class they have."""
    columns = column_list([f.target.name for f in fields], "sqlite")
    marks = ", ".join("?" * len(fields))
    for rows in tuples(source, reading.sql(select_list(fields, "sqlite", "sqlite"), "sqlite")):
        guard.check()
        insert_rows(target.driver, f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
        counter.add(len(rows), 0)
    return counter.rows


def _replace(
    job: Job, source: Side, target: Side, name: str, fields: Sequence[Field], guard: Guard, counter: Counter, temp: Path
) -> int:
    """Load, and let readers see the old rows until the commit."""
    if target.dialect != "postgresql":
        target.run(f"DELETE FROM {name}")
        return stage(job.reading, source, target, name, fields, guard, counter, temp)
    columns = column_list([f.target.name for f in fields], "postgresql")
    with _staging(target, name, fields) as beside:
        stage(job.reading, source, target, beside, fields, guard, counter, temp)
        guard.check()
        _empty(target, name)
        return int(target.run(f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {beside}"))


def _empty(target: Side, name: str) -> None:
    """TRUNCATE where nothing refers to the table and we may, else DELETE; both are undone by a rollback."""
    target.run("SAVEPOINT tc_empty")
    try:
        target.run(f"TRUNCATE {name}")
    except target.errors as error:
        if getattr(error, "sqlstate", "") not in ("0A000", "42501"):  # referred to by a foreign key; no right to it
            raise
        target.run("ROLLBACK TO SAVEPOINT tc_empty")
        target.run(f"DELETE FROM {name}")


@contextmanager
def _staging(target: Side, name: str, fields: Sequence[Field]) -> Iterator[str]:
    """A temporary table with the target's columns of ``fields``, gone at the end of the transaction at the latest."""
    dialect = target.dialect
    columns = column_list([f.target.name for f in fields], dialect)
    end = " ON COMMIT DROP" if dialect == "postgresql" else ""
    beside = quote(_STAGE, dialect) if dialect != "sqlite" else f"temp.{quote(_STAGE, dialect)}"
    if dialect != "postgresql":
        target.run(f"DROP {'TEMPORARY ' if dialect == 'mysql' else ''}TABLE IF EXISTS {beside}")
    target.run(f"CREATE TEMPORARY TABLE {beside}{end} AS SELECT {columns} FROM {name} WHERE 1 = 0")
    yield beside
    target.run(f"DROP {'TEMPORARY ' if dialect == 'mysql' else ''}TABLE {beside}")


def _upsert(
    job: Job, source: Side, target: Side, table: Table, fields: Sequence[Field], guard: Guard, counter: Counter,
    temp: Path,
) -> int:  # fmt: skip
    dialect = target.dialect
    name = qualified(table.schema, table.name, dialect)
    key = _key_of(job, table, fields)
    with _staging(target, name, fields) as beside:
        stage(job.reading, source, target, beside, fields, guard, counter, temp)
        guard.check()
        _check_keys(target, beside, key, job)
        written = _merge_mysql if dialect == "mysql" else _merge_conflict
        written(target, name, beside, [f.target.name for f in fields], key)
    return counter.rows


def _key_of(job: Job, table: Table, fields: Sequence[Field]) -> list[str]:
    """The key columns under the target's spelling. StepFailed when they are not there or not unique in the target."""
    carried = {f.target.name for f in fields}
    key: list[str] = []
    for wanted in job.key:
        column = table.column(wanted)
        if column is None or column.name not in carried:
            raise StepFailed(
                f"the key column {wanted!r} is not among the columns that go to {table.label}", error_type="key"
            )
        key.append(column.name)
    unique = [set(table.primary_key.columns)] if table.primary_key else []
    unique += [set(k.columns) for k in table.unique_keys]
    unique += [set(i.columns) for i in table.indexes if i.unique and i.columns]
    if set(key) not in unique:
        raise StepFailed(
            f"upsert goes by ({', '.join(key)}), but the target table {table.label} has no primary key or unique index "
            "on exactly these columns: make one, or name the columns of one in keyColumns",
            error_type="key",
        )
    return key


def _check_keys(target: Side, beside: str, key: Sequence[str], job: Job) -> None:
    columns = column_list(list(key), target.dialect)
    empty = " OR ".join(f"{quote(k, target.dialect)} IS NULL" for k in key)
    if target.value(f"SELECT count(*) FROM {beside} WHERE {empty}"):
        raise StepFailed(
            f"the source has rows for {job.label()} whose key ({', '.join(key)}) is NULL", error_type="key"
        )
    doubled = target.rows(
        f"SELECT {columns}, count(*) FROM {beside} GROUP BY {columns} HAVING count(*) > 1 LIMIT {_SAMPLES}"
    )
    if doubled:
        shown = "; ".join(", ".join(str(v) for v in row[:-1]) for row in doubled)
        raise StepFailed(
            f"the source has several rows for {job.label()} with the same key ({', '.join(key)}), such as {shown}",
            error_type="duplicate_key",
        )


def _merge_conflict(target: Side, name: str, beside: str, columns: Sequence[str], key: Sequence[str]) -> None:
    """INSERT ... ON CONFLICT: PostgreSQL and SQLite."""
    dialect = target.dialect
    listed = column_list(list(columns), dialect)
    others = [quote(c, dialect) for c in columns if c not in key]
    then = "UPDATE SET " + ", ".join(f"{c} = excluded.{c}" for c in others) if others else "NOTHING"
    system = " OVERRIDING SYSTEM VALUE" if dialect == "postgresql" else ""
    target.run(
        f"INSERT INTO {name} ({listed}){system} SELECT {listed} FROM {beside} WHERE true "
        f"ON CONFLICT ({column_list(list(key), dialect)}) DO {then}"
    )


def _merge_mysql(target: Side, name: str, beside: str, columns: Sequence[str], key: Sequence[str]) -> None:
    """UPDATE, then INSERT: ON DUPLICATE KEY would also follow any other unique key of the table."""
    same = " AND ".join(f"t.{quote(k, 'mysql')} = s.{quote(k, 'mysql')}" for k in key)
    others = [quote(c, "mysql") for c in columns if c not in key]
    if others:
        target.run(
            f"UPDATE {name} AS t JOIN {beside} AS s ON {same} SET " + ", ".join(f"t.{c} = s.{c}" for c in others)
        )
    listed = column_list(list(columns), "mysql")
    chosen = ", ".join(f"s.{quote(c, 'mysql')}" for c in columns)
    target.run(
        f"INSERT INTO {name} ({listed}) SELECT {chosen} FROM {beside} AS s "
        f"LEFT JOIN {name} AS t ON {same} WHERE t.{quote(key[0], 'mysql')} IS NULL"
    )


def _advance_sequences(target: Side, table: Table, fields: Sequence[Field]) -> None:
    """PostgreSQL: numbers that came along are not given out again."""
    if target.dialect != "postgresql":
        return
    name = qualified(table.schema, table.name, "postgresql")
    for made in fields:
        column = made.target
        if not (column.identity or "nextval(" in (column.default or "")):
            continue
        sequence = target.value("SELECT pg_get_serial_sequence(%s, %s)", [name, column.name])
        if sequence:
            text = str(sequence).replace("'", "''")
            target.run(
                f"SELECT setval('{text}', greatest(m, (SELECT last_value FROM {sequence}))) "
                f"FROM (SELECT max({quote(column.name, 'postgresql')})::bigint AS m FROM {name}) AS g WHERE m > 0"
            )
