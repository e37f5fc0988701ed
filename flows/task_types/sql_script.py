"""``sql_script``: statements against a saved connection, bound parameters, time-out, expectations. (spec 2.1)"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from pydantic import Field, field_validator

from blocks.connections import known_dialect
from taskcenter.context import Cancelled, PlanNote, RunContext
from taskcenter.errors import StepFailed, TimedOut
from taskcenter.task_types import task_type

from .payload import Payload, Seconds, Text, Whole, also
from .sql_expect import parse
from .sql_inspect import Inspection, bind, inspect, parameter_names
from .sql_session import Session, open_session, said
from .sql_split import Statement, split
from .values import plain

__all__ = ["SqlScriptPayload", "sql_script"]

Transaction = Literal["single", "per_statement", "none"]
_SAVEPOINT = re.compile(r"(?is)(?:savepoint|release|rollback\b.*\bto)\b")
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
    expect: tuple[str, ...] = Field((), description='Such as "rows == 0" or "value > 100", or a list of them.')

    @field_validator("expect", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        many = value if isinstance(value, list | tuple) else [] if value is None else [value]
        for item in many:
            parse(item)
        return tuple(many)


@dataclass(frozen=True, slots=True)
class _Step:
    """One statement, what it is, and how the driver takes it."""

    index: int
    statement: Statement
    seen: Inspection
    sql: str
    values: dict[str, Any] | None


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
    """Kinds, tables and dangers, from the text alone; the dialect is the connection's when it can be resolved.

    Where the run can reach the connection, PostgreSQL and MySQL also say what they expect each statement to cost.
    """
    dialect = _dialect(payload.connection, ctx)
    statements = split(payload.sql, dialect)
    seen = [inspect(statement.text, dialect) for statement in statements]
    counts = {effect: sum(1 for i in seen if i.effect == effect) for effect in ("read", "write", "ddl")}
    said_counts = ", ".join(f"{count} {effect}" for effect, count in counts.items() if count) or "nothing but settings"
    missing = {name for s in statements for name in parameter_names(s.text, dialect)} - set(payload.parameters)
    danger = [f"statement {n}: {sentence}" for n, i in enumerate(seen, 1) for sentence in i.danger]
    danger += [f"parameter :{name} has no value" for name in sorted(missing)]
    plural = "" if len(statements) == 1 else "s"
    expected = _costs(payload, statements, seen, ctx)
    return PlanNote(
        f"{len(statements)} statement{plural} on {payload.connection}: {said_counts}",
        details={
            "statements": [
                {"line": s.line, "verb": i.verb, "effect": i.effect, "tables": list(i.tables), **(cost or {})}
                for s, i, cost in zip(statements, seen, expected, strict=True)
            ],
            "tables": sorted({table for i in seen for table in i.tables}),
            "timeoutSeconds": payload.timeout_seconds,
        },
        danger=tuple(danger),
        connections=(payload.connection,),
    )


def _costs(
    payload: SqlScriptPayload, statements: Sequence[Statement], seen: Sequence[Inspection], ctx: RunContext
) -> Sequence[dict[str, float] | None]:
    """What the server expects, or nothing at all: a preview never fails because a server is away."""
    from .sql_cost import costs

    try:
        connection = ctx.connection(payload.connection)
        return costs(connection, [s.text for s in statements], seen, payload.parameters)
    except Exception:  # whatever a resolver or a driver may raise
        return [None] * len(statements)


def _dialect(name: str, ctx: RunContext) -> str:
    """The dialect to read the text with: known offline, else what ``ctx`` resolves, else PostgreSQL's."""
    known = known_dialect(name)
    if known is not None:
        return known
    try:
        return str(getattr(ctx.connection(name), "dialect", "postgresql"))
    except Exception:  # whatever a resolver may raise: the preview is then read as PostgreSQL
        return "postgresql"


@task_type("sql_script", title="SQL script", category="database", icon="database", tags=["sql"], plan=plan)
def sql_script(payload: SqlScriptPayload, ctx: RunContext) -> dict[str, Any]:
    """Run SQL statements in order, stop at the first that fails.

    Gives ``{executor, dbType, resultSets, totalRows, sqlLength, timeoutSeconds, transaction, statements, rows?}``;
    ``statements`` holds ``{index, rows, durationMs}`` each: index from 1, rows returned or else changed.
    Expectations are checked before the commit of a ``single`` transaction, so that a failed one leaves no trace.
    Raises ConnectionUnavailable, TimedOut, Cancelled, and StepFailed of the type ``sql`` or ``expect``.
    """
    connection = ctx.connection(payload.connection)
    statements = split(payload.sql, connection.dialect)
    if not statements:
        raise StepFailed("the script holds no statement, only comments", error_type="sql")
    steps = [_step(n, s, connection.dialect, payload.parameters) for n, s in enumerate(statements, 1)]
    mode = _transaction(payload.transaction, steps, connection.dialect)
    outcome = _Outcome([])
    with open_session(connection, payload.timeout_seconds) as session:
        try:
            if mode == "single":
                _begin(session, outcome, writes=any(s.seen.effect != "read" for s in steps))
            for step in steps:
                ctx.checkpoint()
                if mode == "per_statement":
                    _begin(session, outcome, writes=step.seen.effect != "read")
                _run(session, step, payload, ctx, outcome)
                if mode == "per_statement":
                    _commit(session, outcome)
                done, total = step.index, len(steps)
                ctx.progress(100.0 * done / total, f"statement {done} of {total}", done=done, total=total)
            result = _result(payload, session, mode, outcome)
            _expect(payload, outcome, result)
            if mode == "single":
                _commit(session, outcome)
        except BaseException:
            if mode != "none":
                session.rollback()
            raise
    return result


def _step(index: int, statement: Statement, dialect: str, values: dict[str, Any]) -> _Step:
    seen = inspect(statement.text, dialect)
    if seen.from_stdin:
        raise StepFailed(
            f"COPY ... FROM STDIN in line {statement.line} needs data that a script cannot carry; use a data transfer",
            error_type="sql",
        )
    return _Step(index, statement, seen, *bind(statement.text, dialect, values))


def _run(session: Session, step: _Step, payload: SqlScriptPayload, ctx: RunContext, outcome: _Outcome) -> None:
    """Run one statement to its last row, counting; errors say which statement, and what the server said."""
    started = time.monotonic()
    error: Exception | None = None
    rows = 0
    with session.watch(ctx.is_cancelled) as stopped_by:
        try:
            rows = _consume(session, step, max(payload.fetch, _SHOWN_ROWS), outcome)
        except session.errors as caught:
            error = caught
    took = time.monotonic() - started
    # MariaDB ends some functions (BENCHMARK) at the limit with a wrong answer instead of an error: the clock decides.
    late = error is None and 0 < payload.timeout_seconds <= took
    timed_out = late or (error is not None and session.timed_out(error))
    why = stopped_by() or ("timeout" if timed_out else None)
    where = f"statement {step.index} (line {step.statement.line})"
    shown = _short(step.statement.text)
    if why == "cancelled":
        raise Cancelled(f"{where} was stopped on the server")
    if why == "timeout":
        raise TimedOut(f"{where} ran longer than {payload.timeout_seconds:g} s and was stopped on the server: {shown}")
    if error is not None:
        raise _failed(f"{where} failed", error, outcome, shown) from error
    outcome.total_rows += rows
    outcome.statements.append({"index": step.index, "rows": rows, "durationMs": round(took * 1000, 1)})


def _consume(session: Session, step: _Step, keep: int, outcome: _Outcome) -> int:
    """Read every result of the statement; memory holds ``keep`` rows. Rows returned, or else rows changed."""
    returned = changed = 0
    for result in session.results(step.sql, step.values, reads=step.seen.effect == "read"):
        changed += result.changed
        outcome.last_count = changed
        if result.columns is not None:
            kept = list(islice(result.rows, keep))
            outcome.last_count = len(kept) + sum(1 for _ in result.rows)
            outcome.value = kept[0][0] if kept and len(kept[0]) else None
            outcome.rows = [dict(zip(result.columns, map(plain, row), strict=True)) for row in kept]
            outcome.result_sets += 1
            returned += outcome.last_count
    return returned or changed


def _begin(session: Session, outcome: _Outcome, *, writes: bool) -> None:
    """Begin a transaction; SQLite says here that somebody else is writing."""
    try:
        session.begin(writes=writes)
    except session.errors as error:
        raise _failed("the transaction cannot begin", error, outcome, "BEGIN") from error


def _commit(session: Session, outcome: _Outcome) -> None:
    """Commit; deferred constraints and serialization failures speak up only here."""
    try:
        session.commit()
    except session.errors as error:
        raise _failed("the commit failed", error, outcome, "COMMIT") from error


def _failed(what: str, error: Exception, outcome: _Outcome, shown: str) -> StepFailed:
    return StepFailed(
        f"{what}: {said(error)}\n  {shown}", error_type="sql", output={"statements": list(outcome.statements)}
    )


def _short(text: str) -> str:
    flat = re.sub(r"\s+", " ", text)
    return flat if len(flat) <= 200 else flat[:199] + "…"


def _transaction(wanted: Transaction | None, steps: Sequence[_Step], dialect: str) -> Transaction:
    """How to wrap the statements; StepFailed when what was asked for cannot be."""
    own = next(
        (s for s in steps if s.seen.effect == "transaction" and s.seen.verb not in ("SAVEPOINT", "RELEASE")), None
    )
    if own is not None and own.seen.verb == "ROLLBACK" and re.match(r"(?is)rollback\s.*\bto\b", own.statement.text):
        own = None
    if own is not None and wanted in (None, "none"):
        _check_ended(steps)
    alone = next((s for s in steps if s.seen.alone), None)
    if wanted in ("single", "per_statement") and own is not None:
        raise StepFailed(
            f"{own.seen.verb} in line {own.statement.line}: the script steers its own transaction, so transaction must "
            f"be 'none' (or left out), not {wanted!r}",
            error_type="sql",
        )
    if alone is not None and (wanted == "single" or (wanted is None and own is None and len(steps) > 1)):
        raise StepFailed(
            f"{alone.seen.verb} in line {alone.statement.line} cannot run inside a transaction: set transaction to "
            "'none' or give it a step of its own",
            error_type="sql",
        )
    if (alone is not None and wanted == "per_statement") or (wanted is None and (own is not None or alone is not None)):
        return "none"
    if wanted is None and dialect == "mysql" and any(s.seen.effect == "ddl" for s in steps):
        return "per_statement"  # DDL commits by itself there: one transaction would be a false promise
    return wanted or "single"


def _check_ended(steps: Sequence[_Step]) -> None:
    """StepFailed for a script that begins a transaction and never ends it: its work would be lost in silence."""
    begun: _Step | None = None
    for step in steps:
        if step.seen.effect == "transaction" and not _SAVEPOINT.match(step.statement.text):
            begun = step if step.seen.verb in ("BEGIN", "START") else None
    if begun is not None:
        raise StepFailed(
            f"{begun.seen.verb} in line {begun.statement.line} begins a transaction that the script never ends; "
            "add COMMIT, or leave out the BEGIN",
            error_type="sql",
        )


def _result(payload: SqlScriptPayload, session: Session, mode: Transaction, outcome: _Outcome) -> dict[str, Any]:
    result: dict[str, Any] = {
        "executor": "sql",
        "dbType": session.connection.dialect,
        "resultSets": outcome.result_sets,
        "totalRows": outcome.total_rows,
        "sqlLength": len(payload.sql),
        "timeoutSeconds": payload.timeout_seconds,
        "transaction": mode,
        "statements": outcome.statements,
    }
    if payload.fetch:
        result["rows"] = (outcome.rows or [])[: payload.fetch]
    return result


def _expect(payload: SqlScriptPayload, outcome: _Outcome, result: dict[str, Any]) -> None:
    """Fail with the rows when an expectation does not hold."""
    for text in payload.expect:
        sentence = parse(text).broken(rows=outcome.last_count, value=outcome.value)
        if sentence:
            kept = (outcome.rows or [])[: max(payload.fetch, _SHOWN_ROWS)]
            raise StepFailed(
                f"expected {text}, but {sentence}", error_type="expect", output={**result, "rows": kept}, rows=kept
            )
