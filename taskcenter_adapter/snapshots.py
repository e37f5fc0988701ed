"""Structures of the users' databases as they were seen, in Task Center's own database. (spec 2.3)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Index, Table, Text, UniqueConstraint

from taskcenter.models import SchemaSnapshot

from .leases import Transactions
from .rows import clean_json, clean_text
from .statements import insert_into
from .tables import JSON, KEY, UtcTime, metadata

__all__ = ["SqlSnapshots", "schema_snapshots", "snapshot_row"]

schema_snapshots = Table(
    "schema_snapshots",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("connection", KEY, nullable=False),
    Column("database", KEY, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("schema_hash", KEY, nullable=False),
    Column("structure", JSON, nullable=False),
    Column("first_captured_at", UtcTime, nullable=False),
    Column("captured_at", UtcTime, nullable=False),
    Column("run_id", KEY),
    UniqueConstraint("connection", "database", "schema_hash"),
    Index("ix_schema_snapshots_connection", "connection", "captured_at"),
    Index("ix_schema_snapshots_captured_at", "captured_at"),
)
_LIGHT = [column for column in schema_snapshots.c if column.name != "structure"]


def snapshot_row(snapshot: SchemaSnapshot) -> dict[str, Any]:
    """The snapshot as column values, as every store can keep them."""
    row = snapshot.model_dump()
    texts = {key: clean_text(value) if isinstance(value, str) else value for key, value in row.items()}
    return {**texts, "structure": clean_json(snapshot.structure, "structure")}


class SqlSnapshots:
    """Over the database of a :class:`~taskcenter_adapter.store_sql.SqlStore`."""

    def __init__(self, store: Transactions) -> None:
        self._store = store
        put = insert_into(schema_snapshots, store.engine)
        self._put = put.on_conflict_do_update(
            index_elements=["connection", "database", "schema_hash"],
            set_={"captured_at": put.excluded.captured_at, "run_id": put.excluded.run_id},
            where=put.excluded.captured_at >= schema_snapshots.c.captured_at,
        )

    def save(self, snapshot: SchemaSnapshot) -> SchemaSnapshot:
        row = snapshot_row(snapshot)
        same = (
            sa.select(schema_snapshots)
            .where(schema_snapshots.c.connection == row["connection"])
            .where(schema_snapshots.c.database == row["database"])
            .where(schema_snapshots.c.schema_hash == row["schema_hash"])
        )

        def work(connection: Connection) -> Mapping[str, Any]:
            connection.execute(self._put, row)
            return dict(connection.execute(same).mappings().one())

        return SchemaSnapshot(**self._store.transaction(work))

    def find(self, id: str) -> SchemaSnapshot | None:
        return self._one(sa.select(schema_snapshots).where(schema_snapshots.c.id == clean_text(id)))

    def latest(self, connection: str, database: str = "") -> SchemaSnapshot | None:
        return self._one(
            sa.select(schema_snapshots)
            .where(schema_snapshots.c.connection == clean_text(connection))
            .where(schema_snapshots.c.database == clean_text(database))
            .order_by(schema_snapshots.c.captured_at.desc(), schema_snapshots.c.id.desc())
            .limit(1)
        )

    def before(self, snapshot: SchemaSnapshot) -> SchemaSnapshot | None:
        kept = schema_snapshots.c
        back = kept.captured_at >= snapshot.captured_at
        return self._one(
            sa.select(schema_snapshots)
            .where(kept.connection == clean_text(snapshot.connection))
            .where(kept.database == clean_text(snapshot.database))
            .where(kept.id != clean_text(snapshot.id), kept.first_captured_at < snapshot.captured_at)
            .order_by(sa.case((back, kept.first_captured_at), else_=kept.captured_at).desc(), kept.id.desc())
            .limit(1)
        )

    def ids(self, beginning: str, *, limit: int = 2) -> Sequence[str]:
        id, begins = schema_snapshots.c.id, clean_text(beginning)
        # A range, not LIKE: it reads the primary key's index and knows no wildcards.
        query = sa.select(id).where(id >= begins, id < begins + "\U0010ffff").order_by(id).limit(limit)
        with self._store.reading() as opened:
            return list(opened.execute(query).scalars())

    def page(self, connection: str | None = None, *, limit: int = 100, offset: int = 0) -> Sequence[SchemaSnapshot]:
        query = sa.select(*_LIGHT).order_by(schema_snapshots.c.captured_at.desc(), schema_snapshots.c.id)
        if connection is not None:
            query = query.where(schema_snapshots.c.connection == clean_text(connection))
        query = query.limit(max(limit, 0)).offset(max(offset, 0))
        with self._store.reading() as opened:
            return [SchemaSnapshot(**row, structure={}) for row in opened.execute(query).mappings()]

    def _one(self, query: sa.Select[Any]) -> SchemaSnapshot | None:
        with self._store.reading() as opened:
            row = opened.execute(query).mappings().first()
        return SchemaSnapshot(**row) if row is not None else None
