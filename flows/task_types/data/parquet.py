"""Rows as a Parquet file: columns with their types where Parquet has them, else texts. Needs the extra ``parquet``."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

from taskcenter.errors import StepFailed

from ..database.model import ColumnType, TypeKind
from . import lines
from .lines import Chunk
from .load import Counter
from .side import Guard
from .texts import Field

__all__ = ["write_parquet"]

_GROUP_ROWS = 50_000
_GROUP_BYTES = 2 * 1024 * 1024
"""A row group is held in memory until it is whole."""


def write_parquet(
    path: Path, chunks: Generator[Chunk, None, None], fields: Sequence[Field], guard: Guard, counter: Counter
) -> None:
    """Write the lines to ``path``. StepFailed without the library, and for a value that Parquet's type cannot hold."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise StepFailed(
            "writing Parquet needs the library pyarrow, which is not installed in Task Center's environment: "
            "pip install pyarrow, or choose csv or jsonl",
            error_type="setup",
        ) from None
    kinds = [(arrow.string(), None) if f.cast else _arrow_of(f.source.type, arrow) for f in fields]
    schema = arrow.schema([(f.target.name, kind) for f, (kind, _) in zip(fields, kinds, strict=True)])
    held: list[Any] = []
    rows = size = 0
    # An error would keep the reader alive in its traceback, in the middle of rows that nobody wants any more.
    with closing(chunks), parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for data, count in chunks:
            guard.check()
            columns = zip(*lines.rows(data), strict=True)
            arrays = [_array(f, c, *kind, arrow) for f, c, kind in zip(fields, columns, kinds, strict=True)]
            held.append(arrow.RecordBatch.from_arrays(arrays, schema=schema))
            rows += count
            size += len(data)
            counter.add(count, len(data))
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                writer.write_table(arrow.Table.from_batches(held))
                held, rows, size = [], 0, 0
        if held:
            writer.write_table(arrow.Table.from_batches(held))


def _array(field: Field, texts: Sequence[str | None], kind: Any, read: Callable[[str], Any] | None, arrow: Any) -> Any:
    try:
        values = texts if read is None else [None if text is None else read(text) for text in texts]
        return arrow.array(values, type=kind)
    except (ValueError, ArithmeticError) as error:
        raise StepFailed(
            f"the column {field.source.name!r} holds a value that Parquet's type {kind} cannot hold ({error}): "
            "give it a cast to a text type in columns, or leave it out",
            error_type="value",
        ) from None


def _arrow_of(kind: ColumnType, arrow: Any) -> tuple[Any, Callable[[str], Any] | None]:
    """The type in Parquet, and what makes a value of a neutral text; None: the text itself."""
    match kind.kind:
        case TypeKind.INTEGER if not (kind.unsigned and kind.bits == 64):
            return arrow.int64(), int
        case TypeKind.DECIMAL if kind.precision and kind.precision <= 38:
            return arrow.decimal128(kind.precision, kind.scale or 0), Decimal
        case TypeKind.FLOAT:
            return arrow.float64(), float
        case TypeKind.BOOLEAN:
            return arrow.bool_(), _boolean
        case TypeKind.BYTES:
            return arrow.binary(), bytes.fromhex
        case TypeKind.DATE:
            return arrow.date32(), date.fromisoformat
        case TypeKind.TIMESTAMP:
            return arrow.timestamp("us"), datetime.fromisoformat
        case TypeKind.TIMESTAMP_TZ:
            return arrow.timestamp("us", tz="UTC"), lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC)
    return arrow.string(), None


def _boolean(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "1"
