"""Kept snapshots of the structure of databases, and what changed between them. (spec 2.3, 7.4)"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from taskcenter.models import Model, SchemaSnapshot, Utc
from taskcenter_console.services import snapshots

from .depends import CenterOf
from .problems import documented

__all__ = ["router"]

router = APIRouter(prefix="/api/snapshots", tags=["service"])


class SnapshotHead(Model):
    """A snapshot without its structure; `capturedAt` is when it was last seen."""

    id: str
    connection: str
    database: str
    dialect: str
    schema_hash: str
    first_captured_at: Utc
    captured_at: Utc
    run_id: str | None


class SnapshotPage(Model):
    items: list[SnapshotHead]
    limit: int
    offset: int


class SnapshotDiff(Model):
    """What changed from `before` to `after`, as the task type `schema_snapshot` tells it."""

    before: SnapshotHead
    after: SnapshotHead
    changed: bool
    diff: dict[str, Any]
    breaking: list[str]


class SnapshotQuery(Model):
    """Which snapshots."""

    connection: str | None = None
    limit: int = Field(100, ge=1, le=500)
    offset: int = Field(0, ge=0, le=1_000_000)


@router.get("")
def list_snapshots(center: CenterOf, query: Annotated[SnapshotQuery, Query()]) -> SnapshotPage:
    """The kept snapshots, last seen first."""
    found = snapshots.listing(center, query.connection, limit=query.limit, offset=query.offset)
    return SnapshotPage(items=[_head(item) for item in found], limit=query.limit, offset=query.offset)


@router.get("/{snapshot_id}", responses=documented(404, 409))
def get_snapshot(center: CenterOf, snapshot_id: str) -> SchemaSnapshot:
    """One snapshot with its structure; the beginning of its id (6 characters or more) is enough."""
    return snapshots.get(center, snapshot_id)


@router.get("/{snapshot_id}/diff", responses=documented(404, 409))
def diff_snapshots(center: CenterOf, snapshot_id: str, before: str | None = None) -> SnapshotDiff:
    """What changed since the snapshot `before`; by default the one of the same database that was seen before it."""
    found = snapshots.between(center, snapshot_id, before)
    return SnapshotDiff(
        before=_head(found.before),
        after=_head(found.after),
        changed=found.changed,
        diff=found.diff,
        breaking=list(found.breaking),
    )


def _head(snapshot: SchemaSnapshot) -> SnapshotHead:
    return SnapshotHead.model_validate(snapshot.model_dump(exclude={"structure"}))
