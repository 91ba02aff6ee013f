from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.comfyui_validation import definitions, without
from kinoloom.backends.comfyui.object_info import (
    Missing,
    ObjectInfo,
    chosen_files,
    find_file,
    lacking,
    missing,
)
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog

CATALOG = Catalog.load()
OWN = [card for card in CATALOG if card.backend == "comfyui"]
FLF2V = CATALOG.get("comfyui-wan-2.1-flf2v-14b")
T2V = CATALOG.get("comfyui-wan-2.1-t2v-1.3b")


def node(**inputs: Any) -> dict[str, Any]:
    return {"input": {"required": inputs}, "output": [], "output_node": False}


def renamed(info: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Definitions in which a file has another name."""
    for entry in info.values():
        for inputs in entry["input"].values():
            for declared in inputs.values():
                if isinstance(declared[0], list):
                    declared[0] = [new if x == old else x for x in declared[0]]
    return info


@pytest.mark.parametrize(
    "declared",
    [
        [["a", "b"]],
        [["a", "b"], {"tooltip": "which"}],
        ["COMBO", {"options": ["a", "b"], "multiselect": False}],
        ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {}}, {"key": "b"}]}],
    ],
)
def test_choices_are_read_in_every_notation(declared: list[Any]) -> None:
    info = ObjectInfo.of({"Load": node(name=declared)})
    assert info.has("Load")
    assert info.inputs("Load") == {"name"}
    assert info.choices("Load", "name") == ("a", "b")


def test_what_is_not_there_has_no_inputs_and_no_choices() -> None:
    info = ObjectInfo.of({"Load": node(width=["INT", {"min": 1, "max": 9}])})
    assert not info.has("Save")
    assert info.inputs("Save") == set()
    assert info.choices("Save", "name") == ()
    assert info.choices("Load", "width") == ()
    assert info.choices("Load", "height") == ()


def test_a_choice_brings_inputs_of_its_own() -> None:
    saver = ObjectInfo.of(definitions("new")).node("SaveVideo")
    assert saver is not None
    assert saver.saves
    codec = saver.inputs["format"].chosen["webm"]["codec"]
    assert codec.choices == ("auto", "av1")
    assert codec.chosen["av1"]["encoding"].choices == ("auto", "re-encode")


@pytest.mark.parametrize(
    "data",
    [
        [],
        None,
        {"Load": None},
        {"Load": {"input": [], "output": {}}},
        {"Load": {"input": {"required": {"name": []}}}},
        {"Load": {"input": {"required": {"name": "INT"}}}},
        {"Load": {"input": {"required": {"name": [None, 3]}}}},
        {"Load": {"input": {"required": {3: ["INT", {}]}}}},
    ],
)
def test_answers_of_another_form_are_left_out(data: Any) -> None:
    info = ObjectInfo.of(data)
    assert info.inputs("Load") == set()
    assert info.choices("Load", "name") == ()


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(json, json, json)
@settings(max_examples=50, deadline=None)
def test_no_answer_breaks_the_reader(declared: Any, section: Any, output: Any) -> None:
    entries = {
        "A": {"input": {"required": {"name": declared}, "optional": section}, "output": output},
        "B": {"input": section},
        "C": declared,
        "Dynamic": node(name=["COMFY_DYNAMICCOMBO_V3", {"options": declared}]),
    }
    info = ObjectInfo.of(entries)
    for name in entries:
        assert all(isinstance(x, str) for x in info.choices(name, "name"))


def test_endless_nesting_and_endless_lists_are_cut() -> None:
    deep: Any = ["INT", {}]
    for _ in range(500):
        deep = [
            "COMFY_DYNAMICCOMBO_V3",
            {"options": [{"key": "a", "inputs": node(x=deep)["input"]}]},
        ]
    info = ObjectInfo.of({"Deep": node(x=deep), "Wide": node(x=[["a"] * 60_000])})
    assert info.choices("Deep", "x") == ("a",)
    assert len(info.choices("Wide", "x")) == 50_000


@pytest.mark.parametrize("card", OWN, ids=lambda card: card.id)
def test_a_server_with_everything_lacks_nothing(card: ModelCard) -> None:
    info = ObjectInfo.of(definitions("new"))
    assert missing(card, info) == ()
    assert chosen_files(card, info).keys() == (card.remote.files.keys() if card.remote else ())


def test_an_older_server_lacks_the_nodes_of_a_newer_model() -> None:
    info = ObjectInfo.of(definitions("old"))
    card = CATALOG.get("comfyui-hunyuanvideo-1.5-720p-i2v")
    assert [(x.what, x.name) for x in missing(card, info)] == [
        ("node", "HunyuanVideo15ImageToVideo")
    ]


def test_missing_files_are_named_with_their_folder_and_the_best_name() -> None:
    info = ObjectInfo.of(
        without(definitions(), "wan2.1_t2v_1.3B_fp16.safetensors", "wan_2.1_vae.safetensors")
    )
    lacks = missing(T2V, info)
    assert [(x.name, x.folder, x.wanted[0]) for x in lacks] == [
        ("vae", "vae", "wan_2.1_vae.safetensors"),
        ("diffusion_model", "diffusion_models", "wan2.1_t2v_1.3B_fp16.safetensors"),
    ]
    error = lacking(T2V, lacks)
    assert T2V.id in error.message
    assert "Put wan_2.1_vae.safetensors into models/vae on the server." in error.hints
    assert error.details["missing"][0]["wanted"] == ["wan_2.1_vae.safetensors"]


def test_missing_nodes_say_what_brings_them() -> None:
    gone = ("ADE_UseEvolvedSampling", "ADE_LoadAnimateDiffModel")
    lacks = missing(
        CATALOG.get("comfyui-animatediff"), ObjectInfo.of(without(definitions(), *gone))
    )
    # Without its loader nobody knows whether the motion model is there, so it is not named.
    assert {x.name for x in lacks} == set(gone)
    assert all("ComfyUI-AnimateDiff-Evolved" in x.hint for x in lacks)


def test_a_server_that_cannot_save_videos_lacks_that() -> None:
    nodes = ("SaveVideo", "VHS_VideoCombine", "SaveWEBM")
    for kept in nodes:
        rest = [name for name in nodes if name != kept]
        assert missing(T2V, ObjectInfo.of(without(definitions(), *rest))) == ()
    (lack,) = missing(T2V, ObjectInfo.of(without(definitions(), *nodes)))
    assert lack.what == "node"
    assert "ComfyUI-VideoHelperSuite" in lack.hint


def test_pictures_are_loaded_only_for_tasks_that_have_any() -> None:
    info = ObjectInfo.of(without(definitions(), "LoadImage"))
    card = CATALOG.get("comfyui-wan-2.2-ti2v-5b")
    assert missing(card, info, "t2v") == ()
    assert [x.name for x in missing(card, info, "i2v")] == ["LoadImage"]
    assert [x.name for x in missing(card, info)] == ["LoadImage"]


@pytest.mark.parametrize(
    "there",
    [
        "wan2.1_flf2v_720p_14B_fp16.safetensors",
        "Wan/wan2.1_flf2v_720p_14B_fp16.safetensors",
        "video\\Wan\\wan2.1_flf2v_720p_14B_fp16.safetensors",
        "video/WAN2.1_FLF2V_720p_14B_fp16.safetensors",
    ],
)
def test_a_file_counts_wherever_it_lies(there: str) -> None:
    info = renamed(definitions(), "wan2.1_flf2v_720p_14B_fp16.safetensors", there)
    assert chosen_files(FLF2V, ObjectInfo.of(info))["diffusion_model"] == there


def test_the_best_of_several_files_is_taken() -> None:
    info = definitions()
    files = info["UNETLoader"]["input"]["required"]["unet_name"][0]
    names = FLF2V.remote.files["diffusion_model"] if FLF2V.remote else []
    assert len(names) == 2
    files[:] = [names[1], *files]
    assert chosen_files(FLF2V, ObjectInfo.of(info))["diffusion_model"] == names[0]
    left = ObjectInfo.of(without(info, names[0]))
    assert chosen_files(FLF2V, left)["diffusion_model"] == names[1]


def test_a_name_within_another_is_not_that_file() -> None:
    assert find_file("svd.safetensors", ["my_svd.safetensors", "svd.safetensors.bak"]) is None
    assert (
        find_file("svd.safetensors", ["x/svd.safetensors", "svd.safetensors"]) == "svd.safetensors"
    )


def test_a_role_that_nothing_loads_is_missing() -> None:
    data = T2V.model_dump(mode="json", by_alias=True)
    data["remote"]["files"]["flux_capacitor"] = ["a.safetensors"]
    card = ModelCard.model_validate(data)
    expected = Missing("file", "flux_capacitor", ("a.safetensors",), "")
    assert missing(card, ObjectInfo.of(definitions())) == (expected,)
