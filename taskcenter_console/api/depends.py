"""What every route is given, and who is said to have asked."""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Request

from taskcenter_adapter.state import read_state
from taskcenter_console.services.center import Caller, Center

__all__ = [
    "CALLER",
    "CallerOf",
    "CenterOf",
    "caller_of",
]

CALLER = Caller("local", "api")
"""Whoever can reach the loopback port; the audit learns names when there are users."""


async def _center(request: Request) -> Center:
    center: Center = request.app.state.center
    return center


CenterOf = Annotated[Center, Depends(_center)]


def caller_of(request: Request) -> Caller:
    """The command line of this machine shows that it may read the center's own notes, and says who types."""
    key, _, user = request.headers.get("x-taskcenter-cli", "").partition(" ")
    center: Center = request.app.state.center
    known = (read_state(center.settings.home) or {}).get("key") if key else None
    if known and hmac.compare_digest(key.encode(), str(known).encode()):
        return Caller(unquote(user)[:200], "cli")
    return CALLER


CallerOf = Annotated[Caller, Depends(caller_of)]
