"""Publishing: the composites in files become saved tasks, the saved tasks Prefect's deployments. (spec 0.4)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from composites.load import Broken
from deployments import housekeeping
from deployments.publish import Change, apply, diff
from deployments.spec import MANAGED_TAG
from taskcenter.ports import Changes

from .center import Caller, Center
from .composites import adopt_catalog
from .deploy import note_published
from .tasks import all_tasks

__all__ = ["Publication", "publish"]


@dataclass(frozen=True)
class Publication:
    """What a publication changes, or would change."""

    adopted: list[str]
    """Composites whose files are new or changed."""
    broken: list[Broken]
    changes: list[Change]

    @property
    def differs(self) -> bool:
        return bool(self.adopted) or any(change.kind != "same" for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "adopted": self.adopted,
            "broken": [{"file": str(one.file), "message": one.message} for one in self.broken],
            "deployments": [
                {
                    "name": change.name,
                    "kind": change.kind,
                    "fields": {name: {"now": now, "wanted": new} for name, (now, new) in change.fields.items()},
                }
                for change in self.changes
            ],
        }


def publish(center: Center, caller: Caller, *, write: bool) -> Publication:
    """The difference, and the change itself when ``write``.

    Without ``write`` the deployment of a composite that is not saved yet is not among the changes: ``adopted``
    names it.
    """
    deployed = center.gateway.deployments_with_flow(MANAGED_TAG)  # asked first: without a server nothing is saved
    adopted, broken = adopt_catalog(center, caller, write=write)
    changes = diff(all_tasks(center), deployed)
    if write:
        apply(center.gateway, changes)
        housekeeping.put(center.gateway)
        note_published(center, all_tasks(center))
        changed = [change.name for change in changes if change.kind != "same"]
        entry = caller.entry(
            "deployments_published",
            object="deployments",
            message=f"{len(changed)} of {len(changes)} deployments were changed in Prefect",
            metadata={"saved": adopted, "changed": changed[:100]},
        )
        center.store.record(Changes(audit=(entry,)))
    return Publication(adopted, broken, changes)
