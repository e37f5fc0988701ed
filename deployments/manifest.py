"""``prefect.yaml``: generated from the catalogue, committed, and held to it by a test.

``prefect deploy --all`` from the repository root deploys what ``taskcenter up`` publishes: the same names, flows,
parameters and pool. Write it anew with ``python -m deployments.manifest``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from composites.load import CATALOG, catalog
from taskcenter.models import Task

from .housekeeping import PURGE_HISTORY
from .spec import POOL, deployment_of

__all__ = ["FILE", "catalog_tasks", "manifest"]

FILE = Path(__file__).resolve().parent.parent / "prefect.yaml"
_HEAD = """\
# Generated from composites/catalog by: python -m deployments.manifest
# Deploy all of it to the server that PREFECT_API_URL (or prefect.toml) names: prefect deploy --all
"""


def catalog_tasks(folders: Sequence[Path] = ()) -> list[Task]:
    """One task per composite of the catalogue (and of ``folders``), as it would be saved."""
    found, _ = catalog(*folders)
    return [
        Task(
            slug=item.spec.name,
            name=item.spec.name,
            description=item.spec.description,
            task_type="composite",
            tags=item.spec.tags,
        )
        for item in sorted(found, key=lambda f: f.spec.name)
    ]


def manifest(tasks: Sequence[Task]) -> str:
    """The text of ``prefect.yaml`` for these tasks."""
    entries: list[dict[str, Any]] = []
    for task in tasks:
        wanted = deployment_of(task)
        entries.append(
            {
                "name": wanted["name"],
                "description": wanted["description"],
                "entrypoint": wanted["entrypoint"],
                "parameters": wanted["parameters"],
                "tags": wanted["tags"],
                "work_pool": {"name": POOL, "work_queue_name": wanted["work_queue_name"]},
                "schedules": [],
            }
        )
    entries.append(
        {
            "name": PURGE_HISTORY["name"],
            "description": PURGE_HISTORY["description"],
            "entrypoint": PURGE_HISTORY["entrypoint"],
            "parameters": PURGE_HISTORY["parameters"],
            "tags": PURGE_HISTORY["tags"],
            "work_pool": {"name": POOL, "work_queue_name": PURGE_HISTORY["work_queue_name"]},
            "schedules": [],
        }
    )
    document = {"name": "taskcenter", "build": None, "push": None, "pull": None, "deployments": entries}
    return _HEAD + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    assert CATALOG.is_dir()
    FILE.write_text(manifest(catalog_tasks()), encoding="utf-8")
