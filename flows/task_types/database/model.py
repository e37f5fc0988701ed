"""The structure of a database in words that mean the same on PostgreSQL, MySQL/MariaDB and SQLite.

Filled by ``reflect``. Plain frozen data: no driver, no server. Texts in ``definition``, ``default``, ``generated``
and ``expression`` are the engine's own SQL; everything else is neutral.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

__all__ = [
    "Check",
    "Column",
    "ColumnType",
    "CustomType",
    "ForeignKey",
    "Identity",
    "Index",
    "Key",
    "Routine",
    "Sequence",
    "Structure",
    "Table",
    "Trigger",
    "TypeKind",
    "View",
]

Identity = Literal["", "always", "by_default", "auto_increment"]
"""Where a column's number comes from: PostgreSQL's two kinds of identity, MySQL's and SQLite's auto increment."""


class TypeKind(StrEnum):
    """What kind of value a column holds, whatever the engine calls it."""

    INTEGER = "integer"  # bits: 8, 16, 24, 32, 64; unsigned on MySQL
    DECIMAL = "decimal"  # precision and scale; neither means any number of digits
    FLOAT = "float"  # bits: 32 or 64
    BOOLEAN = "boolean"
    TEXT = "text"  # length in characters; fixed means padded
    BYTES = "bytes"  # length in bytes
    DATE = "date"
    TIME = "time"  # MySQL's may be negative or above 24 hours
    TIMESTAMP = "timestamp"  # a wall clock without zone
    TIMESTAMP_TZ = "timestamp_tz"  # an instant
    INTERVAL = "interval"
    JSON = "json"
    UUID = "uuid"
    ARRAY = "array"  # element says of what
    ENUM = "enum"  # values says which
    SET = "set"  # MySQL's SET
    BITS = "bits"  # length in bits
    OTHER = "other"  # only the engine's own text says it: ranges, addresses, shapes; SQLite's untyped columns


@dataclass(frozen=True, slots=True)
class ColumnType:
    """``sql`` is the engine's own spelling (``numeric(10,2)``); the rest is what it means."""

    sql: str
    kind: TypeKind
    bits: int | None = None
    unsigned: bool = False
    length: int | None = None
    fixed: bool = False
    precision: int | None = None
    """Digits of a decimal; digits of the fraction of a second for times."""
    scale: int | None = None
    element: ColumnType | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``generated`` is the expression of a computed column, which nobody may write."""

    name: str
    type: ColumnType
    nullable: bool = True
    default: str | None = None
    generated: str | None = None
    stored: bool = False
    identity: Identity = ""
    collation: str | None = None
    on_update: str | None = None
    """MySQL's ON UPDATE CURRENT_TIMESTAMP."""
    comment: str = ""

    @property
    def writable(self) -> bool:
        """Whether an INSERT may name it."""
        return self.generated is None


@dataclass(frozen=True, slots=True)
class Key:
    """A primary or unique key that is a constraint. ``definition`` is what stands behind CONSTRAINT name."""

    name: str
    columns: tuple[str, ...]
    definition: str = ""
    inherited: bool = field(default=False, compare=False)
    """Whether a partition has it from its parent."""


@dataclass(frozen=True, slots=True)
class Index:
    """``parts`` are column names or expressions in order; ``definition`` is the engine's CREATE INDEX, if it has one.

    ``columns`` are the plain column names when the index holds nothing else and all rows; else empty.
    """

    name: str
    parts: tuple[str, ...]
    unique: bool = False
    method: str = ""
    where: str | None = None
    columns: tuple[str, ...] = ()
    definition: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """``to_schema`` is empty where the engine has no schemas (MySQL within its database, SQLite)."""

    name: str
    columns: tuple[str, ...]
    to_schema: str
    to_table: str
    to_columns: tuple[str, ...]
    on_update: str = "NO ACTION"
    on_delete: str = "NO ACTION"
    deferrable: str = ""
    definition: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table. ``schema`` is empty on MySQL and SQLite; ``definition`` is their own CREATE TABLE."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: Key | None = None
    unique_keys: tuple[Key, ...] = ()
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[Check, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    comment: str = ""
    row_estimate: int | None = field(default=None, compare=False)
    definition: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """The name for people: ``sales.orders``, or ``orders`` where there is no schema."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    def column(self, name: str) -> Column | None:
        """The column called ``name``, exactly so; else the only one that is called so without case."""
        exact = next((c for c in self.columns if c.name == name), None)
        if exact is not None:
            return exact
        alike = [c for c in self.columns if c.name.lower() == name.lower()]
        return alike[0] if len(alike) == 1 else None

    @property
    def writable(self) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if c.writable)


@dataclass(frozen=True, slots=True)
class View:
    """``definition`` is the query on PostgreSQL, the whole CREATE VIEW on MySQL and SQLite."""

    schema: str
    name: str
    definition: str
    columns: tuple[str, ...] = ()
    materialized: bool = False
    options: str = ""
    indexes: tuple[Index, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class Routine:
    """A function, procedure or MySQL event. ``signature`` tells overloads apart; ``definition`` is the whole CREATE."""

    schema: str
    name: str
    kind: str
    signature: str
    definition: str

    @property
    def label(self) -> str:
        return (f"{self.schema}.{self.name}" if self.schema else self.name) + f"({self.signature})"


@dataclass(frozen=True, slots=True)
class Trigger:
    """``definition`` is the whole CREATE TRIGGER; ``enabled`` is PostgreSQL's letter: O, D, R or A."""

    schema: str
    table: str
    name: str
    definition: str
    enabled: str = "O"

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.table}.{self.name}" if self.schema else f"{self.table}.{self.name}"


@dataclass(frozen=True, slots=True)
class Sequence:
    """``definition`` is the option list: ``AS bigint START WITH 1 ...``; the owner is the column that it serves."""

    schema: str
    name: str
    definition: str
    owner_table: str = ""
    """Its label: ``schema.table``."""
    owner_column: str = ""
    of_identity: bool = False

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class CustomType:
    """PostgreSQL's enums, domains, composite types and ranges; ``definition`` is the whole CREATE."""

    schema: str
    name: str
    kind: str
    definition: str
    values: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class Structure:
    """All of one database, each kind in the order of its names."""

    dialect: str
    version: str
    database: str
    tables: tuple[Table, ...] = ()
    views: tuple[View, ...] = ()
    routines: tuple[Routine, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    types: tuple[CustomType, ...] = ()
    schemas: tuple[str, ...] = ()
    default_schema: str = ""
    """Where a name without schema is looked for first (PostgreSQL's current_schema())."""

    def find_table(self, name: str) -> Table | None:
        """The table called ``name`` (``orders`` or ``sales.orders``): exactly so, else the only one without case."""
        for exact in (True, False):
            found = [t for t in self.tables if _same(t.label, name, exact) or _same(t.name, name, exact)]
            here = [t for t in found if _same(t.label, name, exact)]
            here = here or [t for t in found if t.schema == self.default_schema] or found
            if len(here) == 1:
                return here[0]
        return None


def _same(left: str, right: str, exact: bool) -> bool:
    return left == right if exact else left.lower() == right.lower()
