"""Retention: the policy, what would go, and a purge by hand. (spec 6.5)"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from retention.policy import Policy
from taskcenter_console.services import retaining

from .depends import CallerOf, CenterOf
from .problems import documented
from .wire_retention import PolicyBody, PurgeQuery, PurgeView, RetentionPreview

__all__ = ["router"]

router = APIRouter(prefix="/api/retention", tags=["service"])


@router.get("")
def get_retention(center: CenterOf) -> Policy:
    """How long history is kept."""
    return retaining.policy(center)


@router.patch("", responses=documented(404, 422))
def set_retention(center: CenterOf, caller: CallerOf, body: PolicyBody) -> Policy:
    """Change the policy: an absent field stays, null puts it back to its default."""
    return retaining.set_policy(center, body, caller)


@router.get("/preview", responses=documented(409, 422))
def preview_retention(center: CenterOf, query: Annotated[PurgeQuery, Query()]) -> RetentionPreview:
    """What a purge now would delete; nothing is deleted."""
    return RetentionPreview.model_validate(retaining.preview(center, query.days))


@router.post("/purge", responses=documented(409, 422))
def purge_history(center: CenterOf, caller: CallerOf, body: PurgeQuery | None = None) -> PurgeView:
    """Delete what the policy does not keep; `days` hold for this call only."""
    return PurgeView.model_validate(retaining.purge(center, caller, (body or PurgeQuery()).days))
