"""What a database holds, read from its own catalogue: one entry for the three engines."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from taskcenter.errors import StepFailed

from .model import Structure
from .reflect_mysql import reflect_mysql
from .reflect_postgresql import reflect_postgresql
from .reflect_sqlite import reflect_sqlite

__all__ = ["reflect"]

_ENGINES = {
    "postgresql": reflect_postgresql,
    "mysql": reflect_mysql,
    "mariadb": reflect_mysql,
    "sqlite": reflect_sqlite,
}


def reflect(connection: sa.Connection, *, tables: Iterable[str] | None = None) -> Structure:
    """The structure of the connection's database; system schemas are left out.

    ``tables`` (``name`` or ``schema.name``, without case) limits the answer to these tables and reads nothing but
    tables: enough for a copy of rows, and quick on a database of thousands. Reads through the connection's own
    transaction, so inside ``snapshot.consistent`` it is of that instant where the engine's catalogue is.
    Raises StepFailed (``error_type="unsupported"``) for another engine.
    """
    read = _ENGINES.get(connection.dialect.name)
    if read is None:
        raise StepFailed(
            f"the structure of a {connection.dialect.name} database cannot be read: "
            "this works on PostgreSQL, MySQL/MariaDB and SQLite",
            error_type="unsupported",
        )
    return read(connection, None if tables is None else tuple(tables))
