"""The rows of the ledger: one verdict per slot, what may amend it, and how many alike become one (spec 4.4)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskcenter.errors import Conflict
from taskcenter.scheduling.ledger import RANGE_FROM, Ledger, Occurrence, Verdict, compress, may_amend
from taskcenter.slot_reasons import ON_TIME, SlotReason, SlotReasonCode
from tests.fleet import at


def row(minute: int, verdict: Verdict = Verdict.SKIPPED, late: int = 0, **about: Any) -> Occurrence:
    slot = at("12:00") + timedelta(minutes=minute)
    reason = about.pop("reason", SlotReason(SlotReasonCode.MISFIRE_POLICY, {"lateSeconds": late, "policy": "skip"}))
    return Occurrence("x", slot, verdict, reason, at("13:00"), "t", **about)


def test_many_alike_are_one_range_that_keeps_the_count() -> None:
    rows = [row(n, late=600 - n) for n in range(RANGE_FROM)]
    (made,) = compress(rows)
    assert (made.slot, made.until, made.count) == (rows[0].slot, rows[-1].slot, RANGE_FROM)
    assert made.covers(rows[2].slot)
    assert not made.covers(at("12:30"))
    assert compress(rows[1:]) == rows[1:], "a few stay by themselves"


@pytest.mark.parametrize(
    "other",
    [
        {"verdict": Verdict.EXPIRED},
        {"run_id": "r"},
        {"amends": Verdict.SUPERSEDED},
        {"reason": SlotReason(SlotReasonCode.OVERLAP)},
        {"reason": SlotReason(SlotReasonCode.MISFIRE_POLICY, {"policy": "reschedule"})},
    ],
)
def test_what_differs_stays_apart(other: dict[str, Any]) -> None:
    rows = [*(row(n) for n in range(5)), row(5, **other), *(row(n) for n in range(6, 11))]
    assert [made.count for made in compress(rows)] == [5, 1, 5]


def test_slots_with_a_run_of_their_own_are_never_a_range() -> None:
    rows = [row(n, Verdict.FIRED, reason=ON_TIME, run_id="r") for n in range(20)]
    assert compress(rows) == rows
    assert compress([]) == []


@pytest.mark.parametrize(
    ("before", "after", "may"),
    [
        (Verdict.SUPERSEDED, Verdict.FIRED, True),
        (Verdict.SUPERSEDED, Verdict.SUPERSEDED, True),
        (Verdict.FIRED, Verdict.SKIPPED, True),
        (Verdict.FIRED, Verdict.CANCELLED, True),
        (Verdict.FIRED, Verdict.FIRED, False),
        (Verdict.FIRED, Verdict.EXPIRED, False),
        (Verdict.SKIPPED, Verdict.BACKFILLED, True),
        (Verdict.SKIPPED, Verdict.FIRED, False),
        (Verdict.EXPIRED, Verdict.BACKFILLED, True),
        (Verdict.BACKFILLED, Verdict.BACKFILLED, False),
    ],
)
def test_few_verdicts_may_be_amended_and_only_by_name(before: Verdict, after: Verdict, may: bool) -> None:
    assert may_amend(before, after) is may
    ledger = Ledger([row(0, before)])
    named = row(0, after, amends=before)
    if may:
        ledger.add([named])
        assert [found.verdict for found in ledger] == [after]
    else:
        with pytest.raises(Conflict):
            ledger.add([named])
    with pytest.raises(Conflict):
        Ledger([row(0, before)]).add([row(0, after)])


def test_all_of_a_batch_is_written_or_nothing() -> None:
    ledger = Ledger([row(1)])
    with pytest.raises(Conflict, match="skipped stands there"):
        ledger.add([row(0), row(1)])
    assert (len(ledger), ledger.find("x", at("12:00"))) == (1, None)
    with pytest.raises(Conflict):
        ledger.add([row(0, amends=Verdict.SUPERSEDED)])


def test_a_row_as_json() -> None:
    made = row(0, late=70, until=at("12:09"), count=10).to_json()
    assert made == {
        "triggerId": "x",
        "taskId": "t",
        "slot": "2026-05-04T12:00:00+00:00",
        "until": "2026-05-04T12:09:00+00:00",
        "count": 10,
        "verdict": "skipped",
        "reason": {
            "code": "misfire_policy",
            "data": {"lateSeconds": 70, "policy": "skip"},
            "sentence": "it was 70 s late (?); the misfire policy is skip",
        },
        "runId": None,
        "decidedAt": "2026-05-04T13:00:00+00:00",
    }


@pytest.mark.parametrize("code", list(SlotReasonCode))
def test_every_reason_has_its_words(code: SlotReasonCode) -> None:
    data = dict.fromkeys(("lateSeconds", "cause", "calendar", "scope", "run", "overlap", "revision", "by"), "…")
    said = str(SlotReason(code, data))
    assert said
    assert "?" not in said
