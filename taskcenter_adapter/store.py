"""Opening the store that an address names."""

from __future__ import annotations

from taskcenter.clock import Clock
from taskcenter.ports import Store

__all__ = ["MEMORY", "open_store", "rest"]

MEMORY = "memory://"
_rested: dict[str, Store] = {}


def rest(url: str, store: Store) -> None:
    """Close a store's connections, and give it to the next one who opens ``url`` here or in a fork of this process.

    What is left of it has no tie to a process: statements that were built and compiled, what the server said of itself.
    """
    store.close()
    _rested[url] = store


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
