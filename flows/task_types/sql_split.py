"""SQL text into statements, for PostgreSQL, MySQL/MariaDB and SQLite. Pure text work: no driver, no server.

Two layers: ``tokens`` knows where strings, comments, quoted names and dollar quotes begin and end in each
dialect; ``split`` finds the ends of statements among the tokens, the way each server's own client does.
Neither ever fails: text that a server would refuse is handed on for the server to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Kind", "Statement", "Token", "split", "tokens"]


class Kind(StrEnum):
    """What a token is."""

    SPACE = "space"
    COMMENT = "comment"
    WORD = "word"  # a keyword or an unquoted name
    NAME = "name"  # a quoted name
    STRING = "string"  # a string literal, a dollar quote too
    NUMBER = "number"
    PARAMETER = "parameter"  # :name
    OTHER = "other"  # one punctuation mark or operator character; MySQL's /*! ... */


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text; the pieces in order are the text again."""

    kind: Kind
    text: str
    start: int

    @property
    def word(self) -> str:
        """The upper-cased word; empty for what is not a word."""
        return self.text.upper() if self.kind is Kind.WORD else ""

    @property
    def silent(self) -> bool:
        """Whether the server would not notice its absence."""
        return self.kind in (Kind.SPACE, Kind.COMMENT)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement without its delimiter. ``line`` counts from 1 and is that of the first word."""

    text: str
    line: int


_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(r"(?:\d[\w]*\.?\w*|\.\d\w*)")
_PARAMETER = re.compile(r":[^\W\d]\w*")
_DOLLAR = re.compile(r"\$(?:[^\W\d]\w*)?\$")
# A doubled quote stands for itself; a backslash escapes where the dialect says so. Possessive: never backtracks.
_SINGLE = re.compile(r"'(?:[^']++|'')*+'?")
_DOUBLE = re.compile(r'"(?:[^"]++|"")*+"?')
_BACKTICK = re.compile(r"`(?:[^`]++|``)*+`?")
_SINGLE_ESCAPED = re.compile(r"'(?:[^'\\]++|\\(?:.|\Z)|'')*+'?", re.DOTALL)
_DOUBLE_ESCAPED = re.compile(r'"(?:[^"\\]++|\\(?:.|\Z)|"")*+"?', re.DOTALL)
_DELIMITER = re.compile(r"DELIMITER[ \t]+(\S+)[^\n]*", re.IGNORECASE)


def tokens(sql: str, dialect: str = "postgresql") -> Iterator[Token]:
    """The pieces of ``sql``. What is opened and never closed reaches to the end of the text."""
    position = 0
    while position < len(sql):
        kind, end = _next(sql, position, dialect)
        yield Token(kind, sql[position:end], position)
        position = end


def _next(sql: str, at: int, dialect: str) -> tuple[Kind, int]:
    """The kind of the token that starts at ``at``, and where it ends."""
    char = sql[at]
    if char.isspace():
        return Kind.SPACE, _end(_SPACE, sql, at)
    if (end := _comment(sql, at, dialect)) is not None:
        hint = dialect == "mysql" and sql.startswith(("/*!", "/*M!"), at)
        return (Kind.OTHER if hint else Kind.COMMENT), end
    if char == "'":
        return Kind.STRING, _end((_SINGLE_ESCAPED if dialect == "mysql" else _SINGLE), sql, at)
    if char == '"':
        if dialect == "mysql":
            return Kind.STRING, _end(_DOUBLE_ESCAPED, sql, at)
        return Kind.NAME, _end(_DOUBLE, sql, at)
    if char == "`" and dialect != "postgresql":
        return Kind.NAME, _end(_BACKTICK, sql, at)
    if char == "[" and dialect == "sqlite":
        closed = sql.find("]", at)
        return Kind.NAME, len(sql) if closed < 0 else closed + 1
    if char == "$" and dialect == "postgresql" and (mark := _DOLLAR.match(sql, at)):
        closed = sql.find(mark[0], mark.end())
        return Kind.STRING, len(sql) if closed < 0 else closed + len(mark[0])
    if char in "eE" and dialect == "postgresql" and sql.startswith("'", at + 1):
        return Kind.STRING, _end(_SINGLE_ESCAPED, sql, at + 1)
    if word := _WORD.match(sql, at):
        return Kind.WORD, word.end()
    if number := _NUMBER.match(sql, at):
        return Kind.NUMBER, number.end()
    if char == ":":
        return _colon(sql, at)
    return Kind.OTHER, at + 1


def _end(pattern: re.Pattern[str], sql: str, at: int) -> int:
    match = pattern.match(sql, at)
    return at + 1 if match is None else match.end()


def _colon(sql: str, at: int) -> tuple[Kind, int]:
    """``:name`` is a parameter; ``::cast``, ``:=``, ``a[1:n]`` and ``12:30`` are not."""
    if sql.startswith("::", at):
        return Kind.OTHER, at + 2
    before = sql[at - 1] if at else " "
    match = _PARAMETER.match(sql, at)
    if match and not (before.isalnum() or before in "_:\\"):
        return Kind.PARAMETER, match.end()
    return Kind.OTHER, at + 1


def _comment(sql: str, at: int, dialect: str) -> int | None:
    """Where the comment that starts at ``at`` ends; None when none starts there."""
    if sql.startswith("/*", at):
        return _block_comment(sql, at, nested=dialect == "postgresql")
    if sql.startswith("--", at):
        # MySQL: `--` opens a comment only before white space or the end, so that `5--1` is 6.
        following = sql[at + 2 : at + 3]
        if dialect != "mysql" or not following or following <= " ":
            return _line_comment(sql, at)
    if sql[at] == "#" and dialect == "mysql":
        return _line_comment(sql, at)
    return None


def _line_comment(sql: str, at: int) -> int:
    end = sql.find("\n", at)
    return len(sql) if end < 0 else end


def _block_comment(sql: str, at: int, *, nested: bool) -> int:
    depth, position = 1, at + 2
    while True:
        closing = sql.find("*/", position)
        if closing < 0:
            return len(sql)
        opening = sql.find("/*", position, closing) if nested else -1
        if opening >= 0:
            depth, position = depth + 1, opening + 2
            continue
        depth, position = depth - 1, closing + 2
        if depth == 0:
            return position


def split(sql: str, dialect: str = "postgresql") -> list[Statement]:
    """The statements of ``sql`` in order, without delimiters and without those that hold nothing.

    Understands bodies that hold semicolons: SQLite's and MySQL's triggers, MySQL's routines and events
    (also without ``DELIMITER``), MariaDB's ``BEGIN NOT ATOMIC``, PostgreSQL's ``BEGIN ATOMIC`` and rules.
    MySQL's ``DELIMITER`` lines are obeyed and left out.
    """
    found: list[Statement] = []
    start = position = 0
    delimiter = ";"
    body = _Body(dialect)
    line, counted = 1, 0

    def close(end: int) -> None:
        nonlocal line, counted
        if body.first is not None:
            line, counted = line + sql.count("\n", counted, body.first), body.first
            found.append(Statement(sql[start:end].strip(), line))

    while position < len(sql):
        if dialect == "mysql" and body.first is None and (command := _DELIMITER.match(sql, position)):
            delimiter = command[1]
            start = position = command.end()
            continue
        if sql.startswith(delimiter, position) and (delimiter != ";" or body.may_end):
            close(position)
            position += len(delimiter)
            start = position
            body = _Body(dialect)
            continue
        kind, end = _next(sql, position, dialect)
        if delimiter != ";" and kind in (Kind.WORD, Kind.OTHER, Kind.NUMBER):
            # `END$$`: `$` may stand in a name, but the delimiter comes first.
            cut = sql.find(delimiter, position, end)
            end = cut if cut > position else end
        body.feed(Token(kind, sql[position:end], position))
        position = end
    close(len(sql))
    return found


_BLOCKS = frozenset({"IF", "LOOP", "WHILE", "REPEAT", "FOR"})
_BLOCK_ENDS = _BLOCKS | {"CASE"}
_STATEMENT_STARTS = frozenset({";", "BEGIN", "THEN", "ELSE", "DO", "LOOP", "REPEAT", ":", "ROW", ")", "ATOMIC"})
_BODY_STARTS = frozenset({"ROW", ")", "DO"})
_WITH_BODY = {
    "mysql": frozenset({"PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE"}),
    "sqlite": frozenset({"TRIGGER"}),
    "postgresql": frozenset({"PROCEDURE", "FUNCTION"}),
}
_BEFORE_OBJECT = {
    "mysql": frozenset({"CREATE", "OR", "REPLACE", "DEFINER", "AGGREGATE", "CURRENT_USER", "CURRENT_ROLE"}),
    "sqlite": frozenset({"EXPLAIN", "QUERY", "PLAN", "CREATE", "TEMP", "TEMPORARY"}),
    "postgresql": frozenset({"CREATE", "OR", "REPLACE"}),
}


class _Body:
    """Where in a statement we are: whether a semicolon would end it, or stands inside a body."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.first: int | None = None
        self.previous = ""
        self.parentheses = 0
        self.depth = 0
        self.in_head = True
        self.has_body = False
        self.at_end = False

    @property
    def may_end(self) -> bool:
        if self.dialect == "postgresql" and self.parentheses > 0:
            return False
        if self.dialect == "sqlite" and self.has_body:
            return self.at_end
        return self.depth == 0

    def feed(self, token: Token) -> None:
        if token.silent:
            return
        if self.first is None:
            self.first = token.start
        text = token.word or token.text
        # After a dot or in DEFINER = user@host it is a name, whatever it looks like.
        word = "" if self.previous in (".", "@", "=") else token.word
        if text == "(":
            self.parentheses += 1
        elif text == ")":
            self.parentheses = max(0, self.parentheses - 1)
        if self.in_head:
            self._head(word)
        elif self.has_body and self.dialect == "sqlite":
            # As sqlite3_complete() has it: only `; END ;` ends a trigger, a CASE ... END does not.
            self.at_end = text == "END" and self.previous == ";"
        elif self.has_body and self.dialect == "mysql":
            self._mysql(word)
        elif self.has_body:
            self._postgresql(word)
        self.previous = text

    def _head(self, word: str) -> None:
        """Decide from the first words whether this statement has a body of statements."""
        if self.dialect == "mysql" and self.previous == "BEGIN" and word == "NOT":
            self.has_body, self.depth, self.in_head = True, 1, False
        elif word in _WITH_BODY.get(self.dialect, ()):
            self.has_body, self.in_head = self.previous != "", False
        elif word and word not in _BEFORE_OBJECT.get(self.dialect, ()) and word != "BEGIN":
            self.in_head = False

    def _mysql(self, word: str) -> None:
        if self.previous == "END" and word in _BLOCK_ENDS:
            return  # END IF, END CASE: the END has been counted, the word after it opens nothing
        if word == "END":
            self.depth = max(0, self.depth - 1)
        elif word in ("BEGIN", "CASE"):
            self.depth += 1
        elif word in _BLOCKS:
            self.depth += self.previous in (_STATEMENT_STARTS if self.depth else _BODY_STARTS)

    def _postgresql(self, word: str) -> None:
        if word == "ATOMIC" and self.previous == "BEGIN":
            self.depth += 1
        elif self.depth and word in ("CASE", "END"):
            self.depth += 1 if word == "CASE" else -1
