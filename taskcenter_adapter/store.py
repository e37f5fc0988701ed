"""Opening the store that an address names."""

from __future__ import annotations

from taskcenter.clock import Clock
from taskcenter.ports import Store

__all__ = ["MEMORY", "open_store"]

MEMORY = "memory://"


def open_store(url: str, *, clock: Clock | None = None) -> Store:
    """The store behind ``postgresql://…``, ``sqlite:///…`` or ``memory://``.

    Nothing is migrated here: ``database.upgrade`` does that, once, when the product starts. ``clock`` says when a
    task was saved.
    """
    # The memory store needs no database library, and importing one costs a tenth of a second.
    if url == MEMORY:
        from .store_memory import MemoryStore

        return MemoryStore(clock=clock)
    from .database import make_engine
    from .store_sql import SqlStore

    return SqlStore(make_engine(url), clock=clock)
