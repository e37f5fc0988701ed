"""What 10,000 progress reports a second cost the step that makes them. (spec 5.6)

``python -m benchmarks.progress`` runs the same loop at that pace with and without reports, in turns. The processor time
that the reports add to the whole process, the recorder's writing with it, is told as a part of the time that passed:
so much less is left for the work.
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


def _loop(ctx: RunContext | None) -> tuple[float, float]:
    """Processor seconds of this process and seconds that passed, for so many turns at their pace."""
    begin, cpu, count = time.monotonic(), time.process_time(), _SECONDS * _PER_SECOND
    for number in range(count):
        if ctx is not None:
            ctx.progress(100 * number / count, "rows", done=number, total=count)
        if number % 100 == 99:
            time.sleep(max(0.0, begin + number / _PER_SECOND - time.monotonic()))
    return time.process_time() - cpu, time.monotonic() - begin


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
            without.append(_loop(None)[0])
            spent, took = _loop(ctx)
            reporting.append(spent)
            recorder.close()
            stored.append(len(store.list_logs(run.id)) / took)
        store.close()
    cost = (statistics.median(reporting) - statistics.median(without)) / _SECONDS
    print(json.dumps({"costPercent": round(100 * cost, 1), "storedPerSecond": round(max(stored), 1)}))


if __name__ == "__main__":
    main()
