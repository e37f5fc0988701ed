"""A batch on a whole center: so many at once, one bad item, what it came to."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from tests.acceptance.conftest import Started


def test_a_batch_runs_so_many_at_once_and_keeps_partial_results(up: Started, tmp_path: Path) -> None:
    code = "import time; time.sleep(0.3); result = 12 // n"
    made = up.taskcenter("task", "create", "--name", "divide", "--type", "python", "--set", f"code={code}")
    assert made.returncode == 0, made.stderr
    file = tmp_path / "items.json"
    file.write_text(json.dumps([{"kwargs": {"n": n}} for n in (1, 2, 0, 3, 4)]))
    done = up.taskcenter("run", "divide", "--batch", str(file), "--parallel", "2", "--json")
    assert done.returncode == 1, done.stderr
    batch = json.loads(done.stdout)
    assert (batch["status"], batch["counts"]["success"], batch["counts"]["failed"]) == ("failed", 4, 1)
    assert [(error["count"], error["items"]) for error in batch["errors"]] == [(1, [3])]
    assert "ZeroDivisionError" in batch["errors"][0]["error"]
    found = up.api(f"/api/batches/{batch['id']}?results=true")["items"]
    assert [(item["result"] or {}).get("result") for item in found] == [12, 6, None, 4, 3]
    times = []
    for run in up.api(f"/api/runs?batch={batch['id']}")["items"]:
        times += [(datetime.fromisoformat(run["startedAt"]), 1), (datetime.fromisoformat(run["finishedAt"]), -1)]
    going = most = 0
    for _, step in sorted(times):
        going += step
        most = max(most, going)
    assert most <= 2
