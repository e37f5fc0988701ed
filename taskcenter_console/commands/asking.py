"""Asks the service that already runs on this machine, so that a command need not load what the service has loaded.

Only for what must begin at once. Whatever the service refuses is asked again in this process, where a person can
be asked back and an error has its sentence; the service has changed nothing then. A failure (5xx) is no refusal: the
run may have been made before it, and asking again could make a second one.
"""

from __future__ import annotations

import getpass
import json
import os
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

from taskcenter.errors import ServerAway
from taskcenter.settings import Settings
from taskcenter_adapter.state import read_state

__all__ = ["ask_for_details", "ask_for_run", "user_name"]

_PATIENCE = 60.0
"""Seconds until the service counts as not answering."""
_LOOK = "Whether it made the run is not known; look with: taskcenter runs list"


def user_name() -> str:
    """Who is at the keyboard, for the audit."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def ask_for_run(chosen: Settings, task: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """The new run as REST gives it; None when no service runs on this home, or it did not make one."""
    state = read_state(chosen.home)
    if state is None or not _same_center(chosen, state):
        return None
    address = urlsplit(str(state["serviceUrl"]))
    headers = {"Content-Type": "application/json", "X-Taskcenter-Cli": f"{state.get('key')} {quote(user_name())}"}
    connection = HTTPConnection(str(address.hostname), address.port, timeout=_PATIENCE)
    try:
        connection.connect()
    except OSError:
        return None
    try:
        connection.request("POST", f"/api/tasks/{quote(task, safe='')}/run", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, HTTPException) as error:
        raise ServerAway(f"the service broke off ({error}). {_LOOK}") from None
    finally:
        connection.close()
    if answer.status == 202:
        run: dict[str, Any] = json.loads(text)
        return run
    if answer.status >= 500:
        raise ServerAway(f"the service failed over it (status {answer.status}{_detail(text)}). {_LOOK}")
    return None


def ask_for_details(chosen: Settings, run_id: str) -> dict[str, Any] | None:
    """The run with its steps, as REST gives it; None when the service does not answer (any more)."""
    state = read_state(chosen.home)
    if state is None:
        return None
    address = urlsplit(str(state["serviceUrl"]))
    connection = HTTPConnection(str(address.hostname), address.port, timeout=_PATIENCE)
    try:
        connection.request("GET", f"/api/runs/{quote(run_id, safe='')}")
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if answer.status == 200 else None


def _detail(text: bytes) -> str:
    """The sentence of a problem document, when it is one."""
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {detail}"


def _same_center(chosen: Settings, state: dict[str, Any]) -> bool:
    """Whether that service works with the database and the project that this command was told to use."""
    project = str(chosen.project) if os.environ.get("TASKCENTER_PROJECT") else state.get("project")
    database = chosen.database_url or state.get("databaseUrl")
    return bool(state.get("serviceUrl")) and (database, project) == (state.get("databaseUrl"), state.get("project"))
