"""Transfers of random tables between every pair of engines: all column types, odd names, odd values.

The judge is the source itself. Rows go to the other engine, into a table made for them, and come back into an empty
table of the first kind: what the source's own driver reads there must be what it reads in the original. What cannot be
carried is refused with a sentence, and then the target holds no row.
"""

from __future__ import annotations

import os
from collections import Counter
from decimal import Decimal, InvalidOperation
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


def rows(connection: Connection, table: str, plain: bool) -> list[tuple[object, ...]]:
    """``plain``: a number is its value, whatever SQLite keeps it as."""
    columns = [named(connection, column) for column in written(connection, table)]
    as_text = "{}" if plain else AS_TEXT[connection.dialect]
    listed = ", ".join(as_text.format(column) for column in columns)
    found = query(connection, f"select {listed} from {named(connection, table)} order by 1")
    return [tuple(map(as_value, row)) for row in found] if plain else found


def as_value(value: object) -> object:
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    try:
        return Decimal(text) if value is not None else None
    except InvalidOperation:
        return text


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
            max_examples=CAMPAIGN or 5,
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
                seen[there_and_back(table)] += 1

        def there_and_back(table: str) -> str:
            item: dict[str, Any] = {"sourceTable": table}
            try:
                made = transfer(source, target, tmp_path, {**item, "verify": True})["objects"][0]
            except StepFailed as refused:
                assert not has_rows(target, table), refused
                seen[str(refused)[:240]] += 1
                return "refused"
            plain = left == "sqlite" != right  # which has columns of one type each
            before = rows(source, table, plain)
            assert (made["rowsWritten"], made["checksum"]["rows"]) == (len(before), len(before))
            back = {**item, "targetTable": table, "columns": {c: c for c in written(other, table)}}
            try:
                transfer(target, other, tmp_path, back)
            except StepFailed as refused:
                assert not has_rows(other, table), refused
                seen[f"back: {refused}"[:240]] += 1
                return "refused on the way back"
            assert rows(other, table, plain) == before
            return "equal"

        check()
    print(left, right, *seen.most_common(), sep="\n  ")
    assert seen["equal"] > 0


def has_rows(connection: Connection, table: str) -> bool:
    try:
        return bool(query(connection, f"select 1 from {named(connection, table)}"))
    except Exception:
        return False
