"""A database as one SQL script that restores it, streamed: DDL in an order that works, rows, and then the rest.

The script is for the engine's own client (``psql -f``, ``mariadb <``, ``sqlite3 <``) and for ``restore``. Statements
are parted by a comment line that was drawn for this file, so that ``restore`` need not read SQL.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import sqlalchemy as sa

from .dump_mysql import dump_mysql
from .dump_parts import Choice
from .dump_postgresql import dump_postgresql
from .dump_sqlite import dump_sqlite
from .model import Structure
from .written_file import WrittenFile

__all__ = ["MARK", "dump"]

MARK = "-- taskcenter backup, statements parted by "
_ENGINES = {"postgresql": dump_postgresql, "mysql": dump_mysql, "sqlite": dump_sqlite}


def dump(
    connection: sa.Connection,
    structure: Structure,
    choice: Choice,
    file: WrittenFile,
    *,
    include_data: bool,
    on_rows: Callable[[int], None],
) -> dict[str, int]:
    """Write the script; gives the rows per table. ``on_rows`` is called with each some thousand new rows, 0 between.

    ``connection`` stands in a consistent snapshot. Raises StepFailed (``error_type="unsupported"``) before anything is
    written when something cannot be carried over.
    """
    mark = f"--{secrets.token_hex(6)}\n".encode()
    counts = {table.label: 0 for table in choice.tables} if include_data else {}
    head = f"{MARK}{mark.decode()}-- {structure.dialect} {structure.version}\n".encode()
    for part in _ENGINES[structure.dialect](connection, structure, choice, include_data):
        file.write(head + part.data if head else part.data)
        head = b""
        if part.ends:
            file.write(mark)
        if part.rows:
            counts[part.table] += part.rows
        on_rows(part.rows)
    return counts
