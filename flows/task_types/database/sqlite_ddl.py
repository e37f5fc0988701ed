"""What only the text of a SQLite CREATE TABLE says: checks, computed columns, collations, names of constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..sql_split import Kind, Token, tokens

__all__ = ["ColumnText", "TableText", "index_parts", "read_table"]

_TABLE_PARTS = frozenset({"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"})


@dataclass
class ColumnText:
    """What stands behind one column's name."""

    generated: str | None = None
    collation: str | None = None
    autoincrement: bool = False


@dataclass
class TableText:
    """``columns`` by lower-case name; ``checks`` as (name, expression)."""

    columns: dict[str, ColumnText] = field(default_factory=dict)
    checks: list[tuple[str, str]] = field(default_factory=list)
    primary_name: str = ""
    uniques: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    foreign: list[tuple[str, tuple[str, ...], str, str]] = field(default_factory=list)
    strict: bool = False
    without_rowid: bool = False

    def unique_name(self, columns: Sequence[str]) -> str:
        wanted = tuple(name.lower() for name in columns)
        return next((name for name, own in self.uniques if own == wanted), "")

    def foreign_key(self, columns: Sequence[str], target: str) -> tuple[str, str]:
        """Name and deferrable words of the foreign key from ``columns`` to ``target``."""
        wanted = tuple(name.lower() for name in columns)
        found = next((f for f in self.foreign if f[1] == wanted and f[2] == target.lower()), None)
        return (found[0], found[3]) if found else ("", "")


def read_table(sql: str) -> TableText:
    """Read a CREATE TABLE that SQLite has accepted; what cannot be found stays empty."""
    made = TableText()
    found = [token for token in tokens(sql, "sqlite") if not token.silent]
    opening = next((i for i, token in enumerate(found) if token.text == "("), None)
    if opening is None:
        return made
    closing = _closing(found, opening)
    after = [token.word for token in found[closing + 1 :]]
    made.strict, made.without_rowid = "STRICT" in after, "ROWID" in after
    for part in _parts(found[opening + 1 : closing]):
        if part[0].word in _TABLE_PARTS:
            _constraint(part, "", sql, made)
        else:
            _column(part, sql, made)
    return made


def index_parts(sql: str) -> tuple[tuple[str, ...], str | None]:
    """The parts of a CREATE INDEX as written, and the condition of a partial one."""
    found = [token for token in tokens(sql, "sqlite") if not token.silent]
    opening = next((i for i, token in enumerate(found) if token.text == "("), None)
    if opening is None:
        return (), None
    closing = _closing(found, opening)
    rest = found[closing + 1 :]
    where = _text(sql, rest[1:]) if rest and rest[0].word == "WHERE" else None
    return tuple(_text(sql, part) for part in _parts(found[opening + 1 : closing])), where


def _closing(found: Sequence[Token], opening: int) -> int:
    depth = 0
    for index in range(opening, len(found)):
        depth += {"(": 1, ")": -1}.get(found[index].text, 0)
        if depth == 0:
            return index
    return len(found) - 1


def _parts(found: Sequence[Token]) -> list[list[Token]]:
    """Between the commas of the outermost level."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in found:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def name_of(token: Token) -> str:
    if token.kind is Kind.WORD:
        return token.text
    mark = token.text[0]
    return token.text[1:-1] if mark == "[" else token.text[1:-1].replace(mark * 2, mark)


def _text(sql: str, found: Sequence[Token]) -> str:
    """The source text of these tokens, white space and comments between them as one blank."""
    made, end = "", None
    for token in found:
        made += (" " if end is not None and token.start > end else "") + token.text
        end = token.start + len(token.text)
    return made


def _column(part: Sequence[Token], sql: str, made: TableText) -> None:
    name = name_of(part[0])
    column = made.columns.setdefault(name.lower(), ColumnText())
    index = 1
    while index < len(part):
        word = part[index].word
        if part[index].text == "(":
            index = _closing(part, index)
        elif word == "COLLATE" and index + 1 < len(part):
            column.collation = name_of(part[index + 1])
            index += 1
        elif word == "AUTOINCREMENT":
            column.autoincrement = True
        elif word == "AS" and index + 1 < len(part) and part[index + 1].text == "(":
            closing = _closing(part, index + 1)
            column.generated = _text(sql, part[index + 2 : closing])
            index = closing
        elif word in ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "REFERENCES"):
            index = _constraint(part[index:], name, sql, made) + index
            continue
        index += 1


def _constraint(part: Sequence[Token], column: str, sql: str, made: TableText) -> int:
    """Read one constraint at the start of ``part``; gives how many tokens it took."""
    label, index = "", 0
    if part[0].word == "CONSTRAINT" and len(part) > 2:
        label, index = name_of(part[1]), 2
    word = part[index].word
    end = index + 1
    opening = next((i for i in range(index, len(part)) if part[i].text == "("), None)
    if word == "CHECK" and opening is not None:
        end = _closing(part, opening) + 1
        made.checks.append((label, _text(sql, part[opening + 1 : end - 1])))
    elif word == "PRIMARY":
        made.primary_name = label
        end = index + 2
        if not column and opening is not None:
            end = _closing(part, opening) + 1
    elif word == "UNIQUE":
        columns = (column,) if column else _names(part, opening)
        made.uniques.append((label, tuple(name.lower() for name in columns)))
        if not column and opening is not None:
            end = _closing(part, opening) + 1
    elif word in ("FOREIGN", "REFERENCES"):
        columns = (column,) if column else _names(part, opening)
        at = next((i for i in range(index, len(part)) if part[i].word == "REFERENCES"), index)
        target = name_of(part[at + 1]).lower() if at + 1 < len(part) else ""
        end = at + 2
        if end < len(part) and part[end].text == "(":
            end = _closing(part, end) + 1
        tail: list[str] = []
        while end < len(part) and part[end].word in _FOREIGN_WORDS:
            tail.append(part[end].word)
            end += 2 if part[end].word == "MATCH" else 1
        made.foreign.append((label, tuple(name.lower() for name in columns), target, _deferrable(tail)))
    return max(end, 1)


_FOREIGN_WORDS = frozenset(
    {"ON", "DELETE", "UPDATE", "SET", "NULL", "DEFAULT", "CASCADE", "RESTRICT", "NO", "ACTION", "MATCH"}
    | {"NOT", "DEFERRABLE", "INITIALLY", "DEFERRED", "IMMEDIATE"}
)


def _names(part: Sequence[Token], opening: int | None) -> tuple[str, ...]:
    if opening is None:
        return ()
    return tuple(name_of(piece[0]) for piece in _parts(part[opening + 1 : _closing(part, opening)]))


def _deferrable(words: Sequence[str]) -> str:
    if "DEFERRABLE" not in words or words[words.index("DEFERRABLE") - 1 : words.index("DEFERRABLE")] == ["NOT"]:
        return ""
    return "initially deferred" if "DEFERRED" in words else "deferrable"
