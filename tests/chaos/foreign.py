"""Runs that somebody drives through Prefect's own API, as a worker, a person or a program that is not ours would."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

__all__ = ["FATES", "Driven", "Foreign", "wanted"]

FATES: Final[dict[str, int]] = {
    "completed": 45, "failed": 15, "crashed": 12, "cancelled": 8, "cancelled before it began": 6,
    "deleted before it began": 4, "deleted at work": 5, "deleted after its end": 5,
}  # fmt: skip
"""What becomes of a run, and how often."""
_ENDS: Final = {"completed": "success", "failed": "failed", "crashed": "failed", "cancelled": "cancelled",
                "cancelled before it began": "cancelled", "deleted after its end": "success"}  # fmt: skip
Json = dict[str, Any]


@dataclass
class Driven:
    """One run: who asked for it, what is to become of it."""

    ours: bool
    fate: str
    run_id: str = ""


def wanted(run: Driven, row: tuple[str, str | None] | None) -> str | None:
    """What is wrong with the row (status, phase) of a run when all is over; None when it is right."""
    if not run.fate.startswith("deleted"):
        good = row is not None and row[0] == _ENDS[run.fate] and (run.fate != "crashed" or row[1] == "crashed")
    elif row is None:
        good = not run.ours  # made and deleted while nobody looked: there is nothing left to tell of it
    else:
        good = row == ("failed", "lost") or row[0] == _ENDS.get(run.fate)
    return None if good else f"run {run.run_id} ({run.fate}, {'ours' if run.ours else 'theirs'}) has the row {row}"


class Foreign:
    """Makes and drives runs, ``at_once`` calls at a time. ``heard`` is told of each state that a row should show."""

    def __init__(self, api: str, service: str, deployment: str, task: str, chance: random.Random) -> None:
        self._prefect = httpx.AsyncClient(base_url=api, timeout=60)
        self._service = httpx.AsyncClient(base_url=service, timeout=60)
        self._deployment, self._task, self._chance = deployment, task, chance
        self._gate = asyncio.Semaphore(6)
        self.done: list[Driven] = []
        self.heard: Callable[[str, str, datetime], None] = lambda run_id, status, at: None

    async def close(self) -> None:
        await self._prefect.aclose()
        await self._service.aclose()

    async def call(self, method: str, path: str, body: Json | None = None) -> Any:
        async with self._gate:
            answer = await self._prefect.request(method, path, json=body)
            answer.raise_for_status()
            return answer.json() if answer.content else None

    async def make(self, ours: bool) -> str:
        """A run that no worker takes: ours in a day, theirs already taken."""
        if ours:
            at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
            async with self._gate:
                answer = await self._service.post(f"/api/tasks/{self._task}/run", json={"at": at})
                answer.raise_for_status()
            return str(answer.json()["id"])
        made = await self.create({"state": {"type": "PENDING", "name": "Pending"}})
        self.heard(made["id"], "queued", _time(made["created"]))
        return str(made["id"])

    async def create(self, body: Json) -> Json:
        """Through Prefect, as ``prefect deployment run`` does."""
        made: Json = await self.call("POST", f"/deployments/{self._deployment}/create_flow_run", body)
        return made

    async def set_state(self, run_id: str, kind: str, shows: str | None = None, *, force: bool = True) -> None:
        state = {"type": kind, "name": kind.capitalize(), "message": f"said to be {kind}"}
        answer = await self.call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": force})
        if shows is not None:
            self.heard(run_id, shows, _time(answer["state"]["timestamp"]))

    async def live(self, run: Driven, pause: float) -> None:
        """The whole life of a run, with about ``pause`` seconds between its states."""
        run.run_id = await self.make(run.ours)
        self.done.append(run)
        await self._wait(pause)
        match run.fate:
            case "cancelled before it began":
                return await self.set_state(run.run_id, "CANCELLED", "cancelled")
            case "deleted before it began":
                return await self.delete(run.run_id)
        await self.set_state(run.run_id, "RUNNING", "running")
        await self._wait(pause)
        match run.fate:
            case "cancelled":
                await self.set_state(run.run_id, "CANCELLING")
                await self._wait(pause / 4)
                await self.set_state(run.run_id, "CANCELLED", "cancelled")
            case "deleted at work":
                await self.delete(run.run_id)
            case "failed" | "crashed":
                await self.set_state(run.run_id, run.fate.upper(), "failed")
            case _:
                await self.set_state(run.run_id, "COMPLETED", "success")
        if run.fate == "deleted after its end":
            await self._wait(pause)
            await self.delete(run.run_id)

    async def delete(self, run_id: str) -> None:
        await self.call("DELETE", f"/flow_runs/{run_id}")

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(self._chance.uniform(0, 2 * seconds))

    async def drive(self, runs: Sequence[Driven], seconds: float, pause: float) -> None:
        """All of them, begun evenly in that time."""

        async def later(number: int, run: Driven) -> None:
            await asyncio.sleep(number * seconds / len(runs))
            await self.live(run, pause)

        await asyncio.gather(*(later(number, run) for number, run in enumerate(runs)))

    def some(self, count: int, *, ours: float = 0.5, fates: Mapping[str, int] | None = None) -> list[Driven]:
        """Runs to be, in any order; ``ours``: the share that Task Center is asked for."""
        which = fates or FATES
        made = [
            Driven(number < count * ours, fate)
            for number, fate in enumerate(self._chance.choices(list(which), list(which.values()), k=count))
        ]
        self._chance.shuffle(made)
        return made


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
