"""The deployment ``housekeeping/purge-history``, beside those of the tasks. (spec 6.5)

It has no schedule: the service purges once an hour by itself. Who runs no service gives it one.
"""

from __future__ import annotations

from typing import Any, Final

from taskcenter_adapter.gateway import Gateway

from .spec import POOL

__all__ = ["PARAMETERS", "PURGE_HISTORY", "put"]

PARAMETERS: Final[dict[str, Any]] = {
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
    "parameter_openapi_schema": PARAMETERS,
    "enforce_parameter_schema": True,
}
_FLOW = "housekeeping"


def put(gateway: Gateway) -> bool:
    """Make it when it is not there; one that is there keeps the schedule a person gave it."""
    if gateway.find_deployment(f"{_FLOW}/{PURGE_HISTORY['name']}") is not None:
        return False
    gateway.put_deployment({**PURGE_HISTORY, "flow_id": gateway.flow_id(_FLOW)})
    return True
