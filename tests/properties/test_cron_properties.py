"""What croniter and our own reading of a cron agree on: the fields they expand, and the wall times that follow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from croniter import croniter  # type: ignore[import-untyped,unused-ignore]
from hypothesis import given, settings
from hypothesis import strategies as st

from taskcenter.models import Trigger
from taskcenter.scheduling.cron import BadCron, parse
from taskcenter.scheduling.occurrences import check_trigger, croniter_reading, own_reading, slots

MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905
WEEKDAYS = "sun mon tue wed thu fri sat".split()  # noqa: SIM905


def values(low: int, high: int, names: list[str], offset: int) -> st.SearchStrategy[tuple[int, str]]:
    numbers = st.integers(low, high).map(lambda n: (n, str(n)))
    padded = st.integers(low, min(high, 9)).map(lambda n: (n, f"0{n}"))
    named = [(number, name.upper() if number % 2 else name) for number, name in enumerate(names, offset)]
    return st.one_of(numbers, padded, st.sampled_from(named)) if named else st.one_of(numbers, padded)


@st.composite
def items(draw: st.DrawFn, low: int, high: int, names: list[str], offset: int) -> str:
    one = values(low, high, names, offset)
    step = draw(st.one_of(st.just(""), st.integers(1, high - low + 1).map(lambda n: f"/{n}")))
    shape = draw(st.sampled_from(["one", "one", "range", "star", "equal"]))
    if shape == "star":
        return f"*{step}"
    (a, first), (b, last) = draw(one), draw(one)
    if shape == "one":
        return first + step
    if shape == "equal":
        return f"{first}-{first}{step}"
    return f"{first}-{last}{step}" if a <= b else f"{last}-{first}{step}"


def field(low: int, high: int, names: list[str] | None = None, offset: int = 0) -> st.SearchStrategy[str]:
    item = items(low, high, names or [], offset)
    return st.one_of(st.just("*"), item, st.lists(item, min_size=1, max_size=4).map(",".join))


plain_days, plain_weekdays = field(1, 31), field(0, 7, WEEKDAYS)
special_days = st.one_of(
    st.sampled_from(["L", "lw", "?", "1,L", "L,15,3-5"]), st.integers(1, 31).map(lambda day: f"{day}W")
)
weekday = st.one_of(st.integers(0, 7).map(str), st.sampled_from(WEEKDAYS))
nth_weekdays = st.lists(
    st.one_of(
        st.tuples(weekday, st.integers(1, 5)).map(lambda t: f"{t[0]}#{t[1]}"),
        weekday.map(lambda day: f"{day}L"),
        weekday.map(lambda day: f"L{day}"),
    ),
    min_size=1,
    max_size=3,
).map(",".join)
minutes, hours, months = field(0, 59), field(0, 23), field(1, 12, MONTHS, 1)


@st.composite
def five_fields(draw: st.DrawFn) -> str:
    day, on = draw(
        st.one_of(
            st.tuples(plain_days, plain_weekdays),
            st.tuples(special_days, st.sampled_from(["*", "?"])),
            st.tuples(st.sampled_from(["*", "?", "1", "*/2"]), nth_weekdays),
        )
    )
    return f"{draw(minutes)} {draw(hours)} {day} {draw(months)} {on}"


@given(five_fields(), field(0, 59), st.sampled_from(["first", "last", None]))
@settings(deadline=None, max_examples=300)
def test_croniter_and_we_expand_every_field_alike(
    text: str, seconds: str, position: Literal["first", "last"] | None
) -> None:
    if position is not None:
        text = f"{seconds} {text}" if position == "first" else f"{text} {seconds}"
    cron = parse(text, position)
    assert own_reading(cron) == croniter_reading(cron)


@given(five_fields())
@settings(deadline=None, max_examples=300)
def test_croniter_reads_the_text_as_it_is_written_too(text: str) -> None:
    """The door hands croniter our spelling; of the text itself it makes the same, but for what is listed here."""
    words = text.lower().split()
    if words[2] == "lw" or "l" in words[4]:
        return  # LW and 5L are not known to croniter
    cron = parse(text)
    if [word.count("-") for word in words] != [word.count("-") for word in cron.texts[1:]]:
        return  # 5-5 is 5; croniter takes it for every value
    try:
        read = croniter(text, 0.0)
    except ValueError as refusal:
        raise AssertionError(text) from refusal
    assert cron.minutes == sum(1 << n for n in (range(60) if "*" in read.expanded[0] else set(read.expanded[0])))
    assert cron.hours == sum(1 << n for n in (range(24) if "*" in read.expanded[1] else set(read.expanded[1])))
    assert cron.months == sum(1 << n for n in (range(1, 13) if "*" in read.expanded[3] else set(read.expanded[3])))


@given(minutes, hours, plain_days, months, plain_weekdays, st.integers(0, 40 * 365 * 86_400))
@settings(deadline=None, max_examples=150)
def test_in_a_zone_without_changes_slots_are_those_of_croniter(
    minute: str, hour: str, day: str, month: str, weekday: str, seconds: int
) -> None:
    start = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    trigger = Trigger(type="cron", cron_expression=f"{minute} {hour} {day} {month} {weekday}")
    cron = parse(trigger.cron_expression or "")
    if check_trigger(trigger, start):
        return  # impossible: the 31st of February
    if any("," in text and "*" in text for text in (day, weekday)):
        return  # 1,* names every day; croniter then takes the weekday alone
    text = " ".join((*cron.texts[1:], cron.texts[0]))
    ticks = croniter(text, start.replace(tzinfo=None), datetime, day_or=not cron.both_days)
    end = start + timedelta(days=800)
    for slot in slots(trigger, start, end, 8):
        assert slot.replace(tzinfo=None) == ticks.get_next(datetime)


@given(st.text(alphabet="0123456789*/,-#LWlw?@ monfrijadec", max_size=30), st.sampled_from([None, "first", "last"]))
@settings(max_examples=500)
def test_what_we_take_croniter_takes(text: str, position: Literal["first", "last"] | None) -> None:
    try:
        cron = parse(text, position)
    except BadCron:
        return
    assert own_reading(cron) == croniter_reading(cron)
