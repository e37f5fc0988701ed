"""Carries out a transfer: opens both sides, finds tables and columns, and moves one object after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blocks.connections import Connection
from taskcenter.context import RunContext
from taskcenter.errors import StepFailed

from ..database.model import Column, Table
from ..database.quoting import qualified
from ..files import job_file
from .batches import load_in_batches
from .describe import describe, find_table, unknown_table
from .files import FileKind, write_file
from .load import Counter, Job, fields_of, load
from .preflight import Preflight, preflight
from .side import Guard, Side, guarded, in_database, open_reader, open_writer
from .sources import Reading
from .texts import Field
from .verify import prove
from .watermark import Window, check_column, mark_of, settle

if TYPE_CHECKING:
    from ..data_transfer_migration import DataTransferPayload, TransferObject

__all__ = ["same_place", "transfer"]

_UNPLACED = ("value", "constraint", "incomplete", "too_large")
"""Kinds of errors that come from below and do not say of which table."""


def transfer(payload: DataTransferPayload, ctx: RunContext) -> dict[str, Any]:
    """The ``run`` part of the output; see ``data_transfer_migration``."""
    source = in_database(ctx.connection(payload.source_connection_id), payload.source_database, "source")
    target = None
    if payload.target_connection_id is not None:
        target = in_database(ctx.connection(payload.target_connection_id), payload.target_database, "target")
    with guarded(ctx, payload.timeout_seconds, "the transfer") as guard:
        return _Transfer(payload, ctx, source, target, guard).run()


class _Transfer:
    """One run: what all its objects share."""

    def __init__(
        self, payload: DataTransferPayload, ctx: RunContext, source: Connection, target: Connection | None, guard: Guard
    ) -> None:
        self.payload, self.ctx, self.guard = payload, ctx, guard
        self.source, self.target = source, target
        self.warnings: list[str] = []
        self.done: list[dict[str, Any]] = []
        self.moved = self.expected = 0

    def run(self) -> dict[str, Any]:
        with ExitStack() as stack:
            writer = None
            if any(o.sink_type == "database" for o in self.payload.objects):
                assert self.target is not None
                writer = stack.enter_context(open_writer(self.target))
                stack.enter_context(self.guard.holding(writer))
            if writer is not None and _same_file(self.source, self.target):
                reader = writer  # a second connection's snapshot would keep the first from committing
            else:
                reader = stack.enter_context(open_reader(self.source))
                stack.enter_context(self.guard.holding(reader))
            return self._objects(reader, writer)

    def _objects(self, reader: Side, writer: Side | None) -> dict[str, Any]:
        found = [self._look(item, reader) for item in self.payload.objects]
        check = self._preflight(found, reader, writer)
        result: dict[str, Any] = {"objects": self.done, "warnings": self.warnings}
        if check is not None:
            result["preflight"] = check.to_dict()
            if self.payload.lock_guard and check.blocks and not self.payload.dry_run:
                raise StepFailed(check.refusal(), error_type="preflight", output=result)
        self.expected = sum(size or 0 for _, _, size in found)
        for item, (table, columns, size) in zip(self.payload.objects, found, strict=True):
            self.guard.check()
            started = time.monotonic()
            with self._explained(item, reader, writer):
                if self.payload.dry_run:
                    made = self._count(item, table, reader, writer)
                elif item.sink_type == "database":
                    assert writer is not None
                    made = self._table(item, table, columns, reader, writer)
                else:
                    made = self._file(item, table, columns, reader)
            made["durationMs"] = round((time.monotonic() - started) * 1000, 1)
            self.done.append(made)
            self.moved += size or made["rowsRead"]
            self.ctx.logger.info(
                f"{made['sourceTable']} → {made['sinkPath' if 'sinkPath' in made else 'targetTable']}: "
                f"{made['rowsRead']:,} rows in {made['durationMs'] / 1000:.1f} s"
            )
        self.ctx.summary(f"{sum(o['rowsWritten'] for o in self.done):,} rows written")
        return result

    def _look(self, item: TransferObject, reader: Side) -> tuple[Table | None, list[Column], int | None]:
        """The source's table (None for a query or a view), its columns, and about how many rows come."""
        with self._explained(item, reader, None):
            if item.source_query is not None:
                return None, describe(reader, Reading(query=item.source_query)), None
            table = find_table(reader, item.source_table or "")
            if table is not None:
                size = table.row_estimate
                if size is None or reader.dialect == "sqlite":
                    size = reader.value(f"SELECT count(*) FROM {qualified(table.schema, table.name, reader.dialect)}")
                key = table.primary_key.columns if table.primary_key is not None else ()
                columns = [replace(c, nullable=c.nullable and c.name not in key) for c in table.columns]
                return table, columns, None if item.where or item.watermark_column else size
            try:
                return None, describe(reader, self._reading(item, None)), None
            except reader.errors:
                if reader.dialect == "postgresql":
                    reader.run("ROLLBACK")
                raise unknown_table(reader, item.source_table or "", "source") from None

    def _reading(self, item: TransferObject, table: Table | None, extra: str = "") -> Reading:
        where = " AND ".join(f"({part})" for part in (item.where, extra) if part)
        if item.source_query is not None:
            return Reading(query=item.source_query, where=where)
        if table is not None:
            return Reading(schema=table.schema, table=table.name, where=where)
        schema, _, name = (item.source_table or "").rpartition(".")
        return Reading(schema=schema, table=name, where=where)

    def _pairs(self, item: TransferObject, columns: Sequence[Column]) -> list[tuple[Column, str, str]]:
        """Source column, target name, cast: as the object says, or each under its own name."""
        if not item.columns:
            return [(column, column.name, "") for column in columns]
        made, unknown = [], []
        for pair in item.columns:
            column = next((c for c in columns if c.name == pair.source), None) or next(
                (c for c in columns if c.name.lower() == pair.source.lower()), None
            )
            if column is None:
                unknown.append(pair.source)
            else:
                made.append((column, pair.target or column.name, pair.cast or ""))
        if unknown:
            raise StepFailed(
                f"the source has no column {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(c.name for c in columns)}",
                error_type="columns",
            )
        goals = [name.lower() for _, name, _ in made]
        double = sorted({name for name in goals if goals.count(name) > 1})
        if double:
            raise StepFailed(f"two columns go to the same target column: {', '.join(double)}", error_type="columns")
        return made

    def _job(self, item: TransferObject, table: Table | None, columns: Sequence[Column], writer: Side) -> Job:
        pairs = self._pairs(item, columns)
        schema, name = _target_name(item, table, writer.dialect, writer)
        key = list(item.key_columns)
        if not key and table is not None and table.primary_key is not None:
            goals = {column.name: goal for column, goal, _ in pairs}
            key = [goals.get(c, "") for c in table.primary_key.columns]
            key = key if all(key) else []
        return Job(self._reading(item, table), pairs, schema, name, item.mode, key)

    def _table(
        self, item: TransferObject, table: Table | None, columns: Sequence[Column], reader: Side, writer: Side
    ) -> dict[str, Any]:
        job = self._job(item, table, columns, writer)
        if (
            same_place(self.source, self.target)
            and table is not None
            and (find_table(writer, job.label()) or Table("", "", ())).label == table.label
        ):
            raise StepFailed(
                f"{table.label} would be moved onto itself: name another targetTable", error_type="configuration"
            )
        counter = self._counter()
        verify = None
        if item.verify:
            verify = self._verifier(job, reader, writer)
        if self.payload.batch_rows is not None:
            return self._batched(item, table, job, reader, writer)
        if item.watermark_column is None:
            written, is_new, proof = load(job, reader, writer, self.guard, counter, self.ctx.temp_dir, verify)
        else:
            job, fresh = self._window(item, job, table, writer)
            with open_reader(self.source) as fresh_reader, self.guard.holding(fresh_reader):
                same = reader if reader is writer else fresh_reader
                written, is_new, proof = load(job, same, writer, self.guard, counter, self.ctx.temp_dir)
            proof = None
        made: dict[str, Any] = {
            "sourceTable": table.label if table is not None else item.source_table or "query",
            "targetTable": job.label(),
            "mode": item.mode,
            "sink": "database",
            "rowsRead": counter.rows,
            "rowsWritten": written,
            "bytes": counter.bytes,
            "created": is_new,
        }
        if proof is not None:
            made["checksum"] = proof
        if item.watermark_column is not None:
            made["watermark"] = {"above": fresh.above, "upTo": fresh.up_to}
        return made

    def _batched(
        self, item: TransferObject, table: Table | None, job: Job, reader: Side, writer: Side
    ) -> dict[str, Any]:
        assert self.payload.batch_rows is not None
        found = load_in_batches(
            job, self.payload.batch_rows, reader, writer, self.guard, self._counter, self.ctx.temp_dir
        )
        if found.above is not None:
            self.warnings.append(
                f"{job.label()} held rows already: those with a key up to {found.above} were not looked at"
            )
        return {
            "sourceTable": table.label if table is not None else item.source_table or "query",
            "targetTable": job.label(),
            "mode": item.mode,
            "sink": "database",
            "rowsRead": found.read,
            "rowsWritten": found.written,
            "bytes": found.bytes,
            "created": found.is_new,
            "batches": found.batches,
        }

    def _window(self, item: TransferObject, job: Job, table: Table | None, writer: Side) -> tuple[Job, Window]:
        """The job, kept to the rows that are new."""
        assert item.watermark_column is not None
        if table is None:
            raise StepFailed("a watermark needs a table as its source, not a view", error_type="watermark")
        pair = next(((c, goal) for c, goal, _ in job.columns if c.name.lower() == item.watermark_column.lower()), None)
        if pair is None:
            raise StepFailed(
                f"the watermark column {item.watermark_column!r} is not among the columns that are moved",
                error_type="watermark",
            )
        column, goal = pair
        target = find_table(writer, job.label())
        above = None
        if target is not None:
            held = next((f.target for f in fields_of(job, target) if f.target.name.lower() == goal.lower()), None)
            if held is None:
                raise StepFailed(f"the target {target.label} computes {goal!r} itself", error_type="watermark")
            check_column(column, held)
            above = mark_of(writer, target, held, column)
        else:
            check_column(column, column)
        top = settle(self.source, table, column, self.guard)
        window = Window(above, top)
        reading = self._reading(item, table, window.condition(column, self.source.dialect))
        return Job(reading, job.columns, job.schema, job.table, job.mode, job.key), window

    def _verifier(self, job: Job, reader: Side, writer: Side) -> Any:
        existing = find_table(writer, job.label())
        if existing is not None and job.mode == "append":
            name = qualified(existing.schema, existing.name, writer.dialect)
            if writer.rows(f"SELECT 1 FROM {name} LIMIT 1"):
                raise StepFailed(
                    f"verify compares whole tables, but {existing.label} has rows already: "
                    "use replace, or leave verify out",
                    error_type="configuration",
                )

        def verify(table: Table, fields: Sequence[Field]) -> dict[str, Any]:
            return prove(job.reading, reader, writer, table, fields, self.guard)

        return verify

    def _file(
        self, item: TransferObject, table: Table | None, columns: Sequence[Column], reader: Side
    ) -> dict[str, Any]:
        pairs = self._pairs(item, columns)
        fields = [Field(column, Column(name, column.type), cast) for column, name, cast in pairs]
        path = job_file(item.sink_path or "", self.ctx, "sinkPath")
        kind: FileKind = item.sink_type  # type: ignore[assignment]  # database has gone another way
        dialect = self.target.dialect if self.target is not None else self.source.dialect
        schema, name = _target_name(item, table, dialect, None)
        counter = self._counter()
        key = []
        for wanted in item.key_columns:
            found = next((f.target.name for f in fields if f.target.name.lower() == wanted.lower()), None)
            if found is None:
                raise StepFailed(f"the key column {wanted!r} is not among the columns that are moved", error_type="key")
            key.append(found)
        size, digest = write_file(
            kind, path, self._reading(item, table), reader, fields, self.guard, counter,
            table=qualified(schema, name, dialect), dialect=dialect, key=key if item.mode == "upsert" else (),
            hashed=item.verify,
        )  # fmt: skip
        made: dict[str, Any] = {
            "sourceTable": table.label if table is not None else item.source_table or "query",
            "targetTable": name,
            "mode": item.mode,
            "sink": kind,
            "sinkPath": str(path),
            "rowsRead": counter.rows,
            "rowsWritten": counter.rows,
            "bytes": size,
        }
        if digest is not None:
            made["checksum"] = f"sha256:{digest}"
        return made

    def _count(self, item: TransferObject, table: Table | None, reader: Side, writer: Side | None) -> dict[str, Any]:
        """A dry-run: how many rows there are on both sides."""
        rows = int(reader.value(self._reading(item, table).sql("count(*)", reader.dialect)))
        made: dict[str, Any] = {
            "sourceTable": table.label if table is not None else item.source_table or "query",
            "targetTable": item.target_table or item.source_table or "",
            "mode": item.mode,
            "sink": item.sink_type,
            "rowsRead": rows,
            "rowsWritten": 0,
            "bytes": 0,
        }
        if item.sink_type == "database" and writer is not None:
            schema, name = _target_name(item, table, writer.dialect, writer)
            target = find_table(writer, f"{schema}.{name}" if schema else name)
            made["targetExists"] = target is not None
            if target is not None:
                label = qualified(target.schema, target.name, writer.dialect)
                made["targetRows"] = int(writer.value(f"SELECT count(*) FROM {label}"))
        return made

    def _preflight(
        self, found: Sequence[tuple[Table | None, list[Column], int | None]], reader: Side, writer: Side | None
    ) -> Preflight | None:
        if not self.payload.include_schema_migration:
            return None
        made = Preflight()
        for item, (table, columns, _) in zip(self.payload.objects, found, strict=True):
            if item.sink_type == "database" and writer is not None:
                job = self._job(item, table, columns, writer)
                preflight(made, job, find_table(writer, job.label()), reader.dialect, writer.dialect)
        return made

    def _counter(self, more: int = 0) -> Counter:
        before = self.moved + more

        def report(rows: int) -> None:
            done = before + rows
            if self.expected:
                percent = min(99.0, 100.0 * done / self.expected)
                total = max(self.expected, done)
                self.ctx.progress(percent, f"{done:,} rows of about {total:,}", done=done, total=total)
            else:
                self.ctx.progress(0, f"{done:,} rows", done=done)

        return Counter(report)

    @contextmanager
    def _explained(self, item: TransferObject, reader: Side, writer: Side | None) -> Iterator[None]:
        """What a driver says becomes a sentence with the object's name, and the reason when it was stopped."""
        known_errors: list[type[Exception]] = [side.errors for side in (reader, writer) if side is not None]
        errors: tuple[type[Exception], ...] = (*known_errors, OSError, StepFailed)
        source = item.source_table or "the query"
        goal = item.sink_path or item.target_table or item.source_table
        what = f"moving {source} to {goal} failed"
        try:
            yield
        except errors as error:
            where = f"{what}, {self.guard.left}" if writer else what
            known = self.guard.explain(error, where)
            if isinstance(known, StepFailed) and known.error_type in _UNPLACED and known is error:
                known = StepFailed(f"{where}: {known.message}", error_type=known.error_type)
            if isinstance(known, StepFailed) and self.done and known.output is None:
                known.output = {"objects": list(self.done)}
            if known is error:
                raise
            raise known from error


def _target_name(item: TransferObject, table: Table | None, dialect: str, writer: Side | None) -> tuple[str, str]:
    """Schema (PostgreSQL's only) and name of the target; a table that is called so as a whole goes before a schema."""
    given = item.target_table
    if given is None:
        return "", table.name if table is not None else (item.source_table or "").rpartition(".")[2]
    schema, _, name = given.rpartition(".")
    if not schema or (table is not None and table.name == given):
        return "", given
    if writer is not None and (found := find_table(writer, given)) is not None:
        return (found.schema if dialect == "postgresql" else ""), found.name
    if dialect == "postgresql" or writer is None:
        return (schema if dialect == "postgresql" else ""), name
    if schema in (writer.connection.database, "main"):
        return "", name
    raise StepFailed(
        f"the target table {given!r} stands in {schema!r}, and the target is the database of its connection "
        f"({writer.connection.name}): give that connection, or {name!r} alone",
        error_type="missing_table",
    )


def same_place(source: Connection, target: Connection | None) -> bool:
    """Whether both are the same database."""
    if target is None or source.dialect != target.dialect:
        return False
    if source.dialect == "sqlite":
        return _same_file(source, target)
    return (source.host, source.port, source.database) == (target.host, target.port, target.database)


def _same_file(source: Connection, target: Connection | None) -> bool:
    if target is None or source.dialect != "sqlite" or target.dialect != "sqlite":
        return False
    return os.path.realpath(source.database or "") == os.path.realpath(target.database or "")
