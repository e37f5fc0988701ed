"""Task Center for tests of your own: a clock that you move, and a center that runs on it. (spec 4.9)

With pytest the fixtures ``virtual_clock`` and ``simulated_center`` are there by themselves; see ``docs/testing.md``.
"""

from __future__ import annotations

from .center import SimulatedCenter
from .virtual_clock import VirtualClock

__all__ = ["SimulatedCenter", "VirtualClock"]
