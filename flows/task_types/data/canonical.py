"""Values as texts that are the same when the values are, whichever engine holds them.

Numbers without trailing zeros, floats in their shortest form, times without trailing zeros in the fraction,
instants as UTC's wall clock, JSON with sorted keys, padded texts without their padding, bytes in hexadecimal digits.
What an engine can do itself it does in SQL (``canonical_sql``); the rest (JSON between different engines, very large
and small floats, all of SQLite) is done here (``canonical_values``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..database.model import Column, ColumnType, TypeKind

__all__ = ["NUMBERS", "Canon", "Form", "canons", "form_of"]


class Form(StrEnum):
    """How two columns are compared."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    TEXT = "text"
    UUID = "uuid"
    BYTES = "bytes"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    JSON = "json"


NUMBERS = {TypeKind.INTEGER, TypeKind.DECIMAL, TypeKind.FLOAT, TypeKind.BOOLEAN}
_INSTANTS = {TypeKind.TIMESTAMP, TypeKind.TIMESTAMP_TZ}


def form_of(left: ColumnType, right: ColumnType) -> Form:
    """The form in which values of both types can be told apart or found equal."""
    kinds = {left.kind, right.kind}
    if kinds <= NUMBERS:
        if TypeKind.FLOAT in kinds:
            return Form.FLOAT
        return Form.DECIMAL if TypeKind.DECIMAL in kinds else Form.INTEGER
    if kinds & {TypeKind.JSON, TypeKind.ARRAY}:
        return Form.JSON
    if kinds <= {TypeKind.BYTES}:
        return Form.BYTES
    if TypeKind.UUID in kinds:
        return Form.UUID
    if kinds & _INSTANTS:
        return Form.TIMESTAMP
    if TypeKind.DATE in kinds:
        return Form.DATE
    if TypeKind.TIME in kinds:
        return Form.TIME
    # a column that says nothing of its values (SQLite's) follows the other one
    known = kinds - {TypeKind.OTHER}
    if len(kinds) == 2 and len(known) == 1 and "" in (left.sql, right.sql):
        kind = left if left.kind in known else right
        return form_of(kind, kind)
    return Form.TEXT


@dataclass(frozen=True, slots=True)
class Canon:
    """One column of one side in the form that both sides share. ``padded``: trailing blanks do not count."""

    column: Column
    form: Form
    padded: bool = False
    in_python: bool = False
    """The engine's text is not yet the canonical one."""


def canons(pairs: Sequence[tuple[Column, Column]], left: str, right: str) -> tuple[list[Canon], list[Canon]]:
    """Both sides' columns in their shared forms. ``left`` and ``right`` are the engines."""
    lefts, rights = [], []
    for a, b in pairs:
        form = form_of(a.type, b.type)
        padded = form is Form.TEXT and (a.type.fixed or b.type.fixed)
        loose = form in (Form.FLOAT, Form.JSON) and (left != right or a.type.kind is not b.type.kind)
        loose = loose or (form is Form.JSON and left == "mysql")
        lefts.append(Canon(a, form, padded, loose))
        rights.append(Canon(b, form, padded, loose))
    return lefts, rights
