"""A scratch database beside the one that was backed up: made empty, dropped at the end."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from blocks.connections import Connection
from taskcenter.errors import StepFailed

from .catalog import rows
from .quoting import quote
from .trouble import explain

__all__ = ["scratch_database"]


@contextmanager
def scratch_database(connection: Connection, folder: Path) -> Iterator[Connection]:
    """An empty database on the same server (for SQLite a file in ``folder``), with the same encoding.

    Raises StepFailed (``error_type="verify"``) when the login may not make one.
    """
    name = f"taskcenter_verify_{secrets.token_hex(6)}"
    if connection.dialect == "sqlite":
        with tempfile.TemporaryDirectory(dir=folder, prefix="verify-") as place:
            path = Path(place) / f"{name}.db"
            path.touch()
            yield replace(connection, database=str(path), options={})
        return
    quoted = quote(name, connection.dialect)
    _command(connection, f"CREATE DATABASE {quoted}{_like(connection)}")
    try:
        yield replace(connection, database=name)
    finally:
        force = " WITH (FORCE)" if connection.dialect == "postgresql" else ""
        with suppress(StepFailed):
            _command(connection, f"DROP DATABASE {quoted}{force}")


def _like(connection: Connection) -> str:
    if connection.dialect != "postgresql":
        return ""
    with connection.connect() as opened:
        encoding, collate, ctype = rows(
            opened,
            "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database "
            "WHERE datname = current_database()",
        )[0]
    return f" TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE '{collate}' LC_CTYPE '{ctype}'"


def _command(connection: Connection, sql: str) -> None:
    with connection.engine() as engine, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as opened:
        driver: Any = opened.connection.driver_connection
        try:
            driver.cursor().execute(sql)
        except (engine.dialect.loaded_dbapi.Error, sa.exc.DBAPIError) as error:
            raise StepFailed(
                f"verify needs a scratch database: {explain(error, connection).message}; allow this login to make "
                "databases, or leave verify out",
                error_type="verify",
            ) from error
