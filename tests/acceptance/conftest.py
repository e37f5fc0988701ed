"""A whole center as a user starts it: ``taskcenter up`` in an empty home, on ports of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from taskcenter_adapter.postgres import remove_cluster

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]


def clean_env(**more: str) -> dict[str, str]:
    """The environment of a user who set nothing."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "TASKCENTER_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200", **more}


@dataclass
class Started:
    """A running center and a shell beside it."""

    home: Path
    process: subprocess.Popen[bytes]
    output: Path
    state: dict[str, Any]

    def env(self, **more: str) -> dict[str, str]:
        own = {"TASKCENTER_HOME": str(self.home), "PREFECT_API_URL": self.state["prefectApiUrl"]}
        return clean_env(**{**own, "PREFECT_HOME": str(self.home / "shell"), **more})

    def shell(
        self, *argv: str, timeout: float = 120, cwd: Path = ROOT, stdin: str | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a second shell would."""
        return subprocess.run(
            argv,
            env=self.env(**env),
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def taskcenter(self, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.shell("taskcenter", *argv, **more)

    def json(self, *argv: str) -> Any:
        done = self.taskcenter(*argv, "--json")
        assert done.returncode in (0, 1), done.stderr
        return json.loads(done.stdout)

    def api(self, path: str) -> Any:
        return httpx.get(f"{self.state['serviceUrl']}{path}", timeout=10).json()


def start_center(
    home: Path, *options: str, timeout: float = 90, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Started:
    """Start ``taskcenter up`` and wait until it serves."""
    output = home.parent / f"{home.name}.out"
    argv = ["taskcenter", "up", "--port", "0", "--prefect-port", "0", *options]
    with open(output, "wb") as out:
        process = subprocess.Popen(
            argv,
            env=clean_env(TASKCENTER_HOME=str(home), **(env or {})),
            cwd=cwd,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    end = time.monotonic() + timeout
    while "serving" not in output.read_text(errors="replace"):
        assert process.poll() is None, output.read_text(errors="replace")
        assert time.monotonic() < end, output.read_text(errors="replace")
        time.sleep(0.1)
    state = json.loads((home / "run" / "state.json").read_text())
    return Started(home, process, output, state)


def stop_center(started: Started, timeout: float = 60) -> int:
    if started.process.poll() is None:
        started.process.send_signal(signal.SIGTERM)
    code = started.process.wait(timeout)
    remove_cluster(started.home)
    return code


def left_running(home: Path, names: Sequence[str] = ()) -> list[str]:
    """Command lines of processes that name this home."""
    done = subprocess.run(["ps", "axww", "-o", "pid,command"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if str(home) in line and " ps " not in line]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    started = start_center(tmp_path_factory.mktemp("acceptance") / "home")
    try:
        yield started
    finally:
        stop_center(started)
