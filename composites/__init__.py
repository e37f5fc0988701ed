"""Composites: graphs of steps written in Python, checked, planned, rendered and walked without a server.

Each step's edges are checked with networkx; the same walker serves the plan and the run.
"""

from __future__ import annotations

from .builder import Composite, Step, StepGroup

__all__ = ["Composite", "Step", "StepGroup"]
