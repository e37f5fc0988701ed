"""Runs by a part of their task's or their own name, newest first, in a time that hardly depends on how many there are.

Two ways lead there. A common text is met soon in the list itself, which one index holds with the names; any other is
found by its trigrams, the newest part of them first. Which is the shorter one is told by how many of the newest
hundreds have it. Letters A to Z count the same in either case. (spec 6.1)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from .folding import folded
from .run_filters import Filters
from .search_statements import Questions

__all__ = ["search"]

Row = dict[str, Any]
_TRIGRAM = 3
_FIRST = 800
"""Rows of the list that are looked through before anything else."""
_MANY_POSTGRES, _MANY_SQLITE = 8, 20
"""Of them; a text that so many have is met soon enough in the list."""
_NEAR = 40_000
"""Rows that SQLite looks through for what stands out of order, sooner than to read and sort all that have a text."""
_FEW = 500
"""Rows that SQLite looks at one by one, as came after the list's top and may belong below it."""
_DAYS = 10
"""How many days PostgreSQL's index is asked for one by one; for more, all of it at once."""
_SPARE = 1.5
"""So many times as many as should do: the text may be a little rarer further down."""
_ONE_DAY = timedelta(days=1)


def search(connection: Connection, columns: Sequence[Any], where: Filters, wanted: str, limit: int) -> list[Row]:
    """``columns`` of the newest runs that meet ``where`` and have ``wanted`` in a name; at most ``limit``.

    ``created_at`` and ``id`` are among the columns.
    """
    postgres = connection.dialect.name == "postgresql"
    text = folded(wanted)
    ask = _Asking(connection, Questions.of(where.shape, tuple(columns), postgres), where, text)
    found = ask.rows("newest", rows=_FIRST, limit=limit)
    if (_MANY_POSTGRES if postgres else _MANY_SQLITE) <= len(found) < limit:
        found = ask.rows("newest", rows=int(_SPARE * _FIRST * limit / len(found)), limit=limit)
    if len(found) >= limit:
        return found
    if len(text) < _TRIGRAM:
        return ask.rows("everywhere", limit=limit)
    return (_by_trigrams_postgres if postgres else _by_trigrams_sqlite)(ask, limit, found)


class _Asking:
    """One search."""

    def __init__(self, connection: Connection, questions: Questions, where: Filters, wanted: str) -> None:
        self.connection, self._questions = connection, questions
        self.narrow = bool({*where.shape} - {"since", "until", "cursor"})
        self.since: datetime | None = where.values.get("of_since")
        pattern = wanted.replace("/", "//").replace("%", "/%").replace("_", "/_")
        quoted = '"' + wanted.replace('"', '""') + '"'
        self._values = {**where.values, "wanted": wanted, "pattern": f"%{pattern}%", "quoted": quoted}

    def execute(self, name: str, **values: Any) -> sa.CursorResult[Any]:
        return self.connection.execute(self._questions[name], {**self._values, **values})

    def rows(self, name: str, **values: Any) -> list[Row]:
        return list(map(dict, self.execute(name, **values).mappings()))


def _by_trigrams_postgres(ask: _Asking, limit: int, near: list[Row]) -> list[Row]:
    """By its index, which has the day of each run beside the trigrams and answers for a day in a part of the time.

    ``near``: what was found among the newest ones.
    """
    newest, rows = ask.execute("start", rows=_FIRST).one()
    if rows < _FIRST:
        return near  # they were the whole list
    # A plan that is made once for every text would know nothing of how rare this one is.
    ask.connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_custom_plan")
    found: list[Row] = []
    until, left, days = newest.astimezone(UTC).date() + _ONE_DAY, _DAYS, 1
    while days <= left:
        on = {f"day{n}": until - n * _ONE_DAY for n in range(1, days + 1)}
        found += ask.rows(f"days {days}", limit=limit - len(found), **on)
        if len(found) >= limit:
            return found
        until, left = until - days * _ONE_DAY, left - days
        if ask.since is not None and until <= ask.since.astimezone(UTC).date():
            return found
        days = math.ceil(_SPARE * days * (limit - len(found)) / len(found)) if found else left + 1
    return found + ask.rows("older", limit=limit - len(found), before=datetime.combine(until, time(), UTC))


def _by_trigrams_sqlite(ask: _Asking, limit: int, near: list[Row]) -> list[Row]:
    """By its index, from the row at the list's top on, as if rows came in the order of their time.

    Most do. What did not stands in the list among what was found, and is looked for there.
    """
    top = ask.execute("top").scalar()
    if top is None:
        return []
    if (ask.narrow or ask.since is not None) and ask.execute("start", rows=_FIRST).one()[1] < _FIRST:
        return near  # they were the whole list
    if ask.narrow or not near:  # most of what has the text may not be meant, or so few have it that all are read soon
        return ask.rows("all", limit=limit)
    bottom = ask.execute("bottom").scalar_one() if ask.since is not None else 0
    found = ask.rows("down", top=top, bottom=bottom, limit=limit)
    rowids = [row.pop("rowid") for row in found]
    if len(found) < limit:
        if ask.since is not None and top - bottom <= _NEAR:
            found += ask.rows("strays", last=bottom, top=top, limit=limit)
            return sorted(found, key=_place, reverse=True)[:limit]
        if ask.since is None and top == ask.execute("last").scalar():
            return sorted(found, key=_place, reverse=True)
        beside = list(ask.execute("beside", top=top, bottom=bottom, limit=_FEW).scalars())
        if len(beside) < _FEW:
            found += ask.rows("among", rowids=beside) if beside else []
            return sorted(found, key=_place, reverse=True)[:limit]
        return ask.rows("all", limit=limit)
    if top - rowids[-1] > _NEAR:
        return ask.rows("all", limit=limit)
    oldest = min(found, key=_place)["created_at"]
    # of two bounds SQLite would go by the first: where there is one, it is raised
    bound, question = ("of_since", "strays") if ask.since is not None else ("moment", "late")
    found += ask.rows(question, last=rowids[-1], top=top, limit=limit, **{bound: oldest})
    return sorted(found, key=_place, reverse=True)[:limit]


def _place(row: Row) -> tuple[datetime, str]:
    return row["created_at"], row["id"]
