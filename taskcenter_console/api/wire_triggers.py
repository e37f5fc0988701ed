"""Triggers, the scheduler and its ledger on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from taskcenter.models import MisfirePolicy, Model, Trigger, Utc

from .wire_composites import Described, Json

__all__ = [
    "BackfillBody",
    "BackfillView",
    "HoldBody",
    "HookView",
    "LedgerPage",
    "LedgerQuery",
    "PauseBody",
    "ResumeBody",
    "SchedulerView",
    "TokenView",
    "TriggerBody",
    "TriggerList",
    "TriggerPatchBody",
    "TriggerView",
]


class TriggerView(Trigger):
    """A trigger; ``token`` only in the answer that made it."""

    token: str | None = None


class TriggerList(Model):
    items: list[Trigger]


class TokenView(Model):
    trigger_id: str
    token: str | None = Field(description="Shown this once; null when it was revoked.")


class PauseBody(Model):
    until: Utc | None = Field(None, description="When it resumes by itself.")
    reason: str = Field("", max_length=500)


class ResumeBody(Model):
    policy: MisfirePolicy | None = Field(
        None, description="What becomes of the slots that were kept, instead of the triggers' own policies."
    )


class HoldBody(PauseBody):
    state: Literal["paused", "disabled"]


class SchedulerView(Model):
    state: Literal["running", "paused", "disabled"]
    since: Utc | None
    until: Utc | None
    by: str
    note: str
    owed: int = Field(description="Slots that wait for their verdict; in the answer to a resume: those that waited.")
    leader: Json | None = Field(description="The service that leads; null when none does.")


class LedgerQuery(Model):
    trigger: str | None = Field(None, max_length=200)
    since: Utc | None = None
    until: Utc | None = None
    verdict: str | None = Field(None, max_length=20)
    limit: int = Field(100, ge=1, le=1000)


class LedgerPage(Model):
    items: list[Json] = Field(description="Newest slot first; a range of equal verdicts is one row with its count.")
    counts: dict[str, int] = Field(description="Slots of the task by verdict, over all of its history.")


class HookView(Model):
    id: str
    trigger_id: str
    at: Utc


class BackfillBody(Model):
    start: Utc = Field(alias="from")
    end: Utc = Field(alias="to")
    newest: bool = False
    only_missing: bool = True
    max_active: int = Field(1, ge=0, le=1)
    apply: bool = Field(False, description="Ask for the runs; without it only the dates are given.")


class BackfillView(Model):
    asked: bool
    runs: int
    items: list[Json]


_optional: dict[str, Any] = {name: (item.annotation | None, None) for name, item in Trigger.model_fields.items()}  # type: ignore[operator]
_TriggerPatch = create_model(
    "TriggerPatch",
    __base__=Model,
    __doc__="What changes in a trigger: an absent field stays, null puts it back to its default.",
    **_optional,
)

TriggerBody = Annotated[Json, Described(Trigger)]
TriggerPatchBody = Annotated[Json, Described(_TriggerPatch)]
