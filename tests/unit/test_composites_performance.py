"""Ten thousand steps are checked and planned while a person waits, without Prefect and in little memory. (spec 0.3)

The bound is on processor time, so that a busy machine does not fail it; each shape has a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MEASURE = """
import json, random, resource, sys, time
from composites.model import CompositeSpec
from composites.plan import make_plan
from composites.validate import check


def peak():
    # getrusage would count what the process that started us held before this program replaced it
    try:
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


shape, count = sys.argv[1], 10_000
dice = random.Random(7)
if shape == "chain":
    pairs = {(i, i + 1) for i in range(count - 1)}
elif shape == "fan":
    pairs = {(0, i) for i in range(1, count - 1)} | {(i, count - 1) for i in range(1, count - 1)}
else:
    pairs = set()
    while len(pairs) < 40_000:
        b = dice.randrange(1, count)
        pairs.add((dice.randrange(max(0, b - 300), b), b))
far = "{{steps.s0.rows}}" if shape != "graph" else "x"
steps = [
    {"stepKey": f"s{i}", "taskType": "noop", "payload": {"text": "on {{inputs.day}}", "n": i, "far": far if i else ""}}
    for i in range(count)
]
edges = [{"fromStepKey": f"s{a}", "toStepKey": f"s{b}"} for a, b in sorted(pairs)]
spec = CompositeSpec.from_dict({"name": "big", "steps": steps, "edges": edges, "inputs": {"day": "monday"}})
wall, cpu = time.perf_counter(), time.process_time()
checked = check(spec)
plan = make_plan(spec)
print(json.dumps({
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "megabytes": peak(),
    "problems": len(checked.problems),
    "planned": len(plan.order),
    "edges": len(edges),
    "foreign": [name for name in ("prefect", "sqlalchemy", "fastapi") if name in sys.modules],
}))
"""


def measure(shape: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", MEASURE, shape], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


pytestmark = pytest.mark.alone


@pytest.mark.parametrize(("shape", "edges"), [("graph", 40_000), ("chain", 9_999), ("fan", 19_996)])
def test_ten_thousand_steps_are_checked_and_planned_in_two_seconds(shape: str, edges: int) -> None:
    figures = measure(shape)
    if figures["cpu"] > 2:  # a second look, in case the machine was throttled just then
        figures = min(figures, measure(shape), key=lambda f: f["cpu"])
    assert figures["problems"] == 0
    assert figures["planned"] == 10_000
    assert figures["edges"] == edges
    assert figures["foreign"] == []
    assert figures["megabytes"] <= 300, figures
    assert figures["cpu"] <= 2, figures
