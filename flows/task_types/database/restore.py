"""Runs a script that ``dump`` wrote against an empty database: what a backup is verified with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from blocks.connections import Connection
from taskcenter.errors import StepFailed

from ..sql_session import said
from ..sql_split import split
from .dump import MARK
from .written_file import Compression, reading

__all__ = ["restore"]


def restore(
    path: Path, connection: Connection, compression: Compression, checkpoint: Callable[[], None] = lambda: None
) -> None:
    """Run every statement of the file. Raises StepFailed (``error_type="restore"``) with what the server said."""
    with reading(path, compression) as file, connection.engine() as engine:
        first = file.readline().decode("utf-8", "replace")
        if not first.startswith(MARK):
            raise StepFailed(f"{path.name} is not a script that a backup wrote", error_type="restore")
        mark = first.removeprefix(MARK).encode()
        with closing(engine.raw_connection()) as raw:
            driver: Any = raw.driver_connection
            _autocommit(driver, connection.dialect)
            for statement in _statements(file, mark):
                checkpoint()
                try:
                    _run(driver, statement, file, connection.dialect)
                except engine.dialect.loaded_dbapi.Error as error:
                    shown = " ".join(statement[:300].decode("utf-8", "replace").split())
                    raise StepFailed(f"restoring failed: {said(error)}\n  {shown}", error_type="restore") from error


def _autocommit(driver: Any, dialect: str) -> None:
    if dialect == "postgresql":
        driver.autocommit = True
    elif dialect == "mysql":
        driver.autocommit(True)


def _statements(file: IO[bytes], mark: bytes) -> Iterator[bytes]:
    """What stands between the marks; of a COPY only its first line, its data are still to be read from ``file``."""
    held: list[bytes] = []
    for line in iter(file.readline, b""):
        if line == mark:
            if b"".join(held).strip():
                yield b"".join(held)
            held = []
        elif not held and line.startswith(b"COPY ") and line.endswith(b" FROM stdin;\n"):
            yield line
        else:
            held.append(line)
    if b"".join(held).strip():
        raise StepFailed("the script ends in the middle of a statement", error_type="restore")


def _run(driver: Any, statement: bytes, file: IO[bytes], dialect: str) -> None:
    with closing(driver.cursor()) as cursor:
        if statement.startswith(b"COPY "):
            with cursor.copy(statement.rstrip(b";\n")) as copy:
                for line in iter(file.readline, b"\\.\n"):
                    if not line:
                        raise StepFailed("the script ends in the middle of a table", error_type="restore")
                    copy.write(line)
            return
        text = statement.decode("utf-8", "surrogateescape")
        if statement.startswith(b"INSERT "):
            cursor.execute(text.rstrip().removesuffix(";"))
            return
        for piece in split(text, dialect):
            cursor.execute(piece.text)
