"""The bundled shop: the same rows everywhere, whole or absent, readable while written."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks import sample
from blocks.connections import resolve
from blocks.sample import build_shop, ensure_sample, shop_rows


def test_rows_depend_on_the_seed_alone() -> None:
    rows = shop_rows(1, customers=50, orders=200)
    assert rows == shop_rows(1, customers=50, orders=200)
    assert rows != shop_rows(2, customers=50, orders=200)


def test_the_default_rows_are_fixed() -> None:
    """Examples and docs quote numbers of this shop: whoever changes the maker sees it here."""
    rows = shop_rows()
    assert (len(rows.customers), len(rows.orders), len(rows.items)) == (5_000, 30_000, 69_342)
    text = repr((rows.customers, rows.orders, rows.items)).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == "fd52fe15cbf9bad0"


def test_sums_agree() -> None:
    rows = shop_rows(3, customers=20, orders=100)
    for order in rows.orders:
        assert order[4] == sum(item[3] * item[4] for item in rows.items if item[1] == order[0])


def test_it_is_built_once_and_quickly(tmp_path: Path) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: ensure_sample(tmp_path), range(4)))
    assert time.monotonic() - started < 15  # four builds at once; one takes a fraction of a second
    (path,) = paths
    assert [file.name for file in path.parent.iterdir()] == ["shop.db"]
    with sqlite3.connect(path) as shop:
        assert shop.execute("select count(*) from items").fetchone() == (69_342,)
        assert shop.execute("pragma journal_mode").fetchone() == ("wal",)
        assert shop.execute("pragma integrity_check").fetchone() == ("ok",)
        assert shop.execute("pragma foreign_key_check").fetchall() == []


def test_a_build_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        build_shop(path)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        sample._ensure(tmp_path / "sample" / "shop.db", broken)
    assert list((tmp_path / "sample").iterdir()) == []


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    connection = resolve("shop", env={}, home=tmp_path)
    with connection.connect() as writer, connection.connect() as reader:
        writer.exec_driver_sql("delete from items")
        assert reader.exec_driver_sql("select count(*) from items").scalar() == 69_342


def test_the_warehouse_is_empty(tmp_path: Path) -> None:
    with resolve("warehouse", env={}, home=tmp_path).connect() as opened:
        assert opened.exec_driver_sql("select count(*) from sqlite_master").scalar() == 0
