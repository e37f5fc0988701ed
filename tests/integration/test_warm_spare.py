"""One fork waits for its run with all that needs no run; what becomes of it. (spec 5.2)"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments.warm_pool import WarmPool
from tests.integration.test_warm_renewal import request
from tests.integration.workers import lives

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="warm processes are forked on Linux only")
LONG = 30.0


async def spare_of(pool: WarmPool, other: int | None = None) -> int:
    """The pid of a fork without a run, which is not ``other`` and no longer busy with making ready."""
    end = asyncio.get_running_loop().time() + LONG
    while asyncio.get_running_loop().time() < end:
        forks = [p for p in psutil.Process(pool.pid).children() if lives(p.pid) and p.pid != other]
        if forks:
            before = forks[0].cpu_times().user
            await asyncio.sleep(0.5)
            if lives(forks[0].pid) and forks[0].cpu_times().user == before:
                return int(forks[0].pid)
        await asyncio.sleep(0.05)
    raise AssertionError("there is no spare")


def with_pool(work: Callable[[WarmPool], Awaitable[Any]]) -> None:
    async def begin() -> None:
        pool = WarmPool(dict(os.environ))
        try:
            await pool.start()
            await work(pool)
        finally:
            await pool.close()

    asyncio.run(begin())


def test_the_next_run_is_the_spare_and_those_behind_it_are_not(home: Path, tmp_path: Path) -> None:
    async def work(pool: WarmPool) -> None:
        spare = await spare_of(pool)
        first = await pool.launch(request("first", "sh -c 'exit 3'", tmp_path))
        second = await pool.launch(request("second", "sh -c 'exit 4'", tmp_path))
        assert first.pid == spare
        assert second.pid != spare
        assert await asyncio.wait_for(first.ended, LONG) == 3
        assert await asyncio.wait_for(second.ended, LONG) == 4
        assert pool.idle
        again = await spare_of(pool)
        third = await pool.launch(request("third", "true", tmp_path))
        assert third.pid == again
        assert await asyncio.wait_for(third.ended, LONG) == 0

    with_pool(work)


def test_a_killed_spare_is_no_run_that_was_lost(home: Path, tmp_path: Path) -> None:
    async def work(pool: WarmPool) -> None:
        spare = await spare_of(pool)
        os.kill(spare, 9)
        run = await pool.launch(request("run", "sh -c 'exit 5'", tmp_path))  # maybe before the death was noticed
        code = await asyncio.wait_for(run.ended, LONG)
        assert code == 5 or (run.pid == spare and code == -9)
        again = await spare_of(pool, other=spare)
        run = await pool.launch(request("again", "sh -c 'exit 6'", tmp_path))
        assert run.pid == again
        assert await asyncio.wait_for(run.ended, LONG) == 6

    with_pool(work)


def test_the_spare_ends_with_the_warm_process_however_that_ends(home: Path) -> None:
    async def work(pool: WarmPool) -> None:
        spare = await spare_of(pool)
        old = pool.pid
        await pool.renew()
        for _ in range(200):
            if not lives(spare):
                break
            await asyncio.sleep(0.05)
        assert not lives(spare)
        assert pool.pid != old
        spare = await spare_of(pool)
        os.kill(pool.pid or 0, 9)
        for _ in range(200):
            if not lives(spare):
                break
            await asyncio.sleep(0.05)
        assert not lives(spare)

    with_pool(work)
