"""Brings the tables to this version and says so in the audit they hold. (spec 6.1, 6.4)"""

from __future__ import annotations

from sqlalchemy import Engine

from taskcenter.ports import Changes
from taskcenter_adapter import database
from taskcenter_adapter.store_sql import SqlStore

from .center import Caller

__all__ = ["upgrade"]


def upgrade(engine: Engine, caller: Caller) -> bool:
    """Whether anything had to be done; all of it or nothing."""
    before = database.current(engine)
    database.upgrade(engine)
    after = database.current(engine)
    if after == before:
        return False
    entry = caller.entry(
        "database_upgraded",
        object=f"database {database.where(engine)}",
        before={"revision": before},
        after={"revision": after},
        message=f"the tables were brought from revision {before or 'none'} to {after}",
    )
    SqlStore(engine).record(Changes(audit=(entry,)))
    return True
