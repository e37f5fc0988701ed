"""How fast the command line starts, and what it must not import to do so. Each test is a process of its own."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NIGHTLY = ROOT / "composites" / "catalog" / "nightly_sales.py"
HEAVY = ("prefect", "sqlalchemy", "fastapi", "uvicorn", "nicegui", "httpx", "rich")


def environment(home: Path) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TASKCENTER_", "PREFECT_"))}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**env, "TASKCENTER_HOME": str(home), "TASKCENTER_PROJECT": str(home)}


def run(home: Path, *args: str, code: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", code or "from taskcenter_console.cli import main; main()", *args]
    return subprocess.run(argv, capture_output=True, text=True, env=environment(home), cwd=home, timeout=60)


def seconds(home: Path, *args: str) -> tuple[float, float]:
    """Wall clock and processor time of one fresh process."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(home, *args).returncode == 0
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("args", "bound"),
    [(("--help",), 0.4), (("composite", "plan", str(NIGHTLY)), 0.8)],
    ids=["--help", "composite plan"],
)
def test_it_starts_fast(
    args: tuple[str, ...], bound: float, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The promises are 150 and 400 ms on a quiet machine. On a busy one the wall clock says more about the others,
    so the bound is on processor time; the median of the wall clock is reported beside it."""
    seconds(tmp_path, *args)  # writes the byte code
    walls, busy = zip(*(seconds(tmp_path, *args) for _ in range(7)), strict=True)
    record_property("median_seconds", f"{statistics.median(walls):.3f}")
    assert statistics.median(busy) < bound, f"median wall clock {statistics.median(walls):.3f} s"


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("--version",),
        ("task", "--help"),
        ("run", "--help"),
        ("composite", "check", str(NIGHTLY)),
        ("composite", "plan", str(NIGHTLY)),
        ("composite", "show", str(NIGHTLY)),
        ("composite", "render", str(NIGHTLY), "--format", "mermaid"),
        ("composite", "plan", "nightly-sales", "--skip", "alarm", "--json"),
        ("composite", "list"),
        ("plan", str(NIGHTLY)),
    ],
    ids=lambda args: " ".join(args).replace(str(NIGHTLY), "FILE"),
)
def test_nothing_heavy_is_imported(args: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom taskcenter_console.cli import cli\n"
        "try:\n    cli.main(prog_name='taskcenter')\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    result = run(tmp_path, *args, code=code)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1] == "[]"


def test_help_does_not_even_import_pydantic(tmp_path: Path) -> None:
    code = "import sys\nimport taskcenter_console.cli\nprint('pydantic' in sys.modules)"
    assert run(tmp_path, code=code).stdout == "False\n"


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "from taskcenter_console.cli import main; main()", "plan", str(NIGHTLY), "--json"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path), cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_a_narrow_encoding_still_prints_and_json_stays_json(tmp_path: Path) -> None:
    import json

    file = tmp_path / "zürich.json"
    step = {"stepKey": "a", "taskType": "wait", "payload": {"seconds": 0}}
    file.write_text(json.dumps({"name": "zürich", "description": "日本", "steps": [step]}), encoding="utf-8")
    env = {**environment(tmp_path), "PYTHONIOENCODING": "ascii"}
    argv = [sys.executable, "-c", "from taskcenter_console.cli import main; main()", "composite", "show", file.name]
    plain = subprocess.run(argv, capture_output=True, env=env, cwd=tmp_path, timeout=60)
    assert plain.returncode == 0, plain.stderr
    data = json.loads(subprocess.run([*argv, "--json"], capture_output=True, env=env, cwd=tmp_path, timeout=60).stdout)
    assert data["composite"]["description"] == "日本"


def test_completion_is_there(tmp_path: Path) -> None:
    env = {**environment(tmp_path), "_TASKCENTER_COMPLETE": "bash_complete", "COMP_WORDS": "taskcenter composite ",
           "COMP_CWORD": "2"}  # fmt: skip
    argv = [sys.executable, "-c", "from taskcenter_console.cli import main; main()"]
    result = subprocess.run(argv, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60)
    assert "plain,render" in result.stdout
