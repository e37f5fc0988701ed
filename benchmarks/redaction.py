"""Redaction of ordinary log text: megabytes per second against Airflow's masker, in one run. (issue E, show 5)

    python -m benchmarks.redaction [--megabytes 8] [--values 1000] [--rounds 5] [--json]

Ours has every pattern on and the registered values in all their written forms. The peer does what Airflow's
``SecretsMasker`` does (``airflow/sdk/_shared/secrets_masker/secrets_masker.py``, until 3.0 in
``airflow/utils/log/secrets_masker.py``, Apache-2.0): one regular expression of all values, escaped and joined by
``|``, and ``replacer.sub("***", text)`` on every text. It knows the values only as they are, and no patterns in text.
It is slow, so that it gets a part of the text; both figures are medians in megabytes per second.

Both are measured line by line, as a run log arrives, and in blocks of 64 KiB, as an export reads.
Then one line of a megabyte of several hostile kinds, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import string
import sys
import time
import uuid
from collections.abc import Callable, Sequence

from taskcenter.redaction import Redactor
from taskcenter.redaction.sieve import warm

_WORDS = """
load store copy row rows table index commit begin done started finished waiting worker queue step batch job order
customer region daily nightly report schema column value read write open close retry attempt after before with from
into query plan cache entry buffer page file path size bytes count total average slow fast primary key constraint
foreign unique passed checked author keyboard
""".split()  # noqa: SIM905
_MODULES = ("app.loader", "app.store", "db.pool", "http.client", "scheduler.core", "etl.copy", "web.access")


def ordinary_log(size: int, secrets: Sequence[str] = (), seed: int = 1) -> list[str]:
    """About ``size`` characters of what programs print; one line of a few hundred holds one of ``secrets``."""
    chance = random.Random(seed)
    lines: list[str] = []
    written = millis = 0
    while written < size:
        millis += chance.randrange(1, 400)
        line = _line(chance, _time(millis), secrets)
        lines.append(line)
        written += len(line) + 1
    return lines


def _time(millis: int) -> str:
    seconds = millis // 1000
    clock = f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{millis % 1000:03d}"
    return f"2026-03-{1 + seconds // 86400 % 28:02d} {clock}"


def _line(chance: random.Random, at: str, secrets: Sequence[str]) -> str:
    def word() -> str:
        return chance.choice(_WORDS)

    def number(below: int) -> int:
        return chance.randrange(below)

    kind = chance.random()
    if kind < 0.35:
        said = " ".join(chance.choices(_WORDS, k=chance.randrange(5, 14)))
        level = chance.choice(("INFO", "INFO", "DEBUG", "WARNING"))
        return f"{at} {level} [{chance.choice(_MODULES)}] {said} in {number(9999)} ms"
    if kind < 0.55:
        return (
            f'10.0.{number(256)}.{number(256)} - - [{at}] "GET /api/v1/{word()}/{number(10**6)}?page={number(50)}'
            f'&sort={word()} HTTP/1.1" 200 {number(10**5)} "https://app.example.org/{word()}" '
            '"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"'
        )
    if kind < 0.65:
        run = uuid.UUID(int=chance.getrandbits(128))
        row = {"at": at, "level": "info", "event": f"{word()}_{word()}", "rows": number(10**6), "run_id": str(run)}
        return json.dumps(row)
    if kind < 0.75:
        return (
            f"{at} DEBUG sqlalchemy.engine SELECT o.id, o.{word()}, o.{word()} FROM orders o JOIN customers c "
            f"ON c.id = o.customer_id WHERE o.created_at > '{at}' AND o.region = 'eu' LIMIT {number(1000)}"
        )
    if kind < 0.83:
        return f'  File "/usr/lib/python3/site-packages/{word()}/{word()}.py", line {number(2000)}, in {word()}'
    if kind < 0.90:
        return f"INSERT 0 {number(10**4)}"
    if kind < 0.95:
        bar = "#" * number(30)
        return f"{at} INFO copied {number(10**6):,} rows ({number(100)} %) [{bar:<30}] {number(100)} MB/s"
    if kind < 0.97:
        return f"commit {chance.getrandbits(160):040x} {word()} {word()} sha256:{chance.getrandbits(256):064x}"
    if kind < 0.985:
        return f"{at} INFO token_count={number(4000)} max_tokens=4096 primary key: id cache key={word()}:{number(1000)}"
    if kind < 0.997 or not secrets:
        run = uuid.UUID(int=chance.getrandbits(128))
        return f"{at} WARNING user {word()} at 10.1.{number(256)}.7: authentication failed, try again, session {run}"
    return f"{at} INFO connect to {word()} with {chance.choice(secrets)} now"


def made_up_secrets(count: int, seed: int = 2) -> list[str]:
    """Values of 12 to 40 signs, as generators of passwords make them."""
    chance = random.Random(seed)
    signs = string.ascii_letters + string.digits + "+/=-_!"
    return ["".join(chance.choices(signs, k=chance.randrange(12, 41))) for _ in range(count)]


def hostile_lines(size: int = 1_000_000) -> dict[str, str]:
    """Lines of a megabyte that are made to cost as much as they can."""
    chance = random.Random(3)
    pieces = ["pwd=", "password=a,b ", 'password\\\\\\"', '{"password":{', "a://a:b@c ", "eyJ.", "curl -u a:b ", ":AA"]
    pieces += ["sk-", "eyJ", "api key ", "\x1b[31m"]
    kinds = {piece: (piece * (size // len(piece) + 1))[:size] for piece in pieces}
    kinds["random signs"] = "".join(chance.choices(string.printable[:95], k=size))
    kinds["random base64"] = "".join(chance.choices(string.ascii_letters + string.digits + "+/", k=size))
    kinds["names and signs"] = "".join(chance.choices(["password", "key", "token", "=", ":", " ", '"', "x1"], k=size))[
        :size
    ]
    return kinds


def _rate(function: Callable[[str], str], texts: Sequence[str]) -> float:
    began = time.perf_counter()
    for text in texts:
        function(text)
    return sum(map(len, texts)) / (time.perf_counter() - began) / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redaction", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=8)
    parser.add_argument("--values", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    secrets = made_up_secrets(options.values)
    lines = ordinary_log(int(options.megabytes * 1e6), secrets)
    text = "\n".join(lines)
    blocks = [text[at : at + 65_536] for at in range(0, len(text), 65_536)]
    ours = Redactor(secrets)
    warm()
    replacer = re.compile("|".join(map(re.escape, secrets)))
    figures = []
    for shape, texts in (("lines", lines), ("blocks of 64 KiB", blocks)):
        part = texts[: max(1, len(texts) // 40)]
        mine, theirs = [], []
        for _ in range(options.rounds):
            theirs.append(_rate(lambda text: replacer.sub("***", text), part))
            mine.append(_rate(ours.redact_text, texts))
        own, peer = statistics.median(mine), statistics.median(theirs)
        figure = {"what": f"{options.values} values, {shape}", "ours": own, "peer": peer, "ratio": own / peer}
        figures.append(figure)
        if not options.json:
            print(
                f"{figure['what']:<32} {own:7.1f} MB/s   masker {peer:6.2f} MB/s   ratio {own / peer:6.1f}", flush=True
            )
    for kind, line in hostile_lines().items():
        times = []
        for _ in range(3):
            began = time.perf_counter()
            ours.redact_text(line)
            times.append((time.perf_counter() - began) * 1000)
        figures.append({"what": f"1 MB of {kind}", "milliseconds": min(times)})
        if not options.json:
            print(f"1 MB of {kind!r:<24} {min(times):7.1f} ms", flush=True)
    if options.json:
        print(json.dumps(figures))
    slow = [f for f in figures if f.get("milliseconds", 0) > 100 or f.get("ours", 60) < 60 or f.get("ratio", 10) < 10]
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
