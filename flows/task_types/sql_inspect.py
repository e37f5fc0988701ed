"""What a statement is, from its text alone: read, write or DDL, the tables it touches, what is dangerous in it.

Best effort and offline: names hidden in dynamic SQL, functions and views stay hidden. ``bind`` puts values
to ``:name`` parameters in the driver's own way; they are never formatted into the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from taskcenter.errors import StepFailed

from .sql_split import Kind, Token, split, tokens

__all__ = ["Effect", "Inspection", "bind", "inspect", "parameter_names"]

Effect = Literal["read", "write", "ddl", "transaction", "session"]

_EFFECTS: dict[str, Effect] = {
    **dict.fromkeys(("SELECT", "VALUES", "TABLE", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "PRAGMA", "HELP"), "read"),
    **dict.fromkeys(("CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "COMMENT", "GRANT", "REVOKE", "REINDEX"), "ddl"),
    **dict.fromkeys(("VACUUM", "ANALYZE", "CLUSTER", "REFRESH", "OPTIMIZE", "SECURITY", "REASSIGN"), "ddl"),
    **dict.fromkeys(("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"), "transaction"),
    **dict.fromkeys(("SET", "USE", "RESET", "DISCARD", "LISTEN", "UNLISTEN", "PREPARE", "DEALLOCATE"), "session"),
    **dict.fromkeys(("ATTACH", "DETACH", "LOAD_EXTENSION"), "session"),
}
_DML = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})
_BEFORE_TABLE = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "TRUNCATE", "VIEW", "ON", "USING"})
_FILLERS = frozenset(
    {"IF", "NOT", "EXISTS", "ONLY", "LATERAL", "TABLE", "LOW_PRIORITY", "IGNORE", "OR", "CONCURRENTLY"}
)
_NOT_NAMES = frozenset({"SELECT", "SET", "VALUES", "WHERE", "OUTFILE", "DUMPFILE", "SKIP", "NOWAIT", "STDIN"})
_HARMLESS_DROPS = frozenset(
    {"DEFAULT", "NOT", "IDENTITY", "EXPRESSION", "CONSTRAINT", "INDEX", "KEY", "PRIMARY", "CHECK", "FOREIGN"}
)
_SHOUTED = frozenset({"DROP", "TRUNCATE", "TABLE", "VIEW", "INDEX", "DATABASE", "SCHEMA", "TRIGGER", "FUNCTION"})


@dataclass(frozen=True, slots=True)
class Inspection:
    """``verb`` is the first word that matters, ``alone`` says that it cannot run inside a transaction."""

    effect: Effect
    verb: str
    tables: tuple[str, ...] = ()
    danger: tuple[str, ...] = ()
    alone: bool = False
    from_stdin: bool = False


@dataclass
class _Level:
    """One pair of parentheses: what is selected in it, and a DELETE or UPDATE that still lacks its WHERE."""

    has_query: bool = False
    verb: str = ""
    table: str = ""


def inspect(text: str, dialect: str = "postgresql") -> Inspection:
    """Look at one statement (as ``split`` gives it)."""
    found = [token for token in tokens(text, dialect) if not token.silent]
    verb, effect = _verb(found, dialect)
    words = [token.word for token in found]
    tables, danger = _walk(found, verb)
    if verb in ("DROP", "TRUNCATE"):
        danger = [_drop(found)]
    elif verb == "ALTER":
        danger = [
            f"ALTER {_joined(found[1:3])} drops {_joined(found[i + 1 : i + 3])}"
            for i, word in enumerate(words[:-1])
            if word == "DROP" and words[i + 1] not in _HARMLESS_DROPS
        ]
    elif verb == "DO":
        danger = [f"in the DO block: {sentence}" for sentence in _inner(found, dialect)]
    return Inspection(
        effect=effect,
        verb=verb,
        tables=tuple(dict.fromkeys(tables)),
        danger=tuple(dict.fromkeys(danger)),
        alone=_alone(words, dialect),
        from_stdin=verb == "COPY" and "FROM" in words and "STDIN" in words,
    )


def _verb(found: Sequence[Token], dialect: str) -> tuple[str, Effect]:
    words = [token.word for token in found]
    verb = next((word for word in words if word), "")
    if verb == "EXPLAIN":
        inner = next((w for w in words[1:] if w in _DML or w in ("SELECT", "WITH", "CREATE")), "")
        return verb, "write" if "ANALYZE" in words and inner in _DML else "read"
    if verb == "PRAGMA" and any(token.text == "=" for token in found):
        return verb, "session"
    if (verb == "BEGIN" and words[1:2] == ["NOT"]) or (verb == "START" and words[1:2] != ["TRANSACTION"]):
        return verb, "write"  # a compound statement; START REPLICA
    writes = any(w in _DML and _starts_statement(found, i) for i, w in enumerate(words))
    if verb == "WITH":
        return verb, "write" if writes else "read"
    if verb == "SELECT" and "INTO" in words:
        if dialect == "postgresql":
            return verb, "ddl"
        if {"OUTFILE", "DUMPFILE"} & set(words):
            return verb, "write"
    return verb, _EFFECTS.get(verb, "write")


def _starts_statement(found: Sequence[Token], index: int) -> bool:
    """Whether a DML verb at ``index`` is a verb: at the start, after ``WITH x AS (...)``, or first in parentheses."""
    return index == 0 or found[index - 1].text in ("(", ")", ";")


def _walk(found: Sequence[Token], verb: str) -> tuple[list[str], list[str]]:
    """The tables named, and each DELETE or UPDATE that has no WHERE of its own."""
    tables: list[str] = []
    danger: list[str] = []
    made_here = {_name(found[i - 1]) for i, t in enumerate(found) if i and t.word == "AS" and verb == "WITH"}
    levels = [_Level(has_query=True)]
    acts = verb in _DML or verb == "WITH"
    for index, token in enumerate(found):
        level = levels[-1]
        if token.text == "(":
            levels.append(_Level())
        elif token.text == ")" and len(levels) > 1:
            danger += _without_where(levels.pop())
        elif token.word in ("SELECT", "DELETE"):
            level.has_query = True
        elif token.word == "WHERE":
            level.verb = ""
        if acts and token.word in ("DELETE", "UPDATE") and _starts_statement(found, index):
            level.verb, level.table = token.word, ""
        if token.word in _BEFORE_TABLE and _introduces(found, index, level, verb):
            for name in _tables(found, index):
                if name not in made_here:
                    tables.append(name)
                    level.table = level.table or name
    while levels:
        danger += _without_where(levels.pop())
    return tables, danger


def _introduces(found: Sequence[Token], index: int, level: _Level, verb: str) -> bool:
    """Whether the keyword at ``index`` has a table behind it."""
    word, before = found[index].word, found[index - 1].word if index else ""
    if word == "FROM":
        # extract(year from x) and "is distinct from" name no table
        return level.has_query and before != "DISTINCT"
    if word == "UPDATE":
        return _starts_statement(found, index)
    if word == "ON":
        return verb == "CREATE" and any(t.word in ("INDEX", "TRIGGER") for t in found[1:4])
    if word == "USING":
        return verb in ("MERGE", "DELETE")
    return True


def _without_where(level: _Level) -> list[str]:
    verb = "DELETE FROM" if level.verb == "DELETE" else level.verb
    return [f"{verb} {level.table or '?'} without WHERE"] if verb else []


def _tables(found: Sequence[Token], index: int) -> list[str]:
    """The names after ``found[index]``, also ``a, b AS x``; subqueries and function calls name none."""
    keyword = found[index].word
    names: list[str] = []
    position = index + 1
    while True:
        name, position = _dotted(found, position)
        calls = position < len(found) and found[position].text == "("
        if name and not (calls and keyword in ("FROM", "JOIN", "USING")):
            names.append(name)
        if keyword not in ("FROM", "TRUNCATE", "TABLE") or calls or not name:
            return names
        while position < len(found) and found[position].kind in (Kind.WORD, Kind.NAME) and _alias(found[position]):
            position += 1
        if position >= len(found) or found[position].text != ",":
            return names
        position += 1


def _alias(token: Token) -> bool:
    return token.word not in ("WHERE", "JOIN", "LEFT", "RIGHT", "INNER", "CROSS", "FULL", "NATURAL", "ON", "SET")


def _dotted(found: Sequence[Token], position: int) -> tuple[str, int]:
    """The name ``a.b.c`` at ``position`` and the place after it; an empty name when none stands there."""
    while position < len(found) and found[position].word in _FILLERS:
        position += 1
    parts: list[str] = []
    while position < len(found) and found[position].kind in (Kind.WORD, Kind.NAME):
        if not parts and found[position].word in _NOT_NAMES:
            break
        parts.append(_name(found[position]))
        position += 1
        if position >= len(found) or found[position].text != ".":
            break
        position += 1
    return ".".join(parts), position


def _name(token: Token) -> str:
    if token.kind is not Kind.NAME:
        return token.text
    quote = token.text[0]
    return token.text[1:-1].replace(quote * 2, quote)


def _drop(found: Sequence[Token]) -> str:
    """``DROP TABLE orders``, without IF EXISTS and CASCADE."""
    shown = [token for token in found if token.word not in ("IF", "EXISTS", "CASCADE", "RESTRICT")]
    return _joined(shown[:12])


def _joined(found: Iterable[Token]) -> str:
    text = ""
    for token in found:
        glue = "" if not text or token.text in ".,)" or text[-1] in ".(" else " "
        text += glue + (token.word if token.word in _SHOUTED else token.text)
    return text


def _inner(found: Sequence[Token], dialect: str) -> list[str]:
    """What is dangerous inside a ``DO $$ ... $$`` block, which runs at once."""
    danger: list[str] = []
    for token in found:
        if token.kind is Kind.STRING and token.text.startswith("$"):
            mark = token.text[: token.text.index("$", 1) + 1]
            for piece in split(token.text[len(mark) : -len(mark)], dialect):
                statement = re.split(r"\b(?:begin|then|else|loop)\b", piece.text, flags=re.IGNORECASE)[-1]
                danger += inspect(statement, dialect).danger
    return danger


def _alone(words: Sequence[str], dialect: str) -> bool:
    """Whether the server refuses (or ignores) this statement inside a transaction."""
    first, second = (*words, "", "")[:2]
    if dialect == "sqlite":
        return first in ("VACUUM", "ATTACH", "DETACH") or (
            first == "PRAGMA" and second in ("JOURNAL_MODE", "FOREIGN_KEYS", "WAL_CHECKPOINT")
        )
    if dialect != "postgresql":
        return False
    return (
        first == "VACUUM"
        or (first in ("CREATE", "DROP") and second in ("DATABASE", "TABLESPACE", "SUBSCRIPTION"))
        or (first in ("CREATE", "DROP", "REINDEX") and "CONCURRENTLY" in words[:6])
        or (first == "ALTER" and second == "SYSTEM")
        or (first == "REINDEX" and second in ("DATABASE", "SYSTEM"))
    )


def parameter_names(text: str, dialect: str = "postgresql") -> list[str]:
    """The ``:name`` parameters of a statement in order, each once."""
    return list(dict.fromkeys(t.text[1:] for t in tokens(text, dialect) if t.kind is Kind.PARAMETER))


def bind(text: str, dialect: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """The statement as the driver takes it, and its bound values (None when it has no parameter).

    ``\\:`` stands for a plain colon. Raises StepFailed when a parameter has no value.
    """
    pieces = list(tokens(text, dialect))
    names = list(dict.fromkeys(t.text[1:] for t in pieces if t.kind is Kind.PARAMETER))
    missing = [name for name in names if name not in values]
    if missing:
        raise StepFailed(
            f"the statement names the parameter{'s' if len(missing) > 1 else ''} "
            f"{', '.join(':' + name for name in missing)}, but parameters has no such value "
            "(write \\: for a colon that is none)",
            error_type="sql",
        )
    escape = bool(names) and dialect != "sqlite"
    made: list[str] = []
    for index, token in enumerate(pieces):
        if token.kind is Kind.PARAMETER and escape:
            made.append(f"%({token.text[1:]})s")
        elif token.text == "\\" and index + 1 < len(pieces) and pieces[index + 1].text == ":":
            continue
        else:
            made.append(token.text.replace("%", "%%") if escape else token.text)
    return "".join(made), {name: _value(values[name], dialect) for name in names} if names else None


def _value(value: Any, dialect: str) -> Any:
    """Lists go to PostgreSQL as arrays and to MySQL as a list for ``IN``; other nested values as JSON text."""
    if isinstance(value, Mapping) or (isinstance(value, list) and dialect == "sqlite"):
        return json.dumps(value)
    return value
