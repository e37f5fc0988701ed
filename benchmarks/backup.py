"""Backups beside the engines' own tools, in one run, with the memory that they took. (issue D)

    python -m benchmarks.backup [--rows 300000] [--rounds 3] [--engines postgresql,mysql,sqlite]

One table of 8 mixed columns. Servers: TASKCENTER_TEST_POSTGRES_URL, TASKCENTER_TEST_MYSQL_URL, else 127.0.0.1. Each
backup is a process of its own, its start included; its peak memory is what the system says of it. Ratios are of
the best rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from blocks.connections import Connection

COLUMNS = (
    "id bigint PRIMARY KEY, a int, b decimal(12,2), c double precision, d varchar(60), e timestamp NULL, f date, g text"
)
FILL = {
    "postgresql": "INSERT INTO t SELECT n, n % 1000, n * 0.37, sqrt(n), md5(n::text), timestamp '2020-01-01' + n * "
    "interval '1 second', date '2020-01-01' + (n % 999)::int, repeat('x', (n % 50)::int) "
    "FROM generate_series(1, {0}) g (n)",
    "mysql": "INSERT INTO t WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 1000) "
    "SELECT n, n % 1000, n * 0.37, sqrt(n), md5(n), timestamp '2020-01-01 00:00:00' + interval n second, "
    "date '2020-01-01' + interval n % 999 day, repeat('x', n % 50) "
    "FROM (SELECT (x.n - 1) * 1000 + y.n AS n FROM r x, r y) q WHERE n <= {0}",
    "sqlite": "INSERT INTO t WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {0}) "
    "SELECT n, n % 1000, n * 0.37, n * 1.0 / 7, hex(zeroblob(16)), datetime(n + 1577836800, 'unixepoch'), "
    "date(n * 100, 'unixepoch'), substr('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', 1, n % 50) FROM r",
}
CHILD = """
import sys
from pathlib import Path
from blocks.connections import Connection
from taskcenter.context import RunContext
from taskcenter.task_types import registry
connection, home = Connection(**eval(sys.argv[1])), Path(sys.argv[2])
ctx = RunContext(task="t", data_dir=home, temp_dir=home, resolve_connection=lambda name: connection)
print(registry.get("backup").call({"connection": "db"}, ctx)["rowCount"])
"""


def own_tool(connection: Connection) -> list[str]:
    c = connection
    if c.dialect == "postgresql":
        return ["pg_dump", f"postgresql://{c.user}@{c.host}:{c.port}/{c.database}"]
    if c.dialect == "mysql":
        where = [f"-h{c.host}", f"-P{c.port}", f"-u{c.user}"]
        return ["mariadb-dump", "--no-defaults", *where, "--single-transaction", "--quick", str(c.database)]
    return ["sqlite3", str(c.database), ".dump"]


def timed(argv: list[str], output: Path | None = None) -> tuple[float, float]:
    """Seconds and peak MiB of a child."""
    started = time.perf_counter()
    with (output or Path(os.devnull)).open("wb") as file:
        child = subprocess.Popen(argv, stdout=file)
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{argv[0]} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def measure(connection: Connection, rows: int, rounds: int, folder: Path) -> None:
    from tests.databases import run

    run(connection, f"CREATE TABLE t ({COLUMNS})", FILL[connection.dialect].format(rows))
    parts = {f: getattr(connection, f) for f in ("name", "dialect", "host", "port", "database", "user")}
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(timed([sys.executable, "-c", CHILD, repr(parts), str(folder)]))
        if shutil.which(own_tool(connection)[0]):
            theirs.append(timed(own_tool(connection), folder / "theirs.sql"))
    best, memory = min(t for t, _ in ours), max(m for _, m in ours)
    line = (
        f"{connection.dialect:10}  {rows:>9,} rows  ours {best:6.2f} s  {rows / best:>9,.0f} rows/s  {memory:4.0f} MiB"
    )
    if theirs:
        other = min(t for t, _ in theirs)
        line += f"   {own_tool(connection)[0]} {other:6.2f} s   ratio {other / best:.2f}"
    print(line, flush=True)


def main() -> None:
    from tests.databases import empty_database

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000, help="at most 1,000,000 on MySQL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default="postgresql,mysql,sqlite")
    chosen = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for dialect in chosen.engines.split(","):
        with tempfile.TemporaryDirectory() as place, empty_database(dialect, Path(place)) as connection:
            measure(connection, chosen.rows, chosen.rounds, Path(place))


if __name__ == "__main__":
    main()
