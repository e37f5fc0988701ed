"""Times and periods as a person writes them: ``2026-11-20T14:30``, ``14:30``, ``+2h``, ``02:00-05:30``. (spec 4.9)"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from taskcenter.errors import Problem, ValidationFailed

__all__ = ["instant", "period"]

_LAST = datetime.max.replace(tzinfo=UTC)
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_FORMS = "write 2026-11-20T14:30, 2026-11-20T14:30+01:00, 14:30, now, or +90m, +2h, +1d from the beginning"


def instant(text: str, option: str, start: datetime) -> datetime:
    """A time. Without a zone it is this machine's; a time of day is that of the day of ``start``, and ``+2h`` counts
    from ``start``. Raises ValidationFailed."""
    found = _instant(text.strip(), start)
    if found is None:
        raise ValidationFailed(option, [Problem("not_time", "", f"{text!r} is no time: {_FORMS}")])
    return found


def _instant(text: str, start: datetime) -> datetime | None:
    if text == "now":
        return start
    if text[:1] in ("+", "-") and text[1:-1].isdigit() and text[-1] in _UNITS:
        try:
            ahead = timedelta(seconds=int(text[1:-1]) * _UNITS[text[-1]])
            return start + ahead if text[0] == "+" else start - ahead
        except OverflowError:
            return None
    try:
        if clock := _CLOCK.fullmatch(text):
            hour, minute, second = (int(part or 0) for part in clock.groups())
            return start.astimezone().replace(hour=hour, minute=minute, second=second, microsecond=0)
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return None


def period(text: str, option: str, start: datetime) -> tuple[datetime, datetime]:
    """``A-B``, also written ``A/B`` or ``A..B``; the end is not part of it. A time of day at or before that of A is
    on the day after. Raises ValidationFailed."""
    for place in re.finditer(r"/|\.\.|-", text):
        since = _instant(text[: place.start()].strip(), start)
        until = _instant(text[place.end() :].strip(), start)
        if since is None or until is None:
            continue
        if until <= since and _CLOCK.fullmatch(text[place.end() :].strip()):
            until += min(timedelta(days=1), _LAST - until)
        if until > since:
            return since, until
    said = f"{text!r} is no period from A to B: write 02:00-05:30, +1h-+3h, or two times with / between them"
    raise ValidationFailed(option, [Problem("not_period", "", said)])
