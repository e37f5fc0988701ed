"""From differing keys to samples and statements: the rows are fetched again by their keys, from the same snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..database.literals import text_literal
from ..database.model import Column, TypeKind
from ..database.quoting import column_list, qualified, quote
from . import lines
from .canonical import Canon, Form
from .canonical_rows import canonical_chunks
from .compare_streams import Difference, Kind
from .compare_tables import Pair, order_by
from .files import literal_of
from .side import Guard, Side
from .sources import chunks
from .texts import Field

if TYPE_CHECKING:
    from ..data_compare_sync import DataComparePayload

__all__ = ["Detail", "Script", "Spool", "detail", "sample_of", "statements", "write_script"]

_FETCH = 400
_BYTES = 4 * 1024 * 1024
Row = list[str | None]


class Spool:
    """The differing keys in a file, so that memory does not grow with them."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = (folder / "differences").open("w+b")
        self.counts: dict[Kind, int] = {"missing": 0, "extra": 0, "changed": 0}

    def add(self, difference: Difference) -> None:
        kind, key = difference
        self.counts[kind] += 1
        self._file.write(kind[0].encode() + b"\t" + key + b"\n")

    def read(self) -> Iterator[Difference]:
        kinds: dict[int, Kind] = {ord("m"): "missing", ord("e"): "extra", ord("c"): "changed"}
        self._file.flush()
        with Path(self._file.name).open("rb") as file:
            for line in file:
                yield kinds[line[0]], line[2:-1]

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class Detail:
    """A differing row with its values. Canonical texts to show and compare, neutral ones to write."""

    kind: Kind
    key: Row
    source: Row | None
    target: Row | None
    source_values: Row | None
    target_key: Row | None

    def changed(self) -> list[int]:
        """Which values differ, by their place among the compared columns."""
        if self.source is None or self.target is None:
            return []
        return [n for n, (a, b) in enumerate(zip(self.source, self.target, strict=True)) if a != b]


def detail(differences: Iterator[Difference], pair: Pair, source: Side, target: Side, guard: Guard) -> Iterator[Detail]:
    """The rows behind the keys, a few hundred keys at a time, fewer where rows are wide."""
    width = pair.width
    fields = _fields(pair)
    count = 8
    while batch := list(islice(differences, count)):
        guard.check()
        from_source = [key for kind, key in batch if kind != "extra"]
        from_target = [key for kind, key in batch if kind != "missing"]
        left = _fetch(source, pair, True, from_source, fields, target.dialect)
        right = _fetch(target, pair, False, from_target, None, target.dialect)
        found = (*left.values(), *right.values())
        widest = max([sum([len(text or "") for text in row]) for row, _ in found], default=0)
        count = max(1, min(_FETCH, 2 * count, _BYTES // (1 + widest)))
        for kind, key in batch:
            row, other = left.get(key), right.get(key)
            yield Detail(
                kind,
                lines.fields(key.decode("utf-8", "surrogateescape")),
                row[0][width:] if row else None,
                other[0][width:] if other else None,
                row[1] if row else None,
                other[1] if other else None,
            )


def _fields(pair: Pair) -> list[Field]:
    """Source columns on their way into the target's: keys first."""
    return [Field(a, b) for a, b in (*pair.keys, *pair.values)]


def _fetch(
    side: Side, pair: Pair, left: bool, keys: Sequence[bytes], fields: Sequence[Field] | None, to: str
) -> dict[bytes, tuple[Row, Row]]:
    """Canonical row and neutral row per key. ``fields``: what to take as neutral; None: the side's own key."""
    if not keys:
        return {}
    columns = pair.canons(left)
    own = [Field(c.column, c.column) for c in columns[: pair.width]]
    reading = pair.reading(left, order_by(side, columns[: pair.width]), _condition(side, columns[: pair.width], keys))
    sink = f"sql:{to}"
    canonical = [row for data, _ in canonical_chunks(side, reading, columns) for row in lines.rows(data)]
    neutral = [row for data, _ in chunks(side, reading, fields or own, sink) for row in lines.rows(data)]
    wanted = set(keys)
    made: dict[bytes, tuple[Row, Row]] = {}
    for shown, written in zip(canonical, neutral, strict=True):
        key = _key_line(shown[: pair.width])
        if key in wanted:  # a collation may have found more than was asked for
            made[key] = (shown, written)
    return made


def _key_line(key: Row) -> bytes:
    return "\t".join(lines.NULL if part is None else lines.escape_as_copy(part) for part in key).encode(
        "utf-8", "surrogateescape"
    )


def _condition(side: Side, columns: Sequence[Canon], keys: Sequence[bytes]) -> str:
    """The rows with these keys; NULL counts as a value."""
    rows = [lines.fields(key.decode("utf-8", "surrogateescape")) for key in keys]
    if len(columns) == 1:
        known = [_literal(columns[0], row[0], side.dialect) for row in rows if row[0] is not None]
        name = quote(columns[0].column.name, side.dialect)
        parts = [f"{name} IN ({', '.join(known)})"] if known else []
        if len(known) < len(rows):
            parts.append(f"{name} IS NULL")
        return " OR ".join(parts)
    return " OR ".join(f"({same_key(columns, row, side.dialect)})" for row in rows)


def same_key(columns: Sequence[Canon], key: Row, dialect: str) -> str:
    """``a = 1 AND b IS NULL``: the row with this key of canonical texts."""
    return " AND ".join(
        f"{quote(c.column.name, dialect)} " + ("IS NULL" if t is None else f"= {_literal(c, t, dialect)}")
        for c, t in zip(columns, key, strict=True)
    )


def _literal(canon: Canon, text: str | None, dialect: str) -> str:
    """A canonical text as a value of the column."""
    assert text is not None
    kind = canon.column.type.kind
    if canon.form in (Form.INTEGER, Form.DECIMAL) and kind is not TypeKind.BOOLEAN:
        return text if lines.is_number(text) else text_literal(text, dialect)
    if kind is TypeKind.BOOLEAN and dialect == "postgresql":
        return "TRUE" if text == "1" else "FALSE"
    if kind is TypeKind.BYTES:
        return f"'\\x{text}'" if dialect == "postgresql" else f"x'{text}'"
    if canon.form is Form.FLOAT:
        return f"'{text}'::float8" if dialect == "postgresql" else text
    if kind is TypeKind.BITS and dialect == "mysql":
        return f"b'{text}'"
    if kind is TypeKind.TIMESTAMP_TZ and dialect == "sqlite":
        return text_literal(f"{text}+00:00", dialect)
    return text_literal(text, dialect)


@dataclass(slots=True)
class Script:
    """What was written. ``path`` holds the statements, one a line break, deletes before updates before inserts."""

    path: Path
    counts: dict[str, int] = field(default_factory=lambda: {"inserts": 0, "updates": 0, "deletes": 0})
    truncated: bool = False

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def write_script(
    payload: DataComparePayload, pair: Pair, dialect: str, folder: Path
) -> tuple[Script, Callable[[Detail], bool], Callable[[], None]]:
    """The script, the function that adds a row's statement to it (False: it is full), and the one that ends it."""
    script = Script(folder / "script.sql")
    stack = ExitStack()
    parts = {
        name: stack.enter_context((folder / f"script.{name}").open("w+b")) for name in ("deletes", "updates", "inserts")
    }
    table = qualified(pair.target.schema, pair.target.name, dialect)
    writable = [n for n, (_, b) in enumerate((*pair.keys, *pair.values)) if b.generated is None]
    columns = [b for _, b in (*pair.keys, *pair.values)]
    sources = [a for a, _ in (*pair.keys, *pair.values)]
    write = [_writer(a, b, dialect) for a, b in zip(sources, columns, strict=True)]
    names = column_list([columns[n].name for n in writable], dialect)
    system = (
        " OVERRIDING SYSTEM VALUE" if dialect == "postgresql" and any(c.identity == "always" for c in columns) else ""
    )
    keys = pair.target_canons[: pair.width]

    def add(found: Detail) -> bool:
        made = statement(found)
        if made is None:
            return True
        if payload.statement_limit and script.total >= payload.statement_limit:
            script.truncated = True
            return False
        name, text = made
        script.counts[name] += 1
        data = text.encode("utf-8", "surrogateescape")
        parts[name].write(b"%d\n" % len(data) + data)
        return True

    def statement(found: Detail) -> tuple[str, str] | None:
        if found.kind == "missing" and payload.include_inserts and found.source_values is not None:
            values = ", ".join(write[n](found.source_values[n]) for n in writable)
            return "inserts", f"INSERT INTO {table} ({names}){system} VALUES ({values})"
        if found.kind == "changed" and payload.include_updates and found.source_values is not None:
            places = [n + pair.width for n in found.changed() if n + pair.width in writable]
            if not places:
                return None
            sets = ", ".join(f"{quote(columns[n].name, dialect)} = {write[n](found.source_values[n])}" for n in places)
            return "updates", f"UPDATE {table} SET {sets} WHERE {same_key(keys, found.key, dialect)}"
        if found.kind == "extra" and payload.include_deletes:
            return "deletes", f"DELETE FROM {table} WHERE {same_key(keys, found.key, dialect)}"
        return None

    def end() -> None:
        begin = {"postgresql": "BEGIN", "mysql": "START TRANSACTION", "sqlite": "BEGIN IMMEDIATE"}[dialect]
        with script.path.open("wb") as whole:
            if dialect == "postgresql":
                whole.write(b"SET TIME ZONE 'UTC';\n")
            elif dialect == "mysql":
                whole.write(b"SET NAMES utf8mb4;\nSET time_zone = '+00:00';\n")
            if payload.wrap_in_transaction:
                whole.write(f"{begin};\n".encode())
            for part in parts.values():
                part.close()
            for _, data in _records(folder):
                whole.write(data + b";\n")
            if payload.wrap_in_transaction:
                whole.write(b"COMMIT;\n")
        stack.close()

    return script, add, end


def _writer(source: Column, target: Column, dialect: str) -> Callable[[str | None], str]:
    """The literal of a neutral text for the target's column."""
    kind = target.type if target.type.kind in (TypeKind.BYTES, TypeKind.BITS, TypeKind.BOOLEAN) else source.type
    write = literal_of(kind, dialect)
    return lambda text: "NULL" if text is None else write(text)


def statements(folder: Path) -> Iterator[tuple[str, str]]:
    """Kind and text of each statement, in order, without the semicolon."""
    for name, data in _records(folder):
        yield name, data.decode("utf-8", "surrogateescape")


def _records(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in ("deletes", "updates", "inserts"):
        with (folder / f"script.{name}").open("rb") as file:
            while size := file.readline():
                yield name, file.read(int(size))


def sample_of(found: Detail, pair: Pair) -> dict[str, Any]:
    """A differing row for people: its key, and what stands on both sides in the columns that differ."""
    key = {a.name: text for (a, _), text in zip(pair.keys, found.key, strict=True)}
    made: dict[str, Any] = {"kind": found.kind, "key": key}
    if found.kind == "changed":
        places = found.changed()
        made["columns"] = {
            pair.values[n][0].name: {
                "source": _short(found.source[n] if found.source else None),
                "target": _short(found.target[n] if found.target else None),
            }
            for n in places
        }
    else:
        row = found.source if found.kind == "missing" else found.target
        made["row"] = {a.name: _short(t) for (a, _), t in zip(pair.values, row or [], strict=False)}
    return made


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= 200 else text[:199] + "…"
