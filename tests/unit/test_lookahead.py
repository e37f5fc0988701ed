"""Why, simulate, backtest, ledger and previews: services, command line and REST over a real store (spec 4.9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taskcenter.clock import utc_now
from taskcenter.errors import ValidationFailed
from taskcenter.models import Run, Task, Trigger
from taskcenter.ports import Changes
from taskcenter.scheduling.state import Hold, Mode
from taskcenter.settings import Settings
from taskcenter.status import Origin, RunStatus
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.store import open_store
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.scheduler.tick import tick
from taskcenter_console.services import lookahead
from taskcenter_console.services.center import Center
from taskcenter_console.services.periods import instant, period
from tests.fakes import FakeGateway, api_client

HOUR = timedelta(hours=1)


class Clock:
    time = utc_now()

    def now(self) -> datetime:
        return self.time


@pytest.fixture
def center(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Center]:
    url = f"sqlite:///{tmp_path}/center.db"
    engine = make_engine(url)
    upgrade(engine)
    engine.dispose()
    store = open_store(url, clock=Clock())
    made = Center(Settings(home=tmp_path / "home"), open_store=lambda: store, open_gateway=FakeGateway)
    monkeypatch.setattr(common, "open_center", lambda: made)
    monkeypatch.setattr(common, "center_if_running", lambda: made)
    monkeypatch.setattr(made, "close", lambda: None)
    yield made
    store.close()


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="taskcenter")


def data_of(*args: str, code: int = 0) -> Any:
    result = invoke(*args, "--json")
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


def save(center: Center, slug: str, *triggers: dict[str, Any], **about: Any) -> Task:
    made = tuple(Trigger.model_validate({"id": f"{slug}-{n}", **trigger}) for n, trigger in enumerate(triggers))
    task = Task(id=f"id-{slug}", slug=slug, name=slug, task_type="shell", payload={"command": ["true"]}, **about)
    return center.store.save_task(task.model_copy(update={"triggers": made}))


def ran(center: Center, task: Task, run_id: str, began: datetime, seconds: float) -> None:
    run = Run(
        id=run_id, task_id=task.id, task_slug=task.slug, task_type="shell", created_at=began, started_at=began,
        finished_at=began + timedelta(seconds=seconds), status=RunStatus.SUCCESS,
    )  # fmt: skip
    center.store.record(Changes(runs=[run]))


# --- times ------------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC).astimezone()


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("13:00-14:30", (0, 13, 0), (0, 14, 30)),
        ("23:00-01:00", (0, 23, 0), (1, 1, 0)),
        ("2026-05-05T01:00..2026-05-05T02:00", (1, 1, 0), (1, 2, 0)),
        ("2026-05-05T01:00-2026-05-05T02:00", (1, 1, 0), (1, 2, 0)),
        ("2026-05-05 01:00 / 2026-05-05 02:00", (1, 1, 0), (1, 2, 0)),
    ],
)
def test_periods_are_read_as_people_write_them(text: str, since: Any, until: Any) -> None:
    def there(day: int, hour: int, minute: int) -> datetime:
        return NOON.replace(hour=hour, minute=minute) + timedelta(days=day)

    assert period(text, "--outage", NOON) == (there(*since), there(*until))


def test_periods_may_count_from_the_beginning() -> None:
    assert period("+1h-+90m", "--outage", NOON) == (NOON + HOUR, NOON + 1.5 * HOUR)
    assert instant("+1d", "--to", NOON) == NOON + 24 * HOUR


@pytest.mark.parametrize("text", ["", "soon", "13:00", "2026-05-05T02:00/2026-05-05T01:00", "25:00-26:00"])
def test_what_is_no_period_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValidationFailed, match="is no period from A to B"):
        period(text, "--outage", NOON)


# --- why --------------------------------------------------------------------------------------------------------------


def test_why_names_the_gate_that_holds_and_since_when(center: Center) -> None:
    save(center, "report", {"type": "cron", "cronExpression": "* * * * *"})
    now = utc_now()
    center.need_schedule().hold(Hold(Mode.PAUSED, now - HOUR, by="ann", note="release"), now)
    found = data_of("why", "report", "--at", "+10m")
    assert [gate["gate"] for gate in found["gates"] if gate["verdict"] == "hold"] == ["scheduler"]
    assert found["runs"] is False
    assert found["answer"] == "the scheduler is paused by ann until somebody ends it: release"
    text = invoke("why", "report", "--at", "+10m").stdout
    assert "✗ scheduler" in text
    assert "● worker" in text


def test_why_of_a_past_time_is_what_the_ledger_recorded(center: Center) -> None:
    save(center, "report", {"type": "cron", "cronExpression": "* * * * *", "misfirePolicy": "skip"})
    later = utc_now() + 2 * HOUR
    tick(center.need_schedule(), later)
    at_ = (utc_now() + HOUR).isoformat()
    found = lookahead.why(center, "report", utc_now() - HOUR)
    assert (found.runs, found.answer) == (None, "nothing is recorded of it up to then")
    rows = center.need_schedule().ledger(until=datetime.fromisoformat(at_))
    assert rows
    assert "was skipped: it was" in lookahead.Why(found.task, found.at, (), rows).answer


def test_why_of_a_task_without_a_trigger_and_of_one_that_is_not_there(center: Center) -> None:
    save(center, "bare", status="paused")
    found = data_of("why", "bare")
    held = [gate["gate"] for gate in found["gates"] if gate["verdict"] == "hold"]
    assert held == ["timetable", "task"]
    assert invoke("why", "nobody").exit_code == 3
    assert "has no trigger 'zzz'" in invoke("why", "bare", "--trigger", "zzz").stderr


# --- simulate ---------------------------------------------------------------------------------------------------------


def fleet(center: Center) -> None:
    for n in range(4):
        task = save(center, f"task{n}", {"type": "cron", "cronExpression": "0 * * * *"})
        for k in range(3):
            ran(center, task, f"run-{n}-{k}", utc_now() - (k + 2) * HOUR, 600 + 60 * k)


DAY = ("--from", "2027-03-01T00:00+00:00", "--to", "2027-03-02T00:00+00:00")


def test_a_simulation_tells_verdicts_lateness_and_occupancy(center: Center) -> None:
    fleet(center)
    found = data_of("simulate", *DAY)
    assert (found["slots"], found["verdicts"]) == (100, {"fired": 100})
    assert found["lateness"]["max"] == 0
    assert {task["task"]: task["runs"] for task in found["tasks"]} == {f"task{n}": 25 for n in range(4)}
    assert found["runs"][0]["lateSeconds"] == 0
    assert max(hour["peak"] for hour in found["occupancy"]) == 4
    tight = data_of("simulate", *DAY, "--set", "limit=2", "--seed", "3")
    assert tight["pool"] == 2
    assert tight["lateness"]["max"] >= 600
    assert tight == data_of("simulate", *DAY, "--set", "limit=2", "--seed", "3")


def test_an_outage_and_a_pause_can_be_tried_out(center: Center) -> None:
    fleet(center)
    away = data_of("simulate", *DAY, "--outage", "2027-03-01T02:30Z/2027-03-01T05:30Z")
    assert (away["verdicts"], away["misfires"]) == ({"fired": 92, "coalesced": 8}, 4)
    paused = data_of("simulate", *DAY, "--pause", "2027-03-01T02:30Z/2027-03-01T05:30Z")
    assert paused["verdicts"] == away["verdicts"]
    drawn = invoke("simulate", *DAY, "--gantt").stdout
    assert "█" in drawn
    assert "busiest hour" in drawn


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--from", "+1h", "--to", "-1h"), "must lie after the beginning"),
        (("--to", "+60d"), "a simulation is for at most so many"),
        (("--set", "limit"), "must end in =N"),
        (("--set", "places=3"), "is no limit"),
        (("--set", "task.nobody=3"), "there is no task 'nobody'"),
        (("--outage", "yesterday"), "is no period"),
        (("--from", "noon"), "is no time"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(center: Center, given: tuple[str, ...], said: str) -> None:
    result = invoke("simulate", *given)
    assert result.exit_code == 2
    assert said in result.stderr


# --- backtest ---------------------------------------------------------------------------------------------------------


SECONDS = {"minutely": 20, "slow": 150, "buffered": 200, "once": 5, "every": 40, "patient": 10, "chained": 7}


class Shift:
    """Half an hour of a scheduler at work, an hour ago: it ticks every 5 s, its runs start at once."""

    def __init__(self, center: Center) -> None:
        self.center = center
        self.schedule = center.need_schedule()
        self.start = (utc_now() - 2 * HOUR).replace(minute=0, second=0, microsecond=0)
        self.clock: Any = center.store._clock  # type: ignore[attr-defined]
        self.going: list[Run] = []

    def define(self) -> None:
        self.clock.time = self.start + timedelta(seconds=2)
        minute = timedelta(minutes=1)
        save(self.center, "minutely", {"type": "cron", "cronExpression": "* * * * *"})
        save(self.center, "slow", {"type": "cron", "cronExpression": "*/2 * * * *"})
        save(self.center, "buffered", {"type": "cron", "cronExpression": "*/3 * * * *", "overlap": "buffer_one"})
        save(self.center, "once", {"type": "one_shot", "runAt": (self.start + 5 * minute).isoformat()})
        save(self.center, "every", {"type": "interval", "intervalSeconds": 90, "anchor": self.start.isoformat()})
        save(self.center, "patient", {"type": "cron", "cronExpression": "* * * * *", "misfirePolicy": "skip"})
        save(self.center, "chained", {"type": "after", "taskIds": ["id-slow"]})

    def work(self) -> None:
        seconds = 5
        while seconds < 1_800:
            now = self.start + timedelta(seconds=seconds, milliseconds=120)
            seconds += 5
            self.clock.time = now
            self.finish(now)
            if 600 <= seconds < 845:
                continue  # away
            if seconds == 1_215:
                self.schedule.hold(Hold(Mode.PAUSED, now, by="ann"), now)
            if seconds == 1_400:
                self.schedule.hold(None, now)
            tick(self.schedule, now, late=True)
            if self.schedule.standing().at(now) is None:  # what waits for its turn waits for the end of the pause too
                self.dispatch(now)

    def finish(self, now: datetime) -> None:
        over = [run for run in self.going if run.started_at and run.started_at + self.takes(run) <= now]
        for run in over:
            assert run.started_at is not None
            ended = run.model_copy(
                update={"status": RunStatus.SUCCESS, "finished_at": run.started_at + self.takes(run)}
            )
            self.center.store.record(Changes(runs=[ended]))
        self.going = [run for run in self.going if run not in over]

    def takes(self, run: Run) -> timedelta:
        return timedelta(seconds=SECONDS[run.task_slug])

    def dispatch(self, now: datetime) -> None:
        found = [item for item in self.schedule.requests.wanted(now) if not item.request.ahead]
        self.schedule.requests.made([(item.request, f"flow {item.request.key}"[:36]) for item in found])
        for item in found:
            request = item.request
            run = Run(
                id=f"flow {request.key}"[:36], task_id=request.task_id, task_slug=item.slug, task_type="shell",
                trigger_id=request.trigger_id, slot=request.slot, origin=Origin(request.origin), created_at=now,
                started_at=now + timedelta(milliseconds=300), status=RunStatus.RUNNING,
            )  # fmt: skip
            self.center.store.record(Changes(runs=[run]))
            self.going.append(run)


def test_half_an_hour_at_work_is_told_to_the_last_verdict(center: Center) -> None:
    shift = Shift(center)
    shift.define()
    shift.work()
    counts = center.need_schedule().verdict_counts()
    assert {verdict for verdict in counts if counts[verdict]} >= {"fired", "skipped", "coalesced"}
    found = lookahead.backtest(center, days=1).to_dict()
    assert found["differences"] == []
    assert (found["agreement"], found["compared"]) == (100.0, sum(counts.values()))
    assert "verdicts agree (100.00 %)" in invoke("backtest").stdout


def test_a_period_in_which_nothing_happened(center: Center) -> None:
    assert data_of("backtest")["compared"] == 0
    assert "more than 0" in invoke("backtest", "--days", "0").stderr


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_the_ledger_of_a_task_newest_first(center: Center) -> None:
    center.store._clock.time = utc_now() - HOUR  # type: ignore[attr-defined]
    save(center, "report", {"type": "cron", "cronExpression": "* * * * *", "misfirePolicy": "skip"})
    tick(center.need_schedule(), utc_now() - HOUR / 2)
    tick(center.need_schedule(), utc_now())
    found = data_of("ledger", "report")
    assert found["task"] == "report"
    assert {row["verdict"] for row in found["items"]} == {"skipped"}
    slots = [row["slot"] for row in found["items"]]
    assert slots == sorted(slots, reverse=True)
    shown = invoke("ledger", "report", "--limit", "1").stdout
    assert "slots" in shown
    assert "the misfire policy is skip" in shown
    assert data_of("ledger", "report", "--verdict", "fired")["items"] == []
    assert "there is no verdict 'gone'" in invoke("ledger", "report", "--verdict", "gone").stderr


# --- previews ---------------------------------------------------------------------------------------------------------


def test_a_preview_says_when_and_what_is_doubtful(center: Center) -> None:
    found = data_of("trigger", "preview", "--cron", "30 2 * * mon-fri", "--timezone", "Europe/Berlin", "--count", "7")
    assert found["sentence"] == "at 02:30 every weekday, Europe/Berlin"
    assert len(found["slots"]) == 7
    assert {problem["code"] for problem in found["problems"]} <= {"gap", "overlap"}
    assert found["suggestions"] == []
    lines = invoke("trigger", "preview", "--cron", "* 2 * * *").stdout
    assert "! every_minute: " in lines


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--cron", "0 0 30 2 *"), "never comes"),
        (("--cron", "61 * * * *"), "the minute 61 is outside"),
        (("--every", "0.5"), "at least 1 second"),
        (("--cron", "0 0 * * *", "--timezone", "Mars/Olympus"), "is not a known time zone"),
        (("--cron", "0 0 * * *", "--calendar", "nope"), "no calendar 'nope' is known"),
    ],
)
def test_a_preview_of_what_would_be_refused_says_why_and_ends_with_1(
    center: Center, given: tuple[str, ...], said: str
) -> None:
    result = invoke("trigger", "preview", *given)
    assert result.exit_code == 1
    assert said in result.stdout


def test_who_fires_at_the_same_moment_is_told_with_quieter_minutes(center: Center) -> None:
    for n in range(3):
        save(center, f"nightly{n}", {"type": "cron", "cronExpression": "0 2 * * *"})
    save(center, "later", {"type": "cron", "cronExpression": "1 2 * * *"})
    found = data_of("trigger", "preview", "--cron", "0 2 * * *")
    assert found["sameSlot"] == 3
    assert [one["cronExpression"] for one in found["suggestions"]] == ["2 2 * * *", "3 2 * * *", "4 2 * * *"]
    assert "quieter: " in invoke("trigger", "preview", "--cron", "0 2 * * *").stdout
    own = data_of("trigger", "preview", "nightly0")
    assert own["sameSlot"] == 2, "it does not count itself"
    moved = data_of("trigger", "preview", "nightly0", "--cron", "7 2 * * *")
    assert moved["sameSlot"] == 0


def test_lint_lists_what_saved_triggers_may_not_have_meant(center: Center) -> None:
    save(center, "fine", {"type": "cron", "cronExpression": "7 4 * * *"})
    assert data_of("trigger", "lint") == {"items": []}
    save(center, "odd", {"type": "cron", "cronExpression": "* 3 1 * mon"})
    found = data_of("trigger", "lint", code=1)["items"]
    assert {(item["task"], item["code"]) for item in found} == {("odd", "every_minute"), ("odd", "day_and_weekday")}
    assert data_of("trigger", "lint", "fine") == {"items": []}
    save(center, "twin", {"type": "cron", "cronExpression": "7 4 * * *"})
    (one,) = data_of("trigger", "lint", "fine", code=1)["items"]
    assert one["code"] == "same_slot"
    assert one["message"].startswith("comes next in the same minute as 1 other task: ")


def test_a_preview_obeys_window_and_calendar() -> None:
    start = datetime(2026, 5, 4, 12, tzinfo=UTC)
    window = {"startAt": "2026-05-04T13:30Z", "endAt": "2026-05-04T15:30Z"}
    found = lookahead.preview({"type": "cron", "cronExpression": "0 * * * *", **window}, now=start)
    assert [slot.at.hour for slot in found.found.slots] == [14, 15]
    every = lookahead.preview({"type": "interval", "intervalSeconds": 60}, now=start, count=2)
    assert [slot.at - start for slot in every.found.slots] == [timedelta(minutes=1), timedelta(minutes=2)]


# --- over REST --------------------------------------------------------------------------------------------------------


def test_the_same_over_rest(center: Center) -> None:
    fleet(center)
    client = api_client(center)
    why = client.get("/api/tasks/task0/why").json()
    assert why["task"] == "task0"
    assert [gate["gate"] for gate in why["gates"]][:3] == ["timetable", "calendar", "scheduler"]
    asked = {"from": "2027-03-01T00:00Z", "to": "2027-03-02T00:00Z", "set": ["limit=2"], "seed": 3, "runs": 5}
    made = client.get("/api/simulate", params=asked).json()
    assert (made["slots"], made["pool"], made["runCount"], len(made["runs"])) == (100, 2, 100, 5)
    away = {**asked, "outage": "2027-03-01T02:30:00+00:00/2027-03-01T05:30:00+00:00"}
    assert client.get("/api/simulate", params=away).json()["verdicts"] == {"fired": 92, "coalesced": 8}
    assert client.get("/api/backtest", params={"days": 2}).json()["agreement"] == 100.0
    shown = client.get(
        "/api/triggers/preview", params={"type": "cron", "cronExpression": "0 * * * *", "count": 3}
    ).json()
    assert (shown["ok"], len(shown["slots"]), shown["sameSlot"]) == (True, 3, 4)
    assert client.get("/api/triggers/preview", params={"trigger": "task1"}).json()["sameSlot"] == 3


@pytest.mark.parametrize(
    ("path", "params", "status", "said"),
    [
        ("/api/tasks/nobody/why", {}, 404, "nobody"),
        ("/api/simulate", {"to": "2000-01-01T00:00Z"}, 422, "must lie after the beginning"),
        ("/api/simulate", {"set": "limit=many"}, 422, "must end in =N"),
        ("/api/simulate", {"outage": "soon"}, 422, "is no period"),
        ("/api/backtest", {"days": 0}, 422, "greater than 0"),
        ("/api/triggers/preview", {}, 422, "is missing"),
        ("/api/triggers/preview", {"type": "sometimes"}, 422, "Input should be"),
        ("/api/triggers/preview", {"trigger": "nobody"}, 404, "nobody"),
    ],
)
def test_refusals_over_rest_are_sentences(center: Center, path: str, params: Any, status: int, said: str) -> None:
    answer = api_client(center).get(path, params=params)
    assert answer.status_code == status, answer.text
    assert said in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


ODD = st.sampled_from(
    [
        *(
            "",
            " ",
            "now",
            "0",
            "-1",
            "1e400",
            "NaN",
            "true",
            "null",
            "[]",
            "😀",
            "\u202e",
            "a" * 300,
            "%s",
            "../x",
            "limit=1",
        ),
        *("limit=1", "limit=999999", "task.task0=1", "task.=1", "tag.x=0", "+1d", "+999999999999d"),
        *("9999-12-31T23:59:59Z", "one_shot"),
        *("0001-01-01T00:00:00Z", "2027-03-01T00:00Z", "2027-03-01T00:00Z/2027-03-02T00:00Z", "23:00-01:00", "cron"),
        *(
            "* * * * *",
            "0 0 30 2 *",
            "interval",
            "planned",
            "after",
            "task0",
            "Europe/Berlin",
            "Pacific/Apia",
            "one_shot",
        ),
    ]
)
FIELDS = (
    *("at", "trigger", "from", "to", "outage", "pause", "set", "seed", "runs", "days", "type", "cronExpression"),
    *("intervalSeconds", "anchor", "runAt", "timezone", "startAt", "endAt", "calendar", "calendarRule", "count"),
)


@pytest.mark.parametrize("path", ["/api/tasks/task0/why", "/api/simulate", "/api/backtest", "/api/triggers/preview"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=5))
@example(query={"from": "9999-12-31T23:59:59Z", "outage": "23:00-01:00"})
@example(query={"from": "0001-01-01T00:00:00Z"})
def test_no_question_is_a_defect(center: Center, path: str, query: dict[str, str]) -> None:
    if center.store.find_task("task0") is None:
        fleet(center)
    own = {"simulate": FIELDS[2:9], "why": FIELDS[:2], "backtest": ("days",)}.get(path.rpartition("/")[2], FIELDS)
    asked = {key: value for key, value in query.items() if key in own}
    answer = api_client(center).get(path, params=asked)
    assert answer.status_code in (200, 404, 422), answer.text
    assert "Traceback" not in answer.text
