"""Which rows a plan lets go, as conditions: the same for the preview and for the purge. (spec 6.5)"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement

from taskcenter.purge_plan import Plan
from taskcenter.scheduling.timetable import FINITE
from taskcenter.status import TERMINAL_RUN

from .schedule_read import OPEN
from .schedule_tables import run_batches, run_requests, slot_ledger, trigger_firings
from .statements import one_of
from .tables import UtcTime, outbox_events, task_audit_logs, task_run_logs, task_runs, task_triggers

__all__ = ["Conditions"]

_FINAL = sorted(status.value for status in TERMINAL_RUN)


class Conditions:
    """What a plan says of each table."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def _run_is_old(self, moment: ColumnElement[Any], run: Any) -> ColumnElement[bool]:
        """Whether what happened at ``moment`` to this run lies before the cutoff for such runs."""
        plan = self.plan
        cases: list[tuple[ColumnElement[bool], ColumnElement[Any]]] = []
        for group in plan.groups:
            ages: list[tuple[ColumnElement[bool], ColumnElement[Any]]] = [
                (run.status == status.value, sa.literal(plan.cutoff(days), UtcTime()))
                for status, days in group.by_status.items()
                if days != group.days
            ]
            base = sa.literal(plan.cutoff(group.days), UtcTime())
            cutoff = sa.case(*ages, else_=base) if ages else base
            if group.task_ids is None:
                return moment < (sa.case(*cases, else_=cutoff) if cases else cutoff)
            cases.append((one_of(run.task_id, group.task_ids), cutoff))
        raise AssertionError("the last group is for every other task")

    def _not_kept(self, run: Any) -> list[ColumnElement[bool]]:
        """No hold, and not among the last ones of its task."""
        plan = self.plan
        found: list[ColumnElement[bool]] = []
        if plan.held_tasks:
            found.append(~one_of(sa.func.coalesce(run.task_id, ""), plan.held_tasks))
        if plan.held_runs:
            found.append(~one_of(run.id, plan.held_runs))
        for group in plan.groups:
            if not group.keep_last:
                continue
            newer = task_runs.alias("newer")
            first = (
                sa.select(sa.literal_column("1"))
                .where(newer.c.task_id == run.task_id)
                .where(sa.tuple_(newer.c.created_at, newer.c.id) > sa.tuple_(run.created_at, run.id))
                .limit(group.keep_last)
                .correlate(run.id.table)
                .subquery("first")
            )
            beyond = sa.select(sa.func.count()).select_from(first).scalar_subquery() >= group.keep_last
            found.append(sa.or_(~self._member(group.task_ids, run), beyond))
        return found

    def _member(self, task_ids: frozenset[str] | None, run: Any) -> ColumnElement[bool]:
        if task_ids is not None:
            return one_of(sa.func.coalesce(run.task_id, ""), task_ids)
        others = set[str]().union(*(group.task_ids or () for group in self.plan.groups))
        # The runs of no task at all have no last ones to keep.
        known: ColumnElement[bool] = run.task_id.is_not(None)
        return sa.and_(known, ~one_of(run.task_id, others)) if others else known

    def log_goes(self) -> ColumnElement[bool]:
        line = task_run_logs.c
        if self.plan.plain:
            return line.time < self.plan.latest
        run = task_runs.alias("of_line")
        old = self._run_is_old(line.time, run.c)
        found: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
            run.c.id == line.run_id, old, *self._not_kept(run.c)
        )
        return sa.and_(line.time < self.plan.latest, sa.exists(found.correlate(task_run_logs)))

    def run_goes(self, *, logs_are_gone: bool) -> ColumnElement[bool]:
        """Ended before the cutoff, and with no line left (or none that would be left)."""
        run, line = task_runs.c, task_run_logs.c
        left: sa.Select[Any] = sa.select(sa.literal_column("1")).where(line.run_id == run.id).correlate(task_runs)
        if not logs_are_gone:
            left = left.where(~self._run_is_old(line.time, run))
        return sa.and_(
            run.finished_at < self.plan.latest,
            run.status.in_(_FINAL),
            *([] if self.plan.plain else [self._run_is_old(run.finished_at, run)]),
            *self._not_kept(run),
            ~sa.exists(left),
        )

    def audit_goes(self) -> ColumnElement[bool]:
        entry = task_audit_logs.c
        return sa.and_(entry.created_at < self.plan.cutoff(self.plan.audit_days), *self.not_held(entry))

    def not_held(self, row: Any) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.plan.held_tasks:
            found.append(~one_of(sa.func.coalesce(row.task_id, ""), self.plan.held_tasks))
        if self.plan.held_runs:
            found.append(~one_of(sa.func.coalesce(row.run_id, ""), self.plan.held_runs))
        return found

    def ledger_goes(self) -> ColumnElement[bool]:
        row = slot_ledger.c
        cutoff = self.plan.cutoff(self.plan.ledger_days)
        # A trigger with a list of times knows only from the ledger which of them have been.
        lists = sa.select(task_triggers.c.id).where(task_triggers.c.type.in_(sorted(FINITE)))
        return sa.and_(
            row.decided_at < cutoff,
            sa.func.coalesce(row.until, row.slot) < cutoff,
            row.trigger_id.not_in(lists),
            *self.not_held(row),
        )

    def request_goes(self) -> ColumnElement[bool]:
        row = run_requests.c
        cutoff = self.plan.cutoff(self.plan.ledger_days)
        over = row.status.in_(("made", "withdrawn"))
        lists = sa.select(task_triggers.c.id).where(task_triggers.c.type.in_(sorted(FINITE)))
        open_runs = sa.select(task_runs.c.id).where(task_runs.c.status.in_(OPEN))
        return sa.and_(
            over, row.due < cutoff, row.created_at < cutoff,
            sa.func.coalesce(row.trigger_id, "").not_in(lists),
            sa.func.coalesce(row.run_id, "").not_in(open_runs), *self.not_held(row),
        )  # fmt: skip

    def batch_goes(self) -> ColumnElement[bool]:
        """It is over, and none of its runs is left: it is a list of them, and goes with the last."""
        row, run = run_batches.c, task_runs.c
        one: sa.Select[Any] = sa.select(sa.literal_column("1")).where(run.batch_id == row.id)
        left = one.correlate(run_batches)
        held = [~one_of(row.task_id, self.plan.held_tasks)] if self.plan.held_tasks else []
        return sa.and_(row.closed_at < self.plan.cutoff(self.plan.ledger_days), ~sa.exists(left), *held)

    def firing_goes(self) -> ColumnElement[bool]:
        row = trigger_firings.c
        return sa.and_(row.consumed.is_(True), row.at < self.plan.cutoff(self.plan.ledger_days))

    def event_goes(self) -> ColumnElement[bool]:
        return outbox_events.c.created_at < self.plan.cutoff(self.plan.event_days)
