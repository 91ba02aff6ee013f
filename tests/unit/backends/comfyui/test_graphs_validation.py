"""The fake's judge itself: what ComfyUI refuses, it refuses in the same words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fakes.comfyui_validation import definitions, validate, without
from fakes.orders import order_of
from kinoloom.backends.comfyui.graphs import build
from kinoloom.backends.comfyui.object_info import ObjectInfo
from kinoloom.catalog.loader import Catalog

INFO = definitions("new")
CARD = Catalog.load().get("comfyui-wan-2.1-i2v-14b-480p")
GRAPH = build(order_of(CARD), CARD, ObjectInfo.of(INFO), {"image": "up.png"})


def changed(class_type: str, **inputs: Any) -> tuple[dict[str, Any], str]:
    """The graph with other inputs of a node (None: without them), and the node's id."""
    graph = copy.deepcopy(GRAPH)
    (found,) = (n for n, node in graph.items() if node["class_type"] == class_type)
    for name, value in inputs.items():
        if value is None:
            del graph[found]["inputs"][name]
        else:
            graph[found]["inputs"][name] = value
    return graph, found


def judged(graph: dict[str, Any]) -> Any:
    return validate(graph, INFO, files=["up.png"])


def test_a_right_graph_is_taken() -> None:
    assert judged(GRAPH) == (None, [str(len(GRAPH))], {})


@pytest.mark.parametrize(
    ("class_type", "inputs", "kind", "details"),
    [
        ("KSampler", {"steps": None}, "required_input_missing", "steps"),
        ("KSampler", {"steps": 0}, "value_smaller_than_min", "steps"),
        ("KSampler", {"cfg": 101.0}, "value_bigger_than_max", "cfg"),
        ("KSampler", {"steps": "many"}, "invalid_input_type", "steps, many, invalid literal"),
        (
            "KSampler",
            {"scheduler": "best"},
            "value_not_in_list",
            "scheduler: 'best' not in ['simple",
        ),
        ("CLIPLoader", {"type": "x"}, "value_not_in_list", "type: 'x' not in (list of length 29)"),
        ("KSampler", {"model": ["1", 0, 0]}, "bad_linked_input", "model"),
        (
            "KSampler",
            {"latent_image": ["1", 0]},
            "return_type_mismatch",
            "latent_image, received_type(MODEL) mismatch input_type(LATENT)",
        ),
        ("LoadImage", {"image": "a.png"}, "custom_validation_failed", "image - Invalid image file"),
        ("CreateVideo", {"fps": 0.5}, "value_smaller_than_min", "fps"),
    ],
)
def test_a_wrong_input_is_refused(
    class_type: str, inputs: dict[str, Any], kind: str, details: str
) -> None:
    graph, node = changed(class_type, **inputs)
    error, outputs, node_errors = judged(graph)
    assert outputs == []
    assert error["type"] == "prompt_outputs_failed_validation"
    assert set(node_errors) == {node}
    assert node_errors[node]["class_type"] == class_type
    assert node_errors[node]["dependent_outputs"] == [str(len(graph))]
    (mistake,) = node_errors[node]["errors"]
    assert mistake["type"] == kind
    assert mistake["details"].startswith(details)
    assert mistake["extra_info"]["input_name"] in inputs


def test_the_list_of_a_choice_is_told_only_when_it_is_short() -> None:
    for class_type, name, told in (("KSampler", "scheduler", True), ("CLIPLoader", "type", False)):
        graph, node = changed(class_type, **{name: "x"})
        (mistake,) = judged(graph).node_errors[node]["errors"]
        assert (mistake["extra_info"]["input_config"] is not None) == told
        assert mistake["extra_info"]["received_value"] == "x"


def test_an_unknown_node_is_refused_in_the_words_of_its_version() -> None:
    left = without(INFO, "KSampler")
    error = validate(GRAPH, left).error
    assert error is not None
    assert error["type"] == "missing_node_type"
    assert error["extra_info"]["class_type"] == "KSampler"
    error = validate(GRAPH, left, old=True).error
    assert error is not None
    assert error["type"] == "invalid_prompt"
    assert error["message"] == "Cannot execute because node KSampler does not exist."


def test_a_node_without_a_class_is_refused() -> None:
    error = validate({"3": {"inputs": {}}}, INFO).error
    assert error is not None
    assert (error["type"], error["extra_info"]["class_type"]) == ("missing_node_type", None)


def test_a_graph_that_saves_nothing_is_refused() -> None:
    graph = {n: node for n, node in GRAPH.items() if node["class_type"] != "SaveVideo"}
    assert judged(graph).error["type"] == "prompt_no_outputs"


def test_what_is_right_runs_beside_what_is_not() -> None:
    graph = copy.deepcopy(GRAPH)
    images = graph[str(len(graph) - 1)]["inputs"]["images"]
    graph["90"] = {
        "class_type": "SaveWEBM",
        "inputs": {"images": images, "filename_prefix": "x", "codec": "h264", "fps": 8, "crf": 9},
    }
    error, outputs, node_errors = judged(graph)
    assert error is None
    assert outputs == [str(len(GRAPH))]
    assert node_errors["90"]["errors"][0]["type"] == "value_not_in_list"


def test_a_circle_is_refused() -> None:
    graph = {
        "1": {"class_type": "VAELoader", "inputs": {"vae_name": "wan_2.1_vae.safetensors"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    error, outputs, node_errors = judged(graph)
    assert (error["type"], outputs) == ("prompt_outputs_failed_validation", [])
    assert node_errors["2"]["errors"][0]["type"] == "dependency_cycle"


def test_a_choice_brings_inputs_that_are_checked() -> None:
    graph, node = changed("SaveVideo", **{"format": "webm", "format.codec": "av1"})
    graph[node]["inputs"]["format.codec.encoding"] = "re-encode"
    graph[node]["inputs"]["format.codec.encoding.crf"] = 99
    (mistake,) = judged(graph).node_errors[node]["errors"]
    assert mistake["type"] == "value_bigger_than_max"
    graph[node]["inputs"]["format.codec.encoding.crf"] = 20
    assert judged(graph).error is None


@pytest.mark.parametrize("link", [["77", 0], ["1", 9]])
def test_a_link_that_leads_nowhere_is_an_exception_there(link: list[Any]) -> None:
    graph, node = changed("VAEDecode", samples=link)
    (mistake,) = judged(graph).node_errors[node]["errors"]
    assert mistake["type"] == "exception_during_inner_validation"
    graph, node = changed("SaveVideo", video=link)
    (mistake,) = judged(graph).node_errors[node]["errors"]
    assert mistake["type"] == "exception_during_validation"
