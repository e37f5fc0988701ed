"""The doors ``<task type>/<slug>``: one flow per task type, all with the same body.

``from flows.run_task import sql_script`` gives the flow of a built-in type; the flow of any other registered type
is made when it is asked for. Nothing but flows stands here (see :mod:`flows.composite`).
"""

from __future__ import annotations

from typing import Any

from prefect import Flow, flow


def _door(key: str) -> Flow[Any, Any]:
    async def run(
        task: str,
        payload: dict[str, Any] | None = None,
        dry_run: bool = False,
        options: dict[str, Any] | None = None,
        trigger_id: str | None = None,
    ) -> Any:
        from flows.running.task_run import run_saved_task

        return await run_saved_task(task, payload, dry_run, options, key)

    run.__name__ = run.__qualname__ = key
    run.__doc__ = f"Run a saved task of the type {key}."
    return flow(name=key, validate_parameters=False, log_prints=False, persist_result=False)(run)


sql_script = _door("sql_script")
backup = _door("backup")
schema_snapshot = _door("schema_snapshot")
data_compare_sync = _door("data_compare_sync")
data_transfer_migration = _door("data_transfer_migration")
shell = _door("shell")
script = _door("script")
python = _door("python")
http = _door("http")
wait = _door("wait")
prefect_deployment = _door("prefect_deployment")


def __getattr__(name: str) -> Any:
    from taskcenter.task_types import registry

    if name.startswith("_") or registry.find(name) is None:
        raise AttributeError(f"module 'flows.run_task' has no flow {name!r}: no such task type")
    return _door(name)
