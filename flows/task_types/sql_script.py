"""``sql_script``: statements against a saved connection, with bound parameters, time-out and expectations. (spec 2.1)"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from pydantic import Field, field_validator

from taskcenter.context import Cancelled, PlanNote, RunContext
from taskcenter.errors import StepFailed, TimedOut
from taskcenter.task_types import task_type

from .payload import Payload, Seconds, Text, Whole, also
from .sql_expect import Expectation, check, parse
from .sql_inspect import Inspection, bind, inspect, parameter_names
from .sql_session import Session, open_session, said
from .sql_split import Statement, split
from .values import plain

__all__ = ["SqlScriptPayload", "sql_script"]

Transaction = Literal["single", "per_statement", "none"]
_SHOWN_ROWS = 20
"""How many rows a failed expectation carries when ``fetch`` asks for fewer."""


class SqlScriptPayload(Payload):
    """Statements and how to run them."""

    sql: Text = Field(validation_alias=also("sql", "query", "script"), json_schema_extra={"format": "sql"})
    connection: Text = Field(description="Name of a saved connection.", json_schema_extra={"format": "connection"})
    parameters: dict[str, Any] = Field({}, description="Values for :name in the statements; bound, never pasted in.")
    timeout_seconds: Seconds = Field(
        30,
        le=3600,
        validation_alias=also("timeout_seconds", "query_timeout_seconds"),
        description="Longest time of one statement; it is stopped on the server. 0: no limit.",
    )
    transaction: Transaction | None = Field(
        None, description="Default: one transaction for all where the database and the statements allow it."
    )
    fetch: Whole = Field(0, ge=0, le=1000, description="How many rows of the last result to keep.")
    expect: tuple[Expectation, ...] = Field((), description='Such as "rows == 0" or "value > 100", or a list of them.')

    @field_validator("expect", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        many = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return tuple(item if isinstance(item, Expectation) else parse(item) for item in many)


@dataclass(slots=True)
class _Outcome:
    """What the statements gave so far. ``value`` and ``rows`` are those of the last result set."""

    statements: list[dict[str, Any]]
    result_sets: int = 0
    total_rows: int = 0
    rows: list[dict[str, Any]] | None = None
    last_count: int = 0
    value: Any = None


def plan(payload: SqlScriptPayload, ctx: RunContext) -> PlanNote:
    """Kinds, tables and dangers, from the text alone; the dialect is the connection's when it can be resolved."""
    dialect = _dialect(payload.connection, ctx)
    statements = split(payload.sql, dialect)
    seen = [inspect(statement.text, dialect) for statement in statements]
    counts = {effect: sum(1 for i in seen if i.effect == effect) for effect in ("read", "write", "ddl")}
    said_counts = ", ".join(f"{count} {effect}" for effect, count in counts.items() if count) or "nothing but settings"
    missing = {name for s in statements for name in parameter_names(s.text, dialect)} - set(payload.parameters)
    danger = [f"statement {n}: {sentence}" for n, i in enumerate(seen, 1) for sentence in i.danger]
    danger += [f"parameter :{name} has no value" for name in sorted(missing)]
    plural = "" if len(statements) == 1 else "s"
    return PlanNote(
        f"{len(statements)} statement{plural} on {payload.connection}: {said_counts}",
        details={
            "statements": [
                {"line": s.line, "verb": i.verb, "effect": i.effect, "tables": list(i.tables)}
                for s, i in zip(statements, seen, strict=True)
            ],
            "tables": sorted({table for i in seen for table in i.tables}),
            "timeoutSeconds": payload.timeout_seconds,
        },
        danger=tuple(danger),
        connections=(payload.connection,),
    )


def _dialect(name: str, ctx: RunContext) -> str:
    """The dialect to read the text with. A plan must work where the connection is not known yet."""
    try:
        return str(getattr(ctx.connection(name), "dialect", "postgresql"))
    except Exception:  # whatever a resolver may raise: the preview is then read as PostgreSQL
        return "postgresql"


@task_type("sql_script", title="SQL script", category="database", icon="database", tags=["sql"], plan=plan)
def sql_script(payload: SqlScriptPayload, ctx: RunContext) -> dict[str, Any]:
    """Run the statements in order and stop at the first that fails.

    Gives ``{executor, dbType, resultSets, totalRows, sqlLength, timeoutSeconds, transaction, statements, rows?}``;
    ``statements`` holds ``{index, rows, durationMs}`` each: index from 1, rows returned or else changed.
    Expectations are checked before the commit of a ``single`` transaction, so that a failed one leaves no trace.
    Raises ConnectionUnavailable, TimedOut, Cancelled, and StepFailed of the type ``sql`` or ``expect``.
    """
    connection = ctx.connection(payload.connection)
    statements = split(payload.sql, connection.dialect)
    if not statements:
        raise StepFailed("the script holds no statement, only comments", error_type="sql")
    seen = [inspect(statement.text, connection.dialect) for statement in statements]
    mode = _transaction(payload.transaction, seen, connection.dialect)
    bound = [bind(s.text, connection.dialect, payload.parameters) for s in statements]
    outcome = _Outcome([])
    with open_session(connection, payload.timeout_seconds) as session:
        writes = any(i.effect != "read" for i in seen)
        if mode == "single":
            session.begin(writes=writes)
        try:
            for index, (statement, (sql, values)) in enumerate(zip(statements, bound, strict=True), 1):
                ctx.checkpoint()
                if mode == "per_statement":
                    session.begin(writes=seen[index - 1].effect != "read")
                _run(session, index, statement, sql, values, payload, ctx, outcome)
                if mode == "per_statement":
                    session.commit()
                ctx.progress(100.0 * index / len(statements), f"statement {index} of {len(statements)}")
            result = _result(payload, session, mode, outcome)
            _expect(payload, outcome, result)
            if mode == "single":
                _commit(session)
        except BaseException:
            if mode != "none":
                session.rollback()
            raise
    return result


def _run(
    session: Session,
    index: int,
    statement: Statement,
    sql: str,
    values: dict[str, Any] | None,
    payload: SqlScriptPayload,
    ctx: RunContext,
    outcome: _Outcome,
) -> None:
    """Run one statement to its last row, counting; errors say which statement, and what the server said."""
    started = time.monotonic()
    with session.watch(ctx.is_cancelled) as stopped_by:
        try:
            rows = _consume(session, sql, values, max(payload.fetch, _SHOWN_ROWS), outcome)
            error = None
        except session.errors as caught:
            rows, error = 0, caught
    why = stopped_by() or ("timeout" if error is not None and session.timed_out(error) else None)
    where = f"statement {index} (line {statement.line})"
    if why == "cancelled":
        raise Cancelled(f"{where} was stopped on the server")
    if why == "timeout":
        limit = f"{payload.timeout_seconds:g} s"
        raise TimedOut(f"{where} ran longer than {limit} and was stopped on the server: {_short(statement.text)}")
    if error is not None:
        raise StepFailed(
            f"{where} failed: {said(error)}\n  {_short(statement.text)}",
            error_type="sql",
            output={"statements": outcome.statements, "failedStatement": index},
        ) from error
    outcome.total_rows += rows
    outcome.statements.append(
        {"index": index, "rows": rows, "durationMs": round((time.monotonic() - started) * 1000, 1)}
    )


def _consume(session: Session, sql: str, values: dict[str, Any] | None, keep: int, outcome: _Outcome) -> int:
    """Read every result set of the statement; memory holds ``keep`` rows. The rows returned, or else changed."""
    columns, rows, cursor = session.run(sql, values)
    returned = changed = 0
    while True:
        if columns is None:
            changed += max(0, cursor.rowcount)
            outcome.last_count = changed
        else:
            kept = list(islice(rows, keep))
            count = len(kept) + sum(1 for _ in rows)
            returned += count
            outcome.result_sets += 1
            outcome.value = kept[0][0] if kept and kept[0] else None
            outcome.rows = [dict(zip(columns, map(plain, row), strict=True)) for row in kept]
            outcome.last_count = count
        if not session.more(cursor):
            cursor.close()
            return returned or changed
        columns, rows = session.next(cursor)
