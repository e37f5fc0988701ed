"""Whether a column type holds less than the one before: a value that fitted may not fit any more."""

from __future__ import annotations

from .model import ColumnType, TypeKind

__all__ = ["narrowed"]

_DIGITS = {8: 3, 16: 5, 24: 8, 32: 10, 64: 19}
_EXACT_FLOAT = {32: 24, 64: 53}
_TIMES = frozenset({TypeKind.TIME, TypeKind.TIMESTAMP, TypeKind.TIMESTAMP_TZ, TypeKind.INTERVAL})
# What the other kind holds in full, whatever its size.
_WIDER = frozenset(
    {
        (TypeKind.DATE, TypeKind.TIMESTAMP),
        (TypeKind.DATE, TypeKind.TIMESTAMP_TZ),
        (TypeKind.TIMESTAMP, TypeKind.TIMESTAMP_TZ),
        (TypeKind.BOOLEAN, TypeKind.INTEGER),
        (TypeKind.BOOLEAN, TypeKind.DECIMAL),
        (TypeKind.ENUM, TypeKind.SET),
    }
)
_TEXT_LENGTH = {TypeKind.UUID: 36, TypeKind.DATE: 10, TypeKind.BOOLEAN: 5, TypeKind.INTEGER: 20}


def narrowed(old: ColumnType, new: ColumnType) -> bool:
    """True when some value of ``old`` does not fit ``new``, or when nobody can tell."""
    if old.sql == new.sql and old.values == new.values:
        return False
    if old.kind is new.kind:
        return _same_kind(old, new)
    if (old.kind, new.kind) in _WIDER:
        return False
    if new.kind is TypeKind.TEXT:
        return _to_text(old, new)
    if old.kind is TypeKind.INTEGER and new.kind is TypeKind.DECIMAL:
        return new.precision is not None and new.precision - (new.scale or 0) < _digits(old)
    if old.kind is TypeKind.INTEGER and new.kind is TypeKind.FLOAT:
        return (old.bits or 64) > _EXACT_FLOAT.get(new.bits or 64, 53)
    return True


def _same_kind(old: ColumnType, new: ColumnType) -> bool:
    kind = old.kind
    if kind is TypeKind.INTEGER:
        (low, high), (new_low, new_high) = _range(old), _range(new)
        return new_low > low or new_high < high
    if kind is TypeKind.DECIMAL:
        if new.precision is None:
            return False
        whole = new.precision - (new.scale or 0)
        return old.precision is None or whole < old.precision - (old.scale or 0) or (new.scale or 0) < (old.scale or 0)
    if kind is TypeKind.FLOAT:
        return (new.bits or 64) < (old.bits or 64)
    if kind in (TypeKind.TEXT, TypeKind.BYTES, TypeKind.BITS):
        return _shorter(old.length, new.length) or (new.fixed and kind is TypeKind.BITS and old.length != new.length)
    if kind in _TIMES:
        return _fraction(new) < _fraction(old)
    if kind in (TypeKind.ENUM, TypeKind.SET):
        return not set(old.values) <= set(new.values)
    if kind is TypeKind.ARRAY and old.element and new.element:
        return narrowed(old.element, new.element)
    return kind is TypeKind.OTHER  # of the rest (json to jsonb, bool to boolean) all hold the same


def _to_text(old: ColumnType, new: ColumnType) -> bool:
    if new.length is None:
        return old.kind is TypeKind.BYTES
    if old.kind in (TypeKind.ENUM, TypeKind.SET):
        longest = max(map(len, old.values), default=0)
        return new.length < (longest if old.kind is TypeKind.ENUM else sum(len(v) + 1 for v in old.values))
    needed = _TEXT_LENGTH.get(old.kind)
    return needed is None or new.length < needed


def _shorter(old: int | None, new: int | None) -> bool:
    return new is not None and (old is None or new < old)


def _fraction(kind: ColumnType) -> int:
    """Digits of a second; PostgreSQL keeps six where it names none."""
    return 6 if kind.precision is None else kind.precision


def _digits(kind: ColumnType) -> int:
    return 20 if kind.unsigned and kind.bits == 64 else _DIGITS.get(kind.bits or 64, 19)


def _range(kind: ColumnType) -> tuple[int, int]:
    bits = kind.bits or 64
    return (0, 2**bits - 1) if kind.unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
