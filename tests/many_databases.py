"""Several empty databases at once for one test, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from blocks.connections import Connection
from tests.databases import DIALECTS, empty_database, run

__all__ = ["ENGINES", "Make", "making", "query", "run"]

ENGINES = DIALECTS

Make = Callable[[str, str], Connection]
"""Engine and connection name → a connection to an empty database."""


def query(connection: Connection, sql: str) -> list[tuple[object, ...]]:
    with connection.connect() as opened:
        return [tuple(row) for row in opened.exec_driver_sql(sql)]


@contextmanager
def making(folder: Path) -> Iterator[Make]:
    """Gives the function that makes databases."""
    with ExitStack() as stack:
        yield lambda engine, name: stack.enter_context(empty_database(engine, folder, name))
