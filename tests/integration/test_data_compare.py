"""``data_compare_sync`` on the real servers, against a brute-force oracle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql

from blocks.connections import Connection
from taskcenter.context import RunContext
from taskcenter.errors import StepFailed
from taskcenter.task_types import registry
from tests.many_databases import ENGINES, Make, making, query, run

PAIRS = [(a, b) for a in ENGINES for b in ENGINES]
CAMPAIGN = settings(
    max_examples=int(os.environ.get("TASKCENTER_TEST_CAMPAIGN", "2")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)

NAME = sa.String(60).with_variant(mysql.VARCHAR(60, collation="utf8mb4_nopad_bin"), "mysql")
TABLE = sa.Table(
    "Some Rows",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("part", NAME, primary_key=True),
    sa.Column("select", sa.Text),
    sa.Column("amount", sa.Numeric(12, 3)),
    sa.Column("ratio", sa.Double),
    sa.Column("flag", sa.Boolean),
    sa.Column("at", sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")),
    sa.Column("doc", sa.JSON(none_as_null=True)),
    sa.Column("raw", sa.LargeBinary),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["", " ", "a ", "A", "a", "\\N", "\\", "tab\t", "line\n;\n", "it's", '"', "%s", "ü€😀", "\b\f\v\r", "null", ";\n"]
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text('ab"\\ü\n', max_size=4) | st.just(1.5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=2),
    max_leaves=4,
)
ROW = st.tuples(
    st.none() | TEXTS,
    st.none() | st.decimals(-999999999, 999999999, places=3, allow_nan=False),
    st.none() | st.floats(-1e300, 1e300, allow_subnormal=False) | st.sampled_from([1e15, 2.0**60, 1e-5, -0.0, 0.1]),
    st.none() | st.booleans(),
    st.none() | st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31)),
    st.none() | JSONS.filter(lambda v: v is not None),
    st.none() | st.binary(max_size=8),
)
KEYS = st.tuples(
    st.integers(-3, 3) | st.sampled_from([2**62, -(2**62)]), st.sampled_from(["", "a", "A", "ü", "\\N", "b\t"])
)
Rows = dict[tuple[int, str], tuple[Any, ...]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path))
    with making(tmp_path) as made:
        yield made


@dataclass
class Tables:
    """Two connections and the folder for what a run leaves."""

    source: Connection
    target: Connection
    folder: Path

    def put(self, connection: Connection, rows: Rows, table: sa.Table = TABLE) -> None:
        with connection.engine() as engine, engine.begin() as opened:
            table.drop(opened, checkfirst=True)
            table.create(opened)
            names = [c.name for c in table.columns]
            if rows:
                opened.execute(table.insert(), [dict(zip(names, (*k, *v), strict=True)) for k, v in rows.items()])

    def compare(self, **more: Any) -> dict[str, Any]:
        known = {"source": self.source, "target": self.target}
        ctx = RunContext(resolve_connection=known.__getitem__, temp_dir=self.folder, data_dir=self.folder)
        payload = {"sourceConnection": "source", "targetConnection": "target", "sourceTable": TABLE.name, **more}
        payload.setdefault("targetTable", payload["sourceTable"])
        kind = registry.get("data_compare_sync")
        assert kind.check(payload) == []
        result: dict[str, Any] = kind.call(payload, ctx)
        return result


def value(item: Any) -> Any:
    """What makes two values equal, whichever engine holds them."""
    if isinstance(item, float):
        return float(item) + 0.0
    if isinstance(item, list | dict):
        return json.dumps(item, sort_keys=True)
    return ("bool", item) if isinstance(item, bool) else item


def oracle(left: Rows, right: Rows) -> dict[str, int]:
    """By looking at every row."""

    def doc(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(json.dumps(v, sort_keys=True) if n == 5 and v is not None else value(v) for n, v in enumerate(row))

    changed = sum(1 for k in left if k in right and doc(left[k]) != doc(right[k]))
    missing = sum(1 for k in left if k not in right)
    return {
        "sourceRows": len(left),
        "targetRows": len(right),
        "missingInTarget": missing,
        "extraInTarget": sum(1 for k in right if k not in left),
        "changed": changed,
        "unchanged": len(left) - missing - changed,
    }


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_it_finds_what_a_look_at_every_row_finds(left: str, right: str, make: Make, tmp_path: Path) -> None:
    tables = Tables(make(left, "source"), make(right, "target"), tmp_path)

    @CAMPAIGN
    @given(
        common=st.dictionaries(KEYS, ROW, max_size=6),
        only_left=st.dictionaries(KEYS, ROW, max_size=4),
        only_right=st.dictionaries(KEYS, ROW, max_size=4),
    )
    def check(common: Rows, only_left: Rows, only_right: Rows) -> None:
        a, b = {**common, **only_left}, {**common, **only_right}
        tables.put(tables.source, a)
        tables.put(tables.target, b)
        expected = oracle(a, b)
        made = tables.compare(includeDeletes=True, includeScriptInResult=True)
        assert made["summary"] == expected, made["samples"]
        kinds = [s["kind"] for s in made["samples"]]
        assert kinds.count("changed") == expected["changed"]
        applied = tables.compare(includeDeletes=True, applyScript=True)
        assert applied["applied"]
        assert applied["statementCounts"]["total"] == sum(
            expected[k] for k in ("missingInTarget", "extraInTarget", "changed")
        )
        again = tables.compare(includeDeletes=True)["summary"]
        assert (again["missingInTarget"], again["extraInTarget"], again["changed"]) == (0, 0, 0)
        assert again["targetRows"] == len(a)

    check()


FLAT = sa.Table(
    "flat",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text),
    sa.Column("amount", sa.Numeric(10, 2)),
    sa.Column("ratio", sa.Double),
)
FLAT_ROW = st.tuples(
    st.none() | TEXTS, st.none() | st.decimals(-99999, 99999, places=2), st.none() | st.floats(-1e6, 1e6, width=32)
)
FLATS = st.dictionaries(st.integers(-20, 20) | st.sampled_from([2**62, -(2**62)]), FLAT_ROW, max_size=12)


@pytest.mark.parametrize("engine", ENGINES)
def test_all_algorithms_agree_with_the_oracle_in_one_database(engine: str, make: Make, tmp_path: Path) -> None:
    connection = make(engine, "both")
    tables = Tables(connection, connection, tmp_path)
    other = FLAT.to_metadata(sa.MetaData(), name="other")

    @CAMPAIGN
    @given(common=FLATS, only_left=FLATS, only_right=FLATS)
    def check(common: Any, only_left: Any, only_right: Any) -> None:
        a = {(k,): v for k, v in {**common, **only_left}.items()}
        b = {(k,): v for k, v in {**common, **only_right}.items()}
        tables.put(connection, a, FLAT)
        tables.put(connection, b, other)
        plain = {k: tuple(map(value, v)) for k, v in a.items()}, {k: tuple(map(value, v)) for k, v in b.items()}
        both = set(a) & set(b)
        expected = (len(set(a) - both), len(set(b) - both), sum(plain[0][k] != plain[1][k] for k in both))
        # floats and decimals in SQLite are compared by value, which its own join does not do
        for columns in ([], ["name"]):
            changed = expected[2] if not columns else sum(plain[0][k][0] != plain[1][k][0] for k in both)
            for algorithm in ("auto", "sql", "merge", "checksum"):
                if algorithm == "checksum" and engine == "sqlite":
                    continue
                made = tables.compare(
                    sourceTable="flat", targetTable="other", compareColumns=columns, algorithm=algorithm
                )
                found = made["summary"]
                assert (found["missingInTarget"], found["extraInTarget"], found["changed"]) == (*expected[:2], changed)
                assert (found["sourceRows"], found["targetRows"]) == (len(a), len(b))
        made = tables.compare(sourceTable="flat", targetTable="other", includeDeletes=True, applyScript=True)
        again = tables.compare(sourceTable="flat", targetTable="other")["summary"]
        assert (again["missingInTarget"], again["extraInTarget"], again["changed"]) == (0, 0, 0)

    check()


@pytest.mark.parametrize(("left", "right"), [("postgresql", "mysql"), ("mysql", "postgresql"), ("mysql", "mysql")])
def test_checksums_agree_with_the_oracle_across_databases(left: str, right: str, make: Make, tmp_path: Path) -> None:
    tables = Tables(make(left, "source"), make(right, "target"), tmp_path)

    @CAMPAIGN
    @given(common=FLATS, only_left=FLATS, only_right=FLATS)
    def check(common: Any, only_left: Any, only_right: Any) -> None:
        a, b = {**common, **only_left}, {**common, **only_right}
        for connection, rows in ((tables.source, a), (tables.target, b)):
            tables.put(connection, {(k,): v for k, v in rows.items()}, FLAT)
        both = set(a) & set(b)
        changed = sum(list(map(value, a[k][:2])) != list(map(value, b[k][:2])) for k in both)
        for algorithm in ("checksum", "merge"):
            found = tables.compare(sourceTable="flat", compareColumns=["name", "amount"], algorithm=algorithm)[
                "summary"
            ]
            assert (found["missingInTarget"], found["extraInTarget"]) == (len(set(a) - both), len(set(b) - both))
            assert (found["changed"], found["sourceRows"], found["targetRows"]) == (changed, len(a), len(b))

    check()


@pytest.mark.parametrize(("left", "right"), [("postgresql", "mysql"), ("mysql", "mysql"), ("postgresql", "postgresql")])
def test_checksums_of_segments_find_the_few_that_differ(left: str, right: str, make: Make, tmp_path: Path) -> None:
    tables = Tables(make(left, "source"), make(right, "target"), tmp_path)
    table = "create table t (id bigint primary key, name varchar(30), amount decimal(10,2))"
    many = {
        "postgresql": "insert into t select n, 'n' || n, n from generate_series(1, 20000) as g (n)",
        "mysql": "insert into t select seq, concat('n', seq), seq from seq_1_to_20000",
    }
    for connection in (tables.source, tables.target):
        run(connection, table, many[connection.dialect])
    names = {"sourceTable": "t", "algorithm": "checksum"}
    assert tables.compare(**names)["summary"]["unchanged"] == 20_000
    run(tables.target, "delete from t where id = 77", "update t set name = 'other' where id in (78, 15000)")
    run(tables.target, "insert into t values (1000000000000, 'far', 1)")
    made = tables.compare(**names)
    assert made["algorithm"] == "checksum"
    assert made["summary"] == {
        "sourceRows": 20_000, "targetRows": 20_000, "missingInTarget": 1, "extraInTarget": 1, "changed": 2,
        "unchanged": 19_997,
    }  # fmt: skip
    assert {s["key"]["id"] for s in made["samples"]} == {"77", "78", "15000", "1000000000000"}


@pytest.fixture(params=[("postgresql", "sqlite"), ("sqlite", "mysql"), ("mysql", "postgresql")], ids="-".join)
def small(request: pytest.FixtureRequest, make: Make, tmp_path: Path) -> Tables:
    """Source: 1, 2, 3; target: 2 (changed), 3, 4."""
    tables = Tables(make(request.param[0], "source"), make(request.param[1], "target"), tmp_path)
    run(tables.source, "create table t (id integer primary key, name varchar(20), ratio double precision)")
    run(
        tables.target,
        "create table t (ID integer primary key, NAME varchar(20), other integer, ratio double precision)",
    )
    run(tables.source, "insert into t values (1, 'one', 1), (2, 'two', 2.5), (3, 'three', 3)")
    run(tables.target, "insert into t values (2, 'zwei', 9, 2.5), (3, 'three', 9, 3.001), (4, 'four', 9, 4)")
    return tables


def names_of(connection: Connection) -> list[tuple[Any, ...]]:
    return query(connection, "select id, name from t order by id")


def test_script_samples_and_what_is_left_out(small: Tables) -> None:
    made = small.compare(sourceTable="t", includeDeletes=True, filePath="out.sql", includeScriptInResult=True)
    assert made["statementCounts"] == {"inserts": 1, "updates": 2, "deletes": 1, "total": 4}
    assert Path(made["filePath"]).read_text(encoding="utf-8") == made["script"]
    order = [
        line.split()[0] for line in made["script"].splitlines() if line.split()[0] in ("INSERT", "UPDATE", "DELETE")
    ]
    assert order == ["DELETE", "UPDATE", "UPDATE", "INSERT"]
    assert "other" not in made["script"].lower().split("insert", 1)[1]
    changed = next(s for s in made["samples"] if s["key"] == {"id": "2"})
    assert changed["columns"] == {"name": {"source": "two", "target": "zwei"}}
    assert not made["applied"]
    only = small.compare(sourceTable="t", includeUpdates=False, includeScriptInResult=True)["statementCounts"]
    assert (only["inserts"], only["updates"], only["deletes"]) == (1, 0, 0)
    assert small.compare(sourceTable="t", floatTolerance=0.01)["summary"]["changed"] == 1
    assert small.compare(sourceTable="t", where="id > 2")["summary"]["sourceRows"] == 1
    assert small.compare(sourceTable="t", compareColumns=["RATIO"])["summary"]["changed"] == 1


def test_a_script_file_runs_by_itself(small: Tables) -> None:
    made = small.compare(sourceTable="t", includeDeletes=True, includeScriptInResult=True)
    ctx = RunContext(resolve_connection=lambda name: small.target)
    registry.get("sql_script").call({"connection": "target", "sql": made["script"]}, ctx)
    again = small.compare(sourceTable="t", includeDeletes=True)["summary"]
    assert (again["missingInTarget"], again["extraInTarget"], again["changed"]) == (0, 0, 0)


def test_a_truncated_script_is_never_applied(small: Tables) -> None:
    before = names_of(small.target)
    made = small.compare(sourceTable="t", statementLimit=1, includeScriptInResult=True)
    assert (made["truncated"], made["statementCounts"]["total"]) == (True, 1)
    assert "statementLimit" in made["warnings"][0]
    with pytest.raises(StepFailed, match="a truncated script is never applied") as caught:
        small.compare(sourceTable="t", statementLimit=1, applyScript=True)
    assert caught.value.error_type == "truncated"
    assert caught.value.output["summary"]["changed"] == 2
    assert names_of(small.target) == before


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_table_that_moves_is_noticed(small: Tables, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.task_types.data import compare as module

    real = module.write_script
    moving: Connection = getattr(small, side)

    def write_and_move(*args: Any) -> Any:
        script, add, end = real(*args)

        def end_and_move() -> None:
            end()
            mover.append(True)

        return script, add, end_and_move

    mover: list[bool] = []
    monkeypatch.setattr(module, "write_script", write_and_move)
    original = module._Comparison._apply

    def apply(self: Any, *args: Any) -> None:
        assert mover
        run(moving, "update t set name = 'moved' where id = 3")
        original(self, *args)

    monkeypatch.setattr(module._Comparison, "_apply", apply)
    with pytest.raises(StepFailed, match=f"the {side} changed while they were compared") as caught:
        small.compare(sourceTable="t", applyScript=True)
    assert caught.value.error_type == "moved"
    assert (1, "one") not in names_of(small.target)


def test_apply_is_all_or_nothing(small: Tables) -> None:
    run(small.source, "insert into t values (5, null, 5)")
    run(small.target, "drop table t", "create table t (id integer primary key, name varchar(20) not null)")
    run(small.target, "insert into t values (2, 'zwei'), (4, 'four')")
    before = names_of(small.target)
    with pytest.raises(StepFailed, match="comparing t with t failed, nothing was changed") as caught:
        small.compare(sourceTable="t", includeDeletes=True, applyScript=True)
    assert caught.value.error_type == "constraint"
    assert names_of(small.target) == before


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"sourceTable": "absent"}, "missing_table", "there is no source table 'absent'"),
        ({"targetTable": "absent"}, "missing_table", "there is no target table 'absent'"),
        ({"targetTable": "alien"}, "no_common_column", "no column in common"),
        ({"sourceTable": "keyless", "targetTable": "keyless"}, "no_key", "name keyColumns"),
        ({"keyColumns": ["nothing"]}, "unknown_column", "the key column 'nothing' cannot be found on both sides"),
        ({"compareColumns": ["nothing"]}, "unknown_column", "the compare column 'nothing'"),
        ({"compareColumns": ["ID"]}, "compare_is_key", "a compare column cannot be a key column as well"),
        ({"maxRows": 2}, "too_many_rows", "t has 3 rows, more than maxRows (2) allows"),
        ({"algorithm": "sql"}, "configuration", "needs both tables in one database"),
        ({"sourceTable": "keyless", "targetTable": "keyless", "keyColumns": ["name"]}, "duplicate_key", "2 times"),
    ],
)
def test_each_mistake_has_its_error(small: Tables, more: dict[str, Any], kind: str, said: str) -> None:
    for connection in (small.source, small.target):
        run(connection, "create table keyless (name varchar(20), x integer)", "create table alien (quite varchar(9))")
        run(connection, "insert into keyless values ('a', 1), ('a', 2), ('b', 1)")
    with pytest.raises(StepFailed) as caught:
        small.compare(**{"sourceTable": "t", "targetTable": "t", **more})
    assert caught.value.error_type == kind
    assert said in caught.value.message.replace("public.", "")


def test_nothing_to_do_is_refused_before_anything_is_opened() -> None:
    kind = registry.get("data_compare_sync")
    base = {"source": {"connection": "a", "table": "t"}, "target": {"connection": "b", "table": "t"}}
    flags = dict.fromkeys(("includeInserts", "includeUpdates", "includeDeletes"), False)
    assert "nothing would be left to do" in str(kind.check({"compareRequest": {**base, **flags}})[0])
    assert kind.check({"request": base}) == []
    assert kind.check({**base, "sampleLimit": 501})
    note = kind.preview({**base, "applyScript": True, "includeDeletes": True}, RunContext())
    assert note is not None
    assert note.danger == ("changes b.t", "deletes rows of b.t that a.t does not have")
