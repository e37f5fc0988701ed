"""A warm process is made anew beside the old one: no run is lost, none waits, and the old one ends. (spec 5.2)"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from deployments.warm_pool import LOST, WarmPool, WarmProcessAway
from tests.integration.workers import lives

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="warm processes are forked on Linux only")


def request(name: str, command: str, folder: Path) -> dict[str, Any]:
    return {"id": name, "env": dict(os.environ), "cwd": str(folder), "stream_output": False, "command": command}


def test_a_run_of_the_old_one_goes_on_and_the_next_is_of_the_new_one(home: Path, tmp_path: Path) -> None:
    async def work() -> None:
        pool = WarmPool(dict(os.environ))
        try:
            await pool.start()
            old = pool.pid
            assert (old is not None, pool.idle, pool.facts["broken"]) == (True, True, [])
            lost = asyncio.create_task(pool.wait_lost())
            long = await pool.launch(request("long", "sleep 2", tmp_path))
            assert not pool.idle
            await pool.renew()
            assert (pool.pid != old, pool.idle, pool.renewed) == (True, True, 1)
            short = await pool.launch(request("short", "sh -c 'exit 7'", tmp_path))
            assert await asyncio.wait_for(short.ended, 20) == 7
            assert not lost.done()
            assert await asyncio.wait_for(long.ended, 20) == 0
            for _ in range(400):
                if not lives(old or 0):
                    break
                await asyncio.sleep(0.05)
            assert not lives(old or 0)
            assert not lost.done()
            dies = await pool.launch(request("dies", "sleep 60", tmp_path))
            os.kill(pool.pid or 0, 9)
            assert await asyncio.wait_for(dies.ended, 20) == LOST
            await asyncio.wait_for(lost, 20)
        finally:
            await pool.close()
        with pytest.raises(WarmProcessAway):
            await pool.launch(request("late", "true", tmp_path))

    asyncio.run(work())
