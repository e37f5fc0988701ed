"""Loading in batches that are kept one by one: a transfer that was stopped goes on behind them. (spec 2.5)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from taskcenter.errors import StepFailed

from ..database.model import Column
from ..database.quoting import quote
from . import lines
from .describe import find_table
from .load import Counter, Job, load
from .side import UNTOUCHED, Guard, Side
from .sources import Reading, chunks
from .texts import Field
from .watermark import MARKS, Window, check_column, mark_of

__all__ = ["Loaded", "load_in_batches"]


@dataclass(slots=True)
class Loaded:
    """What has been moved. ``above``: the key behind which an append went on."""

    read: int = 0
    bytes: int = 0
    written: int = 0
    batches: int = 0
    is_new: bool = False
    above: str | None = None


def load_in_batches(
    job: Job, size: int, source: Side, target: Side, guard: Guard, counter: Callable[[int], Counter], temp: Path
) -> Loaded:
    """Load the table of ``job`` in the order of its key, ``size`` rows at a time, each batch a transaction.

    An append goes on behind the greatest key that the target holds; an upsert begins again, which changes nothing that
    is right already. ``counter`` makes one that begins behind so many rows. What was loaded before an error stays, and
    the error says how much that is.
    """
    column, goal = _key_of(job)
    made = Loaded(above=_held(job, column, goal, target) if job.mode == "append" else None)
    above = made.above
    while made.batches == 0 or above is not None:
        guard.check()
        top = _end_of_batch(job, column, size, above, source)
        if top is None and made.batches:
            break
        condition = Window(above, top).condition(column, source.dialect)
        part = replace(job, reading=_narrowed(job.reading, condition))
        count = counter(made.read)
        written, is_new, _ = load(part, source, target, guard, count, temp)
        made.read, made.bytes = made.read + count.rows, made.bytes + count.bytes
        made.written, made.batches, made.is_new = made.written + written, made.batches + 1, made.is_new or is_new
        guard.left = f"{made.read:,} rows in whole batches are in the target: run it again to go on"
        above = top
    guard.left = UNTOUCHED
    return made


def _key_of(job: Job) -> tuple[Column, str]:
    """The source's column to go by, and its name in the target."""
    pairs = [(column, goal) for column, goal, cast in job.columns if [goal.lower()] == [k.lower() for k in job.key]]
    if len(pairs) != 1 or pairs[0][0].nullable or pairs[0][0].type.kind not in MARKS:
        raise StepFailed(
            f"batchRows goes by the order of one key column, a number, date or timestamp without NULL; the key of "
            f"{job.label()} is ({', '.join(job.key)}): name another in keyColumns, or leave batchRows out",
            error_type="key",
        )
    return pairs[0]


def _held(job: Job, column: Column, goal: str, target: Side) -> str | None:
    """The greatest key that the target holds already."""
    table = find_table(target, job.label())
    held = table.column(goal) if table is not None else None
    if table is None or held is None:
        return None
    check_column(column, held, "key")
    return mark_of(target, table, held, column)


def _end_of_batch(job: Job, column: Column, size: int, above: str | None, source: Side) -> str | None:
    """The last key of the next ``size`` rows; None when there are none."""
    name = quote(column.name, source.dialect)
    reading = job.reading
    if above is not None:
        reading = _narrowed(reading, Window(above, None).lower(column, source.dialect))
    rows = replace(reading, tail=f"ORDER BY {name} LIMIT {size}").sql(name, source.dialect)
    last = Reading(query=f"SELECT max({name}) AS {name} FROM ({rows}) AS batch")
    for data, _ in chunks(source, last, [Field(column, column)], "mark"):
        for row in lines.rows(data):
            return row[0]
    return None


def _narrowed(reading: Reading, condition: str) -> Reading:
    both = f"({reading.where}) AND ({condition})" if reading.where else condition
    return replace(reading, where=both)
