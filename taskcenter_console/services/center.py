"""What every service works with: the store, the gateway when a Prefect server is needed, and who asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from taskcenter.clock import utc_now
from taskcenter.errors import ServerAway
from taskcenter.models import AuditEntry
from taskcenter.ports import Store
from taskcenter.settings import Settings
from taskcenter.task_types import registry
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.runtime import database_url, prefect_api_url
from taskcenter_adapter.store import need_sql, open_store, sql_store

if TYPE_CHECKING:
    from taskcenter.scheduling.calendars import Calendars
    from taskcenter_adapter.schedule import Schedule

__all__ = ["ASKED_FROM", "Caller", "Center"]


ASKED_FROM: ContextVar[str | None] = ContextVar("asked_from", default=None)
"""The address of the request that is being answered."""


@dataclass(frozen=True)
class Caller:
    """Who asks, and through which door; stands in every audit entry."""

    actor: str
    channel: Literal["ui", "api", "cli", "prefect", "system"]
    address: str | None = None
    """Where it asks from; for a request of the API the one that ``ASKED_FROM`` says."""

    def entry(self, event_type: str, **values: Any) -> AuditEntry:
        return AuditEntry(
            event_type=event_type,
            actor=self.actor,
            channel=self.channel,
            address=self.address or ASKED_FROM.get(),
            created_at=utc_now(),
            **values,
        )


@dataclass
class Center:
    """The handles of one process; both are opened when first asked for, once, whichever thread asks."""

    settings: Settings
    open_store: Callable[[], Store] | None = None
    open_gateway: Callable[[], Gateway] | None = None
    deployment_ids: dict[str, str] = field(default_factory=dict, repr=False)
    """Prefect's ids of deployments by name, as they were last seen."""
    _store: Store | None = field(default=None, repr=False)
    _gateway: Gateway | None = field(default=None, repr=False)
    _opening: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        registry.folder = registry.folder or self.settings.project / "task_types"

    @property
    def store(self) -> Store:
        with self._opening:
            if self._store is None:
                self._store = self.open_store() if self.open_store else open_store(database_url(self.settings))
            return self._store

    @property
    def gateway(self) -> Gateway:
        with self._opening:
            if self._gateway is None:
                self._gateway = self.open_gateway() if self.open_gateway else Gateway(prefect_api_url(self.settings))
            return self._gateway

    @property
    def schedule(self) -> Schedule | None:
        """The scheduler's memory; None with the store in memory, which has none."""
        found = sql_store(self.store)
        return found.schedule if found is not None else None

    def need_schedule(self) -> Schedule:
        return need_sql(self.store, "has no scheduler").schedule

    def calendars(self) -> Calendars:
        """Those that triggers may name; none with the store in memory."""
        from taskcenter.scheduling.calendars import Calendars

        return self.schedule.calendars.all() if self.schedule is not None else Calendars()

    def prefect_url(self) -> str | None:
        """The Prefect UI's address, when a server is known."""
        try:
            return self.gateway.api_url.removesuffix("/api")
        except ServerAway:
            return None

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        if self._gateway is not None:
            self._gateway.close()

    def __enter__(self) -> Center:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
