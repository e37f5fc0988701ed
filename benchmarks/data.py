"""Data transfer and comparison against their peers, ratios in one run. (issue D, show 5)

    python -m benchmarks.data [transfer] [compare] [memory] [--rows 1000000] [--rounds 3] [--peers PYTHON] [--json]

A table of eight mixed columns in scratch databases on PostgreSQL (TASKCENTER_TEST_POSTGRES_URL), MariaDB/MySQL
(TASKCENTER_TEST_MYSQL_URL) and in SQLite files. Every figure is a median over the rounds; ours and the peer take turns.
``--peers`` names a Python that has pandas, psycopg2 and reladiff, which are not in Task Center's own environment.
The databases are dropped at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blocks.connections import Connection, parse_url
from taskcenter.context import RunContext
from taskcenter.task_types import registry

POSTGRES = os.environ.get("TASKCENTER_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
MYSQL = os.environ.get("TASKCENTER_TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/test")

TABLE = {
    "postgresql": "create table mixed (id bigint primary key, name text not null, amount numeric(12,2), "
    "ratio double precision, flag boolean, day date, at timestamptz, note varchar(200))",
    "mysql": "create table mixed (id bigint primary key, name varchar(255) not null, amount decimal(12,2), "
    "ratio double, flag boolean, day date, at datetime(6), note varchar(200)) charset utf8mb4 collate utf8mb4_bin",
    "sqlite": "create table mixed (id integer primary key, name text not null, amount decimal(12,2), "
    "ratio real, flag boolean, day date, at timestamptz, note varchar(200))",
}
FILL = (
    "insert into mixed select n, 'name ' || n || ' ü', (n * 7 % 100000) / 100.0, n / 7.0, n % 3 = 0, "
    "date '2020-01-01' + (n % 2000)::int, timestamptz '2020-01-01 00:00Z' + n * interval '1 second', "
    "case when n % 10 = 0 then null else repeat('x', (n % 60)::int) end from generate_series(1, {rows}) as g (n)"
)


@dataclass
class Bench:
    """The scratch databases, and what was measured so far."""

    folder: Path
    rows: int
    rounds: int
    peers: str | None
    figures: list[dict[str, Any]] = field(default_factory=list)
    connections: dict[str, Connection] = field(default_factory=dict)

    def connect(self, name: str) -> Connection:
        return self.connections[name]

    def psql(self, name: str) -> str:
        """The psql command for a PostgreSQL connection."""
        c = self.connections[name]
        return f"psql -qX -h {c.host} -p {c.port or 5432} -U {c.user} {c.database}"

    def sql(self, name: str, *statements: str) -> None:
        connection = self.connections[name]
        with connection.engine() as engine, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as opened:
            for statement in statements:
                opened.exec_driver_sql(statement.replace("%", "%%") if connection.dialect != "sqlite" else statement)

    def call(self, kind: str, **payload: Any) -> dict[str, Any]:
        """Run a task type as a run would, in this process."""
        ctx = RunContext(resolve_connection=self.connect, temp_dir=self.folder, data_dir=self.folder)
        result: dict[str, Any] = registry.get(kind).call(payload, ctx)
        return result

    def transfer(self, source: str, target: str, **more: Any) -> dict[str, Any]:
        item = {"sourceTable": "mixed", **more}
        return self.call("data_transfer_migration", source=source, target=target, objects=[item], timeoutSeconds=3600)

    def versus(
        self, what: str, ours: Callable[[], Any], peer: Callable[[], Any], *, bar: str, between: Callable[[], Any]
    ) -> None:
        """Take turns; ``between`` restores the start before each. Ratio: ours ÷ peer in rows per second."""
        mine, theirs = [], []
        for _ in range(self.rounds):
            for function, kept in ((peer, theirs), (ours, mine)):
                between()
                started = time.perf_counter()
                function()
                kept.append(time.perf_counter() - started)
        self.report(what, statistics.median(mine), statistics.median(theirs), bar)

    def report(self, what: str, mine: float, peer: float | None, bar: str, **more: Any) -> None:
        figure = {"what": what, "seconds": round(mine, 2), "rowsPerSecond": round(self.rows / mine), "bar": bar, **more}
        text = f"{what:<58} {mine:7.2f} s  {self.rows / mine:>10,.0f} rows/s"
        if peer is not None:
            figure |= {"peerSeconds": round(peer, 2), "ratio": round(peer / mine, 2)}
            text += f"   peer {peer:7.2f} s   ratio {peer / mine:5.2f}"
        self.figures.append(figure)
        print(f"{text}   ({bar})", flush=True)


def shell(command: str) -> None:
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def bench(rows: int, rounds: int, peers: str | None) -> Iterator[Bench]:
    """Scratch databases ``pg``, ``pg2``, ``maria``, ``maria2``, ``lite``, ``lite2``; the first of each is filled."""
    mark = uuid.uuid4().hex[:8]
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as temp:
        made = Bench(Path(temp), rows, rounds, peers)
        servers = {"pg": parse_url("server", POSTGRES), "maria": parse_url("server", MYSQL)}
        try:
            for kind, server in servers.items():
                made.connections[f"{kind}-server"] = server
                for number in ("", "2"):
                    made.sql(f"{kind}-server", f"create database tc_bench_{mark}{number}")
                    made.connections[kind + number] = replace(server, database=f"tc_bench_{mark}{number}")
            for name in ("lite", "lite2"):
                made.connections[name] = Connection(
                    name, "sqlite", database=f"{temp}/{name}.db", options={"create": True}
                )
            for name in ("pg", "pg2", "maria", "maria2", "lite", "lite2"):
                made.sql(name, TABLE[made.connections[name].dialect])
            made.sql("pg", FILL.format(rows=rows), "vacuum analyze mixed")
            yield made
        finally:
            for kind in servers:
                for number in ("", "2"):
                    force = " with (force)" if kind == "pg" else ""
                    made.sql(f"{kind}-server", f"drop database if exists tc_bench_{mark}{number}{force}")


def transfers(b: Bench) -> None:
    lite = shlex.quote(str(b.connections["lite"].database))

    def empty(name: str) -> Callable[[], None]:
        word = "delete from" if name.startswith("lite") else "truncate"
        return lambda: b.sql(name, f"{word} mixed")

    pipe = (
        f'{b.psql("pg")} -c "copy mixed to stdout (format binary)" | '
        f'{b.psql("pg2")} -c "copy mixed from stdin (format binary)"'
    )
    b.versus(
        "PostgreSQL → PostgreSQL", lambda: b.transfer("pg", "pg2"), lambda: shell(pipe),
        bar="≥ 0.8 of psql COPY | COPY", between=empty("pg2"),
    )  # fmt: skip
    b.versus(
        "PostgreSQL → PostgreSQL, proved equal", lambda: b.transfer("pg", "pg2", verify=True), lambda: shell(pipe),
        bar="≤ 1.8 × the bare pipe: ratio ≥ 0.56", between=empty("pg2"),
    )  # fmt: skip
    csv = b.folder / "out.csv"
    b.versus(
        "PostgreSQL → CSV", lambda: b.transfer("pg", "pg2", sinkType="csv", sinkPath=str(csv)),
        lambda: shell(f"{b.psql('pg')} -c \"\\copy mixed to '{csv}.peer' csv header\""),
        bar="≥ 0.85 of \\copy", between=lambda: None,
    )  # fmt: skip
    b.transfer("pg", "lite")

    b.versus(
        "SQLite → PostgreSQL", lambda: b.transfer("lite", "pg2"),
        lambda: shell(f'sqlite3 -csv {lite} "select * from mixed" | {b.psql("pg2")} -c "copy mixed from stdin csv"'),
        bar="≥ 0.75 of sqlite3 | COPY", between=empty("pg2"),
    )  # fmt: skip
    for source, target, name in (
        ("pg", "lite2", "PostgreSQL → SQLite"),
        ("pg", "maria", "PostgreSQL → MariaDB"),
        ("maria", "pg2", "MariaDB → PostgreSQL"),
        ("maria", "maria2", "MariaDB → MariaDB"),
        ("maria", "lite2", "MariaDB → SQLite"),
        ("lite", "maria2", "SQLite → MariaDB"),
        ("lite", "lite2", "SQLite → SQLite"),
    ):
        empty(target)()
        started = time.perf_counter()
        b.transfer(source, target)
        b.report(name, time.perf_counter() - started, None, "no bar")
    if b.peers:
        slow_peers(b, empty("pg2"))


SLOW_PEERS = {
    "pandas.to_sql": """
import pandas, sqlalchemy, sys
a, b = (sqlalchemy.create_engine(u) for u in sys.argv[1:3])
for part in pandas.read_sql("select * from mixed limit %d" % int(sys.argv[3]), a, chunksize=50000):
    part.to_sql("mixed", b, if_exists="append", index=False)
""",
    "SQLAlchemy executemany": """
import sqlalchemy as sa, sys
a, b = (sa.create_engine(u) for u in sys.argv[1:3])
table = sa.Table("mixed", sa.MetaData(), autoload_with=b)
with a.connect().execution_options(stream_results=True) as r, b.begin() as w:
    rows = r.execute(sa.text("select * from mixed limit %d" % int(sys.argv[3])))
    for part in rows.mappings().partitions(1000):
        w.execute(sa.insert(table), [dict(p) for p in part])
""",
}


def slow_peers(b: Bench, empty: Callable[[], None]) -> None:
    """A tenth of the rows for the peers, whose time grows with the rows; scaled up."""
    part = max(1, b.rows // 10)
    urls = [b.connections[n].url().set(drivername="postgresql+psycopg2").render_as_string(False) for n in ("pg", "pg2")]
    started = time.perf_counter()
    empty()
    b.transfer("pg", "pg2")
    mine = time.perf_counter() - started
    for name, code in SLOW_PEERS.items():
        empty()
        started = time.perf_counter()
        subprocess.run([str(b.peers), "-c", code, *urls, str(part)], check=True)
        b.report(f"against {name}", mine, (time.perf_counter() - started) * b.rows / part, "≥ 8")


CHANGE = (
    "update mixed set note = 'changed' where id % 200 = 7",
    "delete from mixed where id % 400 = 11",
    "update mixed set id = id + 100000000 where id % 400 = 13",
)
"""One row in a hundred: half changed, a quarter missing, a quarter extra and missing."""
FULL_JOIN = (
    "select count(*) from mixed s full join other t on s.id = t.id where s.id is null or t.id is null or "
    "(s.name, s.amount, s.ratio, s.flag, s.day, s.at, s.note) is distinct from "
    "(t.name, t.amount, t.ratio, t.flag, t.day, t.at, t.note)"
)
RELADIFF = """
import sys, reladiff
a, b = (reladiff.connect_to_table(u, "mixed", "id", extra_columns=tuple(sys.argv[3].split(","))) for u in sys.argv[1:3])
print(sum(1 for _ in reladiff.diff_tables(a, b)))
"""


def compares(b: Bench) -> None:
    for name in ("pg2", "lite", "maria"):
        b.sql(name, "delete from mixed" if name == "lite" else "truncate mixed")
        b.transfer("pg", name)
        b.sql(name, *CHANGE)
    b.sql("pg2", "vacuum analyze mixed")
    b.sql("pg", "create table other (like mixed including all)", "insert into other select * from mixed")
    b.sql("pg", *(text.replace("mixed", "other") for text in CHANGE), "vacuum analyze other")

    def compare(source: str, target: str, **more: Any) -> dict[str, Any]:
        names = {"sourceTable": "mixed", "targetTable": "mixed", "timeoutSeconds": 3600, **more}
        return b.call("data_compare_sync", sourceConnection=source, targetConnection=target, **names)

    b.versus(
        "compare, one PostgreSQL database", lambda: compare("pg", "pg", targetTable="other"),
        lambda: b.sql("pg", FULL_JOIN), bar="≤ 1.5 × one FULL JOIN: ratio ≥ 0.67", between=lambda: None,
    )  # fmt: skip
    seconds = []
    for _ in range(b.rounds):
        started = time.perf_counter()
        found = compare("pg", "pg2")["summary"]
        seconds.append(time.perf_counter() - started)
    mine, peer = statistics.median(seconds), None
    print(f"  {found}")
    if b.peers:
        urls = [b.connections[n].url().set(drivername="postgresql").render_as_string(False) for n in ("pg", "pg2")]
        started = time.perf_counter()
        subprocess.run([b.peers, "-c", RELADIFF, *urls, "name,amount,ratio,flag,day,at,note"], check=True)
        peer = time.perf_counter() - started
    b.report("compare, two PostgreSQL databases (peer: reladiff)", mine, peer, "≤ 2.5 s, ratio ≥ 5")
    for source, target in (("pg", "lite"), ("pg", "maria"), ("lite", "maria")):
        started = time.perf_counter()
        compare(source, target)
        b.report(f"compare {source} with {target}", time.perf_counter() - started, None, "≥ 200,000 rows/s")


def memory(b: Bench) -> None:
    """Peak memory of a process that does nothing but one transfer, comparison or backup, all of it counted."""
    for source, target in (("pg", "pg2"), ("pg", "lite2"), ("lite2", "pg2"), ("pg", "maria2"), ("maria2", "lite2")):
        b.sql(target, "delete from mixed" if target.startswith("lite") else "truncate mixed")
        report_peak(b, f"peak memory {source} → {target}", "data_transfer_migration", {
            "source": source, "target": target, "objects": [{"sourceTable": "mixed"}], "timeoutSeconds": 3600,
        })  # fmt: skip

    for kind in ("csv", "jsonl", "sql", "parquet"):
        path = b.folder / f"out.{kind}"
        item = {"sourceTable": "mixed", "sinkType": kind, "sinkPath": str(path)}
        report_peak(b, f"peak memory pg → {kind}", "data_transfer_migration", {
            "source": "pg", "objects": [item], "timeoutSeconds": 3600,
        })  # fmt: skip
        path.unlink()
    for source, target in (("pg", "pg2"), ("pg", "maria2"), ("pg", "lite2"), ("lite2", "maria2")):
        names = {"sourceTable": "mixed", "targetTable": "mixed", "timeoutSeconds": 3600}
        payload = {"sourceConnection": source, "targetConnection": target, **names}
        report_peak(b, f"peak memory of compare {source} with {target}", "data_compare_sync", payload)
    for name in ("pg", "maria2", "lite2"):
        path = b.folder / f"{name}.sql"
        report_peak(b, f"peak memory of a backup of {name}", "backup", {"connection": name, "filePath": str(path)})
        path.unlink()


def report_peak(b: Bench, what: str, kind: str, payload: dict[str, Any]) -> None:
    code = "import json, sys\nfrom benchmarks.data import one\nprint(json.dumps(one(json.loads(sys.argv[1]))))"
    job = {
        "kind": kind, "payload": payload, "folder": str(b.folder),
        "connections": {n: c.url().render_as_string(False) for n, c in b.connections.items()},
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, json.dumps(job)], check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    b.figures.append({"what": what, "bar": "≤ 150 MB", **answer})
    print(f"{what:<58} {answer['peakMegabytes']:7.0f} MB in {answer['seconds']:.1f} s   (≤ 150 MB)", flush=True)


def one(job: dict[str, Any]) -> dict[str, Any]:
    """What the process of ``report_peak`` does."""
    connections = {
        n: replace(parse_url(n, u), options={"create": True} if u.startswith("sqlite") else {})
        for n, u in job["connections"].items()
    }
    folder = Path(job["folder"])
    ctx = RunContext(resolve_connection=connections.__getitem__, temp_dir=folder, data_dir=folder)
    started = time.perf_counter()
    registry.get(job["kind"]).call(job["payload"], ctx)
    seconds = time.perf_counter() - started
    # not getrusage's ru_maxrss: that of a child begins with what its parent held
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": round(seconds, 2), "peakMegabytes": round(int(peak.split()[1]) / 1024)}


PARTS: dict[str, Callable[[Bench], None]] = {"transfer": transfers, "compare": compares, "memory": memory}


def main() -> None:
    os.environ.setdefault("TASKCENTER_FILE_ROOTS", tempfile.gettempdir())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", help="a Python with pandas, psycopg2 and reladiff")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with bench(args.rows, args.rounds, args.peers) as made:
        for name in args.parts or list(PARTS):
            PARTS[name](made)
        if args.json:
            print(json.dumps(made.figures, ensure_ascii=False))


if __name__ == "__main__":
    main()
