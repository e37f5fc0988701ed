"""``schema_snapshot``: what a database is made of, its hash, and what changed since. (spec 2.3)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from blocks.connections import Connection
from taskcenter.clock import SystemClock
from taskcenter.context import PlanNote, RunContext
from taskcenter.errors import ConnectionUnavailable, NotFound, StepFailed
from taskcenter.models import SchemaSnapshot
from taskcenter.redaction import redact_registered
from taskcenter.task_types import task_type

from .payload import Flag, Payload, Text, also
from .server import point_at

__all__ = ["SchemaSnapshotPayload", "schema_snapshot"]

_SHOWN_TABLES = 1000
_SHOWN_REASONS = 100


class SchemaSnapshotPayload(Payload):
    """Which database, and what to compare it with."""

    connection: Text = Field(
        validation_alias=also("connection", "connection_id"),
        description="Name of a saved connection.",
        json_schema_extra={"format": "connection"},
    )
    database: Text | None = Field(
        None,
        validation_alias=also("database", "schema", "db_name"),
        description="Another database on the same server. Default: the connection's.",
    )
    persist_snapshot: Flag = Field(True, description="Keep it in Task Center's database; the same hash only once.")
    compare_with: Text = Field(
        "previous", description="previous, none, the id of a kept snapshot, or the name of another connection."
    )
    fail_on: Literal["none", "any", "breaking"] = Field(
        "none",
        description="Which changes fail the run. breaking: a table or column gone, a narrower type, no more null.",
    )


@dataclass(frozen=True, slots=True)
class _Captured:
    """One structure as it stands now."""

    connection: Connection
    document: dict[str, Any]
    hash: str
    rows: dict[str, int | None]
    at: datetime


def plan(payload: SchemaSnapshotPayload, ctx: RunContext) -> PlanNote:
    """Says what would be read, kept and compared; nothing is opened."""
    what = payload.database or payload.connection
    against = {"previous": "the one before", "none": ""}.get(payload.compare_with, payload.compare_with)
    summary = f"reads the structure of {what}" + (f" and compares it with {against}" if against else "")
    summary += ", keeps it" if payload.persist_snapshot else ", keeps nothing"
    details = {
        "persistSnapshot": payload.persist_snapshot,
        "compareWith": payload.compare_with,
        "failOn": payload.fail_on,
    }
    return PlanNote(summary, details=details, connections=(payload.connection,))


@task_type("schema_snapshot", title="Schema snapshot", category="database", icon="schema", tags=["schema"], plan=plan)
def schema_snapshot(payload: SchemaSnapshotPayload, ctx: RunContext) -> dict[str, Any]:
    """Capture tables, columns, keys, indexes, constraints, views, routines and triggers; compare; keep.

    Gives ``{executor, dbType, connectionId, database, persisted, snapshotId?, capturedAt, schemaHash, tableCount,
    viewCount, routineCount, triggerCount, rowEstimates, comparedWith?, changed, diff, breaking}``. ``rowEstimates`` are
    the server's own guesses (null: none yet) and no part of the hash. The snapshot is kept before ``failOn`` fails the
    run, so that one change is told once. Raises ConnectionUnavailable, NotFound for an unknown ``compareWith``, Refused
    where nothing can be kept, and StepFailed: ``schema_changed`` (with all of the output), ``unsupported``, ``locked``,
    ``connection_lost``, ``permission``, ``sql``.
    """
    from .database.structure_diff import diff, summary

    found = _capture(point_at(ctx.connection(payload.connection), payload.database), ctx)
    before, label = _before(payload, found, ctx)
    result = _head(payload, found)
    if payload.persist_snapshot:
        kept = ctx.snapshots().save(
            SchemaSnapshot(
                connection=payload.connection,
                database=found.connection.database or "",
                dialect=found.connection.dialect,
                schema_hash=found.hash,
                structure=found.document,
                first_captured_at=found.at,
                captured_at=found.at,
                run_id=ctx.run_id or None,
            )
        )
        result["snapshotId"] = kept.id
    if label:
        result["comparedWith"] = label
    changes = [] if before is None or before[0] == found.hash else diff(before[1], found.document)
    broken = [change.breaking for change in changes if change.breaking]
    result |= {
        "changed": before is not None and before[0] != found.hash,
        "diff": summary(changes),
        "breaking": broken[:_SHOWN_REASONS],
    }
    ctx.summary(f"{result['tableCount']} tables, {len(changes)} changes, {len(broken)} breaking")
    for change in changes[:_SHOWN_REASONS]:
        ctx.logger.info("%s: %s %s", change.action, change.kind, change.name)
    for reason in broken[:_SHOWN_REASONS]:
        ctx.logger.warning("breaking: %s", reason)
    if (payload.fail_on == "any" and changes) or (payload.fail_on == "breaking" and broken):
        said = "; ".join(broken[:5] or [f"{c.kind} {c.name} was {c.action}" for c in changes[:5]])
        count = len(broken) if payload.fail_on == "breaking" else len(changes)
        raise StepFailed(
            f"the structure of {found.connection.describe()} has {count} {'breaking ' if broken else ''}"
            f"change{'' if count == 1 else 's'}: {said}",
            error_type="schema_changed",
            output=result,
        )
    return result


def _capture(connection: Connection, ctx: RunContext) -> _Captured:
    """Read the structure, as of one instant where the engine's catalogue can."""
    from .database.document import schema_hash, to_document
    from .database.reflect import reflect
    from .database.snapshot import consistent
    from .database.trouble import watched

    with consistent(connection) as opened, watched(opened, connection, ctx):
        structure = reflect(opened)
    document = to_document(structure)
    rows = {table.label: table.row_estimate for table in structure.tables[:_SHOWN_TABLES]}
    # The hash is that of the structure as it is; a secret in a default or a view is not kept with it.
    return _Captured(connection, redact_registered(document), schema_hash(document), rows, SystemClock().now())


def _before(
    payload: SchemaSnapshotPayload, found: _Captured, ctx: RunContext
) -> tuple[tuple[str, dict[str, Any]] | None, dict[str, Any] | None]:
    """Hash and document to compare with, and how to name them; None twice when there is nothing."""
    wanted = payload.compare_with
    if wanted == "none":
        return None, None
    if wanted == "previous":
        last = ctx.snapshots().latest(payload.connection, found.connection.database or "")
    else:
        last = _kept(wanted, ctx)
        if last is None:
            return _other(wanted, found, ctx)
    if last is None:
        return None, None
    _same_engine(last.dialect, found.connection)
    return (last.schema_hash, last.structure), {"snapshotId": last.id, "capturedAt": last.captured_at}


def _kept(id: str, ctx: RunContext) -> SchemaSnapshot | None:
    """The kept snapshot of that id; a place without snapshots has none."""
    from taskcenter.errors import Refused

    try:
        return ctx.snapshots().find(id)
    except Refused:
        return None


def _other(name: str, found: _Captured, ctx: RunContext) -> tuple[tuple[str, dict[str, Any]], dict[str, Any]]:
    try:
        connection = ctx.connection(name)
    except ConnectionUnavailable as error:
        raise NotFound(
            f"compareWith {name!r} is neither the id of a kept snapshot nor a connection: {error.message}", name=name
        ) from error
    _same_engine(connection.dialect, found.connection)
    other = _capture(connection, ctx)
    return (other.hash, other.document), {"connectionId": name, "capturedAt": other.at}


def _same_engine(dialect: str, connection: Connection) -> None:
    if dialect != connection.dialect:
        raise StepFailed(
            f"the structure of a {connection.dialect} database cannot be compared with that of a {dialect} one: every "
            "type is another; compare databases of the same kind",
            error_type="unsupported",
        )


def _head(payload: SchemaSnapshotPayload, found: _Captured) -> dict[str, Any]:
    document = found.document
    return {
        "executor": "schema_snapshot",
        "dbType": found.connection.dialect,
        "connectionId": payload.connection,
        "database": found.connection.database,
        "persisted": payload.persist_snapshot,
        "capturedAt": found.at,
        "schemaHash": found.hash,
        "tableCount": len(document["tables"]),
        "viewCount": len(document["views"]),
        "routineCount": len(document["routines"]),
        "triggerCount": len(document["triggers"]),
        "rowEstimates": found.rows,
    }
