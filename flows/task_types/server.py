"""Which database of a connection's server a payload means, and which engines its connections are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from blocks.connections import Connection, known_dialect
from taskcenter.errors import StepFailed

__all__ = ["engines_of", "point_at"]

_ENGINES = ("postgresql", "mysql", "sqlite")


def point_at(connection: Connection, database: str | None) -> Connection:
    """The connection, to the database called ``database`` on the same server (None: its own).

    Raises StepFailed (``error_type="unsupported"``) for another engine, and for another name on a SQLite file.
    """
    if connection.dialect not in _ENGINES:
        raise StepFailed(
            f"the connection {connection.name!r} is a {connection.dialect} database; this task type works on "
            "PostgreSQL, MySQL/MariaDB and SQLite",
            error_type="unsupported",
        )
    if connection.dialect == "mysql" and not (database or connection.database):
        raise StepFailed(
            f"the connection {connection.name!r} names no database, and neither does the payload: set database",
            error_type="unsupported",
        )
    if database is None:
        return connection
    if connection.dialect != "sqlite":
        return replace(connection, database=database)
    if database not in ("main", connection.database, Path(str(connection.database)).name):
        raise StepFailed(
            f"the connection {connection.name!r} is one SQLite file, {connection.database}: leave database out, or "
            f"save a connection for {database!r}",
            error_type="unsupported",
        )
    return connection


def engines_of(*names: str | None) -> dict[str, str | None]:
    """Every connection that a payload names, once and in order, with its engine where that is known offline."""
    return {name: known_dialect(name) for name in names if name}
