"""``Composite.to_flow()``: a Prefect flow named like the composite, plugged in as an entry point. (spec 3.1)"""

from __future__ import annotations

from typing import Any

from prefect import Flow, flow

from composites.model import CompositeSpec

from .composite_run import run_composite

__all__ = ["make_flow"]


def make_flow(spec: CompositeSpec) -> Flow[Any, Any]:
    """The flow of one composite as it stands in ``spec``, whether it is saved or not."""

    async def run(
        payload: dict[str, Any] | None = None, dry_run: bool = False, options: dict[str, Any] | None = None
    ) -> Any:
        return await run_composite(spec.name, payload, dry_run, options, spec)

    run.__name__ = run.__qualname__ = spec.name.replace("-", "_")
    run.__doc__ = spec.description or f"The composite {spec.name}."
    return flow(name=spec.name, description=spec.description, validate_parameters=False, persist_result=False)(run)
