"""``/metrics`` for Prometheus. (spec 6.7)"""

from __future__ import annotations

from fastapi import APIRouter, Response

from taskcenter_console.services.metrics import exposition

from .depends import CenterOf

__all__ = ["router"]

router = APIRouter(tags=["service"])
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_metrics(center: CenterOf) -> Response:
    """Runs by state, queue depth, lateness, scheduler lag, repairs, purge and processes, for Prometheus."""
    return Response(exposition(center), media_type=_TYPE)
