"""Retention on the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, create_model

from retention.policy import Policy
from taskcenter.models import Model, Utc

from .wire_composites import Described, Json

__all__ = ["PolicyBody", "PurgeQuery", "PurgeView", "RetentionPreview"]

_optional: dict[str, Any] = {name: (item.annotation | None, None) for name, item in Policy.model_fields.items()}  # type: ignore[operator]
_PolicyPatch = create_model(
    "RetentionPatch",
    __base__=Model,
    __doc__="What changes in the policy: an absent field stays, null puts it back to its default.",
    **_optional,
)
PolicyBody = Annotated[Json, Described(_PolicyPatch)]


class PurgeQuery(Model):
    days: int | None = Field(None, ge=1, le=3650, description="Other days than the policy's, for this call only.")


class _Counts(Model):
    deleted_run_logs: int
    deleted_runs: int
    deleted_audit_logs: int
    deleted_step_runs: int
    deleted_ledger_rows: int
    deleted_run_requests: int
    deleted_firings: int = Field(description="Used requests that a trigger fire.")
    deleted_events: int
    retention_days: int
    cutoff_at: Utc = Field(description="What is strictly before it is old.")


class RetentionPreview(_Counts):
    """What would be deleted, under the names that the purge gives it."""

    bytes: int = Field(description="About so much room, indexes included.")
    oldest_log_kept: Utc | None
    oldest_run_kept: Utc | None
    oldest_audit_kept: Utc | None


class PurgeView(_Counts):
    """What was deleted."""

    deleted_prefect_runs: int
    deleted_files: int
    finished: bool = Field(description="False when it was broken off: the next purge goes on.")
    seconds: float
    notes: list[str]
