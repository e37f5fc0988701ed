"""Task types in hand-written Prefect flows, and connections as Prefect blocks. One Prefect server for the file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from blocks.connections import Connection, resolve
from blocks.prefect_blocks import DatabaseConnection, aresolve, find_block, from_connection
from flows.task_types import prefect_tasks
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import ConnectionUnavailable, NotFound, StepFailed, TimedOut, ValidationFailed
from taskcenter.task_types import registry


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, prefect_test_harness():
        patch.setenv("TASKCENTER_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def block(prefect_server: None) -> str:
    from_connection(resolve("sample")).save("my-shop", overwrite=True)
    return "my-shop"


def test_a_type_is_a_prefect_task_by_its_own_name(prefect_server: None) -> None:
    from flows.task_types.prefect_tasks import sql_script

    assert sql_script is prefect_tasks.as_prefect_task("sql_script")
    assert sql_script.name == "sql_script"
    assert (sql_script.retries, sql_script.persist_result) == (0, False)
    with pytest.raises(ImportError):
        from flows.task_types.prefect_tasks import no_such_type  # noqa: F401


def test_in_a_flow(block: str) -> None:
    @flow
    def report() -> Any:
        return prefect_tasks.as_prefect_task("sql_script")(
            sql="select count(*) as n from orders", connection="My Shop", fetch=1, timeoutSeconds=5
        )

    output: Any = report()
    assert output["rows"] == [{"n": 30_000}]


def test_in_an_async_flow(block: str) -> None:
    @flow
    async def report() -> Any:
        assert (await aresolve("my-shop")).dialect == "sqlite"
        with pytest.raises(ConnectionUnavailable, match="taskcenter-database/nope"):
            await aresolve("nope")
        return prefect_tasks.as_prefect_task("sql_script")(sql="select 7", connection=block, expect="value == 7")

    work: Any = report()
    assert asyncio.run(work)["totalRows"] == 1


def test_a_bad_payload_fails_before_it_works(prefect_server: None) -> None:
    with pytest.raises(ValidationFailed, match="must not be blank"):
        _: Any = prefect_tasks.as_prefect_task("sql_script")(sql=" ", connection="sample")


def test_the_context_knows_the_run(prefect_server: None) -> None:
    seen: list[RunContext] = []

    @flow
    def outer() -> str:
        from prefect.runtime import flow_run

        with prefect_tasks.run_context("wait") as ctx:
            seen.append(ctx)
            assert ctx.temp_dir.is_dir()
        return str(flow_run.id)

    assert outer() == seen[0].run_id
    assert not seen[0].temp_dir.exists()


def test_blocks_keep_the_password_a_secret(prefect_server: None) -> None:
    made = DatabaseConnection(dialect="postgresql", host="db", port=6543, user="app", password="hunter2")
    saved: Any = made.save("dw", overwrite=True)
    assert saved
    assert "hunter2" not in repr(made)
    found = find_block("dw")
    assert found == Connection(
        name="dw", dialect="postgresql", host="db", port=6543, user="app", password="hunter2", options={}
    )
    assert find_block("nope") is None

    async def below_a_loop() -> Connection | None:
        return find_block("dw")

    assert asyncio.run(below_a_loop()) == found


def test_its_slug_is_what_the_ui_shows(block: str) -> None:
    with get_client(sync_client=True) as client:
        assert client.read_block_type_by_slug("taskcenter-database").name == "Task Center database"


@pytest.fixture(scope="module")
def deployment(prefect_server: None) -> str:
    """A deployment that nobody runs: the tests move its runs by hand."""

    @flow(name="other")
    def other(x: int = 1) -> None: ...

    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow(other), name="one", enforce_parameter_schema=False)
    return "other/one"


def call(payload: dict[str, Any], ctx: RunContext) -> Any:
    return registry.get("prefect_deployment").call(payload, ctx)


def test_deployments_are_run_and_followed(deployment: str) -> None:
    from prefect.states import Completed, Failed

    def finish(state: Any) -> RunContext:
        """A context that ends the new flow run as soon as it is told of."""

        def on_output(line: str, stream: str) -> None:
            run_id = line.partition("(")[2].partition(")")[0]
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(run_id, state, force=True)

        return RunContext(on_output=on_output)

    output = call({"deployment": deployment, "parameters": {"x": 2}}, finish(Completed(message="well")))
    assert (output["executor"], output["state"], output["message"]) == ("prefect_deployment", "Completed", "well")
    with pytest.raises(StepFailed, match="ended as Failed: bad luck") as caught:
        call({"deployment": deployment}, finish(Failed(message="bad luck")))
    assert caught.value.error_type == "deployment"
    assert caught.value.output["flowRunId"]
    assert call({"deployment": deployment, "wait": False}, RunContext())["state"] == "Scheduled"
    with pytest.raises(NotFound, match="no Prefect deployment 'other/none'"):
        call({"deployment": "other/none"}, RunContext())


def test_the_same_attempt_creates_one_flow_run(deployment: str) -> None:
    ctx = RunContext(run_id="r1", step_key="s", attempt=1)
    first, again = (call({"deployment": deployment, "wait": False}, ctx)["flowRunId"] for _ in range(2))
    ctx.attempt = 2
    assert first == again != call({"deployment": deployment, "wait": False}, ctx)["flowRunId"]


def test_time_out_and_cancel_cancel_the_flow_run(deployment: str) -> None:
    with pytest.raises(TimedOut) as caught:
        call({"deployment": deployment, "timeoutSeconds": 0.5}, RunContext())
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(caught.value.output["flowRunId"]).state
        assert state is not None
        assert state.is_cancelled()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        call({"deployment": deployment}, RunContext(is_cancelled=lambda: time.monotonic() - started > 0.5))


def test_logs_and_files_of_a_step(prefect_server: None, tmp_path: Path) -> None:
    @flow
    def outer() -> Any:
        return prefect_tasks.as_prefect_task("shell")(command=["pwd"])

    output: Any = outer()
    assert "taskcenter-" in output["stdoutTail"]
    assert not Path(output["stdoutTail"].strip()).exists()
