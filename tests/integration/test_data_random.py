"""Transfers of random tables between every pair of engines: all column types, odd names, odd values.

The judge is the source itself. Rows go to the other engine, into a table made for them, and come back into an empty
table of the first kind: what the source's own driver reads there must be what it reads in the original. What cannot be
carried is refused with a sentence, and then the target holds no row.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from blocks.connections import Connection
from taskcenter.errors import StepFailed
from tests.databases import empty_database
from tests.integration.test_backup import EMPTY
from tests.integration.test_data_transfer import PAIRS, transfer
from tests.many_databases import query, run
from tests.random_databases import RandomDatabase, databases, fill, mark

CAMPAIGN = int(os.environ.get("TASKCENTER_TEST_CASES", "0"))
"""So many random databases per pair instead of a few."""


def emptied(connection: Connection) -> None:
    if connection.dialect == "sqlite":
        Path(str(connection.database)).write_bytes(b"")
    else:
        run(connection, *(sql.format(connection.database) for sql in EMPTY[connection.dialect]))


def without_rows(database: RandomDatabase) -> RandomDatabase:
    """The same tables, empty and without keys to others."""
    kept = [(s, v) for s, v in database.statements if not s.startswith(("INSERT", "UPDATE", "ALTER"))]
    return RandomDatabase(kept, database.tables)


AS_TEXT = {"postgresql": "{}::text", "mysql": "concat({})", "sqlite": "quote({})"}
"""A value as its own server writes it."""
COLUMNS = {
    "postgresql": "select attname from pg_attribute where attrelid = '{0}'::regclass and attnum > 0 "
    "and attgenerated = '' order by attnum",
    "mysql": "select column_name from information_schema.columns where table_schema = database() "
    "and table_name = '{0}' and extra not like '%%GENERATED%%' order by ordinal_position",
    "sqlite": "select name from pragma_table_xinfo('{0}') where hidden = 0 order by cid",
}
"""The columns that can be written; {0} is the table's name in a text."""


def named(connection: Connection, name: str) -> str:
    return mark(name, connection.dialect).replace("%", "%%" if connection.dialect != "sqlite" else "%")


def written(connection: Connection, table: str) -> list[str]:
    name = named(connection, table) if connection.dialect == "postgresql" else table.replace("%", "%%")
    name = table if connection.dialect == "sqlite" else name
    return [str(row[0]) for row in query(connection, COLUMNS[connection.dialect].format(name.replace("'", "''")))]


def rows(connection: Connection, table: str, plain: bool, documents: Collection[str] = ()) -> list[tuple[object, ...]]:
    """``plain``: a number is its value, whatever SQLite keeps it as. What is in ``documents`` counts by value."""
    names = written(connection, table)
    columns = [named(connection, column) for column in names]
    as_text = "{}" if plain else AS_TEXT[connection.dialect]
    listed = ", ".join(as_text.format(column) for column in columns)
    found = query(connection, f"select {listed} from {named(connection, table)} order by 1")
    if plain:
        return [tuple(map(Loose, row)) for row in found]
    found = [tuple(by_value(v) if n in documents else v for n, v in zip(names, row, strict=True)) for row in found]
    return [tuple("0" if value == "-0" else value for value in row) for row in found]  # SQLite's zero has no sign


def by_value(document: object) -> object:
    """Of JSON or of a number, which is JSON as well; NaN and the infinities are themselves."""
    if document is None or str(document) in ("NaN", "Infinity", "-Infinity"):
        return document
    return json.dumps(json.loads(str(document), parse_float=_number, parse_int=_number), sort_keys=True)


@dataclass(frozen=True, eq=False)
class Loose:
    """A value of SQLite that was in a column of one type: digits may be a number, bytes may be a text or digits."""

    value: object

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Loose)
        return not self._words().isdisjoint(other._words())

    def _words(self) -> set[object]:
        if self.value is None:
            return {None}
        raw = self.value if isinstance(self.value, bytes) else str(self.value).encode("utf-8", "surrogateescape")
        text = raw.decode("utf-8", "surrogateescape")
        found: set[object] = {text, raw.hex()} if isinstance(self.value, bytes) else {text}
        with suppress(InvalidOperation):
            found.add(Decimal(text))
        with suppress(ValueError, RecursionError):  # PostgreSQL's jsonb orders the names
            found.add(json.dumps(json.loads(text, parse_float=_number, parse_int=_number), sort_keys=True))
        return found


LOOSE = {
    ("mysql", "postgresql"): " json",  # jsonb orders the names and writes numbers in its own way
    ("postgresql", "mysql"): " numeric(?! *[(\\[])",  # a numeric without a scale remembers how many zeros were written
}
"""By pair, what follows the name of a column whose values come back equal, though not as the same text."""


def loose_columns(pair: tuple[str, str], database: RandomDatabase, table: str, names: Sequence[str]) -> set[str]:
    name, kind = mark(table, pair[0]), LOOSE.get(pair)
    made = next(s for s, _ in database.statements if s.startswith(f"CREATE TABLE {name} ("))
    return {c for c in names if kind and re.search(re.escape(mark(c, pair[0])) + kind, made)}


def _number(digits: str) -> str:
    return str(_EXACT.normalize(_EXACT.plus(Decimal(digits))))


_EXACT = Context(prec=100_000)


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_random_tables_go_there_and_back(
    left: str, right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path))
    seen: Counter[str] = Counter()
    with (
        empty_database(left, tmp_path, "source") as source,
        empty_database(right, tmp_path, "target") as target,
        empty_database(left, tmp_path, "other") as other,
    ):

        @settings(
            phases=[Phase.explicit, Phase.generate] + ([] if CAMPAIGN else [Phase.shrink]),
            max_examples=CAMPAIGN or 2,
            deadline=None,
            derandomize=not CAMPAIGN,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(databases(left))
        def check(database: RandomDatabase) -> None:
            for connection in (source, target, other):
                emptied(connection)
            fill(source, database)
            fill(other, without_rows(database))
            for table in database.tables:
                loose = loose_columns((left, right), database, table, written(source, table))
                seen[there_and_back(table, loose)] += 1

        def moved(table: str, there: tuple[Connection, Connection], **more: Any) -> dict[str, Any] | None:
            """What the transfer says; None when it was refused, and then no row has come."""
            try:
                item = {"sourceTable": table, "targetTable": table, **more}
                done: dict[str, Any] = transfer(*there, tmp_path, item)["objects"][0]
                return done
            except StepFailed as error:
                refused = str(error)
            assert not has_rows(there[1], table), refused
            seen[refused[:240]] += 1
            return None

        def there_and_back(table: str, documents: Collection[str]) -> str:
            made = moved(table, (source, target), verify=True)
            if made is None:
                return "refused"
            plain = left == "sqlite" != right  # which has columns of one type each
            before = rows(source, table, plain, documents)
            assert (made["rowsWritten"], made["checksum"]["rows"]) == (len(before), len(before))
            if moved(table, (target, other), columns={c: c for c in written(other, table)}) is None:
                return "refused on the way back"
            assert rows(other, table, plain, documents) == before
            return "equal"

        check()
    print(left, right, *seen.most_common(), sep="\n  ")
    assert seen["equal"] > 0


def has_rows(connection: Connection, table: str) -> bool:
    try:
        return bool(query(connection, f"select 1 from {named(connection, table)}"))
    except Exception:
        return False
