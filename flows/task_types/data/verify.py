"""Proof that two sides hold the same rows: how many there are, and a checksum that does not depend on their order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from taskcenter.errors import StepFailed

from ..database.model import Column, Table, TypeKind
from ..database.quoting import quote
from .canonical import Canon, canons
from .canonical_rows import canonical_chunks, line_hash
from .side import Guard, Side
from .sources import Reading
from .texts import Field

__all__ = ["both", "is_hashable", "prove", "row_hash", "total"]

_MASK = (1 << 64) - 1
_UNHASHED = (TypeKind.JSON, TypeKind.BITS, TypeKind.ENUM, TypeKind.OTHER)
Left = TypeVar("Left")
Right = TypeVar("Right")


def prove(
    reading: Reading, source: Side, target: Side, table: Table, fields: Sequence[Field], guard: Guard
) -> dict[str, Any]:
    """``{rows, checksum}`` of both sides when they agree. Raises StepFailed when they do not."""
    there = Reading(schema=table.schema, table=table.name)
    pairs = [(f.source, f.target) for f in fields]
    if source.dialect == target.dialect == "postgresql" and is_hashable(source, target, pairs):
        left, right = both(
            lambda: total(source, reading, [a for a, _ in pairs]), lambda: total(target, there, [b for _, b in pairs])
        )
        how = "hash_record_extended"
    else:
        lefts, rights = canons(pairs, source.dialect, target.dialect)
        left = _read(source, reading, lefts, guard)
        right = _read(target, there, rights, guard)
        how = "md5"
    if left != right:
        raise StepFailed(
            f"source and target are not equal after the transfer: {left[0]} rows with checksum {left[1]:x} against "
            f"{right[0]} rows with {right[1]:x}; nothing was kept",
            error_type="verify",
        )
    return {"rows": left[0], "sum": f"{left[1] & _MASK:016x}", "by": how}


def is_hashable(source: Side, target: Side, pairs: Sequence[tuple[Column, Column]]) -> bool:
    """Whether PostgreSQL's own row hash means the same on both sides: same types and major version, 14 or later."""
    versions = {side.driver.info.server_version // 10_000 for side in (source, target)}
    if len(versions) > 1 or versions.pop() < 14:
        return False
    return all(
        a.type.sql == b.type.sql
        and a.type.kind not in (TypeKind.ENUM, TypeKind.OTHER)
        and a.type.sql != "json"
        and not (a.type.element is not None and a.type.element.kind in _UNHASHED)
        and a.collation == b.collation
        for a, b in pairs
    )


def row_hash(columns: Sequence[Column]) -> str:
    """64 bits of a row's values, as PostgreSQL computes them."""
    return f"hash_record_extended(ROW({', '.join(map(_hashed, columns))}), 0)"


def _hashed(column: Column) -> str:
    name = quote(column.name, "postgresql")
    # bit strings have no hash; citext's takes a and A for the same
    return f"{name}::text" if column.type.kind is TypeKind.BITS or column.type.sql.endswith("citext") else name


def total(side: Side, reading: Reading, columns: Sequence[Column]) -> tuple[int, int]:
    """Rows, and the sum of their hashes, by the server."""
    count, summed = side.rows(reading.sql(f"count(*), coalesce(sum({row_hash(columns)}), 0)", "postgresql"))[0]
    return int(count), int(summed) & _MASK


def _read(side: Side, reading: Reading, columns: Sequence[Canon], guard: Guard) -> tuple[int, int]:
    count = summed = 0
    for data, rows in canonical_chunks(side, reading, columns):
        guard.check()
        count += rows
        summed += sum(map(line_hash, data.split(b"\n")[:-1]))
    return count, summed & _MASK


def both(left: Callable[[], Left], right: Callable[[], Right]) -> tuple[Left, Right]:
    """Run both at once, each on a connection of its own; the first error counts."""
    answers: list[Any] = [None]
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers[0] = left()
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=work, name="data-left", daemon=True)
    thread.start()
    try:
        answer = right()
    finally:
        thread.join()
    if errors:
        raise errors[0]
    return answers[0], answer
