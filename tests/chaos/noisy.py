"""A task type for ``mirror``, and a door through which the reports of its runs go badly. Stands in its project.

Of the reports of every run one in five is given twice, and one in four comes late and in any order: it lies in the
spool under a name of chance until somebody replays it. Only the first one of a run comes as it should, since the others
need its row.
"""

from __future__ import annotations

import random
import time
import uuid
from pathlib import Path

from taskcenter import RunContext, task_type
from taskcenter.ports import Changes, Store
from taskcenter.settings import Settings
from taskcenter_adapter import recorder, spool
from taskcenter_adapter.runtime import spool_folder

_record = spool.record_all
_chance = random.Random()
_begun: set[str] = set()


def _badly(store: Store, changes: Changes) -> None:
    run_id = next(iter([row.id for row in changes.runs] + [row.run_id for row in (*changes.steps, *changes.logs)]), "")
    luck = _chance.random() if run_id in _begun else 1.0
    if luck < 0.25:
        _late(run_id, changes)
        return
    _record(store, changes)
    _begun.add(run_id)
    if luck < 0.35:
        _record(store, changes)
    elif luck < 0.45:
        _late(run_id, changes)


def _late(run_id: str, changes: Changes) -> None:
    folder = spool_folder(Settings.from_env().home)
    aside = folder / uuid.uuid4().hex
    spool.spool(aside, run_id, changes)
    for file in aside.glob("*.json"):
        file.rename(folder / f"{_chance.randrange(10**18)}-{run_id}.json")
    Path(aside).rmdir()


setattr(recorder, "record_all", _badly)  # noqa: B010  (a door of the test, not of the product)


@task_type("mirror_count", title="Count", category="test")
def mirror_count(ctx: RunContext, seconds: float = 0, lines: int = 3) -> dict[str, int]:
    for number in range(lines):
        ctx.logger.info("line %d of %d", number + 1, lines)
        time.sleep(seconds / lines)
        ctx.checkpoint()
    return {"lines": lines}
