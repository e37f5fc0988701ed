"""The bundled sample database: a small shop on SQLite, and an empty warehouse to copy it into.

``shop_rows`` makes the data from a seed and nothing else, so that every machine has the same 100,000 rows.
The files are built on first use, beside their final name, and appear whole or not at all.
"""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from .connections import Connection

__all__ = ["NAMES", "ShopRows", "build_shop", "connection", "ensure_sample", "ensure_warehouse", "shop_rows"]

NAMES = ("sample", "shop", "warehouse")

CUSTOMERS, ORDERS = 5_000, 30_000
SEED = 20_260_101
_FIRST_DAY = date(2024, 1, 1)  # two years, all of them past
_COUNTRIES = ("DE", "FR", "GB", "IT", "NL", "PL", "SE", "US")
_FIRST = ("Ada", "Ben", "Cora", "Dan", "Eva", "Finn", "Grace", "Hugo", "Ida", "Jan", "Kim", "Lena", "Max", "Nora")
_LAST = ("Adler", "Berg", "Costa", "Dubois", "Eriksen", "Fischer", "Gallo", "Hall", "Ito", "Jansen", "Klein", "Lopez")
_STATUS = ("paid", "paid", "paid", "shipped", "shipped", "shipped", "open", "cancelled")
_PRODUCTS = tuple(
    (f"{kind} {size}", cents)
    for kind, base in (("Lamp", 2_900), ("Chair", 8_900), ("Desk", 24_900), ("Shelf", 12_900), ("Rug", 6_900))
    for size, cents in (("S", base), ("M", base + 1_000), ("L", base + 2_500), ("XL", base + 4_000))
)

TABLES = (
    """CREATE TABLE customers (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        email TEXT NOT NULL UNIQUE,
        country TEXT NOT NULL,
        since TEXT NOT NULL
    )""",
    """CREATE TABLE orders (
        id INTEGER PRIMARY KEY,
        customer_id INTEGER NOT NULL REFERENCES customers (id),
        ordered_on TEXT NOT NULL,
        status TEXT NOT NULL,
        total_cents INTEGER NOT NULL
    )""",
    """CREATE TABLE items (
        id INTEGER PRIMARY KEY,
        order_id INTEGER NOT NULL REFERENCES orders (id),
        product TEXT NOT NULL,
        quantity INTEGER NOT NULL,
        unit_price_cents INTEGER NOT NULL
    )""",
)
INDEXES_AND_VIEWS = (
    "CREATE INDEX orders_by_customer ON orders (customer_id)",
    "CREATE INDEX orders_by_day ON orders (ordered_on)",
    "CREATE INDEX items_by_order ON items (order_id)",
    """CREATE VIEW revenue_by_day AS
    SELECT ordered_on, count(*) AS orders, sum(total_cents) AS cents
    FROM orders WHERE status <> 'cancelled' GROUP BY ordered_on""",
)


@dataclass(frozen=True, slots=True)
class ShopRows:
    """The shop's rows in column order. Money is whole cents, days are ISO text."""

    customers: list[tuple[int, str, str, str, str]]
    orders: list[tuple[int, int, str, str, int]]
    items: list[tuple[int, int, str, int, int]]


def shop_rows(seed: int = SEED, customers: int = CUSTOMERS, orders: int = ORDERS) -> ShopRows:
    """The shop's data for ``seed``: the same arguments give the same rows, everywhere."""
    chance = random.Random(seed)
    below = chance.random  # one primitive only: it is the same on every Python version
    rows = ShopRows([], [], [])
    days = [(_FIRST_DAY + timedelta(days=n)).isoformat() for n in range(730)]
    for number in range(1, customers + 1):
        first, last = _FIRST[int(below() * len(_FIRST))], _LAST[int(below() * len(_LAST))]
        email = f"{first}.{last}.{number}@example.com".lower()
        country = _COUNTRIES[int(below() * len(_COUNTRIES))]
        rows.customers.append((number, f"{first} {last}", email, country, days[int(below() * 365)]))
    item = 0
    for number in range(1, orders + 1):
        total = 0
        for _ in range(1 + int(below() * below() * 7)):
            item += 1
            product, cents = _PRODUCTS[int(below() * len(_PRODUCTS))]
            quantity = 1 + int(below() * 3)
            total += quantity * cents
            rows.items.append((item, number, product, quantity, cents))
        day = days[min(729, number * 730 // (orders + 1))]
        rows.orders.append((number, 1 + int(below() * customers), day, _STATUS[int(below() * len(_STATUS))], total))
    return rows


def build_shop(path: Path, seed: int = SEED) -> None:
    """Write the shop into the new SQLite file ``path``."""
    rows = shop_rows(seed)
    with _new_database(path) as database:
        database.execute("PRAGMA synchronous = OFF")  # the file has no name yet: nothing to lose
        database.execute("BEGIN")
        for statement in TABLES:
            database.execute(statement)
        database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", rows.customers)
        database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", rows.orders)
        database.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows.items)
        for statement in INDEXES_AND_VIEWS:
            database.execute(statement)
        database.execute("COMMIT")
        database.execute("ANALYZE")


def build_warehouse(path: Path) -> None:
    """Write an empty SQLite database into the new file ``path``."""
    with _new_database(path):
        pass


@contextmanager
def _new_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A new SQLite file in WAL mode (readers never wait for a writer); closed, with its log folded in, at the end."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        yield database
    finally:
        database.close()


def ensure_sample(home: Path) -> Path:
    """``<home>/sample/shop.db``, built when it is not there yet."""
    return _ensure(home / "sample" / "shop.db", build_shop)


def ensure_warehouse(home: Path) -> Path:
    """``<home>/sample/warehouse.db``, made empty when it is not there yet."""
    return _ensure(home / "sample" / "warehouse.db", build_warehouse)


def connection(name: str, home: Path) -> Connection:
    """The connection of one of NAMES; its database is there afterwards."""
    path = ensure_warehouse(home) if name == "warehouse" else ensure_sample(home)
    return Connection(name=name, dialect="sqlite", database=str(path))


def _ensure(path: Path, build: Callable[[Path], None]) -> Path:
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
        made = Path(folder) / path.name
        build(made)
        try:
            # A link never replaces: when two processes build at once, the first stays, and nobody who
            # has already opened it finds another file under the name.
            os.link(made, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                made.rename(path)
    return path
