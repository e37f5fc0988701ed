"""``batchRows``: a transfer that was stopped goes on behind its last whole batch, between every pair of engines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.connections import Connection
from taskcenter.errors import StepFailed
from taskcenter.task_types import registry
from tests.integration.test_data_transfer import MANY, PAIRS, SMALL, rows_of, transfer
from tests.many_databases import Make, making, query, run

ITEM = {"sourceTable": "t"}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with making(tmp_path) as made:
        yield made


@pytest.fixture(params=PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
def pair(request: pytest.FixtureRequest, make: Make) -> tuple[Connection, Connection]:
    """Source with the rows 1 to 450, and an empty target."""
    source, target = make(request.param[0], "source"), make(request.param[1], "target")
    run(source, SMALL, MANY[source.dialect].format(450))
    return source, target


def test_a_stopped_one_goes_on_behind_its_last_batch(pair: tuple[Connection, Connection], tmp_path: Path) -> None:
    source, target = pair
    run(target, SMALL.replace("varchar(40)", "varchar(40) not null"))
    run(source, "update t set name = null where id = 333")
    with pytest.raises(StepFailed, match="300 rows in whole batches are in the target: run it again") as caught:
        transfer(source, target, tmp_path, ITEM, batchRows=100)
    assert caught.value.error_type == "constraint"
    assert query(target, "select count(*), max(id) from t") == [(300, 300)]
    run(source, "update t set name = 'mended' where id = 333")
    made = transfer(source, target, tmp_path, ITEM, batchRows=100)
    assert (made["objects"][0]["rowsWritten"], made["objects"][0]["batches"]) == (150, 2)
    assert "those with a key up to 300 were not looked at" in made["warnings"][0]
    assert rows_of(target) == rows_of(source)


def test_upserts_and_new_tables(pair: tuple[Connection, Connection], tmp_path: Path) -> None:
    source, target = pair
    made = transfer(source, target, tmp_path, {**ITEM, "where": "id > 150"}, batchRows=100)["objects"][0]
    assert (made["rowsRead"], made["batches"], made["created"]) == (300, 3, True)
    run(source, "update t set name = 'other' where id in (1, 449)")
    item = {**ITEM, "mode": "upsert", "keyColumns": ["ID"]}
    made = transfer(source, target, tmp_path, item, batchRows=200)["objects"][0]
    assert (made["rowsRead"], made["batches"]) == (450, 3)
    assert rows_of(target) == rows_of(source)
    run(source, "delete from t")
    made = transfer(source, target, tmp_path, {**ITEM, "targetTable": "none"}, batchRows=100)["objects"][0]
    assert (made["rowsRead"], made["created"]) == (0, True)


def test_it_needs_a_key_with_an_order(make: Make, tmp_path: Path) -> None:
    source, target = make("sqlite", "source"), make("sqlite", "target")
    run(source, "create table t (a text, b integer)")
    with pytest.raises(StepFailed, match="batchRows goes by the order of one key column"):
        transfer(source, target, tmp_path, ITEM, batchRows=100)
    with pytest.raises(StepFailed, match="batchRows goes by the order of one key column"):
        transfer(source, target, tmp_path, {**ITEM, "keyColumns": ["a"]}, batchRows=100)


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ("integer", "text", "the key column 'id' of the target is of the type text: a mark is a whole or"),
        ("timestamp", "timestamp(0)", "the key column 'id' is finer than 'id' in the target"),
    ],
)
def test_a_key_that_the_target_orders_otherwise(there: str, here: str, said: str, make: Make, tmp_path: Path) -> None:
    source, target = make("postgresql", "source"), make("postgresql", "target")
    run(source, f"create table t (id {there} primary key)")
    run(target, f"create table t (id {here} primary key)")
    with pytest.raises(StepFailed, match=re.escape(said)) as caught:
        transfer(source, target, tmp_path, ITEM, batchRows=100)
    assert caught.value.error_type == "key"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"mode": "replace"}, "append and upsert"),
        ({"sinkType": "csv", "sinkPath": "x.csv"}, "append and upsert"),
        ({"verify": True}, "together with verify"),
        ({"watermarkColumn": "id"}, "together with verify or watermarkColumn"),
    ],
)
def test_what_it_does_not_go_with(item: dict[str, Any], said: str) -> None:
    payload = {"source": "a", "target": "b", "objects": [{**ITEM, **item}], "batchRows": 1000}
    assert said in str(registry.get("data_transfer_migration").check(payload)[0])
