"""Canonical texts of values, made here: all of SQLite's, and what two engines write in different ways."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any

import orjson

from .canonical import Canon, Form
from .lines import NULL, escape_as_copy

__all__ = ["MARK", "float_text", "normaliser", "sqlite_lines"]

MARK = b"\x01"
"""Stands before a number whose digits an engine may write in its own way."""


def normaliser(canon: Canon) -> Callable[[str], str]:
    """What makes an engine's text canonical."""
    return _marked_float if canon.form is Form.FLOAT else _json_text


def _marked_float(text: str) -> str:
    return _float_text(text[1:]) if text.startswith("\x01") else text


def _float_text(text: str) -> str:
    try:
        return float_text(float(text))
    except ValueError:
        return text


def float_text(value: float) -> str:
    """The shortest digits that read back as the same float."""
    text = repr(value)
    if text[-2:] == ".0" and -1e15 < value < 1e15:
        return text[:-2] if value else "0"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return text


def _json_text(text: str) -> str:
    try:
        found = json.loads(text, parse_float=_number, parse_int=_number, parse_constant=str)
    except (ValueError, RecursionError):
        return text
    return json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _number(text: str) -> Any:
    """1.0 and 1 are the same number."""
    number = Decimal(text)
    if number == number.to_integral_value() and number.adjusted() < 300:
        return int(number)
    return float(number)


def sqlite_lines(columns: Sequence[Canon]) -> Callable[[Sequence[tuple[Any, ...]]], bytes]:
    writers = [_value_writer(c) for c in columns]
    slow = [_escaped(w) for w in writers]
    scope: dict[str, Any] = {f"w{i}": w for i, w in enumerate(writers)}
    numbers = [i for i, c in enumerate(columns) if c.form in (Form.DECIMAL, Form.FLOAT)]
    parts, names = [], [f"v{i}" for i in range(len(columns))]
    for index, canon in enumerate(columns):
        usual = None if canon.padded else _USUAL.get(canon.form)
        odd = f"w{index}(v{index})"
        if index in numbers:
            parts.append(f"{{t{index}}}")
        else:
            parts.append(f"{{{usual.replace('VALUE', f'v{index}')} else {odd}}}" if usual else f"{{{odd}}}")
    texts = "".join(f", t{i}" for i in numbers)
    each = f"(({', '.join(names)},){texts},) in zip(rows{texts})"
    source = f"lambda rows{texts}: [f'''{chr(9).join(parts)}''' for {each}]"
    make: Callable[..., list[str]] = eval(source, scope)  # made of our own words only: no name or value is in it
    width = len(columns)

    def lines(rows: Sequence[tuple[Any, ...]]) -> bytes:
        made = make(rows, *[_number_texts([row[i] for row in rows], writers[i]) for i in numbers])
        data = ("\n".join(made) + "\n").encode("utf-8", "surrogateescape")
        if not _is_clean(data, rows, width):
            made = ["\t".join([write(v) for write, v in zip(slow, row, strict=True)]) + "\n" for row in rows]
            data = "".join(made).encode("utf-8", "surrogateescape")
        return data

    return lines


_USUAL = {
    Form.INTEGER: "VALUE if VALUE.__class__ is int",
    Form.TEXT: "VALUE if VALUE.__class__ is str",
    Form.DATE: "VALUE if VALUE.__class__ is str",
    Form.TIMESTAMP: "VALUE[:19] if VALUE.__class__ is str and len(VALUE) == 25 and VALUE[10] == ' ' "
    "and VALUE[19:] == '+00:00'",
}
"""By form, what SQLite usually gives and Python writes right away: a call for every value would take twice the time."""


def _number_texts(values: Sequence[Any], write: Callable[[Any], str]) -> list[str]:
    """``write`` of each, a whole column at a time where all are plain numbers: repr takes a third of a microsecond."""
    try:
        there = values if None not in values else [v for v in values if v is not None]
        if there and min(there) > -1e15 and max(there) < 1e15:
            text = f"{orjson.dumps(values)[1:-1].decode()},".replace(".0,", ",").replace("null", NULL)
            # -0, and what is so small that repr writes an exponent
            if "-0," not in text and "0.0000" not in text and "e" not in text:
                return text[:-1].split(",")
    except TypeError:  # texts or bytes among them
        pass
    return [write(v) for v in values]


_SPECIAL = b"\t\n\r\b\f\v\\"


def _is_clean(data: bytes, rows: Sequence[tuple[Any, ...]], width: int) -> bool:
    """Whether no value holds a character that must be escaped: then there are only separators and signs of NULL."""
    extra = len(data) - len(data.translate(None, _SPECIAL)) - width * len(rows)
    return not extra or extra == list(chain.from_iterable(rows)).count(None)


def _escaped(write: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: NULL if value is None else escape_as_copy(write(value))


def _value_writer(canon: Canon) -> Callable[[Any], str]:
    """The canonical text, not yet escaped, of a value as SQLite holds it, in whatever storage class."""
    make = _BY_FORM.get(canon.form, str)
    padded = canon.padded
    # among texts, bytes are their digits; anywhere else digits would be a number: 0x861161 is not 861161
    sign = ("", "") if canon.form in (Form.TEXT, Form.UUID) else ("x'", "'")
    if canon.form is Form.BYTES:
        return lambda value: (
            NULL if value is None else value.hex() if isinstance(value, bytes) else str(value).encode().hex()
        )

    def write(value: Any) -> str:
        if value is None:
            return NULL
        text = value.hex().join(sign) if value.__class__ is bytes else make(value)
        return text.rstrip(" ") if padded else text

    return write


def _whole_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _decimal_text(value: Any) -> str:
    if value.__class__ is float:
        text = repr(value)
        if "e" not in text and "n" not in text:
            return text if text[-2:] != ".0" else text[:-2] if value else "0"
    try:
        number = Decimal(repr(value) if isinstance(value, float) else str(value))
    except InvalidOperation:
        return str(value)
    if not number.is_finite():
        return str(value)
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _clock_text(value: Any) -> str:
    text = str(value)
    if text[-6:] == "+00:00":
        text = text[:-6]
    if len(text) == 19 and text[10] == " ":
        return text
    if len(text) == 10:
        return text + " 00:00:00"
    if len(text) > 19 and (text[-1] in "zZ" or "+" in text[19:] or "-" in text[19:]):
        try:
            text = datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
        except ValueError:
            return text
    if len(text) >= 19 and text[10] == "T":
        text = text.replace("T", " ", 1)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time_text(value: Any) -> str:
    text = str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


_BY_FORM: dict[Form, Callable[[Any], str]] = {
    Form.INTEGER: _whole_text,
    Form.DECIMAL: _decimal_text,
    Form.FLOAT: lambda value: float_text(value) if value.__class__ is float else _float_text(str(value)),
    Form.UUID: lambda value: str(value).lower(),
    Form.TIMESTAMP: _clock_text,
    Form.TIME: _time_text,
    Form.JSON: lambda value: _json_text(value) if isinstance(value, str) else _json_text(str(value)),
}
