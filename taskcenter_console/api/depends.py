"""What every route is given, and who is said to have asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from taskcenter_console.services.center import Caller, Center

__all__ = [
    "CALLER",
    "CenterOf",
]

CALLER = Caller("local", "api")
"""Whoever can reach the loopback port; the audit learns names when there are users."""


async def _center(request: Request) -> Center:
    center: Center = request.app.state.center
    return center


CenterOf = Annotated[Center, Depends(_center)]
