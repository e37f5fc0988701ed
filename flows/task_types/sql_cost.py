"""What the server expects a statement to cost: ``EXPLAIN`` in a read-only transaction, nothing is executed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from blocks.connections import Connection

from .sql_inspect import Inspection, bind
from .sql_session import Session, open_session

__all__ = ["costs"]

_SECONDS = 2.0
"""For each statement; a plan must not keep anybody waiting."""
_EXPLAINED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES", "MERGE", "REPLACE", "TABLE"})
_ASK = {"postgresql": "EXPLAIN (FORMAT JSON) ", "mysql": "EXPLAIN FORMAT=JSON "}
_MOST = 50


def costs(
    connection: Connection, texts: Sequence[str], seen: Sequence[Inspection], values: dict[str, Any]
) -> list[dict[str, float] | None]:
    """``{cost, rows?}`` for each statement, None where the server has none: SQLite, DDL, a table made further up.

    The cost is in the server's own unit. Raises ConnectionUnavailable.
    """
    found: list[dict[str, float] | None] = [None] * len(texts)
    if connection.dialect not in _ASK:
        return found
    with open_session(connection, _SECONDS) as session:
        for index, (text, inspection) in enumerate(zip(texts[:_MOST], seen, strict=False)):
            if inspection.verb in _EXPLAINED:
                found[index] = _ask(session, text, values)
    return found


def _ask(session: Session, text: str, values: dict[str, Any]) -> dict[str, float] | None:
    """The answer, or None when the server refuses the statement: the run itself will tell why."""
    dialect = session.connection.dialect
    try:
        sql, bound = bind(_ASK[dialect] + text, dialect, values)
        session.plain("BEGIN READ ONLY" if dialect == "postgresql" else "START TRANSACTION READ ONLY")
        with session.watch(None), closing(session.driver.cursor()) as cursor:
            cursor.execute(sql) if bound is None else cursor.execute(sql, bound)
            answer = cursor.fetchone()[0]
    except Exception:  # a missing table, parameter or right; a time-out
        return None
    finally:
        session.rollback()
    return _read(json.loads(answer) if isinstance(answer, str) else answer)


def _read(answer: Any) -> dict[str, float] | None:
    if isinstance(answer, list) and answer:
        plan = answer[0].get("Plan", {})
        if "Total Cost" in plan:
            return {"cost": float(plan["Total Cost"]), "rows": float(plan["Plan Rows"])}
    if isinstance(answer, dict):
        block = answer.get("query_block", {})
        cost = block.get("cost", block.get("cost_info", {}).get("query_cost"))
        return {"cost": float(cost)} if cost is not None else None
    return None
