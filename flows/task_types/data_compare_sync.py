"""``data_compare_sync``: how two tables differ, a script that makes them equal, and that script applied. (spec 2.4)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from taskcenter.context import PlanNote, RunContext
from taskcenter.task_types import task_type

from .payload import Flag, Payload, Text, Whole, also, unnested
from .server import engines_of

__all__ = ["DataComparePayload", "TableRef", "data_compare_sync"]

_NESTED = ("request", "compareRequest", "compare_request")
_SIDES = ("source", "target")


class TableRef(Payload):
    """One of the two tables."""

    connection: Text = Field(
        validation_alias=also("connection", "connection_id"),
        description="Name of a saved connection.",
        json_schema_extra={"format": "connection"},
    )
    database: Text | None = Field(None, validation_alias=also("database", "schema", "db_name"))
    table: Text


class DataComparePayload(Payload):
    """Which tables, by which columns, and what to do about it. May also stand under request or compareRequest."""

    source: TableRef
    target: TableRef
    key_columns: tuple[Text, ...] = Field((), description="Default: the primary key, when both sides have it.")
    compare_columns: tuple[Text, ...] = Field((), description="Default: all common columns that are no key.")
    where: Text | None = Field(None, description="SQL condition on both sides.", json_schema_extra={"format": "sql"})
    sample_limit: Whole = Field(50, ge=1, le=500, description="How many differing rows the result shows, of each kind.")
    max_rows: Whole | None = Field(None, ge=1, description="Refuse larger tables; without it there is no limit.")
    include_inserts: Flag = True
    include_updates: Flag = True
    include_deletes: Flag = False
    wrap_in_transaction: Flag = True
    statement_limit: Whole = Field(10_000, ge=0, le=200_000, description="Longest script, in statements; 0: no limit.")
    file_path: Text | None = Field(
        None, validation_alias=also("file_path", "output_path"), description="Where to write the script."
    )
    apply_script: Flag = Field(
        False,
        validation_alias=also("apply_script", "execute", "execute_script"),
        description="Make the target equal, in one transaction, if neither side has moved since it was compared.",
    )
    include_script_in_result: Flag = Field(False, validation_alias=also("include_script_in_result", "return_script"))
    algorithm: Literal["auto", "merge", "checksum", "sql"] = "auto"
    float_tolerance: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Floats that differ by no more are equal."
    )
    timeout_seconds: float = Field(
        900, strict=True, ge=5, le=86_400, validation_alias=also("timeout_seconds", "max_wait_seconds")
    )

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """Nested requests, and ``sourceConnection``, ``sourceTable`` … for ``source: {connection, table}``."""
        if not isinstance(value, Mapping):
            return value
        flat = unnested(value, _NESTED)
        for side in _SIDES:
            parts: dict[str, Any] = {}
            for part in ("connection", "connection_id", "database", "schema", "db_name", "table"):
                for spelling in also(f"{side}_{part}").choices:
                    if isinstance(spelling, str) and spelling in flat:
                        parts[part] = flat.pop(spelling)
            if parts:
                whole = flat.get(side)
                flat[side] = {**(whole if isinstance(whole, Mapping) else {}), **parts}
        return flat

    @model_validator(mode="after")
    def _whole(self) -> DataComparePayload:
        if not (self.include_inserts or self.include_updates or self.include_deletes):
            raise ValueError(
                "includeInserts, includeUpdates and includeDeletes are all false: nothing would be left to do"
            )
        keys = {name.lower() for name in self.key_columns}
        both = sorted(name for name in self.compare_columns if name.lower() in keys)
        if both:
            raise ValueError(f"a compare column cannot be a key column as well: {', '.join(both)}")
        return self


def plan(payload: DataComparePayload, ctx: RunContext) -> PlanNote:
    """What is compared and what is done about it, from the payload alone; no connection is opened."""
    kinds = [
        name
        for name, wanted in (
            ("inserts", payload.include_inserts),
            ("updates", payload.include_updates),
            ("deletes", payload.include_deletes),
        )
        if wanted
    ]
    source = f"{payload.source.connection}.{payload.source.table}"
    target = f"{payload.target.connection}.{payload.target.table}"
    then = f", then applies {', '.join(kinds)} to {target}" if payload.apply_script else ""
    danger = []
    if payload.apply_script:
        danger.append(f"changes {target}")
        if payload.include_deletes:
            danger.append(f"deletes rows of {target} that {source} does not have")
    engines = engines_of(payload.source.connection, payload.target.connection)
    return PlanNote(
        f"compares {source} with {target}{then}",
        details={
            "keyColumns": list(payload.key_columns) or "the primary key",
            "compareColumns": list(payload.compare_columns) or "all common columns",
            "script": kinds,
            "filePath": payload.file_path,
            "applies": payload.apply_script,
            "algorithm": payload.algorithm,
            "engines": engines,
        },
        danger=tuple(danger),
        connections=tuple(engines),
    )


@task_type(
    "data_compare_sync",
    title="Data compare and sync",
    category="database",
    icon="compare",
    tags=["sql", "data"],
    expensive=True,
    plan=plan,
)
def data_compare_sync(payload: DataComparePayload, ctx: RunContext) -> dict[str, Any]:
    """Compare two tables row by row; write, give back or apply the script that makes the target equal.

    Gives ``{executor, source, target, algorithm, summary, statementCounts, samples, warnings, truncated, applied,
    filePath?, script?}``. Memory is bounded whatever the size of the tables. Raises ConnectionUnavailable, TimedOut,
    Cancelled and StepFailed with the ``error_type`` missing_table, no_common_column, no_key, unknown_column,
    compare_is_key, duplicate_key, too_many_rows, truncated, moved or what the databases say.
    """
    from .data.compare import compare

    return {"executor": "data_compare_sync", **compare(payload, ctx)}
