"""The audit's sequencer and its readers: sealing what was written, removing what is old, looking whether all is there.

There may be several services; they take turns by the row of ``audit_head``. A writer of entries never waits for any
of them: it only inserts. (spec 6.4)
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine

from taskcenter.audit import ANCHOR, FIELDS, GENESIS, Gap, Head, Report, Verifier, hash_of, with_gaps
from taskcenter.errors import Refused, SetupError
from taskcenter.models import AuditEntry

from .database import audit_deletes, speaking
from .leases import Transactions
from .rows import Row, audit_row, json_text
from .tables import UtcTime, audit_head, task_audit_logs

__all__ = ["AuditChain", "verify_engine", "verify_sqlite_file"]

BATCH = 500
"""Entries that are sealed in one transaction."""

_READ = (*FIELDS, "hash")
_COLUMNS = ", ".join(f'"{name}"' for name in _READ)
_JSON = ("before", "after", "metadata")
_CHAIN = f"SELECT {_COLUMNS} FROM task_audit_logs WHERE hash IS NOT NULL ORDER BY position"
_UNSEALED = f"SELECT {_COLUMNS} FROM task_audit_logs WHERE hash IS NULL"
_HEAD = "SELECT position, hash FROM audit_head WHERE id = 1"


class AuditChain:
    """The chain of one database."""

    def __init__(self, store: Transactions) -> None:
        self._store = store
        self._postgres = store.engine.dialect.name == "postgresql"

    # sealing ---------------------------------------------------------------------------------------

    def seal(self, limit: int = BATCH) -> int:
        """Give the next entries their places; how many. Call it until it gives 0."""
        with self._store.reading() as connection:
            # The look costs no lock, and most of the time there is nothing to do.
            if connection.exec_driver_sql(f"{_UNSEALED} LIMIT 1").first() is None:
                return 0
        return self._store.transaction(lambda connection: self._seal(connection, limit))

    def seal_all(self) -> int:
        """Everything that stands there now."""
        sealed = 0
        while count := self.seal():
            sealed += count
        return sealed

    def _seal(self, connection: Connection, limit: int) -> int:
        head, anchor = self._take_head(connection)
        # SQLite numbers entries in the order of their commits: one with an older number was put there by hand.
        # It is left as it is, and verify names it.
        newer = "" if self._postgres else (
            " AND sequence > coalesce((SELECT sequence FROM task_audit_logs WHERE position IS NOT NULL"
            " ORDER BY position DESC LIMIT 1), 0)"
        )  # fmt: skip
        found = connection.exec_driver_sql(f"{_UNSEALED}{newer} ORDER BY sequence LIMIT {int(limit)}").all()
        sealed: list[Row] = []
        for values in found:
            row = {**_wire(values, self._postgres), "position": head.position + 1, "prev_hash": head.hash}
            head = Head(head.position + 1, hash_of(row))
            sealed.append({"key": row["sequence"], "place": head.position, "former": row["prev_hash"],
                           "own": head.hash})  # fmt: skip
        if sealed:
            table = task_audit_logs.c
            connection.execute(
                sa.update(task_audit_logs)
                .where(table.sequence == sa.bindparam("key"))
                .values(position=sa.bindparam("place"), prev_hash=sa.bindparam("former"), hash=sa.bindparam("own")),
                sealed,
            )
            self._put_head(connection, head, anchor)
        return len(sealed)

    def _take_head(self, connection: Connection) -> tuple[Head, int | None]:
        """The end of the chain, and nobody else's until this transaction is over."""
        query = sa.select(audit_head).where(audit_head.c.id == 1).with_for_update()
        row = connection.execute(query).first()
        if row is not None:
            return Head(row.position, row.hash), row.anchor
        sealed = connection.exec_driver_sql(f"{_CHAIN} DESC LIMIT 1").first()
        if sealed is not None:
            row = connection.execute(query).first()
            if row is not None:  # another sequencer was the first one, just now
                return Head(row.position, row.hash), row.anchor
            raise Refused(
                "nothing says where the audit's chain ends, and there are sealed entries: somebody took the row of "
                "audit_head away. Look with: taskcenter audit verify"
            )
        connection.exec_driver_sql(
            f"INSERT INTO audit_head (id, position, hash) VALUES (1, 0, '{GENESIS}') ON CONFLICT (id) DO NOTHING"
        )
        row = connection.execute(query).one()
        return Head(row.position, row.hash), row.anchor

    def _put_head(self, connection: Connection, head: Head, anchor: int | None) -> None:
        values = {"position": head.position, "hash": head.hash, "anchor": anchor}
        connection.execute(sa.update(audit_head).where(audit_head.c.id == 1).values(values))

    # removing --------------------------------------------------------------------------------------

    def old(
        self,
        cutoff: datetime,
        limit: int,
        after: tuple[datetime, int] | None = None,
        keep: Sequence[ColumnElement[bool]] = (),
    ) -> list[tuple[datetime, int]]:
        """The next sealed entries made before ``cutoff``, by time and number, as :meth:`purge` may be told of them.

        ``keep``: conditions that an entry must meet beside its age; ``after``: where the last look ended. What stays
        is then passed over once, not again with every step.
        """
        table = task_audit_logs.c
        query = sa.select(table.created_at, table.sequence).where(
            table.created_at < cutoff, table.hash.is_not(None), *keep
        )
        if after is not None:
            moment, number = sa.literal(after[0], UtcTime()), sa.literal(after[1], table.sequence.type)
            # The first condition alone is one that every planner finds in the index.
            query = query.where(
                table.created_at >= moment, sa.tuple_(table.created_at, table.sequence) > sa.tuple_(moment, number)
            )
        with self._store.reading() as connection:
            found = connection.execute(query.order_by(table.created_at, table.sequence).limit(limit))
            return [(at, sequence) for at, sequence in found]

    def purge(
        self, connection: Connection, sequences: Sequence[int], cutoff: datetime, *, days: int, now: datetime
    ) -> int:
        """Remove these entries and leave the anchor for them; how many were still there."""
        table = task_audit_logs.c
        # Entries keep the order of their numbers: those that wait get their places before the anchor gets its own.
        while self._seal(connection, BATCH):
            pass
        head, anchor = self._take_head(connection)
        old = sa.select(table.sequence, table.position, table.prev_hash, table.hash).where(
            table.sequence.in_(sequences), table.hash.is_not(None)
        )
        removed = [dict(row) for row in connection.execute(old).mappings()]
        if not removed:
            return 0
        gaps = with_gaps(self._gaps(connection, anchor), removed)
        with audit_deletes(connection):
            connection.execute(
                sa.delete(task_audit_logs).where(table.sequence == sa.bindparam("key")),
                [{"key": row["sequence"]} for row in removed],
            )
        entry = AuditEntry(
            event_type=ANCHOR,
            object="audit",
            message=f"{len(removed)} entries older than {days} days were removed",
            metadata={"gaps": [gap.to_dict() for gap in gaps], "count": len(removed), "days": days,
                      "cutoffAt": cutoff.astimezone(UTC).isoformat()},
            created_at=now,
        )  # fmt: skip
        sequence = connection.execute(
            sa.insert(task_audit_logs).returning(table.sequence), audit_row(entry)
        ).scalar_one()
        self._seal_anchor(connection, head, sequence)
        return len(removed)

    def _seal_anchor(self, connection: Connection, head: Head, sequence: int) -> None:
        """At once: a gap without its anchor in the chain would look like a theft."""
        table = task_audit_logs.c
        found = connection.exec_driver_sql(
            f"SELECT {_COLUMNS} FROM task_audit_logs WHERE sequence = {int(sequence)}"
        ).one()
        row = {**_wire(found, self._postgres), "position": head.position + 1, "prev_hash": head.hash}
        new = Head(head.position + 1, hash_of(row))
        connection.execute(
            sa.update(task_audit_logs)
            .where(table.sequence == sequence)
            .values(position=new.position, prev_hash=head.hash, hash=new.hash)
        )
        self._put_head(connection, new, sequence)

    def _gaps(self, connection: Connection, anchor: int | None) -> list[Gap]:
        if anchor is None:
            return []
        query = sa.select(task_audit_logs.c.metadata).where(task_audit_logs.c.sequence == anchor)
        return [Gap.of(data) for data in connection.execute(query).scalar_one()["gaps"]]

    # looking ---------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[tuple[Head | None, Iterator[Row]]]:
        """Where the chain ends, and its sealed entries in order, as they stand at one moment."""
        engine = self._store.engine
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"} if self._postgres else {}
        with speaking(engine), engine.connect().execution_options(**options) as connection:
            row = connection.exec_driver_sql(_HEAD).first()
            stream = connection.execution_options(stream_results=True, yield_per=2_000).exec_driver_sql(_CHAIN)
            yield (Head(row[0], row[1]) if row else None), (_wire(tuple(values), self._postgres) for values in stream)

    def verify(self, expected: Mapping[int, str] | None = None) -> Report:
        """Seal what is open, then look at all of it."""
        self.seal_all()
        return verify_engine(self._store.engine, expected)


def _wire(values: Sequence[Any], postgres: bool) -> Row:
    """A row as it is hashed and exported."""
    row = dict(zip(_READ, values, strict=True))
    if postgres:
        row["created_at"] = row["created_at"].astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"
        return row
    # The very text counts: a form that we do not write is taken as it stands, and so it differs.
    moment = row["created_at"]
    if isinstance(moment, str) and len(moment) == 26 and moment[10] == " ":
        row["created_at"] = f"{moment[:10]}T{moment[11:]}Z"
    for name in _JSON:
        if row[name] is not None:
            row[name] = _document(row[name])
    for name, value in row.items():
        if isinstance(value, bytes):
            row[name] = f"bytes {value.hex()}"
    return row


def _document(text: Any) -> Any:
    try:
        value = json.loads(text)
        return value if json_text(value) == text else str(text)
    except (ValueError, TypeError, RecursionError):
        return str(text)


def verify_engine(engine: Engine, expected: Mapping[int, str] | None = None) -> Report:
    """Look at the audit of a database; nothing is written."""
    if engine.dialect.name != "postgresql":
        return verify_sqlite_file(Path(str(engine.url.database)), expected)
    verifier = Verifier(expected)
    with (
        speaking(engine),
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
    ):
        row = connection.exec_driver_sql(_HEAD).first()
        for query in (_CHAIN, _UNSEALED):
            stream = connection.execution_options(stream_results=True, yield_per=2_000).exec_driver_sql(query)
            for values in stream:
                verifier.add(_wire(tuple(values), True))
    return verifier.finish(Head(row[0], row[1]) if row else None)


def verify_sqlite_file(path: Path, expected: Mapping[int, str] | None = None) -> Report:
    """Look at the audit in a database file, as the bytes stand there; nothing is written."""
    verifier = Verifier(expected, ordered=True)
    head: Head | None = None
    with closing(_open(path)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        try:
            connection.execute("BEGIN")
            if connection.execute("SELECT 1 FROM pragma_table_info('task_audit_logs') WHERE name = 'position'"
                                  ).fetchone() is None:  # fmt: skip
                raise SetupError(f"{path} holds no audit of this version: run `taskcenter db upgrade` on it first.")
            row = connection.execute(_HEAD).fetchone()
            head = Head(*row) if row else None
            # Read from the table itself: an index that was tampered with must not hide a row.
            for values in connection.execute(f"SELECT {_COLUMNS} FROM task_audit_logs NOT INDEXED ORDER BY position"):
                verifier.add(_wire(values, False))
        except sqlite3.DatabaseError as error:
            verifier.damaged(f"the database file cannot be read to its end: {error}")
    return verifier.finish(head)


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise SetupError(f"there is no file {path}")
    name = path.absolute().as_uri()
    # Immutable as the second try: a copy on a place that cannot be written has no room for its -shm file.
    for mode in ("mode=ro", "immutable=1"):
        try:
            connection = sqlite3.connect(f"{name}?{mode}", uri=True, isolation_level=None)
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return connection
        except sqlite3.OperationalError:
            continue
        except sqlite3.DatabaseError:
            break
    raise SetupError(f"{path} cannot be opened as a SQLite database: name another file, or a database address.")
