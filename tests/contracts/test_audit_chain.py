"""The audit's chain in real databases: nothing changes, goes, comes in or moves unseen. (spec 6.4)"""

from __future__ import annotations

import random
import shutil
import sqlite3
import string
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from store_makers import NOON, an_entry, at

from taskcenter.audit import FIELDS, GENESIS, Report
from taskcenter.audit_export import verify_export, write_export
from taskcenter.ports import AuditFilter, Changes
from taskcenter_adapter.audit_chain import verify_engine, verify_sqlite_file
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.tables import audit_head, task_audit_logs

SEALED = {"position", "prev_hash", "hash"}


def write(store: SqlStore, count: int, since: int = 0) -> None:
    entries = [
        an_entry(
            id=f"entry-{number}",
            task_id="id-of-orders",
            run_id=f"run-{number}",
            actor="Zoë",
            channel="cli",
            address="host-1",
            object=f"task {number}",
            before={"name": "Ünser", "limit": 1.5, "tags": ["a"]},
            after={"name": "日本", "limit": 10**20, "deep": {"x": None, "y": [True]}},
            message=f"number {number}",
            metadata={"number": number, "ratio": 0.1},
            created_at=at(number),
        )
        for number in range(since, since + count)
    ]
    store.record(Changes(audit=entries))


def kinds(report: Report) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_entries_get_their_places_in_order(sql_store: SqlStore) -> None:
    write(sql_store, 3)
    assert {record.position for record in sql_store.page_audit()} == {None}
    assert sql_store.chain.seal_all() == 3
    write(sql_store, 2, since=3)
    report = sql_store.chain.verify()
    assert (report.ok, report.entries, report.unsealed) == (True, 5, 0)
    records = sql_store.page_audit()
    assert [record.position for record in records] == [5, 4, 3, 2, 1]
    assert [record.prev_hash for record in records] == [*(r.hash for r in records[1:]), GENESIS]
    assert sql_store.chain.seal_all() == 0


def test_what_waits_for_the_sequencer_is_told(sql_store: SqlStore) -> None:
    write(sql_store, 2)
    sql_store.chain.seal_all()
    write(sql_store, 2, since=2)
    report = verify_engine(sql_store.engine)
    assert (report.ok, report.entries, report.unsealed) == (True, 2, 2)


def test_the_database_lets_nobody_change_an_entry(sql_store: SqlStore) -> None:
    write(sql_store, 3)
    sql_store.chain.seal(2)
    statements = [
        "UPDATE task_audit_logs SET actor = 'nobody'",
        "UPDATE task_audit_logs SET actor = 'nobody' WHERE hash IS NULL",
        "UPDATE task_audit_logs SET hash = NULL, position = NULL, prev_hash = NULL",
        "UPDATE task_audit_logs SET hash = 'x' WHERE hash IS NOT NULL",
        "UPDATE task_audit_logs SET hash = 'x', actor = 'nobody' WHERE hash IS NULL",
        "DELETE FROM task_audit_logs WHERE hash IS NOT NULL",
        "DELETE FROM task_audit_logs",
    ]
    for statement in statements:
        with pytest.raises(sa.exc.DBAPIError, match="never changed"), sql_store.engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert sql_store.chain.verify().ok


def unlock(store: SqlStore) -> None:
    """What an intruder with the database's own rights can do."""
    with store.engine.begin() as connection:
        if store.engine.dialect.name == "postgresql":
            connection.exec_driver_sql("ALTER TABLE task_audit_logs DISABLE TRIGGER ALL")
        else:
            for kind in ("no_update", "no_delete", "no_replace"):
                connection.exec_driver_sql(f"DROP TRIGGER task_audit_logs_{kind}")


@pytest.fixture
def open_store(sql_store: SqlStore) -> Any:
    write(sql_store, 12)
    sql_store.chain.seal_all()
    unlock(sql_store)
    yield sql_store
    if sql_store.engine.dialect.name == "postgresql":
        with sql_store.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE task_audit_logs ENABLE TRIGGER ALL")


def tamper(store: SqlStore, work: Callable[[sa.Connection], Any]) -> Report:
    """What ``work`` changes is looked at and undone again."""
    with store.engine.connect() as connection:
        copy = connection.execute(sa.select(task_audit_logs)).mappings().all()
        head = connection.execute(sa.select(audit_head)).mappings().all()
    with store.engine.begin() as connection:
        work(connection)
    report = verify_engine(store.engine)
    with store.engine.begin() as connection:
        connection.execute(sa.delete(task_audit_logs))
        connection.execute(sa.delete(audit_head))
        connection.execute(sa.insert(task_audit_logs), [dict(row) for row in copy])
        connection.execute(sa.insert(audit_head), [dict(row) for row in head])
    assert verify_engine(store.engine).ok
    return report


def changed_values(column: sa.Column[Any], value: Any) -> list[Any]:
    if column.name in ("before", "after", "metadata"):
        return [None, {}, {**value, "x": 1}, {**value, "name": "ünser"}] if column.name != "metadata" else [{}]
    if value is None:
        return ["x"]
    if isinstance(value, str):
        flipped = [value[:k] + chr(ord(value[k]) ^ 0x40) + value[k + 1 :] for k in range(len(value))]
        return [*flipped, value + " ", value[:-1], *([None] if column.nullable else [])]
    if isinstance(value, int):
        return [value + 100, value + 1_000_000]
    return [value + timedelta(microseconds=1), value - timedelta(days=1)]


@pytest.mark.parametrize("name", [*FIELDS, "hash"])
def test_a_change_in_any_column_is_found(open_store: SqlStore, name: str) -> None:
    column = task_audit_logs.c[name]
    for number in (0, 5, 11):
        key = task_audit_logs.c.id == f"entry-{number}"
        with open_store.engine.connect() as connection:
            value = connection.execute(sa.select(column).where(key)).scalar_one()
        for new in changed_values(column, value)[:: 1 if number == 5 else 7]:
            assert new != value
            report = tamper(
                open_store,
                lambda c, key=key, new=new: c.execute(sa.update(task_audit_logs).where(key).values({name: new})),
            )
            assert not report.ok, (name, new)


@pytest.mark.parametrize("number", [0, 5, 10, 11])
def test_a_missing_entry_is_found(open_store: SqlStore, number: int) -> None:
    key = task_audit_logs.c.id == f"entry-{number}"
    report = tamper(open_store, lambda c: c.execute(sa.delete(task_audit_logs).where(key)))
    assert "missing" in kinds(report)
    assert report.findings[0].position == number + 1


def test_the_whole_end_missing_is_found(open_store: SqlStore) -> None:
    report = tamper(open_store, lambda c: c.execute(sa.delete(task_audit_logs).where(task_audit_logs.c.position > 4)))
    assert [str(f.message) for f in report.findings] == ["the last 8 entries are missing"]
    everything = tamper(open_store, lambda c: c.execute(sa.delete(task_audit_logs)))
    assert not everything.ok
    with_head = tamper(
        open_store,
        lambda c: (
            c.execute(sa.delete(task_audit_logs).where(task_audit_logs.c.position > 4)),
            c.execute(sa.delete(audit_head)),
        ),
    )
    assert "head" in kinds(with_head)


def test_swapped_entries_are_found(open_store: SqlStore) -> None:
    def swap(connection: sa.Connection) -> None:
        for column in ("position", "sequence"):
            table = task_audit_logs.c
            for old, new in ((3, -1), (7, 3), (-1, 7)):
                connection.execute(sa.update(task_audit_logs).where(table[column] == old).values({column: new}))

    assert not tamper(open_store, swap).ok

    def swap_contents(connection: sa.Connection) -> None:
        own = {"sequence", "position", "prev_hash", "hash", "id"}
        query = sa.select(task_audit_logs).where(task_audit_logs.c.position.in_((3, 7)))
        first, second = (dict(row) for row in connection.execute(query).mappings())
        for here, there in ((first, second), (second, first)):
            values = {name: value for name, value in there.items() if name not in own}
            key = task_audit_logs.c.sequence == here["sequence"]
            connection.execute(sa.update(task_audit_logs).where(key).values(values))

    assert {f.position for f in tamper(open_store, swap_contents).findings} == {3, 7}


def test_an_entry_put_in_is_found(open_store: SqlStore) -> None:
    def put(connection: sa.Connection, **values: Any) -> None:
        row = dict(connection.execute(sa.select(task_audit_logs).limit(1)).mappings().one())
        if "position" in values:  # make room, as an intruder would
            after = sa.select(task_audit_logs.c.position).where(task_audit_logs.c.position >= values["position"])
            for position in sorted(connection.execute(after).scalars(), reverse=True):
                moved = task_audit_logs.c.position == position
                connection.execute(sa.update(task_audit_logs).where(moved).values(position=position + 1))
            connection.execute(sa.update(audit_head).values(position=audit_head.c.position + 1))
        connection.execute(sa.insert(task_audit_logs), {**row, "id": "new", "sequence": 5_000_000, **values})

    assert not tamper(open_store, lambda c: put(c, position=6)).ok
    assert not tamper(open_store, lambda c: put(c, position=13)).ok
    assert not tamper(open_store, lambda c: put(c, position=13, hash="0" * 64)).ok
    # Without a hash it waits for its place; on SQLite its number says that it came too late.
    late = {"position": None, "prev_hash": None, "hash": None, "sequence": -5}
    with open_store.engine.connect() as connection:
        row = dict(connection.execute(sa.select(task_audit_logs).limit(1)).mappings().one())
    report = tamper(open_store, lambda c: c.execute(sa.insert(task_audit_logs), {**row, "id": "new", **late}))
    assert report.unsealed == 1
    if open_store.engine.dialect.name == "sqlite":
        assert kinds(report) == {"inserted"}


def test_a_noted_head_shows_that_the_chain_was_written_anew(open_store: SqlStore) -> None:
    noted = verify_engine(open_store.engine).head

    def anew(connection: sa.Connection) -> None:
        connection.execute(sa.update(task_audit_logs).values(actor="nobody", position=None, prev_hash=None, hash=None))
        connection.execute(sa.update(audit_head).values(position=0, hash=GENESIS))

    with open_store.engine.begin() as connection:
        anew(connection)
    assert open_store.chain.verify().ok
    assert "changed" in kinds(open_store.chain.verify({noted.position: noted.hash}))


def test_the_sequencer_does_not_go_on_from_a_stolen_head(open_store: SqlStore) -> None:
    with open_store.engine.begin() as connection:
        connection.execute(sa.delete(audit_head))
    write(open_store, 1, since=50)
    with pytest.raises(Exception, match="audit_head"):
        open_store.chain.seal_all()
    assert "head" in kinds(verify_engine(open_store.engine))


# purge ---------------------------------------------------------------------------------------------


def purge(store: SqlStore, seconds: float, limit: int = 1_000) -> int:
    store.chain.seal_all()
    numbers = [number for _, number in store.chain.old(at(seconds), limit)]
    return store.transaction(
        lambda connection: store.chain.purge(connection, numbers, at(seconds), days=30, now=at(10_000))
    )


def test_the_chain_survives_a_purge(sql_store: SqlStore) -> None:
    write(sql_store, 30)
    sql_store.chain.seal_all()
    assert purge(sql_store, 10) == 10
    report = sql_store.chain.verify()
    assert (report.findings, report.entries, report.purged) == ([], 21, 10)
    anchor = sql_store.page_audit(AuditFilter(event_type="audit_anchor"))[0]
    gaps = anchor.metadata["gaps"]
    assert [(gap["first"], gap["last"], gap["count"]) for gap in gaps] == [(1, 10, 10)]
    assert anchor.metadata["days"] == 30
    write(sql_store, 5, since=30)
    assert purge(sql_store, 20, limit=4) == 4
    assert purge(sql_store, 20, limit=100) == 6
    report = sql_store.chain.verify()
    assert (report.findings, report.purged) == ([], 20)
    # The anchors age too; the newest always stands, and says it all.
    assert purge(sql_store, 20_000) == 10 + 5 + 3
    report = sql_store.chain.verify()
    assert (report.findings, report.entries) == ([], 1)
    write(sql_store, 3, since=100)
    assert sql_store.chain.verify().ok


def test_what_stays_is_passed_over_once(sql_store: SqlStore) -> None:
    """Ten entries of one instant under a hold, then five that go: each look begins where the last one ended."""
    for number in range(10):
        sql_store.record(Changes(audit=[an_entry(id=f"held-{number}", task_id="held", created_at=at(1))]))
    write(sql_store, 5, since=2)
    sql_store.chain.seal_all()
    row = task_audit_logs.c
    keep = [sa.func.coalesce(row.task_id, "") != "held"]
    first = sql_store.chain.old(at(100), 3, None, keep)
    rest = sql_store.chain.old(at(100), 3, first[-1], keep)
    assert [moment for moment, _ in first + rest] == [at(n) for n in range(2, 7)]
    assert sql_store.chain.old(at(100), 3, rest[-1], keep) == []
    pages = [found := sql_store.chain.old(at(100), 4), sql_store.chain.old(at(100), 20, found[-1])]
    assert [len(page) for page in pages] == [4, 11]
    assert sql_store.transaction(
        lambda connection: sql_store.chain.purge(
            connection, [number for _, number in first + rest], at(100), days=30, now=at(10_000)
        )
    ) == 5  # fmt: skip
    assert sql_store.chain.verify().ok


def test_entries_that_came_late_leave_several_gaps(sql_store: SqlStore) -> None:
    for number in (1, 50, 2, 51, 3):
        write(sql_store, 1, since=number)
    sql_store.chain.seal_all()
    assert purge(sql_store, 40) == 3
    report = sql_store.chain.verify()
    assert (report.findings, report.purged) == ([], 3)
    anchor = sql_store.page_audit(AuditFilter(event_type="audit_anchor"))[0]
    assert [gap["first"] for gap in anchor.metadata["gaps"]] == [1, 3, 5]


def test_a_theft_beside_a_purge_is_found(sql_store: SqlStore) -> None:
    write(sql_store, 30)
    sql_store.chain.seal_all()
    purge(sql_store, 10)
    unlock(sql_store)
    try:
        with sql_store.engine.begin() as connection:
            connection.execute(sa.delete(task_audit_logs).where(task_audit_logs.c.position == 11))
        assert kinds(verify_engine(sql_store.engine)) == {"missing", "inserted"}
        with sql_store.engine.begin() as connection:
            connection.execute(sa.delete(task_audit_logs).where(task_audit_logs.c.position == 31))
        assert not verify_engine(sql_store.engine).ok
    finally:
        if sql_store.engine.dialect.name == "postgresql":
            with sql_store.engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE task_audit_logs ENABLE TRIGGER ALL")


def test_writers_sequencers_and_a_purge_at_once(sql_store: SqlStore) -> None:
    stores = [SqlStore(make_engine(sql_store.engine.url)) for _ in range(4)]
    failed: list[BaseException] = []
    over = threading.Event()

    def writer(number: int) -> None:
        for k in range(40):
            write(stores[number], 2, since=number * 1_000 + k * 2)

    def keeper(number: int) -> None:
        while not over.is_set():
            stores[number].chain.seal(7)
            if number == 3:
                purge(stores[number], 60, limit=5)

    def guarded(work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=guarded, args=(writer, n)) for n in (0, 1)]
    keepers = [threading.Thread(target=guarded, args=(keeper, n)) for n in (2, 3)]
    for thread in (*writers, *keepers):
        thread.start()
    for thread in writers:
        thread.join(120)
    over.set()
    for thread in keepers:
        thread.join(60)
    assert failed == []
    purge(sql_store, 60)
    report = sql_store.chain.verify()
    assert (report.findings, report.unsealed) == ([], 0)
    anchors = len(sql_store.page_audit(AuditFilter(event_type="audit_anchor", limit=500)))
    assert report.entries == 160 - 60 + anchors
    for store in stores:
        store.close()


# bytes of a file -----------------------------------------------------------------------------------


def test_a_flipped_byte_in_the_file_is_found(tmp_path: Path) -> None:
    """Every byte of the entries as SQLite has them on disk: values, lengths and types of columns."""
    path = tmp_path / "audit.db"
    engine = make_engine(f"sqlite:///{path}")
    upgrade(engine)
    store = SqlStore(engine)
    write(store, 12)
    assert store.chain.verify().ok
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    whole = path.read_bytes()
    middle = whole.index(b"number 5")  # stands in the table only, not in an index
    entry = range(whole.rindex(b"entry-5", 0, middle) - 30, middle + 250)
    assert len(entry) < 900
    chance = random.Random(6)
    copy = tmp_path / "copy.db"
    copy.write_bytes(whole)

    def rows() -> list[Any]:
        with sqlite3.connect(copy) as raw:
            return raw.execute("SELECT * FROM task_audit_logs NOT INDEXED").fetchall()

    before, missed, found = rows(), [], 0
    for place in entry:
        with copy.open("r+b") as file:
            file.seek(place)
            file.write(bytes([whole[place] ^ 1 << chance.randrange(8)]))
        if verify_sqlite_file(copy).ok and rows() != before:  # a byte of free room is no entry's
            missed.append(place)
        found += not verify_sqlite_file(copy).ok
        with copy.open("r+b") as file:
            file.seek(place)
            file.write(whole[place : place + 1])
    assert missed == []
    assert found > len(entry) - 20


def test_a_closed_file_on_a_read_only_place_can_be_verified(tmp_path: Path, sqlite_url: str) -> None:
    store = SqlStore(make_engine(sqlite_url))
    write(store, 3)
    store.chain.seal_all()
    store.close()
    closed = tmp_path / "closed"
    closed.mkdir()
    shutil.copy(sqlite_url.removeprefix("sqlite:///"), closed / "a.db")
    closed.chmod(0o500)
    try:
        assert verify_sqlite_file(closed / "a.db").entries == 3
    finally:
        closed.chmod(0o700)


def test_a_text_that_says_the_same_in_other_bytes_is_a_change(sqlite_url: str) -> None:
    store = SqlStore(make_engine(sqlite_url))
    write(store, 3)
    store.chain.seal_all()
    unlock(store)
    path = sqlite_url.removeprefix("sqlite:///")
    for statement in (
        "UPDATE task_audit_logs SET created_at = replace(created_at, ' ', 'T') WHERE position = 2",
        """UPDATE task_audit_logs SET metadata = replace(metadata, ',', ', ') WHERE position = 2""",
        "UPDATE task_audit_logs SET actor = CAST(actor AS BLOB) WHERE position = 2",
        "UPDATE task_audit_logs SET message = CAST(x'ff' AS TEXT) WHERE position = 2",
    ):
        with sqlite3.connect(path) as raw:
            before = raw.execute("SELECT * FROM task_audit_logs WHERE position = 2").fetchone()
            raw.execute(statement)
        assert [f.position for f in verify_sqlite_file(Path(path)).findings] == [2], statement
        with sqlite3.connect(path) as raw:
            raw.execute("DELETE FROM task_audit_logs WHERE position = 2")
            raw.execute(f"INSERT INTO task_audit_logs VALUES ({','.join('?' * len(before))})", before)
        assert verify_sqlite_file(Path(path)).ok


# exports -------------------------------------------------------------------------------------------


def exported(store: SqlStore) -> bytes:
    with store.chain.snapshot() as (head, rows):
        assert head is not None
        return b"".join(write_export(rows, head, NOON.isoformat()))


def checked(tmp_path: Path, data: bytes) -> Report:
    path = tmp_path / "export.jsonl"
    path.write_bytes(data)
    with path.open("rb") as file:
        return verify_export(file)


def test_an_export_is_verified_without_a_database(sql_store: SqlStore, tmp_path: Path) -> None:
    write(sql_store, 20)
    sql_store.chain.seal_all()
    purge(sql_store, 5)
    data = exported(sql_store)
    report = checked(tmp_path, data)
    assert (report.findings, report.entries, report.purged) == ([], 16, 5)
    assert report.head == sql_store.chain.verify().head


def test_every_flipped_byte_of_an_export_is_found(sqlite_url: str, tmp_path: Path) -> None:
    store = SqlStore(make_engine(sqlite_url))
    write(store, 4)
    store.chain.seal_all()
    data = exported(store)
    chance = random.Random(7)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        assert not checked(tmp_path, bytes(flipped)).ok, place


def test_lines_of_an_export_taken_put_in_or_swapped_are_found(sqlite_url: str, tmp_path: Path) -> None:
    store = SqlStore(make_engine(sqlite_url))
    write(store, 6)
    store.chain.seal_all()
    lines = exported(store).splitlines(keepends=True)

    def closed(body: list[bytes]) -> bytes:
        """With a last line that fits, as whoever knows the format would write it."""
        import hashlib

        joined = b"".join(body)
        return joined + b'{"sha256":"' + hashlib.sha256(joined).hexdigest().encode() + b'"}\n'

    assert checked(tmp_path, closed(lines[:-1])).ok
    for place in range(1, 7):
        assert not checked(tmp_path, closed([*lines[:place], *lines[place + 1 : -1]])).ok
        assert not checked(tmp_path, closed([*lines[:place], lines[place], *lines[place:-1]])).ok
    swapped = [*lines[:2], lines[3], lines[2], *lines[4:-1]]
    assert not checked(tmp_path, closed(swapped)).ok
    assert not checked(tmp_path, b"".join(lines[:-1])).ok
    assert not checked(tmp_path, b"").ok
    assert not checked(tmp_path, string.printable.encode()).ok
