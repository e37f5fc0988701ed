"""Masking twice is masking once, JSON stays JSON, and nothing ever raises."""

from __future__ import annotations

import base64
import html
import itertools
import json
import shlex
from typing import Any
from urllib.parse import quote, quote_plus, urlencode
from xml.sax.saxutils import escape, quoteattr

from hypothesis import given, settings
from hypothesis import strategies as st

from flows.task_types.process import _Lines
from taskcenter.redaction import MASK, Redactor, redact, redact_text

pieces = st.sampled_from(
    [
        *(
            "password",
            "pwd",
            "token",
            "secret",
            "key",
            "pass",
            "api_key",
            "Authorization",
            "cookie",
            "access key",
            "auth",
        ),
        *(
            ":",
            "=",
            " ",
            ": ",
            "==",
            "!=",
            ":=",
            ",",
            "&",
            ";",
            "->",
            ">",
            "<",
            "%3d",
            "\n",
            "\t",
            "--",
            "-u ",
            "curl ",
        ),
        *('"', "'", "`", "\\", '\\"', "\\\\", "(", ")", "[", "]", "{", "}", "&quot;", "@", "://", "/", "|", "~", "."),
        *("Bearer ", "Basic ", "identified by ", " for ", " is ", "value=", MASK, "REDACTED", "[REDACTED", "REDACTED]"),
        *("hunter2!", "abc", "x", "12345", "true", "null", "${X}", "***", "\u0130", "\u00e9", "\x1b[31m", "\x1b"),
        *("eyJhbGciOi.", "AKIAQ7WERTZ3UIOP5ASD", "xoxb-123456789012-a1b2c3", "aB3" * 22, "A" * 20, "MII" + "aB3" * 20),
        *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "abc8Q~" + "aB3x" * 9),
    ]
)
texts = st.one_of(
    st.text(), st.lists(pieces, max_size=14).map("".join), st.lists(pieces | st.text(max_size=3)).map("".join)
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)
keys = st.one_of(texts, st.sampled_from(["password", "token", "name", "value", "argv", "key", "secretKey"]))
jsons = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@given(texts)
@settings(max_examples=600, deadline=None)
def test_masking_a_text_twice_is_masking_it_once(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


@given(jsons)
@settings(max_examples=300, deadline=None)
def test_masking_data_twice_is_masking_it_once_and_keeps_it_json(value: Any) -> None:
    once = redact(value)
    assert redact(once) == once
    json.dumps(once)


@given(jsons, st.booleans(), st.sampled_from([None, 2]))
@settings(max_examples=400, deadline=None)
def test_json_text_stays_json(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    json.loads(redact_text(text))
    nested = json.dumps({"log": text})
    json.loads(redact_text(nested))


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=24)


@given(secrets.filter(lambda s: len(set(s)) > 5 and "REDACTED" not in s), texts, texts)
@settings(deadline=None)
def test_a_registered_value_never_comes_through(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    assert secret not in redactor.redact_text(f"{before} {secret} {after}")
    assert secret not in redactor.redact_text(json.dumps({"x": secret}))


@given(st.sampled_from(["password", "api_key", "client_secret", "DB_PASSWORD"]), st.text("abcdefXYZ0189", min_size=6))
def test_a_secret_behind_its_name_never_comes_through(name: str, tail: str) -> None:
    secret = "Zq7!" + tail
    for text in (
        f"{name}={secret}",
        f"{name}: {secret}",
        f'{{"{name}": "{secret}"}}',
        f"--{name} {secret}",
        f"?{name}={secret}&a=b",
    ):
        assert secret not in redact_text(f"before {text}"), text
    assert redact({name: secret}) == {name: MASK}


odd = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=8, max_size=40)


def written(value: str) -> list[str]:
    """What encoders make of a value, by calling them."""
    raw = value.encode()
    forms = [value, repr(value), json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps({"a": [value]})]
    forms += [json.dumps(json.dumps(value)), shlex.quote(value), html.escape(value), escape(value), quoteattr(value)]
    forms += [
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
        urlencode({"q": value}),
        raw.hex(),
        raw.hex().upper(),
    ]
    forms += [base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), repr(raw)]
    forms += [
        repr([value, "'\""]),
        repr(repr([value, "'\""])),
        json.dumps(repr({"a": value})),
        repr(json.dumps([value])),
    ]
    forms += [
        repr(ValueError(repr(ValueError(value)))),
        repr(str({"k": f"it's {value}"})),
        json.dumps(repr(f"'{value}")),
    ]
    return forms + [base64.b64encode(b"x" * n + raw + b"tail").decode() for n in range(3)]


@given(odd.filter(lambda s: len(set(s)) > 5 and s not in MASK), texts)
@settings(max_examples=300, deadline=None)
def test_every_written_form_of_a_registered_value_is_masked(secret: str, around: str) -> None:
    redactor = Redactor([secret])
    for form in written(secret):
        found = redactor.registered.mask(f"{around} {form} {around}")
        assert MASK in found, form
        assert secret not in found, form


@given(odd.filter(lambda s: len(set(s)) > 5 and s not in MASK and "\x85" not in s), st.data())
@settings(max_examples=200, deadline=None)
def test_a_registered_value_does_not_slip_through_where_output_is_cut_into_chunks(secret: str, data: Any) -> None:
    """A child's output comes in pieces that end anywhere, in the middle of a letter too."""
    redactor = Redactor([secret])
    form = data.draw(st.sampled_from(written(secret)))
    output = f"before {form} after\n{'x' * data.draw(st.integers(0, 20_000))}{form}\nend".encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(output)), max_size=12)))
    seen: list[str] = []
    lines = _Lines("stdout", lambda line, _: seen.append(redactor.redact_text(line)))
    for start, end in itertools.pairwise([0, *cuts, len(output)]):
        lines.feed(output[start:end])
    lines.end()
    assert seen[-1] == "end"
    for shown in seen:
        assert secret not in shown
        assert form not in shown


@given(st.lists(odd, min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_values_that_are_registered_one_by_one_are_all_masked(values: list[str]) -> None:
    redactor = Redactor()
    for index, value in enumerate(values):
        redactor.register(value)
        for known in values[: index + 1]:
            assert known in MASK or known not in redactor.registered.mask(f"<{known}>")
