"""The audit: reading it, taking it out as a file, and looking whether it is whole. (spec 6.4)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from taskcenter.audit import Head, Report
from taskcenter.audit_export import verify_export, write_export
from taskcenter.clock import utc_now
from taskcenter.errors import NotFound, Problem, TaskCenterError, ValidationFailed
from taskcenter.models import AuditRecord
from taskcenter.ports import AuditFilter, Changes
from taskcenter_adapter.store import need_sql

from .center import Caller, Center

if TYPE_CHECKING:
    from taskcenter_adapter.audit_chain import AuditChain

__all__ = ["chain", "expected_of", "export", "page", "record_refusal", "show", "verify", "verify_source"]


def page(
    center: Center, where: AuditFilter, *, task: str | None = None, run: str | None = None
) -> Sequence[AuditRecord]:
    """Newest first; of a task (also of a deleted one, by its id) or of a run."""
    if task is not None:
        found = center.store.find_task(task)
        where = replace(where, task_id=found.id if found else task)
    if run is not None:
        try:
            where = replace(where, run_id=center.store.get_run(run).id)
        except NotFound:  # the entries of a run outlive it
            where = replace(where, run_id=run)
    return center.store.page_audit(where)


def show(center: Center, name: str) -> AuditRecord:
    """One entry, by its id or its number."""
    found = center.store.page_audit(AuditFilter(id=name, limit=1))
    if not found and name.isascii() and name.isdigit():
        newest = center.store.page_audit(AuditFilter(before=int(name) + 1, limit=1))
        found = [one for one in newest if one.sequence == int(name)]
    if not found:
        raise NotFound(f"there is no audit entry {name!r}: taskcenter audit list shows them", name=name)
    return found[0]


def chain(center: Center) -> AuditChain:
    """The sequencer; the store in memory has none."""
    return need_sql(center.store, "keeps no chain").chain


def verify(center: Center, expected: Mapping[int, str] | None = None) -> Report:
    """Seal what is open and look at all of it."""
    return chain(center).verify(expected)


def verify_source(source: str, expected: Mapping[int, str] | None = None) -> Report:
    """Look at a database file, an export or the database of an address, without any center; nothing is written."""
    from taskcenter_adapter.audit_chain import verify_engine, verify_sqlite_file
    from taskcenter_adapter.database import make_engine

    if "://" in source:
        engine = make_engine(source)
        try:
            return verify_engine(engine, expected)
        finally:
            engine.dispose()
    path = Path(source)
    try:
        with path.open("rb") as file:
            is_database = file.read(16) == b"SQLite format 3\0"
            file.seek(0)
            if not is_database:
                return verify_export(file, expected)
    except FileNotFoundError:
        raise NotFound(f"there is no file {source}", path=source) from None
    return verify_sqlite_file(path, expected)


def expected_of(notes: Sequence[str]) -> dict[int, str]:
    """``POSITION:HASH`` texts, as ``verify`` prints the head of a chain."""
    found: dict[int, str] = {}
    for text in notes:
        position, _, digest = text.partition(":")
        if not (position.isascii() and position.isdigit() and len(digest) == 64):
            problem = Problem("not_head", "", f"{text!r} is not POSITION:HASH, as verify prints it")
            raise ValidationFailed("--expect", [problem])
        found[int(position)] = digest.lower()
    return found


def export(center: Center, caller: Caller) -> Iterator[bytes]:
    """The whole chain as lines of a file; that it was taken out is its last entry."""
    sequencer = chain(center)
    entry = caller.entry("audit_exported", object="audit", message="the whole audit was exported")
    center.store.record(Changes(audit=(entry,)))
    sequencer.seal_all()
    with sequencer.snapshot() as (head, rows):
        yield from write_export(rows, head or Head(), utc_now().isoformat())


def record_refusal(center: Center, caller: Caller, what: str, error: TaskCenterError) -> None:
    """A rule said no. ``what`` is the command or the route that was asked."""
    entry = caller.entry("refused", object=what, result="refused", message=error.message, metadata={"code": error.code})
    center.store.record(Changes(audit=(entry,)))
