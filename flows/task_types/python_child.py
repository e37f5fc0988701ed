"""What runs in the own process of an isolated ``python`` step: JSON in on stdin, JSON out into a file.

Started as a file, so that it sets up the module path before it imports anything but the standard library.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import traceback
from typing import Any

__all__ = ["main", "run_code"]


def run_code(code: str, kwargs: dict[str, Any]) -> Any:
    """Run ``code`` with ``kwargs`` as its variables; what it leaves in ``result`` (None when nothing)."""
    name = "<code of the step>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)  # tracebacks then show the lines
    variables: dict[str, Any] = {"__name__": "__task__", **kwargs}
    exec(compile(code, name, "exec"), variables)
    return variables.get("result")


def main(answer: str) -> None:
    """Read the request, do it, and write ``{"result"}`` or ``{"error", "message", "traceback"}`` to ``answer``."""
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    try:
        from taskcenter.jsonable import to_jsonable

        said: dict[str, Any] = {"result": to_jsonable(_do(request))}
    except Exception as error:  # everything the user's code raises goes to the parent, which reports it
        said = {"error": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
    with open(f"{answer}.part", "w", encoding="utf-8") as file:
        json.dump(said, file)
    os.replace(f"{answer}.part", answer)


def _do(request: dict[str, Any]) -> Any:
    if request["code"] is not None:
        return run_code(request["code"], request["kwargs"])
    import asyncio
    import inspect

    from flows.task_types.python import find
    from taskcenter.context import RunContext

    function = find(request["callable"])
    kwargs = dict(request["kwargs"])
    if "ctx" in inspect.signature(function).parameters:
        kwargs["ctx"] = RunContext(**request["context"], on_output=lambda line, _: print(line))
    result = function(**kwargs)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


if __name__ == "__main__":
    main(sys.argv[1])
