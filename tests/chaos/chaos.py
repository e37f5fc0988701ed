"""Kill -9 at random while mixed runs go on, then look whether the books are right. (spec 5.3, 9.3)

    python -m tests.chaos.chaos [--seconds 480] [--runs 300] [--seed 1]

A center as ``taskcenter up`` starts it. Single tasks, composites and tasks that are retried are asked for all the
time, while the child of a step, the process of a run, the worker, its warm process, the service or the Prefect
server is killed, now and then two at once. When all is quiet again:

- each root has exactly one outcome: its attempts are numbered without a gap, all of them terminal;
- no two attempts of one root overlapped: neither by the rows nor by a lock that the work itself holds;
- every step is terminal, and nothing of any run is alive;
- every slot of the trigger has one verdict, every run of a slot that fired is there, and no other run has a slot;
- a dead run is known within a second while its worker lives, a lost one within 35 s (``LIMITS``);
- our tables agree with Prefect's states (``taskcenter reconcile --check``).

Exit code 0 when all of it holds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.acceptance.conftest import Started, left_running, start_center, stop_center

VICTIMS = ("child", "run", "worker", "warm", "service", "prefect server")
RESTARTED = ("worker", "service", "prefect server")
EVERY = timedelta(seconds=12)
"""Between two slots of the trigger."""
LIMITS = {"run": timedelta(seconds=1), "worker": timedelta(seconds=35), "warm": timedelta(seconds=35)}
"""Until it is known that a run of theirs is dead, when nothing that is needed for it is killed too."""
_QUIET = 150.0
_LATE = timedelta(seconds=30)


class Chaos:
    def __init__(self, started: Started, folder: Path, seed: int) -> None:
        self.started, self.folder = started, folder
        self.chance = random.Random(seed)
        self.http = httpx.Client(base_url=started.state["serviceUrl"], timeout=20)
        self.asked: list[str] = []
        self.killed: Counter[str] = Counter()
        self.kills: list[tuple[datetime, str]] = []
        self.struck: list[tuple[datetime, str, str]] = []
        self.calm_since = datetime.now(UTC)

    # the work ----------------------------------------------------------------------------------------

    def make_tasks(self) -> None:
        lock = f"flock -n {self.folder}/lock-$TASKCENTER_ROOT_RUN_ID sh -c 'sleep $NAP; exit $CODE' "
        said = "$KEY $TASKCENTER_ROOT_RUN_ID $TASKCENTER_ATTEMPT"
        overlap = f"|| {{ code=$?; test $code -ne 1 || echo {said} >> {self.folder}/overlaps; exit $code; }}"
        command = ["sh", "-c", lock + overlap]
        step = {"taskType": "shell", "payload": {"command": ["sh", "-c", "sleep 0.5"]}}
        graph = {
            "steps": [{"stepKey": key, **step} for key in ("a", "b", "c")],
            "edges": [{"fromStepKey": "a", "toStepKey": "b"}, {"fromStepKey": "a", "toStepKey": "c"}],
        }
        policy = {"maxAttempts": 2, "backoffMs": 500}
        for task in (
            {"name": "single", "taskType": "shell", "payload": {"command": command}},
            {"name": "graph", "taskType": "composite", "graph": graph},
            {
                "name": "retried",
                "taskType": "shell",
                "payload": {"command": command, "environment": {"KEY": "retried", "NAP": "0.5", "CODE": "7"}},
                "retryPolicy": policy,
                "triggers": [{"type": "interval", "intervalSeconds": EVERY.seconds, "overlap": "skip"}],
            },
        ):
            self.http.post("/api/tasks", json=task).raise_for_status()

    def ask(self, number: int) -> None:
        """One run; a service that is just dead is asked again later."""
        kind = self.chance.choice(["single", "single", "failing", "graph"])
        body: dict[str, Any] = {}
        if kind != "graph":
            code = "7" if kind == "failing" else "0"
            body = {"payload": {"environment": {"KEY": f"k{number}", "NAP": f"{self.chance.uniform(0.2, 2):.1f}",
                                                "CODE": code}}}  # fmt: skip
        name = "graph" if kind == "graph" else "single"
        with contextlib.suppress(httpx.HTTPError):
            answer = self.http.post(f"/api/tasks/{name}/run", json=body)
            if answer.status_code == 202:
                self.asked.append(answer.json()["id"])

    # the killing -------------------------------------------------------------------------------------

    def kill(self) -> None:
        for what in self.chance.sample(VICTIMS, self.chance.choice([1, 1, 2])):
            ago = [datetime.now(UTC) - when for when, kind in self.kills if kind == what]
            if what in RESTARTED and sum(past < timedelta(minutes=1) for past in ago) >= 4:
                continue  # what ends again and again is not started for ever, and that is meant so
            if (victim := self.victim(what)) is not None:
                at_work = self.at_work() if what in LIMITS else {}
                with contextlib.suppress(psutil.Error):
                    at = datetime.now(UTC)
                    victim.kill()
                    self.killed[what] += 1
                    self.kills.append((at, what))
                    hit = [run for run, pid in at_work.items() if what != "run" or pid == victim.pid]
                    self.struck += [(at, what, run) for run in hit]

    def at_work(self) -> dict[str, int]:
        """The runs that have a process now, and its pid."""
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            workers = self.http.get("/api/workers").json()["items"]
            processes = [process for worker in workers for process in worker["processes"]]
            return {one["runId"]: one["pid"] for one in processes if one["role"] == "run" and one["pid"]}
        return {}

    def victim(self, what: str) -> psutil.Process | None:
        state = json.loads((self.started.home / "run" / "state.json").read_text())
        with contextlib.suppress(psutil.Error, KeyError, StopIteration):
            if what in RESTARTED:
                return psutil.Process(state["children"][what])
            worker = psutil.Process(state["children"]["worker"])
            warm = next(p for p in worker.children() if "deployments.warm" in " ".join(p.cmdline()))
            if what == "warm":
                return warm
            forks = warm.children()
            runs = [fork for fork in forks if fork.num_threads() > 1] or forks  # the spare has one
            if what == "run" or not runs:
                return self.chance.choice(runs) if runs else None
            below = self.chance.choice(runs).children(recursive=True)
            return self.chance.choice(below) if below else None
        return None

    # the books ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = self.http.get("/api/runs", params={"limit": 500, **({"cursor": cursor} if cursor else {})}).json()
            found += page["items"]
            if (cursor := page["nextCursor"]) is None:
                return found

    def calm(self) -> None:
        """No new slots; attempts that are due still come."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                task = self.http.get("/api/tasks/retried").json()
                off = [{**trigger, "enabled": False} for trigger in task["triggers"]]
                if self.http.patch("/api/tasks/retried", json={"triggers": off}).status_code == 200:
                    self.calm_since = datetime.now(UTC)
                    return
            time.sleep(1)

    def settle(self) -> list[dict[str, Any]]:
        """Wait until nothing is open and no retry is to come."""
        end, calm = time.monotonic() + _QUIET, 0
        rows: list[dict[str, Any]] = []
        while time.monotonic() < end and calm < 6:
            time.sleep(2)
            with contextlib.suppress(httpx.HTTPError, ValueError):
                rows = self.rows()
                calm = calm + 1 if all(row["status"] in ("success", "failed", "cancelled") for row in rows) else 0
        return rows

    def problems(self, rows: list[dict[str, Any]]) -> list[str]:
        found = []
        roots: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            roots[row["rootRunId"] or row["id"]].append(row)
            if row["status"] not in ("success", "failed", "cancelled"):
                found.append(f"run {row['id']} is still {row['status']} ({row['phase']})")
            steps = self.http.get(f"/api/runs/{row['id']}/steps").json()["items"]
            found += [
                f"step {step['stepKey']} of run {row['id']} is still {step['status']}"
                for step in steps
                if step["status"] not in ("success", "failed", "skipped")
            ]
        found += [f"run {run_id} was asked for and has no row" for run_id in self.asked if run_id not in roots]
        for root, attempts in roots.items():
            attempts.sort(key=lambda row: row["attempt"])
            numbers = [row["attempt"] for row in attempts]
            if numbers != list(range(1, len(numbers) + 1)):
                found.append(f"the attempts of {root} are {numbers}")
            if any(row["status"] == "success" for row in attempts[:-1]):
                found.append(f"root {root} went on after a success")
            expected = 3 if attempts[0]["origin"] == "scheduler" else 1
            last = attempts[-1]
            # a trigger that is switched off makes no further attempt of what failed just then
            late = datetime.fromisoformat(last["finishedAt"] or last["createdAt"]) > self.calm_since - _LATE
            if last["status"] == "failed" and len(attempts) != expected and not (late and expected > len(attempts)):
                when = f"ended {last['finishedAt']}, calm since {self.calm_since:%H:%M:%S}: {last['message']}"
                found.append(
                    f"root {root} ({attempts[0]['origin']}) failed and was tried {len(attempts)} times; {when}"
                )
            for before, after in pairwise(attempts):
                if after["startedAt"] and before["finishedAt"] and after["startedAt"] < before["finishedAt"]:
                    found.append(f"attempts {before['attempt']} and {after['attempt']} of {root} overlapped")
        found += self.conserved(roots)
        found += self.detected(rows)
        overlaps = self.folder / "overlaps"
        if overlaps.exists():
            found.append(f"the work itself met another attempt at work: {overlaps.read_text().splitlines()}")
        checked = self.started.taskcenter("reconcile", "--check")
        if checked.returncode:
            found.append(f"tables and Prefect differ:\n{checked.stdout}{checked.stderr}")
        return found

    def conserved(self, roots: dict[str, list[dict[str, Any]]]) -> list[str]:
        """What is wrong with the ledger."""
        rows = self.http.get("/api/tasks/retried/ledger", params={"limit": 1000}).json()["items"]
        rows.sort(key=lambda row: row["slot"])
        found, slots = [], []
        for row in rows:
            first = datetime.fromisoformat(row["slot"])
            slots += [first + EVERY * number for number in range(row["count"])]
        found += [
            f"slots {a:%H:%M:%S} and {b:%H:%M:%S} follow each other" for a, b in pairwise(slots) if b - a != EVERY
        ]
        fired = Counter(row["runId"] for row in rows if row["verdict"] == "fired")
        found += [f"run {run} stands for {count} slots that fired" for run, count in fired.items() if count != 1]
        found += [f"run {run} of a slot that fired has no row" for run in fired if run not in roots]
        of_slots = [root for root, attempts in roots.items() if attempts[0]["origin"] == "scheduler"]
        found += [f"run {root} is of no slot that fired" for root in of_slots if root not in fired]
        print(f"{len(slots)} slots: {dict(Counter(row['verdict'] for row in rows))}")
        return found

    def detected(self, rows: list[dict[str, Any]]) -> list[str]:
        """Whose death was known too late."""
        found: list[str] = []
        ended = {row["id"]: row for row in rows if row["status"] == "failed"}
        took: dict[str, list[float]] = defaultdict(list)
        for at, what, run in self.struck:
            row = ended.get(run)
            late = datetime.fromisoformat(row["finishedAt"]) - at if row is not None else timedelta(0)
            beside = [kind for when, kind in self.kills if abs((when - at).total_seconds()) < 10 and kind != "child"]
            meanwhile = [kind for when, kind in self.kills if when - timedelta(seconds=5) < at + late and when > at]
            alone = len(beside) == 1 if what == "run" else not {"service", "worker", "warm"} & {*meanwhile}
            if late > timedelta(0) and alone:
                took[what].append(round(late.total_seconds(), 2))
                if late > LIMITS[what]:
                    found.append(f"that run {run} was dead was known {late.total_seconds():.1f} s after its {what} was")
        print(f"seconds until a death was known: {dict(took)}")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=420, help="how long runs are asked for and things killed")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--every", type=float, default=6, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="tc-chaos-") as name:
        folder = Path(name)
        started = start_center(folder / "home")
        try:
            chaos = Chaos(started, folder, options.seed)
            chaos.make_tasks()
            begin = time.monotonic()
            next_kill, number = begin + options.every, 0
            while time.monotonic() - begin < 1.2 * options.seconds and len(chaos.asked) < options.runs:
                number += 1
                chaos.ask(number)
                if started.process.poll() is not None:
                    print(f"the center ended; it said:\n{started.output.read_text(errors='replace')}")
                    return 1
                if time.monotonic() >= next_kill:
                    chaos.kill()
                    next_kill = time.monotonic() + options.every * chaos.chance.uniform(0.5, 1.5)
                due = options.runs * (time.monotonic() - begin) / options.seconds  # so many should have been asked for
                time.sleep(0.1 if len(chaos.asked) < due else options.seconds / options.runs)
            chaos.calm()
            rows = chaos.settle()
            found = chaos.problems(rows)
            outcomes = Counter(f"{row['status']}{'/' + row['phase'] if row['phase'] else ''}" for row in rows)
            print(f"{len(chaos.asked)} runs asked for, {len(rows)} attempts: {dict(outcomes)}")
            print(f"killed: {dict(chaos.killed)}, seed {options.seed}")
        finally:
            stop_center(started)
        found += [f"left running: {line}" for line in left_running(folder / "home")]
        print("\n".join(found) or "the books are right")
        return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
