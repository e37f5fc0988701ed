"""``backup``: a database into one file that restores it. (spec 2.2)"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from blocks.connections import Connection, known_dialect
from taskcenter.clock import SystemClock
from taskcenter.context import PlanNote, RunContext
from taskcenter.errors import StepFailed
from taskcenter.settings import Settings
from taskcenter.task_types import task_type

from .files import job_file
from .payload import Flag, Payload, Text, Whole, also
from .server import point_at

if TYPE_CHECKING:
    import sqlalchemy as sa

    from .database.dump_parts import Choice
    from .database.model import Structure
    from .database.written_file import WrittenFile

__all__ = ["BackupPayload", "backup"]

_ENDINGS = {".gz": "gzip", ".zst": "zstd"}
_SUFFIX = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_STAMP = "%Y%m%d%H%M%S"
_VERIFIED_SHARE = 20.0
"""How many of the 100 % of progress are left for the verification."""


class BackupPayload(Payload):
    """What to back up, where to, and what to do with older ones."""

    connection: Text = Field(description="Name of a saved connection.", json_schema_extra={"format": "connection"})
    database: Text | None = Field(
        None,
        validation_alias=also("database", "schema", "db_name"),
        description="Another database on the same server. Default: the connection's.",
    )
    include_data: Flag = Field(True, description="false: only the structure.")
    file_path: Text | None = Field(
        None,
        validation_alias=also("file_path", "path"),
        description="A file, or a folder when it ends with /. Default: backups/ in the data directory.",
    )
    tables: tuple[Text, ...] | None = Field(None, description="Only these tables, as name or schema.name.")
    exclude_tables: tuple[Text, ...] = Field((), description="All but these tables.")
    format: Literal["sql", "native"] = Field(
        "sql", description="native: by pg_dump, mariadb-dump (mysqldump) or SQLite's online backup."
    )
    compress: Literal["none", "gzip", "zstd"] | None = Field(
        None, description="Default: by the end of filePath (.gz, .zst), else none."
    )
    verify: Flag = Field(False, description="Restore into a scratch database and compare the counts of rows.")
    keep_last: Whole | None = Field(None, ge=1, description="How many backups of this task always stay.")
    keep_days: Whole | None = Field(
        None, ge=1, description="Older ones go, but never the newest nor those of keepLast."
    )
    lock_timeout_seconds: Whole = Field(
        60, ge=1, le=3600, description="How long to wait for a table that somebody else has locked."
    )

    @field_validator("tables", "exclude_tables", mode="after")
    @classmethod
    def _some(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return value or (None if value is None else ())

    @model_validator(mode="after")
    def _agree(self) -> BackupPayload:
        ending = next((kind for end, kind in _ENDINGS.items() if (self.file_path or "").endswith(end)), None)
        if ending and self.compress not in (None, ending):
            raise ValueError(f"filePath ends like {ending}, but compress says {self.compress}")
        if (self.keep_last or self.keep_days) and not self.names_folder:
            raise ValueError(
                "keepLast and keepDays prune files that this task has named: leave filePath out, or name a folder that "
                "ends with /"
            )
        return self

    @property
    def names_folder(self) -> bool:
        return self.file_path is None or self.file_path.endswith("/")

    @property
    def compression(self) -> Literal["none", "gzip", "zstd"]:
        if self.compress:
            return self.compress
        ending = Path(self.file_path or "").suffix
        return "gzip" if ending == ".gz" else "zstd" if ending == ".zst" else "none"


def plan(payload: BackupPayload, ctx: RunContext) -> PlanNote:
    """Says what would be written where; nothing is opened."""
    what = ", ".join(payload.tables) if payload.tables else "all tables"
    what += f" but {', '.join(payload.exclude_tables)}" if payload.exclude_tables else ""
    what += "" if payload.include_data else ", without rows"
    dialect = known_dialect(payload.connection)
    target = str(_target(payload, ctx, payload.database or payload.connection, dialect or "", "<UTC time>"))
    keeps = [f"the last {payload.keep_last}"] if payload.keep_last else []
    keeps += [f"those of {payload.keep_days} days"] if payload.keep_days else []
    details: dict[str, Any] = {
        "filePath": target,
        "format": payload.format,
        "compress": payload.compression,
        "verify": payload.verify,
        "keeps": keeps,
    }
    danger = []
    if payload.file_path and not payload.names_folder and Path(target).exists():
        danger.append(f"{target} exists and will be replaced once the new backup is complete")
    if keeps:
        danger.append(f"older backups of this task are deleted, except {' and '.join(keeps)}")
    return PlanNote(
        f"backs up {what} of {payload.database or payload.connection} to {target}",
        details=details,
        danger=tuple(danger),
        connections=(payload.connection,),
    )


@task_type("backup", title="Backup", category="database", icon="archive", tags=["backup"], expensive=True, plan=plan)
def backup(payload: BackupPayload, ctx: RunContext) -> dict[str, Any]:
    """Write one consistent snapshot of a database to a file that appears only when it is whole.

    Gives ``{executor, dbType, database, filePath, includeData, format, compress, tableCount, rowCount, bytes, sha256,
    verified?, pruned, warnings, durationMs}``; ``rowCount`` is null where the engine's own tool does not tell and
    nothing was verified. Raises ConnectionUnavailable, Refused for a path outside, Cancelled, and StepFailed:
    ``missing_table``, ``unsupported``, ``locked``, ``connection_lost``, ``permission``, ``moved``, ``file``, ``tool``,
    ``compression``, ``verify``, ``sql``.
    """
    from .database.dump_parts import choose
    from .database.written_file import writing

    started = time.monotonic()
    connection = point_at(ctx.connection(payload.connection), payload.database)
    target = _target(payload, ctx, _database_name(connection), connection.dialect, f"{SystemClock().now():{_STAMP}}")
    with writing(target, payload.compression) as file:
        with _reading(connection, payload, ctx) as (opened, structure):
            choice = choose(structure, payload.tables, payload.exclude_tables)
            counts = _write(opened, structure, choice, connection, payload, file, ctx)
        file.finish()
        verified = _verify(file, connection, choice, counts, payload, ctx) if payload.verify else None
    rows = None if counts is None and verified is None else sum((counts or verified or {}).values())
    for warning in choice.warnings:
        ctx.logger.warning(warning)
    ctx.summary(f"{len(choice.tables)} tables, {file.bytes:,} bytes in {target.name}")
    ctx.progress(100)
    result = {
        "executor": "backup",
        "dbType": connection.dialect,
        "database": _database_name(connection),
        "filePath": str(target),
        "includeData": payload.include_data,
        "format": payload.format,
        "compress": payload.compression,
        "tableCount": len(choice.tables),
        "rowCount": rows,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "pruned": _prune(payload, target),
        "warnings": list(choice.warnings),
        "durationMs": round((time.monotonic() - started) * 1000, 1),
    }
    return result if verified is None else {**result, "verified": True}


def _database_name(connection: Connection) -> str:
    name = connection.database or connection.name
    return Path(name).stem if connection.dialect == "sqlite" else name


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:60] or "database"


def _stem(name: str, ctx: RunContext) -> str:
    """``sales_nightly-backup_``: what the names of one task's backups of one database begin with."""
    who = _safe(ctx.task or "task") + (f"-{_safe(ctx.step_key)}" if ctx.step_key else "")
    return f"{_safe(name)}_{who}_"


def _target(payload: BackupPayload, ctx: RunContext, name: str, dialect: str, stamp: str) -> Path:
    """Where the file goes; ``stamp`` is the time in its name. Raises Refused for a place that jobs may not write to."""
    if payload.file_path and not payload.names_folder:
        return job_file(payload.file_path, ctx, "filePath")
    folder = job_file(payload.file_path, ctx, "filePath") if payload.file_path else _home(ctx) / "backups"
    ending = ".sql"
    if payload.format == "native":
        from .database.native import SUFFIX

        ending = SUFFIX.get(dialect, ".sql")
    return folder / f"{_stem(name, ctx)}{stamp}{ending}{_SUFFIX[payload.compression]}"


def _home(ctx: RunContext) -> Path:
    """The data directory; a plan that no run stands behind takes that of the settings."""
    return Settings.from_env().home if ctx.data_dir == Path(".") else ctx.data_dir.absolute()


@contextmanager
def _reading(
    connection: Connection, payload: BackupPayload, ctx: RunContext
) -> Iterator[tuple[sa.Connection, Structure]]:
    """One consistent snapshot of the database and its structure; a cancel stops what runs on the server.

    A SQLite file without a write-ahead log would make its writers wait while it is read: a copy is read instead.
    """
    from .database.catalog import rows, scalar
    from .database.reflect import reflect
    from .database.snapshot import consistent
    from .database.trouble import watched

    seconds = payload.lock_timeout_seconds
    with ExitStack() as stack:
        opened = stack.enter_context(consistent(connection))
        stack.enter_context(watched(opened, connection, ctx))
        if connection.dialect == "postgresql":
            # rows that a policy hides from this login would be missing without a word: let the server refuse
            rows(
                opened,
                f"SELECT set_config('lock_timeout', '{seconds}s', false), set_config('row_security', 'off', false)",
            )
        elif connection.dialect == "mysql":
            rows(opened, f"SET SESSION lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}")
        elif scalar(opened, "PRAGMA journal_mode") != "wal":
            opened = stack.enter_context(_copied(opened, connection, ctx))
        yield opened, reflect(opened)


@contextmanager
def _copied(opened: sa.Connection, connection: Connection, ctx: RunContext) -> Iterator[sa.Connection]:
    import sqlite3

    from .database.snapshot import consistent

    source = opened.connection.driver_connection
    assert isinstance(source, sqlite3.Connection)
    with tempfile.TemporaryDirectory(dir=ctx.temp_dir, prefix="backup-") as folder:
        path = Path(folder) / Path(str(connection.database)).name
        with closing(sqlite3.connect(path)) as target:
            source.backup(target)
        opened.exec_driver_sql("ROLLBACK")
        with consistent(replace(connection, database=str(path), options={})) as copy:
            yield copy


def _write(
    opened: sa.Connection,
    structure: Structure,
    choice: Choice,
    connection: Connection,
    payload: BackupPayload,
    file: WrittenFile,
    ctx: RunContext,
) -> dict[str, int] | None:
    """Write the whole content; rows per table, None where the engine's own tool does not tell."""
    from .database.catalog import scalar
    from .database.dump import dump
    from .database.native import native_dump
    from .database.progress import RowProgress
    from .database.quoting import qualified

    def count(table: Any) -> int:
        return int(scalar(opened, f"SELECT count(*) FROM {qualified(table.schema, table.name, connection.dialect)}"))

    upto = 100.0 - (_VERIFIED_SHARE if payload.verify else 0)
    if payload.format == "native":
        native_dump(opened, connection, choice, payload.include_data, file, ctx)
        ctx.progress(upto, f"{file.bytes:,} bytes")
        if connection.dialect == "mysql" or not payload.include_data:
            return None if payload.include_data else {}
        # the tool has read this very snapshot; a parent of partitions has no rows of its own
        return {t.label: count(t) for t in choice.tables if "partitionBy" not in t.options}
    if connection.dialect == "sqlite":
        total = sum(map(count, choice.tables)) if payload.include_data else None
    else:
        known = [t.row_estimate for t in choice.tables if t.row_estimate]
        total = sum(known) if known and payload.include_data else None
    progress = RowProgress(ctx, total, upto)
    counts = dump(opened, structure, choice, file, include_data=payload.include_data, on_rows=progress.add)
    progress.say()
    return counts


def _verify(
    file: WrittenFile,
    connection: Connection,
    choice: Choice,
    counts: dict[str, int] | None,
    payload: BackupPayload,
    ctx: RunContext,
) -> dict[str, int]:
    """Restore the file into a scratch database and compare; the rows per table that were found there.

    Raises StepFailed (``error_type="verify"`` or ``"restore"``); the file then never gets its name.
    """
    from .database.catalog import scalar
    from .database.native import native_restore
    from .database.quoting import qualified
    from .database.reflect import reflect
    from .database.restore import restore
    from .database.scratch import scratch_database
    from .database.trouble import watched

    with scratch_database(connection, file.part.parent) as scratch:
        if payload.format == "native":
            native_restore(file.part, scratch, file, ctx)
        else:
            restore(file.part, scratch, file.compression, ctx.checkpoint)
        with scratch.connect() as opened, watched(opened, scratch, ctx):
            tables = [t for t in reflect(opened).tables if t.options.get("kind") != "virtual"]
            found = {
                t.label: int(scalar(opened, f"SELECT count(*) FROM {qualified(t.schema, t.name, scratch.dialect)}"))
                for t in tables
                if "partitionBy" not in t.options
            }
    wanted = {t.label for t in choice.tables if "partitionBy" not in t.options and t.options.get("kind") != "virtual"}
    expected = dict.fromkeys(wanted, 0) if not payload.include_data else counts
    wrong = sorted(wanted ^ found.keys())
    if wrong:
        raise StepFailed(f"verify: the restored database has other tables: {', '.join(wrong)}", error_type="verify")
    off = [f"{t}: {expected[t]} written, {n} restored" for t, n in found.items() if expected and expected[t] != n]
    if off:
        raise StepFailed(f"verify: the counts of rows differ: {'; '.join(off)}", error_type="verify")
    ctx.logger.info("verified: %s tables, %s rows restored", len(found), sum(found.values()))
    return found


def _prune(payload: BackupPayload, target: Path) -> list[str]:
    """Delete older backups of the same task and database; the names that went. Never the one just written."""
    if payload.keep_last is None and payload.keep_days is None:
        return []
    match = re.match(r"(.*_)(\d{14})(\..*)$", target.name)
    assert match is not None  # _target has made the name
    ours = re.compile(re.escape(match[1]) + r"(\d{14})\.(?:sql|dump|db)(?:\.gz|\.zst)?$")
    dated = sorted(((m[1], f) for f in target.parent.iterdir() if (m := ours.match(f.name))), reverse=True)
    newest = datetime.strptime(match[2], _STAMP)
    oldest = f"{newest - timedelta(days=payload.keep_days):{_STAMP}}" if payload.keep_days else "9"
    gone = [file for stamp, file in dated[max(payload.keep_last or 1, 1) :] if stamp < oldest]
    for file in gone:
        file.unlink(missing_ok=True)
    return [file.name for file in gone]
