"""Named changes of a structure on the three engines, what a diff has to say of them, and whether they break."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["BASE", "CHANGES", "DdlChange"]

COLUMNS = {
    "postgresql": {
        "id": "int NOT NULL", "a": "int", "b": "varchar(20)", "c": "numeric(10,2) NOT NULL", "d": "timestamp(3)",
        "e": "text", "f": "bigint",
    },
    "mysql": {
        "id": "int NOT NULL", "a": "int", "b": "varchar(20)", "c": "decimal(10,2) NOT NULL", "d": "datetime(3)",
        "e": "text", "f": "bigint",
    },
    "sqlite": {
        "id": "int NOT NULL", "a": "int", "b": "varchar(20)", "c": "decimal(10,2) NOT NULL", "d": "datetime",
        "e": "text", "f": "bigint",
    },
}  # fmt: skip


def table(dialect: str, tail: str = "", **columns: str) -> str:
    """CREATE TABLE t with the usual columns, some of them otherwise."""
    found = {**COLUMNS[dialect], **columns}
    return f"CREATE TABLE t ({', '.join(f'{name} {sql}' for name, sql in found.items())}, PRIMARY KEY (id)){tail}"


BASE = {
    dialect: [
        table(dialect),
        "CREATE TABLE u (id int PRIMARY KEY, t_id int, CONSTRAINT u_ck CHECK (t_id > 0))",
        "CREATE TABLE w (id int, x int)",
        "CREATE INDEX t_a ON t (a)",
        "CREATE VIEW v AS SELECT id, a FROM t",
    ]
    for dialect in COLUMNS
}


@dataclass(frozen=True)
class DdlChange:
    """``setup`` stands before the first look, ``change`` between the two; an engine that is absent cannot do it."""

    name: str
    change: dict[str, list[str]]
    expected: set[tuple[str, str, str]]
    breaking: bool = False
    setup: dict[str, list[str]] = field(default_factory=dict)


ALL = ("postgresql", "mysql", "sqlite")
SERVERS = ("postgresql", "mysql")


def everywhere(*statements: str, on: tuple[str, ...] = ALL) -> dict[str, list[str]]:
    return {dialect: list(statements) for dialect in on}


def retyped(column: str, postgresql: str, mysql: str = "", sqlite: str = "") -> dict[str, list[str]]:
    """Another type of one column; SQLite makes the table anew for that."""
    using = f"ALTER COLUMN {column} TYPE {postgresql} USING {column}::{postgresql}"
    rebuilt = ["DROP VIEW v", "DROP TABLE t", table("sqlite", **{column: sqlite or mysql or postgresql})]
    return {
        # a view stands in the way on PostgreSQL, whose columns keep their type
        "postgresql": ["DROP VIEW v", f"ALTER TABLE t {using}", BASE["postgresql"][4]],
        "mysql": [f"ALTER TABLE t MODIFY {column} {mysql or postgresql}"],
        "sqlite": [*rebuilt, *BASE["sqlite"][3:]],
    }


def only(changes: dict[str, list[str]], *dialects: str) -> dict[str, list[str]]:
    return {dialect: changes[dialect] for dialect in dialects}


def column(name: str, action: str = "changed") -> set[tuple[str, str, str]]:
    return {(action, "column", f"t.{name}")}


def retype(
    name: str, col: str, pg: str, mysql: str = "", sqlite: str = "", *, breaking: bool, on: tuple[str, ...] = ALL
) -> DdlChange:
    return DdlChange(name, only(retyped(col, pg, mysql, sqlite), *on), column(col), breaking)


FUNCTION = {
    "postgresql": "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT {0}'",
    "mysql": "CREATE OR REPLACE FUNCTION f() RETURNS int DETERMINISTIC RETURN {0}",
}
TRIGGER = {
    "postgresql": [
        "CREATE OR REPLACE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER tr BEFORE {0} ON t FOR EACH ROW EXECUTE FUNCTION g()",
    ],
    "mysql": ["CREATE TRIGGER tr BEFORE {0} ON t FOR EACH ROW SET @x = 1"],
    "sqlite": ["CREATE TRIGGER tr BEFORE {0} ON t BEGIN SELECT 1; END"],
}


def trigger(event: str) -> dict[str, list[str]]:
    return {dialect: [s.format(event) for s in statements] for dialect, statements in TRIGGER.items()}


def function(value: int) -> dict[str, list[str]]:
    return {dialect: [sql.format(value)] for dialect, sql in FUNCTION.items()}


DROP_TRIGGER = {"postgresql": ["DROP TRIGGER tr ON t"], "mysql": ["DROP TRIGGER tr"], "sqlite": ["DROP TRIGGER tr"]}
FK = "ALTER TABLE u ADD CONSTRAINT u_fk FOREIGN KEY (t_id) REFERENCES t (id)"
DROP_FK = {"postgresql": ["ALTER TABLE u DROP CONSTRAINT u_fk"], "mysql": ["ALTER TABLE u DROP FOREIGN KEY u_fk"]}
UNIQUE = "ALTER TABLE t ADD CONSTRAINT t_uq UNIQUE (b)"
DROP_UNIQUE = {"postgresql": ["ALTER TABLE t DROP CONSTRAINT t_uq"], "mysql": ["ALTER TABLE t DROP INDEX t_uq"]}
DROP_INDEX = {
    "postgresql": ["DROP INDEX t_a"],
    "mysql": ["DROP INDEX t_a ON t"],
    "sqlite": ["DROP INDEX t_a"],
}
U_SQLITE = "CREATE TABLE u (id int PRIMARY KEY, t_id int{0}, CONSTRAINT u_ck CHECK ({1}))"


def plus(first: dict[str, list[str]], *then: str) -> dict[str, list[str]]:
    return {dialect: [*statements, *then] for dialect, statements in first.items()}


CHANGES = [
    DdlChange("table added", everywhere("CREATE TABLE x (id int)"), {("added", "table", "x")}),
    DdlChange("table dropped", everywhere("DROP TABLE u"), {("removed", "table", "u")}, True),
    DdlChange(
        "table renamed",
        everywhere("ALTER TABLE u RENAME TO x"),
        {("removed", "table", "u"), ("added", "table", "x")},
        True,
    ),
    DdlChange("column added", everywhere("ALTER TABLE t ADD COLUMN x int"), column("x", "added")),
    DdlChange(
        "column added, not null with a default",
        everywhere("ALTER TABLE t ADD COLUMN x int NOT NULL DEFAULT 7"),
        column("x", "added"),
    ),
    DdlChange("column dropped", everywhere("ALTER TABLE t DROP COLUMN e"), column("e", "removed"), True),
    DdlChange(
        "column renamed",
        everywhere("ALTER TABLE t RENAME COLUMN e TO x"),
        column("e", "removed") | column("x", "added"),
        True,
    ),
    DdlChange(
        "columns in another order",
        {
            "mysql": ["ALTER TABLE t MODIFY e text FIRST"],
            "sqlite": ["DROP TABLE w", "CREATE TABLE w (x int, id int)"],
            "postgresql": ["DROP TABLE w", "CREATE TABLE w (x int, id int)"],
        },
        set(),
    ),
    retype("integer to bigint", "a", "bigint", breaking=False),
    retype("integer to smallint", "a", "smallint", breaking=True, on=SERVERS),
    retype("varchar longer", "b", "varchar(50)", breaking=False),
    retype("varchar shorter", "b", "varchar(10)", breaking=True),
    retype("varchar to text", "b", "text", breaking=False),
    retype("text to varchar", "e", "varchar(100)", breaking=True),
    retype("varchar to char of the same length", "b", "char(20)", breaking=False),
    retype("decimal with more digits", "c", "numeric(12,2)", "decimal(12,2) NOT NULL", breaking=False),
    retype("decimal with fewer digits", "c", "numeric(8,2)", "decimal(8,2) NOT NULL", breaking=True),
    retype("decimal with a longer fraction", "c", "numeric(12,4)", "decimal(12,4) NOT NULL", breaking=False),
    retype(
        "decimal with a fraction at the cost of digits", "c", "numeric(10,4)", "decimal(10,4) NOT NULL", breaking=True
    ),
    retype("decimal with a shorter fraction", "c", "numeric(10,1)", "decimal(10,1) NOT NULL", breaking=True),
    retype("decimal without limit", "c", "numeric", breaking=False, on=("postgresql",)),
    retype("decimal to double", "c", "double precision", "double NOT NULL", breaking=True),
    retype("time with more fraction", "d", "timestamp(6)", "datetime(6)", breaking=False, on=SERVERS),
    retype("time with less fraction", "d", "timestamp(0)", "datetime", breaking=True, on=SERVERS),
    retype("timestamp to date", "d", "date", breaking=True),
    retype("timestamp to an instant", "d", "timestamptz(3)", breaking=False, on=("postgresql",)),
    retype("integer to decimal that holds it", "a", "numeric(12,0)", "decimal(12,0)", breaking=False, on=SERVERS),
    retype("integer to decimal that does not", "a", "numeric(5,0)", "decimal(5,0)", breaking=True),
    retype("integer to text", "a", "text", breaking=False, on=("postgresql", "sqlite")),
    retype("text to integer", "e", "int", breaking=True),
    retype("integer to double", "a", "double precision", "double", breaking=False, on=SERVERS),
    retype("bigint to double", "f", "double precision", "double", breaking=True),
    retype("bigint to boolean", "f", "boolean", breaking=True, on=("mysql", "sqlite")),
    retype("integer to unsigned", "a", "int", "int unsigned", breaking=True, on=("mysql",)),
    retype("text to bytes", "e", "bytea", "blob", breaking=True, on=("mysql", "sqlite")),
    DdlChange(
        "nullable to not null",
        {
            "postgresql": ["ALTER TABLE t ALTER b SET NOT NULL"],
            "mysql": ["ALTER TABLE t MODIFY b varchar(20) NOT NULL"],
            "sqlite": retyped("b", "varchar(20) NOT NULL")["sqlite"],
        },
        column("b"),
        True,
    ),
    DdlChange(
        "not null to nullable",
        {
            "postgresql": ["ALTER TABLE t ALTER c DROP NOT NULL"],
            "mysql": ["ALTER TABLE t MODIFY c decimal(10,2)"],
            "sqlite": retyped("c", "decimal(10,2)")["sqlite"],
        },
        column("c"),
    ),
    DdlChange(
        "default added",
        {
            **everywhere("ALTER TABLE t ALTER a SET DEFAULT 5", on=SERVERS),
            "sqlite": retyped("a", "int DEFAULT 5")["sqlite"],
        },
        column("a"),
    ),
    DdlChange(
        "default changed",
        everywhere("ALTER TABLE t ALTER a SET DEFAULT 6", on=SERVERS),
        column("a"),
        setup=everywhere("ALTER TABLE t ALTER a SET DEFAULT 5", on=SERVERS),
    ),
    DdlChange(
        "default dropped",
        everywhere("ALTER TABLE t ALTER a DROP DEFAULT", on=SERVERS),
        column("a"),
        setup=everywhere("ALTER TABLE t ALTER a SET DEFAULT 5", on=SERVERS),
    ),
    DdlChange(
        "primary key added",
        everywhere("ALTER TABLE w ADD PRIMARY KEY (id)", on=SERVERS),
        {("added", "primary key", "w"), ("changed", "column", "w.id")},
        True,  # its column takes no null any more
    ),
    DdlChange(
        "primary key dropped",
        {"postgresql": ["ALTER TABLE t DROP CONSTRAINT t_pkey"], "mysql": ["ALTER TABLE t DROP PRIMARY KEY"]},
        {("removed", "primary key", "t")},
    ),
    DdlChange(
        "primary key of other columns",
        {
            "postgresql": ["ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, c)"],
            "mysql": ["ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, c)"],
        },
        {("changed", "primary key", "t")},
    ),
    DdlChange("unique key added", everywhere(UNIQUE, on=SERVERS), {("added", "unique key", "t.t_uq")}),
    DdlChange(
        "unique key dropped", DROP_UNIQUE, {("removed", "unique key", "t.t_uq")}, setup=everywhere(UNIQUE, on=SERVERS)
    ),
    DdlChange("index added", everywhere("CREATE INDEX t_c ON t (c)"), {("added", "index", "t.t_c")}),
    DdlChange("index dropped", DROP_INDEX, {("removed", "index", "t.t_a")}),
    DdlChange(
        "index of other columns", plus(DROP_INDEX, "CREATE INDEX t_a ON t (a, c)"), {("changed", "index", "t.t_a")}
    ),
    DdlChange(
        "index in the other direction",
        plus(DROP_INDEX, "CREATE INDEX t_a ON t (a DESC)"),
        {("changed", "index", "t.t_a")},
    ),
    DdlChange(
        "index made unique",
        only(plus(DROP_INDEX, "CREATE UNIQUE INDEX t_a ON t (a)"), "postgresql", "sqlite"),
        {("changed", "index", "t.t_a")},
    ),
    DdlChange(
        "index with a condition",
        only(plus(DROP_INDEX, "CREATE INDEX t_a ON t (a) WHERE a > 5"), "postgresql", "sqlite"),
        {("changed", "index", "t.t_a")},
    ),
    DdlChange(
        "index on an expression",
        everywhere("CREATE INDEX t_x ON t ((a + 1))", on=("postgresql", "sqlite")),
        {("added", "index", "t.t_x")},
    ),
    DdlChange(
        "foreign key added",
        {
            "postgresql": [FK],
            "mysql": [FK],
            "sqlite": ["DROP TABLE u", U_SQLITE.format(" CONSTRAINT u_fk REFERENCES t (id)", "t_id > 0")],
        },
        {("added", "foreign key", "u.u_fk")},
        setup={"mysql": ["ALTER TABLE u ADD KEY u_fk (t_id)"], "postgresql": [], "sqlite": []},
    ),
    DdlChange("foreign key dropped", DROP_FK, {("removed", "foreign key", "u.u_fk")}, setup=everywhere(FK, on=SERVERS)),
    DdlChange(
        "foreign key with another action",
        plus(DROP_FK, f"{FK} ON DELETE CASCADE"),
        {("changed", "foreign key", "u.u_fk")},
        setup=everywhere(FK, on=SERVERS),
    ),
    DdlChange(
        "check added",
        everywhere("ALTER TABLE w ADD CONSTRAINT w_ck CHECK (x > 1)", on=SERVERS),
        {("added", "check", "w.w_ck")},
    ),
    DdlChange(
        "check dropped", everywhere("ALTER TABLE u DROP CONSTRAINT u_ck", on=SERVERS), {("removed", "check", "u.u_ck")}
    ),
    DdlChange(
        "check changed",
        {
            **everywhere(
                "ALTER TABLE u DROP CONSTRAINT u_ck", "ALTER TABLE u ADD CONSTRAINT u_ck CHECK (t_id > 1)", on=SERVERS
            ),
            "sqlite": ["DROP TABLE u", U_SQLITE.format("", "t_id > 1")],
        },
        {("changed", "check", "u.u_ck")},
    ),
    DdlChange("view added", everywhere("CREATE VIEW v2 AS SELECT id FROM t"), {("added", "view", "v2")}),
    DdlChange(
        "view changed", everywhere("DROP VIEW v", "CREATE VIEW v AS SELECT id, c FROM t"), {("changed", "view", "v")}
    ),
    DdlChange("view dropped", everywhere("DROP VIEW v"), {("removed", "view", "v")}),
    DdlChange(
        "materialized view added",
        {"postgresql": ["CREATE MATERIALIZED VIEW mv AS SELECT id FROM t"]},
        {("added", "view", "mv")},
    ),
    DdlChange("function added", function(1), {("added", "routine", "f()")}),
    DdlChange("function changed", function(2), {("changed", "routine", "f()")}, setup=function(1)),
    DdlChange(
        "function dropped",
        everywhere("DROP FUNCTION f", on=SERVERS),
        {("removed", "routine", "f()")},
        setup=function(1),
    ),
    DdlChange(
        "trigger added",
        trigger("INSERT"),
        {("added", "trigger", "t.tr")},
        setup={"postgresql": [TRIGGER["postgresql"][0]]},
    ),
    DdlChange(
        "trigger changed",
        {dialect: [*DROP_TRIGGER[dialect], *trigger("UPDATE")[dialect]] for dialect in ALL},
        {("changed", "trigger", "t.tr")},
        setup=trigger("INSERT"),
    ),
    DdlChange("trigger dropped", DROP_TRIGGER, {("removed", "trigger", "t.tr")}, setup=trigger("INSERT")),
    DdlChange(
        "trigger switched off",
        {"postgresql": ["ALTER TABLE t DISABLE TRIGGER tr"]},
        {("changed", "trigger", "t.tr")},
        setup=trigger("INSERT"),
    ),
    DdlChange("sequence added", everywhere("CREATE SEQUENCE s", on=SERVERS), {("added", "sequence", "s")}),
    DdlChange(
        "sequence changed",
        everywhere("ALTER SEQUENCE s INCREMENT BY 5", on=SERVERS),
        {("changed", "sequence", "s")},
        setup=everywhere("CREATE SEQUENCE s", on=SERVERS),
    ),
    DdlChange(
        "sequence dropped",
        everywhere("DROP SEQUENCE s", on=SERVERS),
        {("removed", "sequence", "s")},
        setup=everywhere("CREATE SEQUENCE s", on=SERVERS),
    ),
    DdlChange(
        "a sequence that has counted on",
        {"postgresql": ["SELECT nextval('s')"], "mysql": ["SELECT nextval(s)"]},
        set(),
        setup=everywhere("CREATE SEQUENCE s", on=SERVERS),
    ),
    DdlChange(
        "computed column added",
        {
            **everywhere("ALTER TABLE t ADD COLUMN x int GENERATED ALWAYS AS (a + 1) STORED", on=SERVERS),
            "sqlite": ["ALTER TABLE t ADD COLUMN x int AS (a + 1)"],
        },
        column("x", "added"),
    ),
    DdlChange(
        "computed column with another expression",
        {
            "postgresql": ["ALTER TABLE t DROP x", "ALTER TABLE t ADD x int GENERATED ALWAYS AS (a + 2) STORED"],
            "mysql": ["ALTER TABLE t MODIFY x int AS (a + 2) STORED"],
        },
        column("x"),
        setup=everywhere("ALTER TABLE t ADD COLUMN x int GENERATED ALWAYS AS (a + 1) STORED", on=SERVERS),
    ),
    DdlChange(
        "comment on a table",
        {"postgresql": ["COMMENT ON TABLE t IS 'x'"], "mysql": ["ALTER TABLE t COMMENT 'x'"]},
        {("changed", "table", "t")},
    ),
    DdlChange(
        "comment on a column",
        {"postgresql": ["COMMENT ON COLUMN t.a IS 'x'"], "mysql": ["ALTER TABLE t MODIFY a int COMMENT 'x'"]},
        column("a"),
    ),
    DdlChange(
        "another collation",
        {
            "postgresql": ['ALTER TABLE t ALTER e TYPE text COLLATE "C"'],
            "mysql": ["ALTER TABLE t MODIFY e text COLLATE utf8mb4_bin"],
            "sqlite": retyped("e", "text COLLATE NOCASE")["sqlite"],
        },
        column("e"),
    ),
    DdlChange(
        "table options",
        {
            "postgresql": ["ALTER TABLE t SET (fillfactor = 70)"],
            "mysql": ["ALTER TABLE t ROW_FORMAT=COMPRESSED"],
            "sqlite": ["DROP TABLE w", "CREATE TABLE w (id int, x int) STRICT"],
        },
        set(),  # filled in below: the table's name differs
    ),
    DdlChange(
        "numbers by themselves",
        {
            "postgresql": ["ALTER TABLE t ALTER id ADD GENERATED ALWAYS AS IDENTITY"],
            "mysql": ["ALTER TABLE t MODIFY id int AUTO_INCREMENT"],
        },
        column("id"),
    ),
    DdlChange(
        "enum with one more value",
        {"postgresql": ["ALTER TYPE mood ADD VALUE 'c'"], "mysql": ["ALTER TABLE w ADD COLUMN k int"]},
        {("changed", "column", "w.m"), ("changed", "type", "mood")},
        setup={"postgresql": ["CREATE TYPE mood AS ENUM ('a', 'b')", "ALTER TABLE w ADD m mood"]},
    ),
    DdlChange(
        "enum column with one more value",
        {"mysql": ["ALTER TABLE w MODIFY m enum('a', 'b', 'c')"]},
        {("changed", "column", "w.m")},
        setup={"mysql": ["ALTER TABLE w ADD m enum('a', 'b')"]},
    ),
    DdlChange(
        "enum column with one value less",
        {"mysql": ["ALTER TABLE w MODIFY m enum('a')"]},
        {("changed", "column", "w.m")},
        True,
        setup={"mysql": ["ALTER TABLE w ADD m enum('a', 'b')"]},
    ),
    DdlChange(
        "on update added",
        {"mysql": ["ALTER TABLE w MODIFY m timestamp NULL ON UPDATE current_timestamp()"]},
        {("changed", "column", "w.m")},
        setup={"mysql": ["ALTER TABLE w ADD m timestamp NULL"]},
    ),
    DdlChange(
        "event added",
        {"mysql": ["CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO SELECT 1"]},
        {("added", "routine", "ev()")},
    ),
    DdlChange(
        "table moved to another schema",
        {"postgresql": ["ALTER TABLE u SET SCHEMA other"]},
        {("removed", "table", "u"), ("added", "table", "other.u")},
        True,
        setup={"postgresql": ["CREATE SCHEMA other"]},
    ),
    DdlChange(
        "row level security on",
        {"postgresql": ["ALTER TABLE t ENABLE ROW LEVEL SECURITY"]},
        {("changed", "table", "t")},
    ),
    DdlChange(
        "partition added",
        {"postgresql": ["CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)"]},
        {("added", "table", "p2")},
        setup={"postgresql": ["CREATE TABLE p (a int) PARTITION BY LIST (a)"]},
    ),
    DdlChange(
        "domain with another check",
        {"postgresql": ["ALTER DOMAIN dom ADD CONSTRAINT more CHECK (VALUE < 9)"]},
        {("changed", "type", "dom")},
        setup={"postgresql": ["CREATE DOMAIN dom AS int"]},
    ),
    DdlChange(
        "array of wider elements",
        {"postgresql": ["ALTER TABLE w ALTER m TYPE bigint[]"]},
        {("changed", "column", "w.m")},
        setup={"postgresql": ["ALTER TABLE w ADD m int[]"]},
    ),
    DdlChange(
        "array of narrower elements",
        {"postgresql": ["ALTER TABLE w ALTER m TYPE smallint[]"]},
        {("changed", "column", "w.m")},
        True,
        setup={"postgresql": ["ALTER TABLE w ADD m int[]"]},
    ),
    DdlChange("rows inserted", everywhere("INSERT INTO w VALUES (1, 2)", "INSERT INTO u VALUES (1, 2)"), set()),
    DdlChange("rows deleted", everywhere("DELETE FROM w"), set(), setup=everywhere("INSERT INTO w VALUES (1, 2)")),
]
OPTIONS = {"postgresql": "t", "mysql": "t", "sqlite": "w"}
"""Which table's options change in "table options"."""
