"""What a trigger may not have meant, and what its editor shows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from taskcenter.models import Trigger
from taskcenter.scheduling.lint import lint
from taskcenter.scheduling.occurrences_preview import preview

PAGE = Path(__file__).parents[2] / "docs" / "time.md"
NOW = datetime(2026, 3, 27, tzinfo=UTC)


def cron(expression: str, timezone: str = "UTC") -> Trigger:
    return Trigger(type="cron", cron_expression=expression, timezone=timezone)


@pytest.mark.parametrize(
    ("expression", "timezone", "said"),
    [
        ("0 0 29 2 */7", "UTC", {"never_soon": "first on 2032-02-29", "day_and_weekday": "both match"}),
        ("* 2 * * *", "UTC", {"every_minute": "every minute of hour 2"}),
        ("*/1 */2 * * *", "UTC", {"every_minute": "every minute of hour */2"}),
        ("0 0 1 * mon", "UTC", {"day_and_weekday": "either is enough"}),
        (
            "30 2 * * *",
            "Europe/Berlin",
            {
                "gap": "02:30 does not exist on 2026-03-29 in Europe/Berlin: fires once, at 2026-03-29 03:00",
                "overlap": "02:30 comes twice on 2026-10-25 in Europe/Berlin: fires the first time only",
            },
        ),
        ("30 2 29 3 *", "Europe/Berlin", {"gap": "2026-03-29"}),
        (
            "15,45 1-2 * * *",
            "Australia/Lord_Howe",
            {"gap": "02:15 does not exist on 2026-10-04", "overlap": "01:45 comes twice on 2026-04-05"},
        ),
    ],
)
def test_what_may_not_be_meant_is_said_with_its_date(expression: str, timezone: str, said: dict[str, str]) -> None:
    found = {problem.code: problem for problem in lint(cron(expression, timezone), NOW, "triggers[1]")}
    assert set(found) == set(said)
    for code, words in said.items():
        assert words in found[code].message
        assert f"| `{code}` |" in PAGE.read_text(encoding="utf-8")
        assert (found[code].severity, found[code].path) == ("warning", "triggers[1].cronExpression")


@pytest.mark.parametrize(
    "expression",
    [
        "30 4 * * *",
        "*/15 * * * *",
        "* * * * *",
        "* 9-17 * * 1-5",
        "0 */2 * * *",
        "0 0 29 2 *",
        "0 0 30 2 *",
        "nonsense",
    ],
)
def test_nothing_is_said_without_a_reason(expression: str) -> None:
    assert lint(cron(expression, "Europe/Berlin"), NOW) == []
    assert lint(cron(expression, "Mars/Base"), NOW) == []
    assert lint(Trigger(type="interval", interval_seconds=60), NOW) == []


def test_a_preview_marks_what_the_clock_does() -> None:
    shown = preview(cron("30 2 * * *", "Europe/Berlin"), NOW, 4)
    assert shown.sentence == "at 02:30 every day, Europe/Berlin"
    assert [(f"{slot.wall:%d %H:%M}", slot.mark) for slot in shown.slots] == [
        ("27 02:30", None),
        ("28 02:30", None),
        ("29 03:00", "gap"),
        ("30 02:30", None),
    ]
    assert all(slot.at == slot.wall and slot.at.tzinfo is UTC for slot in shown.slots)
    assert [problem.code for problem in shown.problems] == ["gap", "overlap"]

    autumn = datetime(2026, 10, 24, 23, tzinfo=UTC)
    both = preview(cron("*/30 * * * *", "Europe/Berlin"), autumn, 8)
    assert [f"{slot.wall:%H:%M} {slot.mark or ''}".strip() for slot in both.slots] == [
        *("01:30", "02:00 overlap", "02:30 overlap", "02:00 overlap", "02:30 overlap", "03:00", "03:30", "04:00"),
    ]


def test_a_preview_of_what_cannot_be_used_says_why() -> None:
    shown = preview(cron("0 0 30 2 *"), NOW)
    assert shown.slots == ()
    assert [(problem.code, problem.severity) for problem in shown.problems] == [("never", "error")]
    assert preview(Trigger(type="one_shot", run_at=NOW), NOW).slots == ()
    assert len(preview(Trigger(type="interval", interval_seconds=90), NOW).slots) == 10
