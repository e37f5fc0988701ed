"""Work that tries everything to leave a secret behind, and the search for what it left."""

from __future__ import annotations

import http.server
import json
import sqlite3
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from composites import Composite
from flows.task_types.payload import Payload, SecretRef
from taskcenter.context import RunContext
from taskcenter.redaction.forms import written_forms
from taskcenter.task_types import task_type

__all__ = ["RAISES", "echo_server", "everything", "fill_shop", "find", "find_files", "needles_of"]

SHOUTS = """
import base64, html, json, logging, sys
from urllib.parse import quote
print(s); print(repr(s)); print(json.dumps({"x": s})); print(quote(s, safe="")); print(html.escape(s))
print(base64.b64encode(b"ab" + s.encode()).decode()); print(s.encode().hex(), file=sys.stderr)
sys.stdout.write("x" * 16_370 + s + "\\n")
logging.warning("it is %s", s)
"""
RAISES = """
def inner():
    raise ValueError("inner " + s)
try:
    inner()
except ValueError as error:
    try:
        raise KeyError(s) from error
    except KeyError:
        raise ExceptionGroup("group " + s, [RuntimeError(s), OSError(2, s, s), ExceptionGroup("g", [ValueError(s)])])
"""


class LoudPayload(Payload):
    """What is told to everybody, and what is done with it in the end."""

    secret: SecretRef
    fail: bool = False


class _Chatty(Exception):
    """Keeps what it was given in more than one place."""

    def __init__(self, said: str) -> None:
        super().__init__(said, {"kept": said})
        self.said = said
        self.add_note(f"a note: {said}")


@task_type("loud", title="Loud", category="system", icon="campaign")
def loud(payload: LoudPayload, ctx: RunContext) -> Any:
    """Says a secret by every means that a task type has."""
    s = ctx.secret(payload.secret.secret)
    ctx.output(s)
    ctx.output(f"<{s}>", "stderr")
    ctx.progress(50, f"half of {s}")
    ctx.summary(f"it was {s}")
    ctx.tag(s)
    ctx.logger.info("%s", s, extra={"said": s})
    ctx.state["kept"] = s
    (ctx.temp_dir / "note").write_text(s)
    warnings.warn(s, stacklevel=1)
    try:
        try:
            raise _Chatty(s)
        except _Chatty as first:
            raise LookupError(f"nobody has {s}") from first
    except LookupError:
        ctx.logger.exception("it went wrong with %s", s)
        if payload.fail:
            raise RuntimeError(s, s.encode()) from None
    return {"kept": s, s: [s], "bytes": s.encode()}


class _Echo(http.server.BaseHTTPRequestHandler):
    """Gives back the headers it was sent."""

    def do_GET(self) -> None:
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(200 if self.path == "/" else 500)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def echo_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fill_shop(path: Path, value: str, *, other: bool = False) -> str:
    """A database of a user that knows the value too: in rows and in a default. ``other``: with rows that differ."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)")
        database.executemany("INSERT INTO orders VALUES (?, ?)", [(n, f"order {n}") for n in range(20)])
        database.execute("CREATE TABLE vault (id INTEGER PRIMARY KEY, word TEXT UNIQUE)")
        words = [f"{value} again", value] if other else [value, "nothing"]
        database.executemany("INSERT INTO vault VALUES (?, ?)", enumerate(words))
        literal = value.replace("'", "''")
        database.execute(f"CREATE TABLE settings (id INTEGER PRIMARY KEY, word TEXT DEFAULT '{literal}')")
    database.close()
    return f"sqlite:///{path}"


def everything(name: str, secret: str, url: str, shop: str, other: str, inner: str) -> Composite:
    """Steps of every type: they print, raise, return, log, keep and hand on. ``inner``: a composite with an input."""
    ref, placeholder = {"secret": secret}, f'{{{{secret("{secret}")}}}}'
    tables = {"sourceConnection": shop, "targetConnection": other, "sourceTable": "vault", "targetTable": "vault"}
    graph = Composite(name, continue_on_error=True)
    said = graph.step("shouts", "python", code=SHOUTS + "result = {'kept': s, 'list': [s, {s: s}]}", kwargs={"s": ref})
    graph.step("raises", "python", code=RAISES, kwargs={"s": ref})
    graph.step("inside", "python", code=SHOUTS + "result = s", kwargs={"s": ref}, isolate=False)
    graph.step("raises-inside", "python", code=RAISES, kwargs={"s": ref}, isolate=False)
    graph.step("retried", "python", code=RAISES, kwargs={"s": ref}, retries=1)
    graph.step("loud", "loud", secret=ref)
    graph.step("loud-and-failed", "loud", secret=ref, fail=True)
    graph.step("prints", "shell", command=["sh", "-c", 'echo "$V"; echo "$V" >&2; exit 1'], environment={"V": ref})
    graph.step("reads", "shell", command=["cat"], stdin=placeholder)
    graph.step("asks", "http", url=url + "/", auth={"secret": secret}, headers={"X-One": ref})
    graph.step("is-refused", "http", url=url + "/no", auth={"secret": secret, "username": "u"})
    graph.step("binds", "sql_script", connection=shop, sql="select :v as v", parameters={"v": placeholder}, fetch=5)
    graph.step("stumbles", "sql_script", connection=shop, sql="select * from nowhere -- " + placeholder)
    graph.step("selects", "sql_script", connection=shop, sql="select word from vault", fetch=9, expect="rows == 0")
    graph.step("looks", "schema_snapshot", connection=shop)
    graph.step("keeps", "backup", connection=shop, tables=["orders"], verify=True)
    graph.step("keeps-nothing", "backup", connection=shop, tables=[placeholder])
    moved = {"sourceTable": "vault", "mode": "append"}
    graph.step("moves", "data_transfer_migration", source=shop, target=other, objects=[moved])
    wrong = {**moved, "where": f"word = '{placeholder}' and nonsense"}
    graph.step("moves-nothing", "data_transfer_migration", source=shop, target=other, objects=[wrong])
    graph.step("compares", "data_compare_sync", **tables, includeScriptInResult=True, includeDeletes=True)
    passed = graph.step(
        "passed-on", "python", code="print(t); raise RuntimeError(str(t))", kwargs={"t": "{{steps.shouts.result}}"}
    )
    taken = {"composite": inner, "payload": {"t": "{{steps.shouts.result}}"}}
    nested = graph.step("handed-down", "composite", payload=taken)
    handed = graph.step(
        "handed-over", "prefect_deployment", deployment=f"composite/{inner}",
        parameters={"payload": {"t": "{{steps.shouts.result.kept}}"}},
    )  # fmt: skip
    for step in (passed, nested, handed):
        said >> step
    return graph


def needles_of(value: str) -> dict[str, bytes]:
    needles = {form: form.encode() for form in written_forms(value)}
    needles["its middle"] = value[10:42].encode()
    return needles


def find(data: bytes, needles: dict[str, bytes]) -> list[str]:
    return [form for form, needle in needles.items() if needle in data]


def find_files(home: Path, needles: dict[str, bytes]) -> list[str]:
    found = []
    for path in sorted(home.rglob("*")):
        if path.is_file() and not path.is_symlink() and "programs" not in path.parts:
            found += [f"{path.relative_to(home)}: {form}" for form in find(path.read_bytes(), needles)]
    return found
