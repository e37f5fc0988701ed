"""The fixtures that users get: a clock to move, a center that runs on it (spec 4.9)."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from taskcenter.errors import NotFound, ValidationFailed
from taskcenter.status import RunStatus
from taskcenter.testing import SimulatedCenter, VirtualClock, center

ROOT = Path(__file__).resolve().parents[2]
F, C, S = "fired", "coalesced", "skipped"


def told(center: SimulatedCenter, task: str) -> dict[str, str]:
    return {f"{slot:%d %H:%M}": verdict.value for slot, verdict in center.verdicts(task).items()}


def test_the_clock_stands_still_until_it_is_moved(virtual_clock: VirtualClock) -> None:
    assert virtual_clock.now() == virtual_clock.now() == datetime(2026, 1, 5, tzinfo=UTC)
    assert virtual_clock.advance(hours=2).hour == 2
    assert virtual_clock.set("2026-03-29T01:30:00+01:00") == datetime(2026, 3, 29, 0, 30, tzinfo=UTC)


def test_everything_happens_at_its_time(simulated_center: SimulatedCenter) -> None:
    simulated_center.task("report", cron="30 2 * * *", takes=300)
    simulated_center.advance(days=2)
    assert told(simulated_center, "report") == {"05 02:30": F, "06 02:30": F}
    (first, _) = simulated_center.runs("report")
    assert first.started_at == first.slot
    assert (first.finished_at, first.status) == (first.started_at + timedelta(minutes=5), RunStatus.SUCCESS)
    assert simulated_center.clock.now() == datetime(2026, 1, 7, tzinfo=UTC)


def test_an_outage_is_made_up_for_by_the_policy(simulated_center: SimulatedCenter) -> None:
    for policy in ("fire_now", "fire_all", "skip"):
        simulated_center.task(policy, cron="* * * * *", takes=1, misfire_policy=policy)
    simulated_center.advance(seconds=30)
    simulated_center.outage(minutes=3, seconds=5)
    assert {name: len(simulated_center.runs(name)) for name in ("fire_now", "fire_all", "skip")} == {
        "fire_now": 1,
        "fire_all": 3,
        "skip": 0,
    }
    assert sum(run.started_at is not None for run in simulated_center.runs("fire_all")) == 1, "one after another"
    simulated_center.advance(minutes=1)
    assert told(simulated_center, "fire_all") == dict.fromkeys(("05 00:01", "05 00:02", "05 00:03", "05 00:04"), F)
    assert told(simulated_center, "skip") == {"05 00:01": S, "05 00:02": S, "05 00:03": S, "05 00:04": F}


def test_a_pause_holds_and_the_one_who_ends_it_may_choose(simulated_center: SimulatedCenter) -> None:
    simulated_center.task("report", cron="0 * * * *", misfire_policy="skip")
    simulated_center.pause(note="release")
    simulated_center.advance(hours=3)
    assert simulated_center.held_by("report") == ["scheduler", "misfire"]
    assert simulated_center.verdicts("report") == {}
    simulated_center.resume(policy="fire_now")
    assert told(simulated_center, "report") == {"05 01:00": C, "05 02:00": C, "05 03:00": F}


def test_attempts_follow_failures_and_after_waits_for_the_last(simulated_center: SimulatedCenter) -> None:
    simulated_center.task(
        "load", at="2026-01-05 01:00", fails=lambda run: run.attempt < 3, retries=2, backoff_ms=60_000
    )
    simulated_center.task("report", after="load")
    simulated_center.task("alarm", after="load", condition="failed")
    simulated_center.advance(hours=2)
    runs = simulated_center.runs("load")
    assert [(run.attempt, run.status.value) for run in runs] == [(1, "failed"), (2, "failed"), (3, "success")]
    starts = [run.started_at for run in runs if run.started_at]
    assert [later - before for before, later in pairwise(starts)] == [
        timedelta(minutes=2),
        timedelta(minutes=3),
    ]
    assert [run.started_at for run in simulated_center.runs("report")] == [runs[-1].finished_at]
    assert simulated_center.runs("alarm") == []


def test_places_limits_and_overlap_are_those_of_the_center() -> None:
    tight = SimulatedCenter(places=1)
    for name in ("a", "b"):
        tight.task(name, cron="0 * * * *", takes=90)
    tight.task("often", cron="* * * * *", takes=150, priority="low")
    tight.advance(hours=1, minutes=4)
    assert [run.started_at.minute for name in ("a", "b") for run in tight.runs(name) if run.started_at] == [0, 2]
    assert set(told(tight, "often").values()) == {F, S}
    assert "priority" in tight.held_by("often") or "overlap" in tight.held_by("often")


def test_triggers_can_be_edited_removed_and_fired(simulated_center: SimulatedCenter) -> None:
    simulated_center.task("report")
    hourly = simulated_center.trigger("report", cron="0 * * * *")
    simulated_center.advance(minutes=90)
    simulated_center.edit(hourly, cron_expression="30 * * * *")
    simulated_center.advance(hours=1)
    simulated_center.remove(hourly)
    simulated_center.advance(hours=5)
    assert told(simulated_center, "report") == {"05 01:00": F, "05 02:30": F}
    simulated_center.trigger("report", type="ad_hoc", token_hash="c0ffee")
    simulated_center.fire("report", {"day": 5})
    assert len(simulated_center.runs("report")) == 3


def test_what_is_wrong_is_refused_as_it_would_be(simulated_center: SimulatedCenter) -> None:
    with pytest.raises(NotFound, match="there is no task 'report'"):
        simulated_center.trigger("report", cron="0 * * * *")
    simulated_center.task("report")
    with pytest.raises(ValidationFailed, match="never comes"):
        simulated_center.trigger("report", cron="0 0 30 2 *")
    with pytest.raises(NotFound, match="no trigger of type ad_hoc"):
        simulated_center.fire("report")


def test_the_examples_in_the_documents_run(tmp_path: Path) -> None:
    """As a user's own test file, in a process of its own, where pytest finds the plugin by itself."""
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    code = "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    (tmp_path / "test_of_a_user.py").write_text(code, encoding="utf-8")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{code.count('def test_')} passed" in done.stdout
    found = doctest.testmod(center, optionflags=doctest.ELLIPSIS)
    assert (found.failed, found.attempted > 0) == (0, True)
