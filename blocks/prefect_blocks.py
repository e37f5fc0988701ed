"""Connections as Prefect blocks, so that they stand on Prefect's Blocks page and serve any Prefect flow."""

from __future__ import annotations

from typing import Any, Literal, cast

import httpx
from prefect.blocks.core import Block
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import Field, SecretStr

from taskcenter.errors import ConnectionUnavailable

from .connections import BLOCK_TYPE, Connection, block_name, find_local, missing

__all__ = ["DatabaseConnection", "afind_block", "aresolve", "find_block", "from_connection"]


class DatabaseConnection(Block):
    """A database that Task Center's jobs may use: PostgreSQL, MySQL or MariaDB, SQLite."""

    _block_type_name = "Task Center database"
    _block_type_slug = BLOCK_TYPE
    _description = "A database connection for Task Center's task types; the password is kept as a secret."

    dialect: Literal["postgresql", "mysql", "sqlite"] = Field(description="mysql is for MariaDB too.")
    host: str | None = Field(default=None, description="Server name or address; empty for SQLite.")
    port: int | None = Field(default=None, ge=1, le=65_535, description="Empty: the usual port.")
    database: str | None = Field(default=None, description="Name of the database; for SQLite the file's path.")
    user: str | None = Field(default=None)
    password: SecretStr | None = Field(default=None)
    options: dict[str, Any] = Field(default_factory=dict, description="Driver options, such as sslmode.")

    def to_connection(self, name: str) -> Connection:
        """The plain connection, under the name that jobs call it by."""
        return Connection(
            name=name,
            dialect=self.dialect,
            host=self.host or None,
            port=self.port,
            database=self.database or None,
            user=self.user or None,
            password=self.password.get_secret_value() if self.password else None,
            options=dict(self.options),
        )


def from_connection(connection: Connection) -> DatabaseConnection:
    """The block of a plain connection, ready for ``.save(name)``. ValidationError for another dialect."""
    return DatabaseConnection.model_validate(
        {
            "dialect": connection.dialect,
            "host": connection.host,
            "port": connection.port,
            "database": connection.database,
            "user": connection.user,
            "password": SecretStr(connection.password) if connection.password else None,
            "options": dict(connection.options),
        }
    )


def find_block(name: str) -> Connection | None:
    """The connection saved as the block ``name`` (lower-case, dashes); None when there is none.

    For synchronous code, also below a running event loop. Raises ConnectionUnavailable when the Prefect
    server does not answer.
    """
    try:
        # _sync: without it Prefect hands back a coroutine wherever an event loop happens to run.
        block: Any = DatabaseConnection.load(name, _sync=True)  # type: ignore[call-arg]
    except ValueError as error:
        _check_absent(name, error)
        return None
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        raise _away(name, error) from error
    return cast(DatabaseConnection, block).to_connection(name)


async def afind_block(name: str) -> Connection | None:
    """As :func:`find_block`, for asynchronous code."""
    try:
        block: Any = await DatabaseConnection.aload(name)
    except ValueError as error:
        _check_absent(name, error)
        return None
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        raise _away(name, error) from error
    return cast(DatabaseConnection, block).to_connection(name)


async def aresolve(name: str) -> Connection:
    """As ``connections.resolve`` with blocks, for asynchronous code."""
    found = find_local(name) or await afind_block(block_name(name))
    if found is None:
        raise missing(name, blocks=True)
    return found


def _check_absent(name: str, error: ValueError) -> None:
    """Nothing when the block is not there; an error when it is and does not validate: Prefect says both alike."""
    if "Unable to find block document" in str(error):
        return
    raise ConnectionUnavailable(
        f"the Prefect block {BLOCK_TYPE}/{name} cannot be read as a connection; open it on the Blocks page and save "
        f"it again ({type(error).__name__})",
        name=name,
    ) from error


def _away(name: str, error: Exception) -> ConnectionUnavailable:
    return ConnectionUnavailable(
        f"the connection {name!r} could not be looked up: the Prefect server does not answer ({type(error).__name__})",
        name=name,
    )
