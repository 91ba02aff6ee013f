from __future__ import annotations

import pytest
from pydantic import ValidationError

from kinoloom.errors import InvalidRequest
from kinoloom.lora_request import LoraRequest


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("film-look", "film-look", 1.0),
        (" film-look:0.8 ", "film-look", 0.8),
        ("film-look:-2", "film-look", -2.0),
        ("film-look:.5", "film-look", 0.5),
        ("./looks/film.safetensors:1.25", "./looks/film.safetensors", 1.25),
        ("owner/repo", "owner/repo", 1.0),
        ("owner/repo:0.5", "owner/repo", 0.5),
        ("owner/repo:film.safetensors", "owner/repo:film.safetensors", 1.0),
        ("owner/repo:film.safetensors:0.5", "owner/repo:film.safetensors", 0.5),
        (r"C:\looks\film.safetensors", r"C:\looks\film.safetensors", 1.0),
        (r"C:\looks\film.safetensors:0.5", r"C:\looks\film.safetensors", 0.5),
    ],
)
def test_what_a_text_names(text: str, name: str, weight: float) -> None:
    lora = LoraRequest.parse(text)
    assert (lora.name, lora.weight) == (name, weight)
    assert LoraRequest.parse(str(lora)) == lora


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("film:2.5", "film:2"),
        ("film:-9", "film:-2"),
        ("film:1e400", None),
        ("", None),
        (":0.5", None),
        ("fi\nlm", None),
        ("x" * 1001, None),
    ],
)
def test_what_names_none(text: str, nearest: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        LoraRequest.parse(text)
    (problem,) = caught.value.problems
    assert (problem.field, problem.nearest) == ("loras", nearest)
    assert "WEIGHT" in problem.allowed


@pytest.mark.parametrize(
    "values", [{"name": ""}, {"name": "a", "weight": 3}, {"name": "a", "x": 1}]
)
def test_json_is_checked_too(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoraRequest.model_validate(values)
