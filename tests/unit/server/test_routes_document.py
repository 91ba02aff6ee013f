from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kinoloom.config import Settings
from kinoloom.server.app import create_app
from kinoloom.store.store import Store

# The routes of other modules are documented by their own tests.
OURS = re.compile(
    r"/api/(plan|clips|assets|jobs|models|backends|queues|statistics|costs)\b|/(health|ready)$"
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with Store.of(settings) as store:
        found: dict[str, Any] = create_app(settings, store, None).openapi()  # type: ignore[arg-type]
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        if OURS.match(path):
            for method, operation in methods.items():
                yield method.upper(), path, operation


def test_every_operation_says_what_it_is(document: dict[str, Any]) -> None:
    names = []
    for _, path, operation in operations(document):
        names.append(operation["operationId"])
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation["operationId"]), path
        assert operation["summary"], path
        assert operation["description"].endswith("."), path
        assert operation["tags"], path
    assert len(names) == len(set(names)) > 20


def test_every_answer_has_a_shape(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        answers = operation["responses"]
        assert any(status.startswith("2") for status in answers), path
        assert "429" in answers, path
        for status, answer in answers.items():
            if status in ("204", "304"):
                continue
            content = answer.get("content")
            assert content, (method, path, status)
            for media in content.values():
                assert media["schema"], (method, path, status)


def test_every_parameter_is_bounded(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (path, parameter)
            schema = parameter["schema"]
            for one in schema.get("anyOf", [schema]):
                if one.get("type") == "string" and one.get("format") != "date":
                    assert {"maxLength", "pattern", "enum"} & set(one), (path, parameter)
                if one.get("type") == "integer":
                    assert {"minimum", "maximum"} <= set(one), (path, parameter)


def test_the_pages_of_the_api_name_every_operation(document: dict[str, Any]) -> None:
    docs = Path(__file__).parents[3] / "docs"
    text = "".join((docs / page).read_text(encoding="utf-8") for page in ("api.md", "films.md"))
    for method, path, _ in operations(document):
        assert f"`{method} {re.sub(r'{[a-z]+}', 'ID', path)}`" in text, (method, path)
