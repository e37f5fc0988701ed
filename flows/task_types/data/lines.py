"""Rows on their way between engines: one line each, in the text form of PostgreSQL's COPY.

Fields end with a tab, rows with a line feed; ``\\N`` is NULL; backslash, tab, line feed and carriage return in a value
are escaped. MySQL's LOAD DATA reads the same form. The text of a field is neutral: see ``flows.task_types.data.texts``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = [
    "NULL",
    "Chunk",
    "escape",
    "escape_as_copy",
    "escape_bytes",
    "fields",
    "for_mysql",
    "is_number",
    "rows",
    "unescape",
]

Chunk = tuple[bytes | bytearray, int]
"""Whole rows and how many."""

NULL = "\\N"
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_PLAIN = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0", "Z": "\x1a"}
_NAMES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
_COPIED = re.compile(r"[\\\t\n\r\x08\x0c\x0b]")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED_BYTES = re.compile(rb"\\(.)", re.DOTALL)
_COPIED_BYTES = re.compile(rb"[\\\t\n\r\x08\x0c\x0b]")
_NAMES_BYTES = {name.encode(): letters.encode() for name, letters in _NAMES.items()}


def escape(text: str) -> str:
    """The field of a text value."""
    return text.translate(_ESCAPES)


def unescape(field: str) -> str | None:
    """The text of a field; None for NULL."""
    if "\\" not in field:
        return field
    if field == NULL:
        return None
    return _ESCAPED.sub(lambda match: _PLAIN.get(match[1], match[1]), field)


def escape_as_copy(text: str) -> str:
    """The field exactly as PostgreSQL's COPY writes it."""
    return _COPIED.sub(lambda match: _NAMES[match[0]], text) if _COPIED.search(text) else text


def escape_bytes(text: bytes) -> bytes:
    """``escape_as_copy`` for a text in UTF-8."""
    return _COPIED_BYTES.sub(lambda match: _NAMES_BYTES[match[0]], text)


def is_number(text: str) -> bool:
    """Whether it may stand in SQL as it is."""
    return _NUMBER.fullmatch(text) is not None


def fields(line: str) -> list[str | None]:
    """The texts of one row."""
    if "\\" not in line:
        return line.split("\t")  # type: ignore[return-value]  # a list of str is one of str | None that nobody widens
    return [unescape(field) for field in line.split("\t")]


def rows(chunk: bytes | bytearray) -> Iterator[list[str | None]]:
    """The rows of a chunk of whole lines. Bytes that are no UTF-8 (SQLite holds any) come as surrogates."""
    for line in chunk.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        yield fields(line)


def for_mysql(chunk: bytes | bytearray) -> bytes | bytearray:
    """``\\f`` and ``\\v``, which PostgreSQL writes and MySQL would read as letters, as the characters themselves."""
    if b"\\f" not in chunk and b"\\v" not in chunk:
        return chunk
    plain = {b"f": b"\f", b"v": b"\v"}
    return _ESCAPED_BYTES.sub(lambda match: plain.get(match[1], match[0]), chunk)
