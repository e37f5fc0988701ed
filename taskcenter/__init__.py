"""Task Center's words and its pure core: definitions, states, decisions. No input or output of its own.

The two names users write are loaded when asked for, so that ``import taskcenter`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import RunContext
    from .task_types import task_type

__version__ = "0.1.0"
__all__ = ["RunContext", "__version__", "task_type"]


def __getattr__(name: str) -> Any:
    if name == "RunContext":
        from .context import RunContext

        return RunContext
    if name == "task_type":
        from .task_types import task_type

        return task_type
    raise AttributeError(f"module 'taskcenter' has no attribute {name!r}")
