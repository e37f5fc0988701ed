"""Triggers, hooks, the scheduler, its ledger and calendars. (spec 4)"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from taskcenter.models import Trigger
from taskcenter.scheduling.state import Mode
from taskcenter_console.services import backfill, calendars, scheduler, tasks, triggers
from taskcenter_console.services.center import Caller

from .depends import CALLER, CenterOf
from .problems import documented
from .wire_composites import Json
from .wire_triggers import (
    BackfillBody,
    BackfillView,
    HoldBody,
    HookView,
    LedgerPage,
    LedgerQuery,
    PauseBody,
    ResumeBody,
    SchedulerView,
    TokenView,
    TriggerBody,
    TriggerList,
    TriggerPatchBody,
    TriggerView,
)

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["scheduling"])
_HOOK = Caller("hook", "api")


def _view(trigger: Trigger, token: str | None = None) -> TriggerView:
    return TriggerView.model_validate({**trigger.model_dump(mode="python"), "token": token})


@router.get("/tasks/{name}/triggers", responses=documented(404))
def list_triggers(center: CenterOf, name: str) -> TriggerList:
    """The triggers of a task."""
    return TriggerList(items=list(tasks.get(center, name).triggers))


@router.post("/tasks/{name}/triggers", status_code=201, responses=documented(404, 409, 422))
def add_trigger(center: CenterOf, name: str, body: TriggerBody) -> TriggerView:
    """Add a trigger to a task; for an ad_hoc one the answer holds its token, this once."""
    _, made, token = triggers.add(center, name, body, CALLER)
    return _view(made, token)


@router.get("/triggers/{trigger_id}", responses=documented(404))
def get_trigger(center: CenterOf, trigger_id: str) -> TriggerView:
    """One trigger."""
    return _view(triggers.find(center, trigger_id)[1])


@router.patch("/triggers/{trigger_id}", responses=documented(404, 409, 422))
def update_trigger(center: CenterOf, trigger_id: str, body: TriggerPatchBody) -> TriggerView:
    """Merge into a trigger. Slots that are past are never owed again by it."""
    return _view(triggers.change(center, trigger_id, body, CALLER)[1])


@router.delete("/triggers/{trigger_id}", status_code=204, responses=documented(404, 409))
def remove_trigger(center: CenterOf, trigger_id: str) -> None:
    """Remove a trigger; its ledger stays with the task."""
    triggers.remove(center, trigger_id, CALLER)


@router.post("/triggers/{trigger_id}/pause", responses=documented(404, 409, 422))
def pause_trigger(center: CenterOf, trigger_id: str, body: PauseBody | None = None) -> TriggerView:
    """Its slots wait for their verdict until it is resumed."""
    asked = body or PauseBody()
    return _view(triggers.pause(center, trigger_id, CALLER, until=asked.until, reason=asked.reason)[1])


@router.post("/triggers/{trigger_id}/resume", responses=documented(404, 409))
def resume_trigger(center: CenterOf, trigger_id: str, body: ResumeBody | None = None) -> TriggerView:
    """Let it fire again; the slots it owes get their verdict by its policy, or the one given."""
    return _view(triggers.resume(center, trigger_id, CALLER, (body or ResumeBody()).policy)[1])


@router.post("/triggers/{trigger_id}/token", responses=documented(404, 409))
def renew_token(center: CenterOf, trigger_id: str) -> TokenView:
    """A new token; the one before no longer works."""
    made, token = triggers.new_token(center, trigger_id, CALLER)
    return TokenView(trigger_id=made.id, token=token)


@router.delete("/triggers/{trigger_id}/token", responses=documented(404, 409))
def revoke_token(center: CenterOf, trigger_id: str) -> TokenView:
    """No token fires it any more, until a new one is made."""
    return TokenView(trigger_id=triggers.revoke_token(center, trigger_id, CALLER).id, token=None)


@router.post("/triggers/{trigger_id}/backfill", responses=documented(404, 409, 422))
def backfill_trigger(center: CenterOf, trigger_id: str, body: BackfillBody) -> BackfillView:
    """The slots of a past period and what each would get; with `apply` their runs are asked for."""
    about: dict[str, Any] = {"newest": body.newest, "only_missing": body.only_missing}
    if body.apply:
        found = backfill.ask(center, trigger_id, body.start, body.end, CALLER, max_active=body.max_active, **about)
    else:
        _, _, found = backfill.preview(center, trigger_id, body.start, body.end, **about)
    items = [item.to_dict() for item in found]
    return BackfillView(asked=body.apply, runs=sum(item.run for item in found), items=items)


@router.post("/hooks/{token}", status_code=202, responses=documented(404, 409, 422, 429))
def fire_hook(center: CenterOf, token: str, body: dict[str, Any] | None = None) -> HookView:
    """Fire the ad_hoc trigger of this token; the body holds fields of the payload that its run overrides."""
    made = triggers.fire_by_token(center, token, body, _HOOK)
    return HookView(id=made.id, trigger_id=made.trigger_id, at=made.at)


@router.get("/tasks/{name}/ledger", responses=documented(404, 422))
def task_ledger(center: CenterOf, name: str, query: Annotated[LedgerQuery, Query()]) -> LedgerPage:
    """What became of every slot of a task."""
    task = tasks.get(center, name)
    schedule = center.need_schedule()
    rows = schedule.ledger(
        task_id=task.id,
        trigger_id=query.trigger,
        since=query.since,
        until=query.until,
        verdict=query.verdict,
        limit=query.limit,
    )
    return LedgerPage(items=[row.to_json() for row in rows], counts=schedule.verdict_counts(task_id=task.id))


@router.get("/scheduler")
def get_scheduler(center: CenterOf) -> SchedulerView:
    """Whether slots fire, since when, by whom, and which service leads."""
    return SchedulerView.model_validate(scheduler.state(center).to_dict())


@router.post("/scheduler/hold", responses=documented(409, 422))
def hold_scheduler(center: CenterOf, body: HoldBody) -> SchedulerView:
    """Pause it (slots wait) or disable it (slots are skipped)."""
    scheduler.hold(center, Mode(body.state), CALLER, until=body.until, note=body.reason)
    return SchedulerView.model_validate(scheduler.state(center).to_dict())


@router.post("/scheduler/resume")
def resume_scheduler(center: CenterOf, body: ResumeBody | None = None) -> SchedulerView:
    """Let it run again."""
    count = scheduler.resume(center, CALLER, (body or ResumeBody()).policy)
    return SchedulerView.model_validate({**scheduler.state(center).to_dict(), "owed": count})


@router.get("/calendars")
def list_calendars(center: CenterOf) -> list[Json]:
    """Every calendar."""
    return [item.to_json() for item in center.need_schedule().calendars.all()]


@router.put("/calendars/{name}", responses=documented(422))
def put_calendar(center: CenterOf, name: str, body: Json) -> Json:
    """Make or replace a calendar; triggers that use it look at their slots again."""
    return calendars.put(center, {**body, "name": name}, CALLER).to_json()


@router.delete("/calendars/{name}", status_code=204, responses=documented(404, 409))
def remove_calendar(center: CenterOf, name: str) -> None:
    """Remove a calendar that nothing uses."""
    calendars.remove(center, name, CALLER)
