"""Writing rows into a file: CSV, JSON lines, SQL inserts, Parquet. Under a temporary name until it is whole."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, Protocol

from ..database.literals import text_literal
from ..database.model import ColumnType, TypeKind
from ..database.quoting import column_list, quote
from . import lines
from .load import Counter
from .parquet import write_parquet
from .pg_copy import copy_out
from .side import Guard, Side
from .sources import Reading, chunks
from .texts import Field, select_list

__all__ = ["FileKind", "literal_of", "write_file"]

FileKind = Literal["csv", "jsonl", "sql", "parquet"]
_NUMBERS = (TypeKind.INTEGER, TypeKind.DECIMAL, TypeKind.FLOAT)
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_INSERT_ROWS = 200


class _Format(Protocol):
    """Makes file bytes of a batch of rows."""

    def begin(self) -> bytes: ...
    def rows(self, rows: Iterator[list[str | None]]) -> bytes: ...
    def end(self) -> bytes: ...


def write_file(
    kind: FileKind, path: Path, reading: Reading, source: Side, fields: Sequence[Field], guard: Guard, counter: Counter,
    *, table: str, dialect: str, key: Sequence[str] = (), hashed: bool = False,
) -> tuple[int, str | None]:  # fmt: skip
    """Write the rows to ``path``: its size in bytes and, if ``hashed``, its SHA-256. A failure leaves what was there.

    ``table`` and ``dialect`` are for SQL: the (quoted) table that the statements name, and whose language they speak;
    with ``key`` they are upserts.
    """
    with _under_temporary_name(path, hashed) as made:
        if kind == "csv" and source.dialect == "postgresql":
            _postgresql_csv(made, reading, source, fields, guard, counter)
        elif kind == "parquet":
            write_parquet(made.path, chunks(source, reading, fields, kind), fields, guard, counter)
            made.adopt()
        else:
            form = _form(kind, fields, table, dialect, key)
            sink = f"sql:{dialect}" if kind == "sql" else kind
            made.write(form.begin())
            for data, count in chunks(source, reading, fields, sink):
                guard.check()
                made.write(form.rows(lines.rows(data)))
                counter.add(count, len(data))
            made.write(form.end())
    return made.size, made.digest()


def _form(kind: FileKind, fields: Sequence[Field], table: str, dialect: str, key: Sequence[str]) -> _Format:
    if kind == "sql":
        return _Sql(fields, table, dialect, key)
    return _Csv(fields) if kind == "csv" else _JsonLines(fields)


class _File:
    """A file that is being written, with its hash when one is wanted."""

    def __init__(self, path: Path, hashed: bool) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256() if hashed else None
        self.file: IO[bytes] = path.open("xb", buffering=0)

    def write(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) or 0 :]
        if self._hash is not None:
            self._hash.update(data)
        self.size += len(data)

    def adopt(self) -> None:
        """Take over what somebody else wrote under the same name."""
        if self._hash is not None:
            with self.path.open("rb") as file:
                self._hash = hashlib.file_digest(file, "sha256")
        self.size = self.path.stat().st_size

    def digest(self) -> str | None:
        return self._hash.hexdigest() if self._hash is not None else None


@contextmanager
def _under_temporary_name(path: Path, hashed: bool) -> Iterator[_File]:
    """Written beside, forced to the disk, then renamed: the name never stands for half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = _File(path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part"), hashed)
    try:
        yield made
        os.fsync(made.file.fileno())
        made.file.close()
        made.path.replace(path)
    except BaseException:
        made.file.close()
        made.path.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _postgresql_csv(
    made: _File, reading: Reading, source: Side, fields: Sequence[Field], guard: Guard, counter: Counter
) -> None:
    """The server writes the CSV itself."""
    sql = reading.sql(select_list(fields, "postgresql", "csv"), "postgresql")
    made.write(_csv_line([f.target.name for f in fields]))
    for data in copy_out(source.driver, f"COPY ({sql}) TO STDOUT (FORMAT csv)", counter):
        guard.check()
        made.write(data)


_CSV_SPECIAL = re.compile(r'[",\r\n]')


def _csv_value(text: str | None) -> str:
    if text is None:
        return ""
    if text == "" or text == "\\." or _CSV_SPECIAL.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _csv_line(values: Sequence[str | None]) -> bytes:
    return (",".join(map(_csv_value, values)) + "\n").encode("utf-8", "surrogateescape")


class _Csv:
    """As PostgreSQL writes it: NULL is nothing, an empty text is ``""``; booleans are true and false."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._names = [f.target.name for f in fields]
        self._booleans = [i for i, f in enumerate(fields) if f.source.type.kind is TypeKind.BOOLEAN]
        self._instants = [i for i, f in enumerate(fields) if f.source.type.kind is TypeKind.TIMESTAMP_TZ]

    def begin(self) -> bytes:
        return _csv_line(self._names)

    def rows(self, rows: Iterator[list[str | None]]) -> bytes:
        made: list[str] = []
        for row in rows:
            for index in self._booleans:
                row[index] = _BOOLEANS.get(row[index], row[index])
            for index in self._instants:
                text = row[index]
                row[index] = text if text is None or text[-1:].isalpha() else f"{text}+00"
            made.append(",".join(map(_csv_value, row)))
        made.append("")
        return "\n".join(made).encode("utf-8", "surrogateescape")

    def end(self) -> bytes:
        return b""


_BOOLEANS: dict[str | None, str | None] = {"1": "true", "0": "false", "t": "true", "f": "false"}


class _JsonLines:
    """One object a line: numbers with all their digits, JSON columns as they are, bytes in base64."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._names = [json.dumps(f.target.name, ensure_ascii=False) + ":" for f in fields]
        self._values = [_json_of(f.source.type) for f in fields]

    def begin(self) -> bytes:
        return b""

    def rows(self, rows: Iterator[list[str | None]]) -> bytes:
        made = []
        for row in rows:
            parts = [
                name + ("null" if text is None else value(text))
                for name, value, text in zip(self._names, self._values, row, strict=True)
            ]
            made.append("{" + ",".join(parts) + "}\n")
        return "".join(made).encode("utf-8", "surrogateescape")

    def end(self) -> bytes:
        return b""


def _json_of(kind: ColumnType) -> Callable[[str], str]:
    match kind.kind:
        case k if k in _NUMBERS:
            return lambda text: text if _JSON_NUMBER.fullmatch(text) else _quoted(text)
        case TypeKind.BOOLEAN:
            return lambda text: _BOOLEANS.get(text) or _quoted(text)
        case TypeKind.JSON | TypeKind.ARRAY:
            return _json_text
        case TypeKind.BYTES:
            return lambda text: _quoted(base64.b64encode(bytes.fromhex(text)).decode("ascii"))
        case TypeKind.TIMESTAMP_TZ:
            return lambda text: _quoted(text if text[-1:].isalpha() else f"{text}+00:00")
    return _quoted


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json_text(text: str) -> str:
    """The value as it stands, on one line; a text that is no JSON (SQLite holds any) as a string."""
    try:
        json.loads(text)
    except ValueError:
        return _quoted(text)
    return text.replace("\n", " ").replace("\r", " ")  # inside of strings these two are always escaped


class _Sql:
    """INSERT statements of up to 200 rows; with a key they update the rows that are there."""

    def __init__(self, fields: Sequence[Field], table: str, dialect: str, key: Sequence[str]) -> None:
        self._dialect = dialect
        self._values = [literal_of(f.source.type, dialect) for f in fields]
        names = [f.target.name for f in fields]
        self._head = f"INSERT INTO {table} ({column_list(names, dialect)}) VALUES\n"
        self._tail = _on_conflict(names, key, dialect)
        self._held: list[str] = []

    def begin(self) -> bytes:
        return (
            b"SET NAMES utf8mb4;\nSET time_zone = '+00:00';\n"
            if self._dialect == "mysql"
            else (b"SET TIME ZONE 'UTC';\n" if self._dialect == "postgresql" else b"")
        )

    def rows(self, rows: Iterator[list[str | None]]) -> bytes:
        made = []
        for row in rows:
            values = ["NULL" if t is None else write(t) for write, t in zip(self._values, row, strict=True)]
            self._held.append(f"({', '.join(values)})")
            if len(self._held) >= _INSERT_ROWS:
                made.append(self._statement())
        return "".join(made).encode("utf-8", "surrogateescape")

    def _statement(self) -> str:
        text = self._head + ",\n".join(self._held) + self._tail + ";\n"
        self._held.clear()
        return text

    def end(self) -> bytes:
        return self._statement().encode("utf-8", "surrogateescape") if self._held else b""


def literal_of(kind: ColumnType, dialect: str) -> Callable[[str], str]:
    """What writes a neutral text of this kind as SQL."""
    if kind.kind in _NUMBERS:
        return lambda text: text if _JSON_NUMBER.fullmatch(text) else text_literal(text, dialect)
    if kind.kind is TypeKind.BOOLEAN:
        words = {"1": "TRUE", "0": "FALSE"} if dialect == "postgresql" else {}
        return lambda text: words.get(text, text if text in ("0", "1") else text_literal(text, dialect))
    if kind.kind is TypeKind.BYTES:
        return (lambda text: f"'\\x{text}'") if dialect == "postgresql" else (lambda text: f"x'{text}'")
    if kind.kind is TypeKind.BITS and dialect == "mysql":
        return lambda text: f"b'{text}'"
    if kind.kind is TypeKind.TIMESTAMP_TZ and dialect in ("postgresql", "sqlite"):
        return lambda text: f"'{text}'" if text[-1:].isalpha() else f"'{text}+00:00'"
    return lambda text: text_literal(text, dialect)


def _on_conflict(names: Sequence[str], key: Sequence[str], dialect: str) -> str:
    if not key:
        return ""
    others = [quote(n, dialect) for n in names if n not in key]
    if dialect == "mysql":
        changes = [f"{c} = VALUES({c})" for c in others] or [f"{quote(key[0], dialect)} = {quote(key[0], dialect)}"]
        return "\nON DUPLICATE KEY UPDATE " + ", ".join(changes)
    then = "UPDATE SET " + ", ".join(f"{c} = excluded.{c}" for c in others) if others else "NOTHING"
    return f"\nON CONFLICT ({column_list(list(key), dialect)}) DO {then}"
