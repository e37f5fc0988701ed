"""In which forms a secret may be written: what encoders, quoters and printers make of it. (spec 6.6, rule 1)"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from .patterns import MASK

__all__ = ["written_forms"]

_LEAST = 6
"""A shorter form would hit innocent text."""

_LEFT_ALONE = ("", "/", "!'()*", "*", " +", "!$&'()*+,;=", "!$&'()*+,;=:", "!$&'()*+,;=:@/?")
"""What URL encoders leave as it is: Python's, encodeURIComponent, forms, SQLAlchemy's, RFC 3986 user info and query."""


def written_forms(value: str) -> set[str]:
    """``value`` as it is, in URLs, JSON, Python, shells, HTML and XML, SQL, CSV, hex, and in base64."""
    raw = value.encode("utf-8", "surrogatepass")
    printed = {*_printed(value)}
    forms = {value, *_urls(raw), *_jsons(value), *_quoted(value), *_base64(raw), raw.hex(), raw.hex().upper()}
    forms |= printed | {again for form in printed for again in _printed(form)}  # a repr in a repr, JSON in a repr …
    return {form for form in forms if len(form) >= _LEAST and form not in MASK}


def _urls(raw: bytes) -> Iterator[str]:
    for safe in _LEFT_ALONE:
        for encode in (quote, quote_plus):
            url = encode(raw, safe=safe)
            yield url
            yield re.sub("%..", lambda match: match[0].lower(), url)
    yield quote(quote(raw, safe=""), safe="")


def _jsons(value: str) -> Iterator[str]:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield text
        yield text.replace("/", "\\/")
        yield json.dumps(text)[1:-1]  # JSON in a JSON string
        careful = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        yield careful
        yield careful.replace("'", "\\u0027")


def _printed(value: str) -> Iterator[str]:
    """As it stands within the quotes of JSON and of a repr, whichever quotes that has."""
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield repr(value + "'\"")[1:-4]


def _quoted(value: str) -> Iterator[str]:
    yield repr(value.encode("utf-8", "surrogatepass"))[2:-1]
    yield value.replace("'", "'\\''")
    yield value.replace("'", "'\"'\"'")
    yield re.sub(r"([\\\"$`])", r"\\\1", value)  # within double quotes of a shell
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", value)  # printf %q
    yield value.replace("'", "''")  # SQL
    yield value.replace("\\", "\\\\").replace("'", "\\'")
    yield value.replace('"', '""')  # CSV
    text, quoted = html.escape(value, quote=False), html.escape(value)
    yield text
    yield quoted
    spaces = str.maketrans({"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
    for form in (text, text.replace('"', "&quot;")):  # an attribute of XML
        yield form.translate(spaces)
    yield quoted.replace("&#x27;", "&apos;")
    yield quoted.replace("&#x27;", "&#39;")
    yield quoted.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def _base64(raw: bytes) -> Iterator[str]:
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + raw).decode("ascii")
        # the first and last characters also hold bits of the neighbours: only those in between are certain
        sure = text[(0, 2, 3)[offset] : (8 * (offset + len(raw))) // 6]
        yield sure
        yield sure.replace("+", "-").replace("/", "_")
