"""How long the command line takes to answer, beside Prefect's own. (issue A, shows 8)

    python -m benchmarks.startup [--rounds 20]

Medians over fresh processes, in turn; byte code is cached as on a user's machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "taskcenter --help": [str(BIN / "taskcenter"), "--help"],
    "taskcenter composite check": [str(BIN / "taskcenter"), "composite", "check", "nightly-sales"],
    "taskcenter composite plan": [str(BIN / "taskcenter"), "composite", "plan", "nightly-sales"],
    "prefect --help": [str(BIN / "prefect"), "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["TASKCENTER_HOME"] = "/nonexistent/taskcenter-benchmark"
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for n in range(rounds + 1):
        for name, argv in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            if n:  # the first round warms up
                took[name].append((time.perf_counter() - begin) * 1000)
    peer = statistics.median(took["prefect --help"])
    print(f"{'command':28s} {'median':>9s} {'min':>9s} {'max':>9s} {'of prefect --help':>18s}")
    for name, times in took.items():
        middle = statistics.median(times)
        print(f"{name:28s} {middle:6.0f} ms {min(times):6.0f} ms {max(times):6.0f} ms {middle / peer:17.2f}x")


if __name__ == "__main__":
    main()
