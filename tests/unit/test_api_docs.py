"""No route is undocumented, neither in ``docs/api.md`` nor in the OpenAPI document. (spec 7.4)"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel

from composites.model import CompositeSpec, StepSpec
from taskcenter.models import Task
from taskcenter_console.api.app import make_app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return make_app(None).openapi()  # type: ignore[arg-type]


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): entry for path, item in document["paths"].items() for method, entry in item.items()}


def test_the_page_names_exactly_the_routes_there_are(document: dict[str, Any]) -> None:
    rows = re.findall(r"^\| ([A-Z]+) \| `(/[^`]*)` \| (\S.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = [(method, path) for method, path, _ in rows]
    assert sorted(named) == sorted(operations(document))


def test_every_query_parameter_stands_on_the_page(document: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for (_, path), entry in operations(document).items():
        for parameter in entry.get("parameters", ()):
            if parameter["in"] == "query":
                row = next(line for line in text.splitlines() if f"`{path}`" in line)
                assert re.search(rf"\b{parameter['name']}\b", row), (path, parameter["name"])


def test_every_status_that_is_documented_stands_on_the_page(document: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    codes = {code for entry in operations(document).values() for code in entry["responses"] if code >= "400"}
    for code in codes:
        assert f"\n| {code} | " in text


def test_the_document_is_3_1_and_complete(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    entries = operations(document)
    ids = [entry["operationId"] for entry in entries.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+[A-Za-z]*", name) for name in ids)
    tags = {tag["name"] for tag in document["tags"]}
    for (method, path), entry in entries.items():
        assert entry["description"], path
        assert set(entry["tags"]) <= tags
        good = [answer for code, answer in entry["responses"].items() if code < "300"]
        assert good
        for code, answer in entry["responses"].items():
            if code >= "400":
                assert list(answer["content"]) == ["application/problem+json"]
        for answer in good:
            schemas = [content.get("schema") for content in answer.get("content", {}).values()]
            assert method == "DELETE" or any(schemas), path
        if "422" in entry["responses"] or method == "GET":
            continue
        assert method == "DELETE", path


def test_bodies_are_described_by_the_models_of_the_core(document: dict[str, Any]) -> None:
    bodies = {
        entry["operationId"]: entry["requestBody"]["content"]["application/json"]["schema"]
        for entry in operations(document).values()
        if "requestBody" in entry
    }
    assert set(bodies["createTask"]["properties"]) > {to_camel(name) for name in Task.model_fields}
    assert bodies["createTask"]["required"] == ["name", "taskType"]
    assert set(bodies["updateTask"]["properties"]) == set(bodies["createTask"]["properties"])
    assert "required" not in bodies["updateTask"]
    steps = {to_camel(item.name) for item in fields(StepSpec)}
    assert set(document["components"]["schemas"]["Step"]["properties"]) == steps
    for name in ("checkComposite", "planComposite"):
        assert set(bodies[name]["properties"]) == {to_camel(item.name) for item in fields(CompositeSpec)}
    for name in ("createTask", "updateTask", "importTasks", "checkComposite", "planComposite"):
        assert bodies[name]["additionalProperties"] is False


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                found.add(value["$ref"])
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(document)
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert found <= names


def test_no_route_is_hidden_but_the_page() -> None:
    app = make_app(None)  # type: ignore[arg-type]
    known = set(app.openapi()["paths"])
    hidden = {route.path for route in app.routes if isinstance(route, APIRoute) and route.path not in known}
    assert hidden <= {"/"}
