"""Opening the store that an address names, and asking what is behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskcenter.clock import Clock
from taskcenter.errors import Refused
from taskcenter.ports import Store

if TYPE_CHECKING:
    from .store_sql import SqlStore

__all__ = ["MEMORY", "close_kept", "keep", "need_sql", "open_store", "rest", "sql_store"]

MEMORY = "memory://"
_rested: dict[str, Store] = {}


def rest(url: str, store: Store) -> None:
    """Close a store's connections, and give it to the next one who opens ``url`` here or in a fork of this process.

    What is left of it has no tie to a process: statements that were built and compiled, what the server said of itself.
    """
    store.close()
    _rested[url] = store


def keep(url: str, store: Store) -> None:
    """The same with its connections, for the next one who opens ``url`` in this process."""
    _rested[url] = store


def close_kept() -> None:
    """Close the connections of what nobody has opened."""
    while _rested:
        _rested.popitem()[1].close()


def open_store(url: str, *, clock: Clock | None = None) -> Store:
    """The store behind ``postgresql://…``, ``sqlite:///…`` or ``memory://``.

    Nothing is migrated here: ``database.upgrade`` does that, once, when the product starts. ``clock`` says when a
    task was saved.
    """
    if clock is None and url in _rested:
        return _rested.pop(url)
    # The memory store needs no database library, and importing one costs a tenth of a second.
    if url == MEMORY:
        from .store_memory import MemoryStore

        return MemoryStore(clock=clock)
    from .database import make_engine
    from .store_sql import SqlStore

    return SqlStore(make_engine(url), clock=clock)


def sql_store(store: Store) -> SqlStore | None:
    """The store when a database is behind it: only there are secrets, the scheduler's memory and the audit's chain."""
    from .store_memory import MemoryStore

    if isinstance(store, MemoryStore):
        return None
    from .store_sql import SqlStore

    return store if isinstance(store, SqlStore) else None


def need_sql(store: Store, lacks: str) -> SqlStore:
    """Raises Refused where there is none; ``lacks`` says why that matters: ``keeps no secrets``."""
    found = sql_store(store)
    if found is None:
        raise Refused(f"the store in memory {lacks}: use a database")
    return found
