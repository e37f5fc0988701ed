"""Fills a database with a long history, by SQL alone so that a million runs take a minute."""

from __future__ import annotations

from sqlalchemy import Engine

__all__ = ["fill"]

TASKS = 200


def fill(engine: Engine, runs: int, lines: int, days: int = 60) -> None:
    """``runs`` finished runs, evenly over the last ``days`` days, with ``lines`` log lines each, in the order of time.

    Ids are random, as Prefect's are, so that every index but those of time is met all over.
    """
    postgres = engine.dialect.name == "postgresql"
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        cursor = raw.cursor()
        if postgres:
            cursor.execute("SET synchronous_commit = off; SET work_mem = '256MB'; SET maintenance_work_mem = '512MB'")
            for statement in _postgres(runs, lines, days):
                cursor.execute(statement)
            raw.commit()
            raw.autocommit = True
            cursor.execute("VACUUM ANALYZE")
            return
        for pragma in ("cache_size=-2000000", "synchronous=OFF", "wal_autocheckpoint=100000"):
            cursor.execute(f"PRAGMA {pragma}")
        for statement in _sqlite(runs, lines, days)[: 3 if lines else 2]:
            cursor.execute("BEGIN")
            cursor.execute(statement)
            cursor.execute("COMMIT")
        cursor.execute("ANALYZE")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    engine.dispose()


_TASK = (
    "id, slug, name, task_type, status, payload, tags, expensive, priority, max_concurrent, environment, termination, "
    "retry_policy, revision, created_at, updated_at, sort_name, search_text"
)
_RUN = (
    "id, task_id, task_slug, task_type, origin, status, attempt, total_attempts, root_run_id, dry_run, name, "
    "created_at, started_at, finished_at, duration_ms, message, followed"
)
_LINE = "run_id, sequence, time, level, message, stream"
_WORDS = ("orders", "billing", "customers", "stock", "ledger", "refunds", "nightly", "mirror", "audit", "sample")
_ANIMALS = ("otter", "falcon", "lynx", "heron", "badger", "marten", "osprey", "viper", "bison", "gecko")
_COLOURS = ("calm", "amber", "brave", "cobalt", "dusty", "eager", "frosty", "gentle", "hazel", "ivory")


def _pick(words: tuple[str, ...], number: str, postgres: bool) -> str:
    if postgres:
        return f"(ARRAY[{', '.join(repr(word) for word in words)}])[1 + (({number}) % {len(words)})::int]"
    cases = " ".join(f"WHEN {index} THEN {word!r}" for index, word in enumerate(words))
    return f"CASE ({number}) % {len(words)} {cases} END"


def _slug(number: str, postgres: bool) -> str:
    return f"{_pick(_WORDS, number, postgres)} || '-' || ({number})"


def _postgres(runs: int, lines: int, days: int) -> list[str]:
    slug = _slug("n % 200", True)
    step = days * 86_400 / runs
    began = f"now() - interval '{days} days' + n * interval '{step:.6f} seconds'"
    name = f"{_pick(_COLOURS, 'n / 7', True)} || '-' || {_pick(_ANIMALS, 'n / 11', True)} || '-' || (n % 9973)"
    return [
        f"""INSERT INTO tasks ({_TASK}) SELECT 'task-' || n, {_slug("n", True)}, {_slug("n", True)}, 'shell', 'active',
            '{{}}', '[]', false, 'normal', 0, '{{}}', '{{}}', '{{}}', 1, now(), now(), {_slug("n", True)},
            {_slug("n", True)} FROM generate_series(0, {TASKS - 1}) n""",
        f"""INSERT INTO task_runs ({_RUN}) SELECT u, 'task-' || (n % {TASKS}), {slug}, 'shell', 'scheduler',
            CASE WHEN n % 20 = 0 THEN 'failed' WHEN n % 33 = 0 THEN 'cancelled' ELSE 'success' END, 1, 1, u, false,
            {name}, moment, moment, moment + interval '2 seconds', 2000, 'row ' || n || ' of the day was done', true
            FROM (SELECT n, gen_random_uuid()::text u, {began} AS moment FROM generate_series(0, {runs - 1}) n) s""",
        f"""INSERT INTO task_run_logs ({_LINE}) SELECT id, k, created_at + k * interval '10 ms', 'info',
            'line ' || k || ' of ' || name || ': the copy of the table went on as it should', 'log'
            FROM (SELECT id, name, created_at FROM task_runs ORDER BY created_at) r,
            generate_series(0, {lines - 1}) k""",
    ]


def _sqlite(runs: int, lines: int, days: int) -> list[str]:
    slug = _slug("n % 200", False)
    step = days * 86_400 / runs

    def when(offset: str) -> str:
        second = f"({offset})"
        return (
            f"strftime('%Y-%m-%d %H:%M:%S', 'now', '-{days} days', (CAST({second} AS INTEGER)) || ' seconds')"
            f" || printf('.%06d', CAST(({second} - CAST({second} AS INTEGER)) * 1000000 AS INTEGER))"
        )

    series = "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {last})"
    uuid = "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || "
    uuid += "substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))"
    name = f"{_pick(_COLOURS, 'n / 7', False)} || '-' || {_pick(_ANIMALS, 'n / 11', False)} || '-' || (n % 9973)"
    slug_n = _slug("n", False)
    return [
        f"""{series.format(last=TASKS - 1)} INSERT INTO tasks ({_TASK})
            SELECT 'task-' || n, {slug_n}, {slug_n}, 'shell', 'active', '{{}}', '[]', 0, 'normal', 0, '{{}}', '{{}}',
            '{{}}', 1, {when("0")}, {when("0")}, {slug_n}, {slug_n} FROM s""",
        f"""{series.format(last=runs - 1)}, u(n, id) AS MATERIALIZED (SELECT n, {uuid} FROM s)
            INSERT INTO task_runs ({_RUN}) SELECT id, 'task-' || (n % {TASKS}), {slug}, 'shell', 'scheduler',
            CASE WHEN n % 20 = 0 THEN 'failed' WHEN n % 33 = 0 THEN 'cancelled' ELSE 'success' END, 1, 1, id, 0,
            {name}, {when(f"n * {step:.6f}")}, {when(f"n * {step:.6f}")}, {when(f"n * {step:.6f} + 2")}, 2000,
            'row ' || n || ' of the day was done', 1 FROM u""",
        f"""{series.format(last=lines - 1)} INSERT INTO task_run_logs ({_LINE})
            SELECT r.id, s.n, substr(r.created_at, 1, 23) || printf('%03d', s.n), 'info',
            'line ' || s.n || ' of ' || r.name || ': the copy of the table went on as it should', 'log'
            FROM task_runs r CROSS JOIN s ORDER BY r.rowid""",
    ]
