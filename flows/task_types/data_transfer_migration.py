"""``data_transfer_migration``: rows of tables and queries into another database or into files. (spec 2.5)"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field as PayloadField
from pydantic import field_validator, model_validator

from taskcenter.context import PlanNote, RunContext
from taskcenter.task_types import task_type

from .payload import Flag, Payload, Text, Whole, also, unnested
from .server import engines_of

__all__ = ["DataTransferPayload", "TransferObject", "data_transfer_migration"]

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*(\(\s*\d+\s*(,\s*\d+\s*)?\))?( [A-Za-z ]+)?")
_NESTED = ("request", "plan", "transferRequest", "transfer_request")


class ColumnPair(Payload):
    """A column of the source and where it goes."""

    source: Text
    target: Text | None = PayloadField(None, description="Default: the same name.")
    cast: Text | None = PayloadField(None, description="A type of the source's engine, such as numeric(10,2).")

    @field_validator("cast")
    @classmethod
    def _is_type(cls, value: str | None) -> str | None:
        if value is not None and not _TYPE.fullmatch(value):
            raise ValueError("must be the name of a type, such as integer or numeric(10,2)")
        return value


class TransferObject(Payload):
    """One table or query, and where its rows go."""

    source_table: Text | None = PayloadField(None, description="Table or view; schema.name where it needs one.")
    source_query: Text | None = PayloadField(None, json_schema_extra={"format": "sql"})
    target_table: Text | None = PayloadField(None, description="Default: the source table's name.")
    mode: Literal["append", "replace", "upsert"] = "append"
    key_columns: tuple[Text, ...] = PayloadField(
        (), description="Columns of the target that upsert goes by; the primary key of a new table."
    )
    sink_type: Literal["database", "csv", "jsonl", "sql", "parquet"] = "database"
    sink_path: Text | None = PayloadField(None, description="The file, for the sink types that are files.")
    columns: tuple[ColumnPair, ...] = PayloadField(
        (), description='Pairs and casts, or {"source": "target"}. Default: every column under its own name.'
    )
    where: Text | None = PayloadField(
        None, description="SQL condition on the source.", json_schema_extra={"format": "sql"}
    )
    watermark_column: Text | None = PayloadField(
        None, description="Only rows whose value here is greater than any that the target holds."
    )
    verify: Flag = PayloadField(
        False,
        description="Prove by count and checksum of all rows that both sides are equal; for a file, give its SHA-256.",
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return [
                {"source": k, **v} if isinstance(v, Mapping) else {"source": k, "target": v} for k, v in value.items()
            ]
        if isinstance(value, list | tuple):
            return [{"source": item} if isinstance(item, str) else item for item in value]
        return value

    @model_validator(mode="after")
    def _whole(self) -> TransferObject:
        if (self.source_table is None) == (self.source_query is None):
            raise ValueError("name either sourceTable or sourceQuery")
        files = self.sink_type != "database"
        if self.source_query is not None and self.target_table is None and self.sink_type in ("database", "sql"):
            raise ValueError("a sourceQuery needs a targetTable")
        if files and self.sink_path is None:
            raise ValueError(f"the sink type {self.sink_type} needs a sinkPath")
        if not files and self.sink_path is not None:
            raise ValueError("a sinkPath is for files: choose the sinkType csv, jsonl, sql or parquet")
        if self.mode == "upsert":
            if self.sink_type not in ("database", "sql"):
                raise ValueError("upsert goes to a database or a sql file only")
            if not self.key_columns:
                raise ValueError("upsert needs keyColumns")
        if self.watermark_column is not None:
            if files:
                raise ValueError("watermarkColumn is for the sink type database: the target's own rows are the mark")
            if self.source_table is None:
                raise ValueError("watermarkColumn needs a sourceTable")
            if self.mode == "replace":
                raise ValueError("watermarkColumn adds to what is there: choose append or upsert")
        if self.verify and not files and (self.mode == "upsert" or self.watermark_column is not None):
            raise ValueError("verify compares whole tables: it is for append into an empty table and for replace")
        return self


class DataTransferPayload(Payload):
    """Where from, where to, and what. May also stand under request, plan or transferRequest."""

    source_connection_id: Text = PayloadField(
        validation_alias=also("source_connection_id", "source_connection", "source"),
        description="Name of the saved connection to read from.",
        json_schema_extra={"format": "connection"},
    )
    target_connection_id: Text | None = PayloadField(
        None,
        validation_alias=also("target_connection_id", "target_connection", "target"),
        description="Name of the saved connection to write to; not needed for files.",
        json_schema_extra={"format": "connection"},
    )
    source_database: Text | None = None
    target_database: Text | None = None
    objects: tuple[TransferObject, ...] = PayloadField(min_length=1)
    include_schema_migration: Flag = PayloadField(
        False, description="Compare the tables first; what would have to change is shown, never applied."
    )
    lock_guard: Flag = PayloadField(
        True, description="With includeSchemaMigration: move nothing when the comparison found breaking differences."
    )
    mapping_profile: Text | None = None
    batch_rows: Whole | None = PayloadField(
        None,
        ge=100,
        description="Commit after so many rows, in the order of the key; the run after one that was stopped goes on "
        "behind them. Default: each object is one transaction.",
    )
    dry_run: Flag = PayloadField(False, description="Count the rows on both sides and write nothing.")
    wait_for_completion: Flag = PayloadField(True, validation_alias=also("wait_for_completion", "wait"))
    timeout_seconds: float = PayloadField(
        900,
        strict=True,
        ge=5,
        le=86_400,
        validation_alias=also("timeout_seconds", "max_wait_seconds"),
        description="The transfer is stopped when it is reached, on the servers too.",
    )

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        return unnested(value, _NESTED) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _whole(self) -> DataTransferPayload:
        if self.mapping_profile is not None:
            raise ValueError("there are no mapping profiles: name the pairs and casts in columns of each object")
        if not self.wait_for_completion:
            raise ValueError("a run always ends with its transfer: start the run without waiting for it instead")
        if self.batch_rows is not None:
            for item in self.objects:
                if item.sink_type != "database" or item.mode == "replace":
                    raise ValueError("batchRows is for append and upsert into a database")
                if item.verify or item.watermark_column is not None:
                    raise ValueError("batchRows cannot be together with verify or watermarkColumn")
        if self.target_connection_id is None and any(o.sink_type == "database" for o in self.objects):
            raise ValueError("a target connection is needed for the sink type database")
        return self


def plan(payload: DataTransferPayload, ctx: RunContext) -> PlanNote:
    """What goes where, from the payload alone; no connection is opened."""
    details: list[dict[str, Any]] = []
    danger: list[str] = []
    for index, item in enumerate(payload.objects, 1):
        source = item.source_table or f"query {index}"
        goal = item.sink_path if item.sink_type != "database" else item.target_table or item.source_table
        made: dict[str, Any] = {"source": source, "to": goal, "sink": item.sink_type, "mode": item.mode}
        if item.where:
            made["where"] = item.where
        if item.key_columns:
            made["keyColumns"] = list(item.key_columns)
        if item.watermark_column:
            made["watermarkColumn"] = item.watermark_column
        details.append(made)
        if item.mode == "replace" and item.sink_type == "database" and not payload.dry_run:
            danger.append(f"replaces all rows of {goal} on {payload.target_connection_id}")
    count = len(payload.objects)
    files = all(o.sink_type != "database" for o in payload.objects)
    to = "files" if files else str(payload.target_connection_id)
    engines = engines_of(payload.source_connection_id, payload.target_connection_id)
    verb = "counts" if payload.dry_run else "moves"
    return PlanNote(
        f"{verb} {count} object{'s' if count != 1 else ''} from {payload.source_connection_id} to {to}",
        details={
            "objects": details,
            "engines": engines,
            "timeoutSeconds": payload.timeout_seconds,
        },
        danger=tuple(danger),
        connections=tuple(engines),
    )


@task_type(
    "data_transfer_migration",
    title="Data transfer",
    category="database",
    icon="transfer",
    tags=["sql", "data"],
    expensive=True,
    plan=plan,
)
def data_transfer_migration(payload: DataTransferPayload, ctx: RunContext) -> dict[str, Any]:
    """Copy tables or query results into another database or into files.

    Gives ``{executor, taskId, dryRun, elapsedMs, run{objects[...], preflight?, warnings[]}}``. The objects go one after
    the other, all read from one snapshot of the source. When one fails, is cancelled or runs into the time limit, those
    before it are done and its own target is as it was; with ``batchRows`` its committed batches stay. Raises
    ConnectionUnavailable, TimedOut, Cancelled and StepFailed.
    """
    from .data.transfer import transfer

    started = time.monotonic()
    run = transfer(payload, ctx)
    return {
        "executor": "data_transfer_migration",
        "taskId": ctx.task,
        "dryRun": payload.dry_run,
        "elapsedMs": round((time.monotonic() - started) * 1000, 1),
        "run": run,
    }
