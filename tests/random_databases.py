"""Random databases for hypothesis: every column type of an engine, odd names, odd values, keys, foreign keys in a ring.

A database is a list of statements with bound values; nothing of the code under test writes them.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from blocks.connections import Connection

__all__ = ["RandomDatabase", "databases", "fill"]

ODD_NAMES = (
    "select", "table", "order", "Group", "a b", "semi;colon", 'quo"te', "back`tick", "it's", "100%", "x.y", "--c",
    "/*", "ü", "名前", "a", "B", "UPPER", "_", "col umn", "$1", "null", "user", "new", "values", "%s", ":name", "{}",
)  # fmt: skip
WORDS = st.sampled_from(
    [
        "",
        " ",
        "'",
        '"',
        "\\",
        "\\.",
        "\n",
        "\r\n",
        "\t",
        "%s",
        "NULL",
        "null",
        "--",
        ";",
        "ü",
        "🎉",
        "a" * 300,
        "\x01",
        "\x1a",
    ]
)


def texts(limit: int = 60, nul: bool = False) -> st.SearchStrategy[str]:
    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters="" if nul else "\0")
    return st.one_of(WORDS, st.text(alphabet, max_size=limit)).map(lambda text: text[:limit])


@dataclass(frozen=True)
class Kind:
    """A column type and how to make its values; ``mark`` is the placeholder, such as ``%s::int[]``."""

    sql: str
    values: st.SearchStrategy[Any]
    mark: str = "%s"


@dataclass
class RandomDatabase:
    statements: list[tuple[str, list[Any] | None]] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)


def _int(bits: int, unsigned: bool = False) -> st.SearchStrategy[int]:
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.one_of(st.sampled_from([low, high, 0]), st.integers(low, high))


def _json_values() -> st.SearchStrategy[Any]:
    leaf = (
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | texts(20)
        | st.floats(allow_nan=False, allow_infinity=False)
    )
    return st.recursive(
        leaf, lambda c: st.lists(c, max_size=3) | st.dictionaries(texts(8), c, max_size=3), max_leaves=5
    )


JSON_TEXT = _json_values().map(lambda v: json.dumps(v, ensure_ascii=False))
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 123456789.123456789, 1 / 3]),
)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=1 - 10**20, max_value=10**20 - 1, places=10)


def _pg_array(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def quoted(item: str | None) -> str:
        return "NULL" if item is None else '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return st.lists(st.none() | items, max_size=4).map(lambda found: "{" + ",".join(map(quoted, found)) + "}")


def _pg_matrix(rows: list[tuple[int, int]]) -> str:
    return "{" + ",".join(f"{{{left},{right}}}" for left, right in rows) + "}"


INSTANTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1))
SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False)
POSTGRESQL = [
    Kind("smallint", _int(16)),
    Kind("integer", _int(32)),
    Kind("bigint", _int(64)),
    Kind("numeric", DECIMALS.map(str) | st.sampled_from(["NaN", "Infinity", "-Infinity", "1e-200", "9" * 60])),
    Kind("numeric(30,10)", DECIMALS.map(str) | st.just("NaN")),
    Kind("real", SINGLES.map(repr) | st.sampled_from(["NaN", "-Infinity"])),
    Kind("double precision", FLOATS.map(repr) | st.sampled_from(["NaN", "Infinity", "-Infinity"])),
    Kind("boolean", st.booleans()),
    Kind("text", texts()),
    Kind('text COLLATE "C"', texts()),
    Kind("varchar(20)", texts(20)),
    Kind("char(7)", texts(7)),
    Kind('"char"', st.sampled_from(["a", "z", ""])),
    Kind("bytea", st.binary(max_size=40)),
    Kind("date", st.dates().map(str) | st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"])),
    Kind("time(6)", st.times().map(str)),
    Kind("timetz", st.times().map(lambda t: f"{t}+05:30")),
    Kind("timestamp", st.datetimes().map(str) | st.sampled_from(["infinity", "4713-01-01 00:00:00 BC"])),
    Kind("timestamptz(3)", INSTANTS.map(lambda d: f"{d}+00") | st.just("-infinity")),
    Kind("interval", st.tuples(_int(20), _int(40)).map(lambda p: f"{p[0]} mons {p[0]} days {p[1]} microseconds")),
    Kind("json", JSON_TEXT.filter(lambda t: "\\u0000" not in t)),
    Kind("jsonb", JSON_TEXT.filter(lambda t: "\\u0000" not in t)),
    Kind("uuid", st.uuids().map(str)),
    Kind("integer[]", st.lists(st.tuples(_int(32), _int(32)), max_size=2).map(_pg_matrix)),
    Kind("text[]", _pg_array(texts(12))),
    Kind("numeric[]", _pg_array(DECIMALS.map(str))),
    Kind("inet", st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)),
    Kind("macaddr", st.binary(min_size=6, max_size=6).map(lambda b: b.hex(":"))),
    Kind("int4range", st.sampled_from(["empty", "[1,5)", "(,7]", "[3,)"])),
    Kind("tstzrange", st.just("[2020-01-01 00:00+00,)")),
    Kind("bit(5)", st.text("01", min_size=5, max_size=5)),
    Kind("bit varying(9)", st.text("01", max_size=9)),
    Kind("point", st.just("(1.5,-2.25)")),
    Kind("tsvector", st.just("'it''s':1 'fat':2A")),
    Kind("xml", st.just("<a b='1'>ü &amp; x</a>")),
    Kind("money", st.just("-1234.56")),
    Kind("the_enum", st.sampled_from(["sad", "it's \\ ok", "ü"])),
    Kind("the_domain", st.integers(1, 99)),
    Kind("the_pair", texts(10).map(lambda t: '(1,"' + t.replace("\\", "\\\\").replace('"', '""') + '")')),
]  # fmt: skip
POSTGRESQL = [Kind(k.sql, k.values, f"%s::{k.sql.split(' COLLATE')[0]}") for k in POSTGRESQL]


def _clock(span: timedelta) -> str:
    seconds = int(abs(span).total_seconds())
    sign = "-" if span.days < 0 else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{abs(span).microseconds:06}"


_CLOCK = st.timedeltas(timedelta(hours=-838), timedelta(hours=838))
MYSQL = [
    Kind("tinyint", _int(8)),
    Kind("smallint unsigned", _int(16, True)),
    Kind("mediumint", _int(24)),
    Kind("int", _int(32)),
    Kind("bigint", _int(64)),
    Kind("bigint unsigned", _int(64, True)),
    Kind("tinyint(1)", st.booleans()),
    Kind("decimal(65,30)", DECIMALS.map(str)),
    Kind("decimal(10,0)", st.integers(-(10**9), 10**9).map(str)),
    Kind("float", SINGLES.map(repr)),
    Kind("double", FLOATS.map(repr)),
    Kind("char(7)", texts(7, nul=True)),
    Kind("varchar(60)", texts(60, nul=True)),
    Kind("varchar(30) character set latin1", st.text(st.characters(codec="cp1252"), max_size=30)),
    Kind("varchar(20) character set utf8mb4 collate utf8mb4_bin", texts(20, nul=True)),
    Kind("longtext", texts(nul=True)),
    Kind("tinytext", texts(40, nul=True)),
    Kind("binary(4)", st.binary(max_size=4)),
    Kind("varbinary(40)", st.binary(max_size=40)),
    Kind("longblob", st.binary(max_size=60)),
    Kind("bit(9)", st.integers(0, 511)),
    Kind("date", st.dates(date(1, 1, 1)).map(str) | st.just("0000-00-00")),
    Kind("datetime(6)", st.datetimes(datetime(1000, 1, 1)).map(str)),
    Kind("timestamp(6) NULL", st.datetimes(datetime(1970, 1, 2), datetime(2038, 1, 1)).map(str)),
    Kind("time(6)", _CLOCK.map(_clock)),
    Kind("year", st.integers(1901, 2155)),
    Kind("enum('sad','it''s ok','ü')", st.sampled_from(["sad", "it's ok", "ü"])),
    Kind("set('a','b','c''d')", st.sampled_from(["", "a", "a,b", "c'd"])),
    Kind("json", JSON_TEXT),
    Kind("inet6", st.ip_addresses(v=6).map(str)),
    Kind("uuid", st.uuids().map(str)),
    Kind("geometry", st.tuples(_int(16), _int(16)).map(lambda p: f"POINT({p[0]} {p[1]})"), "ST_GeomFromText(%s)"),
]  # fmt: skip

_ANY = st.one_of(
    _int(64), st.floats(allow_nan=False), FLOATS, texts(nul=True), st.binary(max_size=40), DECIMALS.map(str)
)  # fmt: skip
SQLITE = [
    Kind(declared, values, "?")
    for declared, values in (
        ("INTEGER", _ANY), ("TEXT", _ANY), ("REAL", _ANY), ("BLOB", _ANY), ("NUMERIC(10, 2)", _ANY), ("", _ANY),
        ("VARCHAR(20)", texts(20, nul=True)), ("BOOLEAN", st.integers(0, 1)), ("DATETIME", st.datetimes().map(str)),
        ("DATE", st.dates().map(str)), ("JSON", JSON_TEXT), ("DOUBLE PRECISION", FLOATS), ("BIGINT", _int(64)),
    )
]  # fmt: skip
KINDS = {"postgresql": POSTGRESQL, "mysql": MYSQL, "sqlite": SQLITE}
SETUP = {
    "postgresql": [
        "CREATE TYPE the_enum AS ENUM ('sad', 'it''s \\ ok', 'ü')",
        "CREATE DOMAIN the_domain AS integer CHECK (VALUE > 0)",
        "CREATE TYPE the_pair AS (n integer, t text)",
    ],
    "mysql": [],
    "sqlite": [],
}
AUTO = {
    "postgresql": ("bigserial", "integer GENERATED BY DEFAULT AS IDENTITY", "integer"),
    "mysql": ("bigint AUTO_INCREMENT", "int"),
    "sqlite": ("INTEGER", "INTEGER"),
}


def mark(name: str, dialect: str) -> str:
    sign = "`" if dialect == "mysql" else '"'
    return sign + name.replace(sign, sign * 2) + sign


@st.composite
def databases(draw: st.DrawFn, dialect: str) -> RandomDatabase:
    made = RandomDatabase([(sql, None) for sql in SETUP[dialect]])
    count = draw(st.integers(1, 3))
    names = draw(st.lists(st.sampled_from(ODD_NAMES), min_size=count, max_size=count, unique_by=str.lower))
    made.tables = names
    ids: dict[str, list[int]] = {}
    for name in names:
        ids[name] = _table(draw, made, name, dialect)
    if dialect != "sqlite":
        for name in names:
            _foreign_key(draw, made, name, names, ids, dialect)
    if draw(st.booleans()):
        made.statements.append(
            (f"CREATE VIEW {mark('a view', dialect)} AS SELECT * FROM {mark(names[0], dialect)}", None)
        )
    return made


def _table(draw: st.DrawFn, made: RandomDatabase, name: str, dialect: str) -> list[int]:
    q = functools.partial(mark, dialect=dialect)
    kinds = draw(st.lists(st.sampled_from(KINDS[dialect]), min_size=1, max_size=5))
    columns = draw(st.lists(st.sampled_from(ODD_NAMES), min_size=len(kinds), max_size=len(kinds), unique_by=str.lower))
    auto = draw(st.sampled_from(AUTO[dialect]))
    lines = [
        f"{q('the id')} {auto} PRIMARY KEY" + (" AUTOINCREMENT" if dialect == "sqlite" and draw(st.booleans()) else "")
    ]
    required = [draw(st.integers(0, 3)) == 0 for _ in kinds]
    for column, kind, needed in zip(columns, kinds, required, strict=True):
        null = "" if not needed else " NOT NULL"
        lines.append(f"{q(column)} {kind.sql.replace(' NULL', '') if needed else kind.sql}{null}")
    lines.append(f"{q('the link')} {'bigint' if 'big' in auto else 'integer'}")
    if draw(st.booleans()):
        lines.append(f"{q('made up')} integer GENERATED ALWAYS AS ({q('the link')} + 1) STORED")
    if draw(st.booleans()):
        lines.append(f"CONSTRAINT {q('ck ' + name)} CHECK ({q('the link')} IS NULL OR {q('the link')} > -1)")
    if draw(st.booleans()):
        lines.append(f"CONSTRAINT {q('uq ' + name)} UNIQUE ({q('the link')}, {q('the id')})")
    if dialect == "sqlite":
        lines.append(
            f"FOREIGN KEY ({q('the link')}) REFERENCES {q(draw(st.sampled_from(made.tables)))} ({q('the id')})"
        )
    tail = (
        draw(st.sampled_from(["", " STRICT"]))
        if dialect == "sqlite" and all(k.sql in ("INTEGER", "TEXT", "REAL", "BLOB") for k in kinds)
        else ""
    )
    tail = "" if any(k.values is _ANY for k in kinds) else tail
    made.statements.append((f"CREATE TABLE {q(name)} ({', '.join(lines)}){tail}", None))
    if draw(st.booleans()):
        made.statements.append(
            (f"CREATE INDEX {q('ix ' + name)} ON {q(name)} ({q('the link')} DESC, {q('the id')})", None)
        )
    ids = sorted(draw(st.sets(st.integers(1, 10**6), max_size=6)))
    for number in ids:
        values = [
            draw(kind.values if needed else st.none() | kind.values)
            for kind, needed in zip(kinds, required, strict=True)
        ]
        marks = ", ".join(("%s" if dialect != "sqlite" else "?", *(kind.mark for kind in kinds)))
        listed = ", ".join(map(q, ("the id", *columns))).replace("%", "%%" if dialect != "sqlite" else "%")
        target = q(name).replace("%", "%%" if dialect != "sqlite" else "%")
        made.statements.append((f"INSERT INTO {target} ({listed}) VALUES ({marks})", [number, *values]))
    return ids


def _foreign_key(
    draw: st.DrawFn, made: RandomDatabase, name: str, names: list[str], ids: dict[str, list[int]], dialect: str
) -> None:
    """``the link`` of one table to another, or to itself: a ring when luck wants it."""
    q = functools.partial(mark, dialect=dialect)
    other = draw(st.sampled_from(names))
    kinds = {
        s.split("the id")[1].split(" ")[1]
        for s, _ in made.statements
        for n in (name, other)
        if s.startswith(f"CREATE TABLE {q(n)} (")
    }
    if len({"big" in kind for kind in kinds}) > 1:
        return
    action = draw(st.sampled_from(["", " ON DELETE CASCADE", " ON DELETE SET NULL ON UPDATE CASCADE"]))
    own = next(sql for sql, _ in made.statements if sql.startswith(f"CREATE TABLE {q(name)} ("))
    if dialect == "mysql" and ("made up" in own or "CHECK" in own):
        action = ""  # MariaDB refuses to change by cascade what a computed column or a check reads
    for number in ids[name]:
        if ids[other] and draw(st.booleans()):
            target = draw(st.sampled_from(ids[other]))
            made.statements.append(
                (f"UPDATE {q(name)} SET {q('the link')} = {target} WHERE {q('the id')} = {number}", None)
            )
    key = f"CONSTRAINT {q('fk ' + name)} FOREIGN KEY ({q('the link')}) REFERENCES {q(other)} ({q('the id')}){action}"
    made.statements.append((f"ALTER TABLE {q(name)} ADD {key}", None))


def fill(connection: Connection, database: RandomDatabase) -> None:
    """Make it in the empty database that ``connection`` opens."""
    with connection.connect() as opened:
        driver: Any = opened.connection.driver_connection
        cursor = driver.cursor()
        if connection.dialect == "mysql":
            cursor.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
        if connection.dialect == "sqlite":
            cursor.execute("PRAGMA foreign_keys = OFF")
            cursor.execute("BEGIN")
        for sql, values in database.statements:
            cursor.execute(sql) if values is None else cursor.execute(sql, values)
        driver.commit()
        cursor.close()
