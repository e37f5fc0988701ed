"""The deployment ``housekeeping/purge-history``, beside those of the tasks. (spec 6.5)

It has no schedule: the service purges once an hour by itself. Who runs no service gives it one.
"""

from __future__ import annotations

from typing import Any, Final

from taskcenter_adapter.gateway import Gateway

from .spec import POOL

__all__ = ["PURGE_HISTORY", "put"]

_PARAMETERS: Final[dict[str, Any]] = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "days": {
            "title": "days",
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": 3650}, {"type": "null"}],
            "default": None,
            "description": "Other days than the policy's, for this run only (1 to 3650).",
            "position": 0,
        }
    },
    "definitions": {},
}
PURGE_HISTORY: Final[dict[str, Any]] = {
    "name": "purge-history",
    "description": "Delete the history that the retention policy does not keep.",
    "entrypoint": "flows.housekeeping.housekeeping",
    "parameters": {},
    "tags": ["housekeeping"],
    "work_pool_name": POOL,
    "work_queue_name": "low",
    "parameter_openapi_schema": _PARAMETERS,
    "enforce_parameter_schema": True,
}
_FLOW = "housekeeping"
_OURS = ("description", "entrypoint", "parameter_openapi_schema", "enforce_parameter_schema")
"""What follows this version; all else in it, and its schedules, are a person's once it is there."""


def put(gateway: Gateway) -> None:
    """Make it when it is not there, else bring it up to date."""
    known = gateway.find_deployment(f"{_FLOW}/{PURGE_HISTORY['name']}")
    if known is None:
        gateway.put_deployment({**PURGE_HISTORY, "flow_id": gateway.flow_id(_FLOW)})
    elif any(known.get(name) != PURGE_HISTORY[name] for name in _OURS):
        gateway.update_deployment(str(known["id"]), {name: PURGE_HISTORY[name] for name in _OURS})
