"""The contract of ``taskcenter.ports.SchemaSnapshots``: memory, SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from store_makers import at

from taskcenter.models import SchemaSnapshot
from taskcenter.ports import Store


def a_snapshot(schema_hash: str = "h1", seconds: float = 0, **fields: Any) -> SchemaSnapshot:
    usual = {
        "connection": "shop",
        "database": "sales",
        "dialect": "postgresql",
        "structure": {"tables": {"a b": {"columns": {"ü": {"type": "int", "n": None, "f": 1.5}}}}},
        "first_captured_at": at(seconds),
        "captured_at": at(seconds),
    }
    return SchemaSnapshot(**{**usual, "schema_hash": schema_hash, **fields})


def test_the_same_hash_is_kept_once_and_stamped_again(store: Store) -> None:
    first = store.snapshots.save(a_snapshot(run_id="r1"))
    again = store.snapshots.save(a_snapshot(seconds=60, run_id="r2", structure={"tables": {}}))
    assert again.id == first.id
    assert again.structure == first.structure
    assert (again.first_captured_at, again.captured_at, again.run_id) == (at(0), at(60), "r2")
    assert store.snapshots.find(first.id) == again
    assert store.snapshots.save(a_snapshot(seconds=30, run_id="late")) == again
    assert len(store.snapshots.page()) == 1


def test_the_latest_is_the_one_seen_last(store: Store) -> None:
    assert store.snapshots.latest("shop", "sales") is None
    one = store.snapshots.save(a_snapshot("h1"))
    two = store.snapshots.save(a_snapshot("h2", 10))
    assert store.snapshots.latest("shop", "sales") == two
    back = store.snapshots.save(a_snapshot("h1", 20))
    assert back.id == one.id
    assert store.snapshots.latest("shop", "sales") == back
    assert store.snapshots.latest("shop") is None
    assert store.snapshots.latest("other", "sales") is None


def test_the_one_before_may_have_come_back(store: Store) -> None:
    x, a, b = (store.snapshots.save(a_snapshot(name, place)) for place, name in enumerate(("x", "a", "b")))
    store.snapshots.save(a_snapshot("other", 1.5, database="else"))
    assert store.snapshots.before(x) is None
    assert store.snapshots.before(b) == a
    back = store.snapshots.save(a_snapshot("a", 3))
    assert store.snapshots.before(b) == back  # x → a → b → a
    assert store.snapshots.before(back) == b


def test_ids_by_their_beginning(store: Store) -> None:
    for id in ("abc1", "abc2", "ab%", "b"):
        store.snapshots.save(a_snapshot(id, id=id))
    assert store.snapshots.ids("abc") == ["abc1", "abc2"]
    assert store.snapshots.ids("ab", limit=1) == ["ab%"]
    assert store.snapshots.ids("ab%") == ["ab%"]
    assert store.snapshots.ids("c") == []


def test_pages_are_light_and_in_order(store: Store) -> None:
    for number in range(4):
        store.snapshots.save(a_snapshot(f"h{number}", number, connection="shop" if number else "else"))
    assert [s.schema_hash for s in store.snapshots.page()] == ["h3", "h2", "h1", "h0"]
    assert [s.schema_hash for s in store.snapshots.page("shop", limit=2, offset=1)] == ["h2", "h1"]
    assert store.snapshots.page("nothing") == []
    assert all(s.structure == {} for s in store.snapshots.page())
    assert store.snapshots.find("no such id") is None


def test_what_no_store_can_keep_is_replaced(store: Store) -> None:
    saved = store.snapshots.save(a_snapshot(structure={"a\x00b": "\ud800"}, database="x\x00"))
    assert saved.structure == {"a\ufffdb": "\ufffd"}
    assert store.snapshots.latest("shop", "x\x00") == saved
