"""The only door to Prefect's stream of events: which flow run has changed its state, said within some hundredths of a
second and not always. (spec 6.2; source: ``prefect.server.api.events`` of 3.8)

The server drops events when a subscriber lags, and tells nobody. So this says where to look, and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from taskcenter.clock import utc_now
from taskcenter.errors import ServerAway
from taskcenter.status import TERMINAL_RUN

from .mapping import map_run

__all__ = ["RunChanged", "RunEvents"]

_RUN: Final = "prefect.flow-run."
_DEPLOYMENT: Final = "prefect.deployment."
_PATIENCE: Final = 10.0
_BEFORE: Final = timedelta(minutes=1)
"""The server's clock may be behind ours."""
_LONG: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class RunChanged:
    """Something happened to a flow run. What the event does not say is empty."""

    run_id: str
    deployment_id: str = ""
    state_type: str = ""
    state_name: str = ""

    @property
    def is_end(self) -> bool:
        """Whether it tells of the run's end, or may do so."""
        return not self.state_type or map_run(self.state_type, self.state_name)[0] in TERMINAL_RUN


class RunEvents:
    """One subscription. Closing it from another thread ends whoever listens."""

    def __init__(self, api_url: str) -> None:
        """Raises ServerAway when the server does not take the subscription."""
        address = f"{api_url.replace('http', 'ws', 1)}/events/out"
        try:
            self._socket = connect(
                address,
                subprotocols=[Subprotocol("prefect")],
                open_timeout=_PATIENCE,
                close_timeout=1,
                proxy=None,
                max_size=None,
            )
            _subscribe(self._socket)
        except (OSError, TimeoutError, ValueError, KeyError, WebSocketException) as error:
            raise ServerAway(f"no events from the Prefect server at {api_url} ({type(error).__name__})") from error

    def __iter__(self) -> Iterator[RunChanged]:
        """What comes, until the connection ends."""
        try:
            for message in self._socket:
                found = _read(json.loads(message))
                if found is not None:
                    yield found
        except (OSError, WebSocketException):
            return

    def close(self) -> None:
        self._socket.close()


def _subscribe(socket: ClientConnection) -> None:
    socket.send(json.dumps({"type": "auth", "token": os.environ.get("PREFECT_API_AUTH_STRING")}))
    answer = json.loads(socket.recv(_PATIENCE))
    if answer["type"] != "auth_success":
        raise ValueError(answer["type"])
    now = utc_now()  # without an end of its own the filter ends now
    occurred = {"since": (now - _BEFORE).isoformat(), "until": (now + _LONG).isoformat()}
    events = {"event": {"prefix": [_RUN]}, "occurred": occurred}
    socket.send(json.dumps({"type": "filter", "filter": events, "backfill": False}))


def _read(message: dict[str, Any]) -> RunChanged | None:
    event = message.get("event") or {}
    facts = event.get("resource") or {}
    resource = str(facts.get("prefect.resource.id", ""))
    if not resource.startswith(_RUN):
        return None
    related = (str(one.get("prefect.resource.id", "")) for one in event.get("related") or ())
    deployment = next((name for name in related if name.startswith(_DEPLOYMENT)), "")
    return RunChanged(
        resource.removeprefix(_RUN),
        deployment.removeprefix(_DEPLOYMENT),
        str(facts.get("prefect.state-type") or ""),
        str(facts.get("prefect.state-name") or ""),
    )
