"""The value behind a secret's name, for the process of the step that needs it: our own store, then Prefect's blocks."""

from __future__ import annotations

import json
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.errors import Refused
from taskcenter.models import AuditEntry
from taskcenter.ports import Store
from taskcenter.redaction import register_secret
from taskcenter.settings import Settings

from .keys import load_keys
from .store import sql_store

__all__ = ["resolve_secret", "use_of"]


def resolve_secret(name: str, settings: Settings, store: Store) -> tuple[str, dict[str, Any]]:
    """The value, which is masked from now on in all that leaves this process, and where it was (for the audit).

    Raises Refused when nobody knows it, SetupError when the key is the wrong one.
    """
    own = sql_store(store)
    row = own.secrets.latest(name) if own is not None else None
    if row is not None:
        value = load_keys(settings).decrypt(name, row.ciphertext, row.key_id)
        register_secret(value)
        return value, {"name": name, "store": "taskcenter", "version": row.version}
    value = _from_prefect(name)
    register_secret(value)
    return value, {"name": name, "store": "prefect"}


def use_of(
    found: dict[str, Any], by: str, run_id: str | None, *, task_id: str | None = None, step: str | None = None
) -> AuditEntry:
    """The audit entry of a use. ``found`` is what :func:`resolve_secret` said, ``by`` the task that used it."""
    name = found["name"]
    return AuditEntry(
        event_type="secret_used",
        task_id=task_id,
        run_id=run_id,
        actor=f"run {run_id}" if run_id else "system",
        object=f"secret {name}",
        message=f"the secret {name} was used by {by}",
        metadata={**found, "step": step},
        created_at=utc_now(),
    )


def _from_prefect(name: str) -> str:
    from prefect.blocks.system import Secret

    try:
        block: Any = Secret.load(name, _sync=True)  # type: ignore[call-arg]
    except ValueError:
        raise Refused(
            f"there is no secret {name!r}: make it with: taskcenter secret set {name} (or as a Prefect Secret block)",
            name=name,
        ) from None
    # Not block.get(): that reads a text that looks like JSON as JSON ("1e3" becomes 1000.0).
    raw = block.value.get_secret_value()
    return raw if isinstance(raw, str) else json.dumps(raw)
