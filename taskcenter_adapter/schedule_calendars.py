"""Named calendars in the database. (spec 4.7)"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter.errors import NotFound
from taskcenter.models import AuditEntry
from taskcenter.scheduling.calendars import Calendar, Calendars

from .leases import Transactions
from .schedule_read import Reader
from .schedule_tables import calendars, trigger_states
from .schedule_write import Writer
from .statements import add_audit, chunks, insert_into
from .tables import task_triggers

__all__ = ["CalendarBook"]


class CalendarBook:
    """Over the database of a store. Triggers that use a calendar look at their slots again when it changes."""

    def __init__(self, store: Transactions) -> None:
        self._store = store

    def all(self) -> Calendars:
        with self._store.reading() as connection:
            return Reader(connection).calendars()

    def put(self, calendar: Calendar, now: datetime, audit: Sequence[AuditEntry] = ()) -> None:
        """Make or replace it."""

        def work(connection: Connection) -> None:
            insert = insert_into(calendars, connection)
            values = {"name": calendar.name, "definition": calendar.to_json(), "updated_at": now}
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["name"],
                    set_={"definition": insert.excluded.definition, "updated_at": insert.excluded.updated_at},
                ),
                values,
            )
            self._changed(connection, now)
            add_audit(connection, audit)

        self._store.transaction(work)

    def delete(self, name: str, now: datetime, audit: Sequence[AuditEntry] = ()) -> None:
        def work(connection: Connection) -> None:
            if connection.execute(sa.delete(calendars).where(calendars.c.name == name)).rowcount == 0:
                raise NotFound(f"there is no calendar {name!r}", name=name)
            self._changed(connection, now)
            add_audit(connection, audit)

        self._store.transaction(work)

    def _changed(self, connection: Connection, now: datetime) -> None:
        rows = connection.execute(sa.select(task_triggers.c.id, task_triggers.c.options))
        ids = [row.id for row in rows if (row.options or {}).get("calendar")]
        writer = Writer(connection)
        writer.withdraw_ahead(ids)
        writer.look_now(ids, [], now)
        for some in chunks(ids):
            connection.execute(
                sa.update(trigger_states).where(trigger_states.c.trigger_id.in_(some)).values(next_known=False)
            )
