"""Reading rows of a catalogue through the driver itself, where ``%`` in a query is only a percent sign."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa

__all__ = ["rows", "scalar"]


def rows(connection: sa.Connection, sql: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    """All rows; with ``values`` the driver's own placeholders are bound."""
    driver: Any = connection.connection.driver_connection
    with closing(driver.cursor()) as cursor:
        cursor.execute(sql) if values is None else cursor.execute(sql, values)
        return [tuple(row) for row in cursor.fetchall()]


def scalar(connection: sa.Connection, sql: str, values: Sequence[Any] | None = None) -> Any:
    found = rows(connection, sql, values)
    return found[0][0] if found else None
