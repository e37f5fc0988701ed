"""The block-wise comparison of two ordered streams against looking at every row; lines there and back."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.task_types.data import compare_streams, lines
from flows.task_types.data.canonical import Canon, Form
from flows.task_types.data.canonical_values import _value_writer, sqlite_lines
from flows.task_types.data.compare_streams import key_reader, merged
from flows.task_types.data.side import Guard
from flows.task_types.data.sources import Chunk
from flows.task_types.database.fetching import batches
from flows.task_types.database.model import Column, ColumnType, TypeKind
from taskcenter.context import RunContext
from taskcenter.errors import StepFailed

ID = Canon(Column("id", ColumnType("bigint", TypeKind.INTEGER)), Form.INTEGER)
TEXT = Canon(Column("name", ColumnType("text", TypeKind.TEXT)), Form.TEXT)
TABLES = st.dictionaries(
    st.tuples(st.integers(-30, 30), st.text("aAü\t\\", max_size=2)), st.sampled_from(["x", "y", "\\N"]), max_size=40
)


def stream(table: dict[tuple[int, str], str], sizes: list[int]) -> Iterator[Chunk]:
    """The table's rows in order, cut into chunks."""
    rows = [
        "\t".join([str(k[0]), lines.escape_as_copy(k[1]), lines.escape_as_copy(v)]).encode() + b"\n"
        for k, v in sorted(table.items(), key=lambda item: (item[0][0], item[0][1].encode()))
    ]
    place = 0
    while rows:
        size = sizes[place % len(sizes)]
        place += 1
        part, rows = rows[:size], rows[size:]
        yield b"".join(part), len(part)


@given(
    left=TABLES, right=TABLES, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3), pending=st.integers(0, 3000)
)
def test_what_is_left_over_is_what_differs(
    left: dict[tuple[int, str], str], right: dict[tuple[int, str], str], sizes: list[int], pending: int
) -> None:
    right = {**{k: v for k, v in left.items() if hash(k) % 3}, **right}
    counted: list[tuple[int, int]] = []
    before = compare_streams._PENDING_BYTES, compare_streams._PENDING_LINES
    compare_streams._PENDING_BYTES = compare_streams._PENDING_LINES = pending  # flush in the middle too
    try:
        found = merged(
            stream(left, sizes), stream(right, sizes[::-1]), key_reader([ID, TEXT]), 2, Guard(RunContext(), 0, ""),
            lambda a, b: counted.append((a, b)),
        )  # fmt: skip
        got = sorted((kind, tuple(lines.fields(key.decode()))) for kind, key in found)
    finally:
        compare_streams._PENDING_BYTES, compare_streams._PENDING_LINES = before
    expected = [("missing", k) for k in left if k not in right] + [("extra", k) for k in right if k not in left]
    expected += [("changed", k) for k in left if k in right and left[k] != right[k]]
    assert got == sorted((kind, (str(k[0]), k[1])) for kind, k in expected)
    if left or right:
        assert counted[-1] == (len(left), len(right))


def test_a_stream_out_of_order_is_refused() -> None:
    ordered = iter([(b"1\tx\n2\tx\n", 2)])
    wild = iter([(b"2\tx\n3\tx\n", 2), (b"1\tx\n", 1)])
    with pytest.raises(StepFailed, match="does not give its keys in order"):
        list(merged(ordered, wild, key_reader([ID]), 1, Guard(RunContext(), 0, ""), lambda a, b: None))


@given(row=st.lists(st.none() | st.text(max_size=8), min_size=1, max_size=5))
def test_lines_there_and_back(row: list[str | None]) -> None:
    for escape in (lines.escape, lines.escape_as_copy):
        line = "\t".join(lines.NULL if text is None else escape(text) for text in row)
        assert "\n" not in line
        if all(t is None or not any("\ud800" <= c <= "\udfff" for c in t) for t in row):
            assert list(lines.rows(line.encode() + b"\n")) == [row]


EDGES = [
    *(0.0, -0.0, 3.0, -10.0, 1e-4, 9.9e-5, -2.5e-7, 562949953421312.25, 999999999999999.9, 1e15, 1.5e15, 1e16, 1e22),
    *(5e-324, math.inf, -math.inf, 10**15, -(10**18), 2**63 - 1, "", "1.50", "null", "1,2", b"1", b""),
]
"""Around the ends of what is written in bulk, and what is no number."""
USUAL = st.none() | st.integers(-99, 99) | st.floats(-1e6, 1e6) | st.decimals(-9999, 9999, places=2).map(float)
ODD = USUAL | st.sampled_from(EDGES) | st.floats(allow_nan=False) | st.text('a1,."\\\t\n\re\b\0ü', max_size=4)


def by_value(canons: list[Canon], rows: list[tuple[Any, ...]]) -> bytes:
    """Each value by itself, without any haste."""
    writers = [_value_writer(canon) for canon in canons]
    return "".join(
        "\t".join(
            lines.NULL if v is None else lines.escape_as_copy(write(v)) for write, v in zip(writers, row, strict=True)
        )
        + "\n"
        for row in rows
    ).encode()


@given(data=st.data(), forms=st.lists(st.sampled_from(Form), min_size=1, max_size=4), padded=st.booleans())
def test_lines_of_whole_batches_are_those_of_each_value(data: st.DataObject, forms: list[Form], padded: bool) -> None:
    canons = [Canon(ID.column, form, padded=padded and form is Form.TEXT) for form in forms]
    row = st.tuples(*[data.draw(st.sampled_from([USUAL, ODD, st.text("ab ü", max_size=3)])) for _ in forms])
    rows = data.draw(st.lists(row, min_size=1, max_size=6))
    assert sqlite_lines(canons)(rows) == by_value(canons, rows)


@pytest.mark.parametrize("form", Form)
def test_one_odd_value_among_plain_ones(form: Form) -> None:
    canons = [ID, Canon(ID.column, form)]
    for edge in EDGES:
        rows = [(1, 1.5), (2, edge), (3, None), (4, 7)]
        assert sqlite_lines(canons)(rows) == by_value(canons, rows), edge


@given(widths=st.lists(st.sampled_from([1, 100, 3_000_000]), max_size=200), most=st.integers(1, 120))
def test_wide_rows_come_in_small_batches(widths: list[int], most: int) -> None:
    widths = sorted(widths)
    wide = {width: "x" * width for width in set(widths)}
    rows = [(n, wide[width]) for n, width in enumerate(widths)]

    class Cursor:
        place = 0

        def fetchmany(self, count: int) -> list[tuple[int, str]]:
            self.place += count
            return rows[self.place - count : self.place]

    found = list(batches(Cursor(), most))
    assert [row for batch in found for row in batch] == rows
    assert all(len(batch) < most + 50 for batch in found)
    # the first few wide ones may come together, before anybody has seen one
    assert sum(1 for batch in found if sum(len(text) > 100 for _, text in batch) > 1) <= 1


def test_a_guard_stops_what_runs() -> None:
    guard = Guard(RunContext(), 0.05, "the test")
    threading.Event().wait(0.1)
    with pytest.raises(Exception, match=r"the test was stopped after 0\.05 s"):
        guard.check()
