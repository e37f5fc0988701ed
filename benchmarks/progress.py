"""What 10,000 progress reports a second cost the step that makes them. (spec 5.6)

``python -m benchmarks.progress`` does the same work with and without reports, in turns, and compares the
processor time.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from taskcenter.context import RunContext
from taskcenter.models import Run
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.recorder import Recorder
from taskcenter_adapter.store_sql import SqlStore

__all__ = ["main"]

_SECONDS = 3
_PER_SECOND = 10_000
_ROUNDS = 5


def _work(ctx: RunContext | None) -> float:
    """So many units of work, each followed by a report; processor seconds of this thread and the recorder's."""
    begin, count = time.process_time(), _SECONDS * _PER_SECOND
    for number in range(count):
        sum(range(5_000))  # some 60 µs: 10,000 of them are most of a second
        if ctx is not None:
            ctx.progress(100 * number / count, "rows", done=number, total=count)
    return time.process_time() - begin


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/center.db"
        upgrade(make_engine(url))
        store = SqlStore(make_engine(url))
        without, reporting, stored = [], [], []
        for turn in range(_ROUNDS):
            now = datetime.now(UTC)
            run = Run(id=f"run-{turn}", task_slug="t", task_type="python", created_at=now)
            recorder = Recorder(store, run, spool=Path(folder), now=lambda: datetime.now(UTC))
            recorder.set_run(message="at work")
            ctx = RunContext(on_progress=lambda *told, to=recorder: to.progress(None, *told))  # type: ignore[misc]
            without.append(_work(None))
            begin = time.monotonic()
            reporting.append(_work(ctx))
            took = time.monotonic() - begin
            recorder.close()
            stored.append(len(store.list_logs(run.id)) / took)
        store.close()
    cost = statistics.median(reporting) / statistics.median(without) - 1
    print(json.dumps({"costPercent": round(100 * cost, 1), "storedPerSecond": round(max(stored), 1)}))


if __name__ == "__main__":
    main()
