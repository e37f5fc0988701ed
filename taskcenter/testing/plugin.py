"""The pytest plugin: the fixtures ``virtual_clock`` and ``simulated_center``.

pytest finds it by itself where Task Center is installed. What it needs is imported when a fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from . import SimulatedCenter, VirtualClock

__all__ = ["simulated_center", "virtual_clock"]


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that stands still until the test moves it: ``now()``, ``advance(hours=2)``, ``set("2026-03-29")``."""
    from . import VirtualClock

    return VirtualClock()


@pytest.fixture
def simulated_center(virtual_clock: VirtualClock) -> SimulatedCenter:
    """An empty center on ``virtual_clock``: give it tasks and triggers, let time go on, look what became of slots."""
    from . import SimulatedCenter

    return SimulatedCenter(virtual_clock)
