"""What the three dumps share: the pieces of a script, which tables go into it, and INSERTs of many rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from taskcenter.errors import StepFailed

from ..sql_split import Kind, tokens
from .model import Structure, Table, View

__all__ = ["Choice", "Part", "choose", "inserts", "refuse", "statement", "views_in_order"]

_INSERT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the script. ``ends`` says that a statement is complete with it; ``rows`` of ``table`` are in it."""

    data: bytes
    table: str = ""
    rows: int = 0
    ends: bool = True


@dataclass(frozen=True)
class Choice:
    """Which tables go into the script. ``named``: only those asked for by name, with what they need."""

    tables: tuple[Table, ...]
    left_out: frozenset[str]
    named: bool
    warnings: list[str] = field(default_factory=list, compare=False)

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(table.label for table in self.tables)


def choose(structure: Structure, wanted: Iterable[str] | None, unwanted: Iterable[str]) -> Choice:
    """The tables named (None: all), without those excluded.

    Raises StepFailed (``error_type="missing_table"``) for a name that no table has.
    """
    names, without = list(wanted or ()), list(unwanted)
    missing = [name for name in (*names, *without) if structure.find_table(name) is None]
    if missing:
        raise StepFailed(
            f"there is no table {', '.join(map(repr, missing))} in {structure.database}; "
            "write table names as name or schema.name",
            error_type="missing_table",
        )
    chosen = {t.label for n in names if (t := structure.find_table(n))} or {t.label for t in structure.tables}
    chosen -= {t.label for n in without if (t := structure.find_table(n))}
    return Choice(
        tuple(t for t in structure.tables if t.label in chosen),
        frozenset(t.label for t in structure.tables) - chosen,
        bool(names),
    )


def refuse(problems: Iterable[str]) -> None:
    """StepFailed (``error_type="unsupported"``) when there is a problem: half a backup would be none."""
    found = list(problems)
    if found:
        raise StepFailed(
            "format sql cannot carry over " + "; ".join(found) + ". Use format native, or leave these out "
            "(excludeTables, tables)",
            error_type="unsupported",
        )


def statement(sql: str) -> Part:
    return Part(f"{sql};\n".encode())


def inserts(table: str, head: str, rows: Iterable[Iterable[str]]) -> Iterator[Part]:
    """``INSERT INTO … VALUES`` statements of about a quarter of a megabyte; ``head`` ends with ``VALUES``."""
    lines: list[str] = []
    size = 0
    for row in rows:
        line = f"({','.join(row)})"
        lines.append(line)
        size += len(line)
        if size > _INSERT_BYTES or len(lines) >= 1000:
            yield Part(f"{head}\n{_joined(lines)};\n".encode(), table, len(lines))
            lines, size = [], 0
    if lines:
        yield Part(f"{head}\n{_joined(lines)};\n".encode(), table, len(lines))


def _joined(lines: list[str]) -> str:
    return ",\n".join(lines)


def views_in_order(
    structure: Structure, choice: Choice, prepare: Callable[[View], str] = lambda view: view.definition
) -> list[View]:
    """The views such that each stands after those it reads, found by the names in its text.

    A view that reads a table which is left out is left out too, with a warning.
    """
    mentions = {view.name: _names(prepare(view), structure.dialect) for view in structure.views}
    gone = {label.lower() for label in choice.left_out}
    while True:
        more = {name for name, used in mentions.items() if name.lower() not in gone and used & gone}
        if not more:
            break
        for name in sorted(more):
            choice.warnings.append(f"the view {name} was left out: it reads a table that is not in this backup")
        gone |= {name.lower() for name in more}
    done: list[View] = []
    waiting = [view for view in structure.views if view.name.lower() not in gone]
    while waiting:
        names = {view.name.lower() for view in waiting}
        ready = [v for v in waiting if not (mentions[v.name] & names) - {v.name.lower()}] or waiting[:1]
        done += ready
        waiting = [view for view in waiting if view not in ready]
    return done


def _names(sql: str, dialect: str) -> set[str]:
    found = set()
    for token in tokens(sql, dialect):
        if token.kind is Kind.WORD:
            found.add(token.text.lower())
        elif token.kind is Kind.NAME:
            found.add(
                re.sub(r"(.)\1", r"\1", token.text[1:-1]).lower() if "``" in token.text else token.text[1:-1].lower()
            )
    return found
