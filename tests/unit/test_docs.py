"""Reference pages are made from the code and committed; nothing a user can meet is undocumented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.manifest import FILE, catalog_tasks, manifest
from deployments.spec import PARAMETERS
from flows.composite import composite
from flows.run_task import shell
from taskcenter.errors import Problem, TaskCenterError
from taskcenter_console.docs import FOLDER, PAGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_the_generated_one(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert text == PAGES[name]() + "\n", "write it anew with: python -m taskcenter_console.docs"


def test_prefect_yaml_is_the_generated_one() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert text == manifest(catalog_tasks()), "write it anew with: python -m deployments.manifest"


@pytest.mark.parametrize("flow", [composite, shell])
def test_the_parameters_of_a_deployment_are_those_of_its_flow(flow: object) -> None:
    from prefect.utilities.callables import parameter_schema

    made = parameter_schema(flow).model_dump()  # type: ignore[arg-type]
    assert list(made["properties"]) == list(PARAMETERS["properties"])
    assert made["required"] == PARAMETERS["required"]
    for name, wanted in PARAMETERS["properties"].items():
        have = made["properties"][name]
        assert (have["position"], have.get("default")) == (wanted["position"], wanted.get("default"))


def test_files_in_flows_are_doors_and_not_rooms() -> None:
    """Prefect loads them a second time and puts their folder on the path: no name may hide a module."""
    names = {file.stem for file in (ROOT / "flows").glob("*.py")} - {"__init__"}
    rooms = {
        "taskcenter",
        "composites",
        "blocks",
        "taskcenter_adapter",
        "retention",
        "deployments",
        "taskcenter_console",
    }
    assert not names & (rooms | set(sys.stdlib_module_names) | {"prefect", "networkx", "croniter", "pydantic"})
    for name in names:
        text = (ROOT / "flows" / f"{name}.py").read_text(encoding="utf-8")
        assert "from ." not in text, "a door imports absolutely"
        assert "registry =" not in text


def test_every_error_has_a_sentence_an_exit_code_and_a_status() -> None:
    def leaves(kind: type[TaskCenterError]) -> list[type[TaskCenterError]]:
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]

    for kind in leaves(TaskCenterError):
        assert kind.__doc__
        assert kind.exit_code in (1, 2, 3, 4, 5)
        assert 400 <= kind.status <= 599
    assert str(Problem("x", "a.b", "is wrong")) == "a.b: is wrong"


def test_importing_the_core_does_not_import_prefect() -> None:
    code = "import composites, sys; sys.exit('prefect' in sys.modules or 'sqlalchemy' in sys.modules)"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
