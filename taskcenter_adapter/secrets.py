"""Rows of encrypted secrets, in Task Center's own database; they mean nothing without the key. (spec 8.3)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Connection, Table, Text

from taskcenter.errors import NotFound
from taskcenter.models import AuditEntry

from .leases import Transactions
from .statements import add_audit
from .tables import KEY, UtcTime, metadata

__all__ = ["SecretRow", "SqlSecrets", "secrets"]

secrets = Table(
    "secrets",
    metadata,
    Column("name", KEY, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", KEY, nullable=False),
    Column("ciphertext", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("created_by", Text, nullable=False),
)
KEPT = 3
"""Versions of one secret that are kept: the one in use and two before it."""


@dataclass(frozen=True)
class SecretRow:
    """One version as it is stored."""

    name: str
    version: int
    key_id: str
    ciphertext: str
    created_at: datetime
    created_by: str


class SqlSecrets:
    """Over the database of a :class:`~taskcenter_adapter.store_sql.SqlStore`."""

    def __init__(self, store: Transactions) -> None:
        self._store = store

    def latest(self, name: str) -> SecretRow | None:
        """The version in use."""
        rows = self._select(
            sa.select(secrets).where(secrets.c.name == name).order_by(secrets.c.version.desc()).limit(1)
        )
        return rows[0] if rows else None

    def all(self) -> Sequence[SecretRow]:
        """Every kept version, by name, the newest first."""
        return self._select(sa.select(secrets).order_by(secrets.c.name, secrets.c.version.desc()))

    def put(
        self, name: str, ciphertext: str, key_id: str, now: datetime, by: str, audit: Callable[[int], AuditEntry]
    ) -> int:
        """A new version, which is from now on the one in use; ``audit`` is given its number."""

        def work(connection: Connection) -> int:
            last = connection.execute(sa.select(sa.func.max(secrets.c.version)).where(secrets.c.name == name)).scalar()
            version = (last or 0) + 1
            row = SecretRow(name, version, key_id, ciphertext, now, by)
            connection.execute(sa.insert(secrets), vars(row))
            old = sa.delete(secrets).where(secrets.c.name == name, secrets.c.version <= version - KEPT)
            connection.execute(old)
            add_audit(connection, [audit(version)])
            return version

        return self._store.transaction(work, races=True)

    def rewrite(self, fresh: Callable[[SecretRow], tuple[str, str]], audit: Callable[[int], AuditEntry]) -> int:
        """Every row anew: ``fresh`` gives its ciphertext and key. All of them or none."""

        def work(connection: Connection) -> int:
            rows = [SecretRow(**row) for row in connection.execute(sa.select(secrets).with_for_update()).mappings()]
            for row in rows:
                ciphertext, key_id = fresh(row)
                where = (secrets.c.name == row.name) & (secrets.c.version == row.version)
                connection.execute(sa.update(secrets).where(where).values(ciphertext=ciphertext, key_id=key_id))
            add_audit(connection, [audit(len(rows))])
            return len(rows)

        return self._store.transaction(work)

    def delete(self, name: str, audit: AuditEntry) -> None:
        """All versions. Raises NotFound."""

        def work(connection: Connection) -> None:
            if connection.execute(sa.delete(secrets).where(secrets.c.name == name)).rowcount == 0:
                raise NotFound(f"there is no secret {name!r}", name=name)
            add_audit(connection, [audit])

        self._store.transaction(work)

    def _select(self, query: sa.Select[Any]) -> list[SecretRow]:
        with self._store.reading() as connection:
            return [SecretRow(**row) for row in connection.execute(query).mappings()]
