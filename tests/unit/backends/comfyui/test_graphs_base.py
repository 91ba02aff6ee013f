from __future__ import annotations

from typing import Any

import pytest

from kinoloom.backends.comfyui.graphs.base import Graph, Latent, Model, Vae
from kinoloom.backends.comfyui.graphs.wan import steps_of_first
from kinoloom.backends.comfyui.object_info import ObjectInfo
from kinoloom.errors import InvalidRequest, ModelNotFound


def graph(required: dict[str, Any], optional: dict[str, Any] | None = None) -> Graph:
    inputs = {"required": required, "optional": optional or {}}
    nodes = {
        "Work": {"input": inputs, "output": ["MODEL", "VAE"]},
        "Any": {"input": {}, "output": ["*"]},
    }
    return Graph(ObjectInfo.of(nodes))


def test_nodes_are_numbered_and_linked() -> None:
    made = graph({}, {"model": ["MODEL"], "vae": ["VAE"]})
    first = made.node("Work")
    made.node("Work", model=first.out(Model), vae=first.out(Vae, 1))
    assert made.api() == {
        "1": {"class_type": "Work", "inputs": {}},
        "2": {"class_type": "Work", "inputs": {"model": ["1", 0], "vae": ["1", 1]}},
    }


def test_what_a_newer_server_also_wants_gets_its_default() -> None:
    made = graph(
        {
            "steps": ["INT", {"default": 20}],
            "quiet": ["BOOLEAN", {"default": False}],
            "method": [["fine", "rough"]],
            "mode": ["COMBO", {"options": ["a", "b"], "default": "b"}],
            "way": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "x"}]}],
        }
    )
    made.node("Work", steps=4)
    given = made.api()["1"]["inputs"]
    assert given == {"steps": 4, "quiet": False, "method": "fine", "mode": "b", "way": "x"}


def test_what_an_optional_input_would_be_is_left_to_the_server() -> None:
    made = graph({}, {"device": [["default", "cpu"]]})
    made.node("Work", device=None)
    assert made.api()["1"]["inputs"] == {}


@pytest.mark.parametrize(
    ("inputs", "cause"),
    [
        ({"model": "x", "clip": "y"}, "no input clip"),
        ({}, "also wants model"),
        ({"model": "x", "kind": "wan"}, "kind does not offer 'wan'"),
    ],
)
def test_a_node_that_differs_from_ours_is_told(inputs: dict[str, Any], cause: str) -> None:
    made = graph({"model": ["MODEL"]}, {"kind": [["sd3", "flux"]]})
    with pytest.raises(ModelNotFound, match="node Work") as told:
        made.node("Work", **inputs)
    assert cause in told.value.cause
    assert "Update ComfyUI" in told.value.hints[0]


def test_a_node_that_is_not_there_is_told() -> None:
    with pytest.raises(ModelNotFound, match="no node Sleep"):
        graph({}).node("Sleep")


@pytest.mark.parametrize("value", [0, 11, float("nan")])
def test_a_number_that_the_server_refuses_is_told(value: float) -> None:
    made = graph({"steps": ["INT", {"min": 1, "max": 10}]})
    with pytest.raises(InvalidRequest) as told:
        made.node("Work", steps=value)
    assert told.value.problems[0].field == "Work.steps"
    assert told.value.problems[0].allowed == "1 to 10"


def test_an_output_of_another_type_is_told() -> None:
    made = graph({})
    node = made.node("Work")
    with pytest.raises(ModelNotFound, match="node Work"):
        node.out(Latent)
    with pytest.raises(ModelNotFound, match="node Work"):
        node.out(Vae, 2)
    assert made.node("Any").out(Latent) == Latent("2", 0)


def test_a_file_that_was_just_uploaded_need_not_be_offered() -> None:
    made = graph({"image": [["old.png"], {"image_upload": True}]})
    made.node("Work", image="new.png")
    assert made.api()["1"]["inputs"] == {"image": "new.png"}


@pytest.mark.parametrize(
    ("boundary", "steps", "shift", "first"),
    [
        (0.875, 40, 12.0, 26),  # t >= 0.875 / (12 - 11 * 0.875) = 0.368, so i <= 25
        (0.9, 40, 5.0, 15),  # t >= 0.9 / (5 - 4 * 0.9) = 0.643, so i <= 14
        (0.875, 4, 5.0, 2),  # 1 and 0.75 are above 0.583
        (0.9, 4, 5.0, 2),
        (0.9, 20, 1.0, 3),  # 1, 0.95 and 0.9
        (1.0, 20, 5.0, 1),
        (0.0, 20, 5.0, 19),  # the second expert makes one step at least
        (0.9, 1, 5.0, 1),
    ],
)
def test_the_noise_decides_which_expert_makes_a_step(
    boundary: float, steps: int, shift: float, first: int
) -> None:
    assert steps_of_first(boundary, steps, shift) == first
