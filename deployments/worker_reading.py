"""What the worker reads of Prefect for a run it has claimed, and what it need not read or may tell later. (spec 5.2)

Between the claim and the first line of the user's code each question to the server counts twice: the run waits for
the answer, and the server, which is one process, answers nobody else meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .warm_run import is_ours

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Flow

__all__ = ["FlowsOnce", "version_of"]

_MOST = 1000


class FlowsOnce:
    """Prefect's client, but a flow is read once: its name cannot be changed."""

    def __init__(self, client: PrefectClient, known: dict[UUID, Flow]) -> None:
        self._client, self._known = client, known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def read_flow(self, flow_id: UUID) -> Flow:
        if flow_id not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[flow_id] = await self._client.read_flow(flow_id)
        return self._known[flow_id]


def version_of(deployment: Any, versions: dict[str, str]) -> str | None:
    """The version of a flow of ours, which its run leaves to the worker to tell; ``versions`` by module."""
    entrypoint = {"entrypoint": deployment.entrypoint, "pull_steps": deployment.pull_steps} if deployment else {}
    return versions.get(entrypoint["entrypoint"].rpartition(".")[0]) if is_ours(entrypoint) else None
