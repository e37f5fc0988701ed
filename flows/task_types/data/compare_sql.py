"""Finding the differing rows by SQL: a join where both tables are in one database, sums of segments where not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from taskcenter.errors import StepFailed

from ..database.model import Column, TypeKind
from ..database.quoting import quote
from .canonical import Canon, Form
from .canonical_rows import canonical_chunks, line_hash
from .canonical_sql import mysql_line, postgresql_text
from .compare_streams import Difference, Kind
from .compare_tables import Pair
from .lines import escape_as_copy
from .pg_copy import copy_out
from .side import Side
from .verify import both, is_hashable, row_hash

__all__ = ["can_join", "differing_ranges", "fingerprint", "joined"]

_LETTERS: dict[str, Kind] = {"m": "missing", "e": "extra", "c": "changed"}
_SEGMENTS = 512
_MOST_RANGES = 32


def can_join(pair: Pair, dialect: str) -> str:
    """Why a join would not give the same answer as a comparison of values; empty when it does."""
    if any(a.nullable or b.nullable for a, b in pair.keys) and dialect != "sqlite":
        return "a key column may be NULL, and a join does not find NULLs"
    for canon_a, canon_b in zip(pair.source_canons, pair.target_canons, strict=True):
        plain = canon_a.form in (Form.INTEGER, Form.TEXT, Form.BYTES) and not canon_a.padded
        same = canon_a.column.type.kind is canon_b.column.type.kind
        if dialect == "sqlite" and not (plain and same and canon_a.column.type.kind in _SQLITE_PLAIN):
            return f"SQLite keeps {canon_a.column.name!r} as whatever it was given"
        if dialect == "mysql" and canon_a.in_python:
            return f"JSON in {canon_a.column.name!r} is compared by value"
    if dialect == "mysql":
        for canon in (*pair.source_canons[: pair.width], *pair.target_canons[: pair.width]):
            if canon.form in (Form.TEXT, Form.UUID):
                return "texts in a key are joined by their collation, which may take different texts for equal"
    if dialect == "sqlite" and any(a.nullable or b.nullable for a, b in pair.keys):
        only = len(pair.keys) == 1 and pair.keys[0][0].type.kind is TypeKind.INTEGER
        if not only:
            return "a key column may be NULL, and a join does not find NULLs"
    return ""


_SQLITE_PLAIN = (TypeKind.INTEGER, TypeKind.TEXT, TypeKind.BYTES)


def joined(side: Side, pair: Pair) -> Iterator[Difference]:
    """The differing rows of two tables in the database of ``side``, by one statement."""
    dialect = side.dialect
    left, right = _aliased(pair, True, dialect), _aliased(pair, False, dialect)
    on = " AND ".join(
        f"s.{quote(a.name, dialect)} = t.{quote(b.name, dialect)}"
        if a.type.kind is b.type.kind or dialect != "postgresql"
        else f"({_side_text(ca, 's')})::text = ({_side_text(cb, 't')})::text"
        for (a, b), ca, cb in zip(pair.keys, pair.source_canons, pair.target_canons, strict=False)
    )
    differ = " OR ".join(_differs(a, b, dialect) for a, b in _values(pair)) or "1 = 0"
    keys_s = [_key_text(c, "s", dialect) for c in pair.source_canons[: pair.width]]
    keys_t = [_key_text(c, "t", dialect) for c in pair.target_canons[: pair.width]]
    if dialect == "postgresql":
        keys = ", ".join(
            f"CASE WHEN s.tc_here IS NULL THEN {t} ELSE {s} END" for s, t in zip(keys_s, keys_t, strict=True)
        )
        sql = (
            "SELECT CASE WHEN t.tc_here IS NULL THEN 'm' WHEN s.tc_here IS NULL THEN 'e' ELSE 'c' END, "
            f"{keys} FROM {left} FULL JOIN {right} ON {on} WHERE s.tc_here IS NULL OR t.tc_here IS NULL OR {differ}"
        )
        for chunk in copy_out(side.driver, f"COPY ({sql}) TO STDOUT"):
            for line in bytes(chunk).split(b"\n")[:-1]:
                yield _LETTERS[chr(line[0])], line[2:]
        return
    sql = (
        f"SELECT CASE WHEN t.tc_here IS NULL THEN 'm' ELSE 'c' END, {', '.join(keys_s)} FROM {left} LEFT JOIN {right} "
        f"ON {on} WHERE t.tc_here IS NULL OR {differ} "
        f"UNION ALL SELECT 'e', {', '.join(keys_t)} FROM {right} LEFT JOIN {left} ON {on} WHERE s.tc_here IS NULL"
    )
    if dialect == "mysql":
        from pymysql.cursors import SSCursor

        cursor = side.driver.cursor(SSCursor)
    else:
        cursor = side.driver.cursor()
    with closing(cursor):
        cursor.execute(sql)
        while rows := cursor.fetchmany(1000):
            for letter, *key in rows:
                # MySQL has made canonical fields of them already
                text = "\t".join(_text(p) if dialect == "mysql" else escape_as_copy(_text(p)) for p in key)
                yield _LETTERS[_text(letter)], text.encode("utf-8", "surrogateescape")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def _aliased(pair: Pair, left: bool, dialect: str) -> str:
    """The table as a subquery with a mark that it is there."""
    alias = "s" if left else "t"
    names = ", ".join(quote(c.column.name, dialect) for c in pair.canons(left))
    return f"({pair.reading(left).sql(f'1 AS tc_here, {names}', dialect)}) AS {alias}"


def _values(pair: Pair) -> list[tuple[Canon, Canon]]:
    found = list(zip(pair.source_canons, pair.target_canons, strict=True))
    return found[pair.width :]


def _side_text(canon: Canon, alias: str) -> str:
    """A canonical expression of PostgreSQL on a column of the join."""
    bare = quote(canon.column.name, "postgresql")
    return postgresql_text(canon).replace(bare, f"{alias}.{bare}")


def _differs(a: Canon, b: Canon, dialect: str) -> str:
    s, t = f"s.{quote(a.column.name, dialect)}", f"t.{quote(b.column.name, dialect)}"
    if dialect == "postgresql":
        same = a.column.type.sql == b.column.type.sql
        if (
            same
            and a.column.type.kind not in (TypeKind.JSON, TypeKind.OTHER, TypeKind.ENUM)
            and a.column.type.sql != "citext"
        ):
            return f"{s} IS DISTINCT FROM {t}"
        return f"({_side_text(a, 's')})::text IS DISTINCT FROM ({_side_text(b, 't')})::text"
    if dialect == "mysql":
        if a.form in (Form.TEXT, Form.UUID):
            s, t = (f"TRIM(TRAILING ' ' FROM {x})" if a.padded else x for x in (s, t))
            s, t = (f"LOWER({x})" if a.form is Form.UUID else x for x in (s, t))
            return f"NOT (BINARY CONVERT({s} USING utf8mb4) <=> BINARY CONVERT({t} USING utf8mb4))"
        return f"NOT ({s} <=> {t})"
    return f"{s} IS NOT {t} COLLATE BINARY" if a.form is Form.TEXT else f"{s} IS NOT {t}"


def _key_text(canon: Canon, alias: str, dialect: str) -> str:
    if dialect == "postgresql":
        return _side_text(canon, alias)
    if dialect == "mysql":
        bare = quote(canon.column.name, "mysql")
        line = mysql_line([canon])
        inner = line.removeprefix("CAST(CONCAT_WS('\\t', ").removesuffix(") AS BINARY)")
        return f"CAST({inner.replace(bare, f'{alias}.{bare}')} AS BINARY)"
    name = f"{alias}.{quote(canon.column.name, dialect)}"
    return f"lower(hex({name}))" if canon.form is Form.BYTES else name


@dataclass(frozen=True, slots=True)
class _Grid:
    """Segments of an integer key: the first value, and how many values a segment has."""

    low: int
    step: int

    def condition(self, side: Side, column: Column, first: int, last: int) -> str:
        """The rows of the segments ``first`` to ``last``."""
        name = quote(column.name, side.dialect)
        return f"{name} >= {self.low + first * self.step} AND {name} < {self.low + (last + 1) * self.step}"


def differing_ranges(source: Side, target: Side, pair: Pair) -> tuple[list[tuple[str, str]] | None, int, int]:
    """Where the tables differ: conditions for source and target, and how many rows both have.

    None instead of a list: nearly everywhere, so that all of it is to be read. Each side counts and adds up the
    hashes of its rows per segment of the key. StepFailed when the columns do not allow it.
    """
    why = _no_segments(source, target, pair)
    if why:
        raise StepFailed(f"the algorithm checksum cannot be used: {why}; use merge or auto", error_type="configuration")
    a, b = pair.keys[0]
    spans = [_span(source, pair, True, a), _span(target, pair, False, b)]
    known = [s for s in spans if s is not None]
    if not known:
        return [], 0, 0
    low, high = min(s[0] for s in known), max(s[1] for s in known)
    grid = _Grid(low, max(1, -(-(high - low + 1) // _SEGMENTS)))
    hashable = source.dialect == target.dialect == "postgresql" and is_hashable(
        source, target, [*pair.keys, *pair.values]
    )
    left, right = both(
        lambda: _sums(source, pair, True, a, grid, hashable), lambda: _sums(target, pair, False, b, grid, hashable)
    )
    rows = (sum(count for count, _ in left.values()), sum(count for count, _ in right.values()))
    differing = sorted(n for n in {*left, *right} if left.get(n) != right.get(n))
    runs: list[tuple[int, int]] = []
    for number in differing:
        if runs and number <= runs[-1][1] + 2:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    if len(differing) > _SEGMENTS // 2 or len(runs) > _MOST_RANGES:
        return None, *rows
    made = [(grid.condition(source, a, first, last), grid.condition(target, b, first, last)) for first, last in runs]
    return made, *rows


def _no_segments(source: Side, target: Side, pair: Pair) -> str:
    if "sqlite" in (source.dialect, target.dialect):
        return "SQLite has no hash function"
    if len(pair.keys) != 1 or pair.source_canons[0].form is not Form.INTEGER:
        return "it needs a key of one whole-number column"
    if any(c.nullable for c in pair.keys[0]):
        return "the key may be NULL"
    loose = next((c for c in (*pair.source_canons, *pair.target_canons) if c.in_python), None)
    if loose is not None:
        return f"the servers do not write {loose.column.name!r} ({loose.form}) alike"
    return ""


def _span(side: Side, pair: Pair, left: bool, column: Column) -> tuple[int, int] | None:
    name = quote(column.name, side.dialect)
    low, high = side.rows(pair.reading(left).sql(f"min({name}), max({name})", side.dialect))[0]
    return None if low is None else (int(low), int(high))


def _sums(
    side: Side, pair: Pair, left: bool, column: Column, grid: _Grid, hashable: bool
) -> dict[int, tuple[int, int]]:
    """Per segment: rows, and the sum of their hashes."""
    name, canons = quote(column.name, side.dialect), pair.canons(left)
    if side.dialect == "postgresql":
        segment = f"div({name}::numeric - {grid.low}, {grid.step})"
        hashed = (
            row_hash([c.column for c in canons])
            if hashable
            else (f"('x' || left(md5({_postgresql_line(canons)}), 15))::bit(60)::bigint")
        )
    else:
        segment = f"FLOOR((CAST({name} AS DECIMAL(65,0)) - {grid.low}) / {grid.step})"
        hashed = f"CAST(CONV(LEFT(MD5({mysql_line(canons)}), 15), 16, 10) AS UNSIGNED)"
    sql = pair.reading(left).sql(f"{segment} AS tc_segment, count(*), sum({hashed})", side.dialect)
    return {int(number): (int(count), int(total)) for number, count, total in side.rows(f"{sql} GROUP BY 1")}


def _postgresql_line(canons: Sequence[Canon]) -> str:
    """As ``COPY`` would write the canonical fields, in one expression."""
    parts = []
    for canon in canons:
        text = f"({postgresql_text(canon)})::text"
        if canon.form in (Form.TEXT, Form.UUID, Form.JSON):
            for plain, letter in (
                ("\\", "\\\\"), ("chr(9)", "\\t"), ("chr(10)", "\\n"), ("chr(13)", "\\r"),
                ("chr(8)", "\\b"), ("chr(12)", "\\f"), ("chr(11)", "\\v"),
            ):  # fmt: skip
                text = f"replace({text}, {_quoted(plain)}, {_quoted(letter)})"
        parts.append(f"coalesce({text}, {_quoted(chr(92) + 'N')})")
    return "concat_ws(chr(9), " + ", ".join(parts) + ")"


def _quoted(text: str) -> str:
    return text if text.startswith("chr(") else "'" + text + "'"


def fingerprint(side: Side, pair: Pair, left: bool, *, locked: bool = False) -> tuple[int, int]:
    """Rows and a checksum of the compared columns, to see whether a table has moved. ``locked``: hold the rows."""
    canons = pair.canons(left)
    if side.dialect == "postgresql":
        columns = [c.column for c in canons]
        hashable = is_hashable(side, side, [(c, c) for c in columns])
        hashed = (
            row_hash(columns) if hashable else f"('x' || left(md5({_postgresql_line(canons)}), 15))::bit(60)::bigint"
        )
        found = side.rows(pair.reading(left).sql(f"count(*), coalesce(sum({hashed}), 0)", "postgresql"))[0]
    elif side.dialect == "mysql":
        hashed = f"CAST(CONV(LEFT(MD5({mysql_line(canons)}), 15), 16, 10) AS UNSIGNED)"
        reading = pair.reading(left, "LOCK IN SHARE MODE" if locked else "")
        found = side.rows(reading.sql(f"count(*), coalesce(sum({hashed}), 0)", "mysql"))[0]
    else:
        count = total = 0
        for data, rows in canonical_chunks(side, pair.reading(left), canons):
            count += rows
            total += sum(map(line_hash, data.split(b"\n")[:-1]))
        found = (count, total)
    return int(found[0]), int(found[1])
