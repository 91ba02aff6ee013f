"""Every graph, for every card and task, against the nodes of an old and of a new server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.comfyui_validation import definitions, validate, without
from fakes.orders import order_of
from kinoloom.backends.base import Lora
from kinoloom.backends.comfyui.graphs import BUILDERS, build
from kinoloom.backends.comfyui.object_info import ObjectInfo, missing
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import InvalidMedia, InvalidRequest, ModelNotFound
from kinoloom.request import Task

CATALOG = Catalog.load()
CASES: list[tuple[ModelCard, Task]] = [
    (card, task) for card in CATALOG if card.backend == "comfyui" for task in card.tasks
]
IDS = [f"{card.id}-{task}" for card, task in CASES]
A14B = CATALOG.get("comfyui-wan-2.2-t2v-a14b")
FAST = CATALOG.get("comfyui-wan-2.2-t2v-a14b-4-steps")
ANIMATEDIFF = CATALOG.get("comfyui-animatediff-v2")
WAN = CATALOG.get("comfyui-wan-2.1-t2v-1.3b")


@cache
def info_of(version: Any) -> ObjectInfo:
    return ObjectInfo.of(definitions(version))


def uploads_of(card: ModelCard, task: Task) -> dict[str, str]:
    return {name: f"kinoloom-{name}.png" for name in card.pipelines[task].inputs}


def built(
    card: ModelCard,
    task: Task | None = None,
    *,
    data: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The graph of an order, which the server takes as it is."""
    data = data or definitions("new")
    order = order_of(card, task, **changes)
    uploads = uploads_of(card, order.take.task)
    graph = build(order, card, ObjectInfo.of(data), uploads)
    assert validate(graph, data, files=uploads.values()) == (None, [str(len(graph))], {})
    return graph


def only(graph: Mapping[str, Any], class_type: str) -> dict[str, Any]:
    """The inputs of the one node of a class."""
    (found,) = every(graph, class_type)
    return found


def every(graph: Mapping[str, Any], class_type: str) -> list[dict[str, Any]]:
    return [node["inputs"] for node in graph.values() if node["class_type"] == class_type]


def source(graph: Mapping[str, Any], link: list[Any]) -> dict[str, Any]:
    """The node that a link leads to."""
    found: dict[str, Any] = graph[link[0]]
    return found


def lora(name: str, weight: float = 1.0, component: str = "model") -> Lora:
    return Lora(name, Path(name), weight, component)


@pytest.mark.parametrize("version", ["old", "new"])
@pytest.mark.parametrize(("card", "task"), CASES, ids=IDS)
def test_every_graph_is_taken_by_the_server(card: ModelCard, task: Task, version: Any) -> None:
    data, info = definitions(version), info_of(version)
    order, uploads = order_of(card, task), uploads_of(card, task)
    if version == "old" and card.family == "hunyuanvideo-15":  # made after that server
        assert missing(card, info, task)
        with pytest.raises(ModelNotFound, match=card.id):
            build(order, card, info, uploads)
        return
    graph = build(order, card, info, uploads)
    verdict = validate(graph, data, files=uploads.values(), old=version == "old")
    assert verdict == (None, [str(len(graph))], {})
    for node in graph.values():
        declared = data[node["class_type"]]["input"]
        known = {*declared["required"], *declared.get("optional", {})}
        assert {name.partition(".")[0] for name in node["inputs"]} <= known


@pytest.mark.parametrize("version", ["old", "new"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_everything_that_a_card_allows_is_taken(version: Any, data: st.DataObject) -> None:
    cases = [c for c in CASES if version == "new" or c[0].family != "hunyuanvideo-15"]
    card, task = data.draw(st.sampled_from(cases))
    sizes, rule = card.sizes, card.frames
    side = st.integers(-(-sizes.minimum // sizes.multiple_of), sizes.maximum // sizes.multiple_of)
    first = -(-(rule.minimum - rule.offset) // rule.multiple)
    last = (rule.maximum - rule.offset) // rule.multiple
    takes = bool(card.remote and card.remote.settings.get("loras"))
    names = ["film-look", "film-look.safetensors"]
    names += ["v2_lora_ZoomIn.ckpt", "v2_lora_PanLeft"] if card.family == "animatediff" else []
    loras = st.lists(
        st.builds(lora, st.sampled_from(names), st.floats(0, 2)), max_size=4 if takes else 0
    )
    order = order_of(
        card,
        task,
        prompt=data.draw(st.text(max_size=30)),
        negative=data.draw(st.text(max_size=30)),
        width=data.draw(side) * sizes.multiple_of,
        height=data.draw(side) * sizes.multiple_of,
        frames=data.draw(st.integers(first, last)) * rule.multiple + rule.offset,
        fps=data.draw(st.floats(card.fps.minimum, card.fps.maximum)),
        steps=data.draw(st.integers(card.steps.minimum, card.steps.maximum)),
        guidance=data.draw(st.floats(card.guidance.minimum, card.guidance.maximum)),
        seed=data.draw(st.integers(0, 2**63 - 1)),
        shift=data.draw(st.none() | st.floats(0.1, 100)),
        loras=tuple(data.draw(loras)),
    )
    uploads = uploads_of(card, task)
    graph = build(order, card, info_of(version), uploads)
    verdict = validate(graph, definitions(version), files=uploads.values())
    assert verdict == (None, [str(len(graph))], {})


def test_the_numbers_of_a_take_arrive() -> None:
    graph = built(
        WAN, width=832, height=480, frames=33, steps=12, guidance=4.5, seed=2**63 - 1, shift=8.0
    )
    latent, sampler = only(graph, "EmptyHunyuanLatentVideo"), only(graph, "KSampler")
    assert latent == {"width": 832, "height": 480, "length": 33, "batch_size": 1}
    assert (sampler["steps"], sampler["cfg"], sampler["seed"]) == (12, 4.5, 2**63 - 1)
    assert (sampler["sampler_name"], sampler["scheduler"]) == ("uni_pc", "simple")
    assert only(graph, "ModelSamplingSD3")["shift"] == 8.0
    assert only(graph, "CreateVideo")["fps"] == 16


def test_prompt_and_negative_go_where_they_belong() -> None:
    graph = built(WAN, prompt="a ball", negative="a box")
    sampler = only(graph, "KSampler")
    assert source(graph, sampler["positive"])["inputs"]["text"] == "a ball"
    assert source(graph, sampler["negative"])["inputs"]["text"] == "a box"


def test_files_are_named_after_the_order() -> None:
    order = order_of(WAN)
    graph = build(order, WAN, info_of("new"), {})
    assert only(graph, "SaveVideo")["filename_prefix"] == f"kinoloom/{order.key}"


def test_the_shift_of_the_card_counts_where_a_take_has_none() -> None:
    assert only(built(WAN, shift=None), "ModelSamplingSD3")["shift"] == WAN.shift


# --- AnimateDiff ------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "windows"), [(16, 0), (17, 1), (128, 1)])
def test_long_animations_are_made_in_windows(frames: int, windows: int) -> None:
    graph = built(ANIMATEDIFF, frames=frames)
    found = every(graph, "ADE_StandardUniformContextOptions")
    assert found == [{"context_length": 16, "context_stride": 1, "context_overlap": 4}] * windows
    assert only(graph, "EmptyLatentImage")["batch_size"] == frames
    assert ("context_options" in only(graph, "ADE_UseEvolvedSampling")) == bool(windows)


def test_motion_loras_change_the_motion_and_others_the_looks() -> None:
    loras = (lora("v2_lora_ZoomIn", 0.7), lora("film-look", 0.5), lora("v2_lora_PanLeft.ckpt"))
    graph = built(ANIMATEDIFF, loras=loras)
    first, second = every(graph, "ADE_AnimateDiffLoRALoader")
    assert (first["name"], first["strength"]) == ("v2_lora_ZoomIn.ckpt", 0.7)
    assert (second["name"], second["strength"]) == ("v2_lora_PanLeft.ckpt", 1.0)
    assert "prev_motion_lora" not in first
    assert source(graph, second["prev_motion_lora"])["inputs"] == first
    applied = only(graph, "ADE_ApplyAnimateDiffModelSimple")
    assert source(graph, applied["motion_lora"])["inputs"] == second
    looks = only(graph, "LoraLoader")
    assert (looks["lora_name"], looks["strength_model"]) == ("film-look.safetensors", 0.5)
    for text in every(graph, "CLIPTextEncode"):
        assert source(graph, text["clip"])["class_type"] == "LoraLoader"


def test_a_card_may_have_a_motion_lora_of_its_own() -> None:
    data = ANIMATEDIFF.model_dump(mode="json", by_alias=True)
    data["remote"]["files"]["motion_lora"] = ["v2_lora_ZoomOut.ckpt"]
    data["pipelines"]["t2v"]["arguments"] = {"motion_lora_weight": 0.4}
    graph = built(ModelCard.model_validate(data), loras=(lora("v2_lora_PanLeft"),))
    own, asked = every(graph, "ADE_AnimateDiffLoRALoader")
    assert (own["name"], own["strength"]) == ("v2_lora_ZoomOut.ckpt", 0.4)
    assert source(graph, asked["prev_motion_lora"])["inputs"] == own


def test_a_weight_that_the_server_refuses_is_told_with_its_range() -> None:
    with pytest.raises(InvalidRequest) as told:
        built(ANIMATEDIFF, loras=(lora("v2_lora_ZoomIn", -1.0),))
    (problem,) = told.value.problems
    assert (problem.value, problem.allowed, problem.nearest) == (-1.0, "0 to 10", 0.0)


def test_a_lora_that_is_not_there_is_told_with_its_folder() -> None:
    with pytest.raises(ModelNotFound, match="cinematic") as told:
        built(WAN, loras=(lora("cinematic.safetensors"),))
    assert told.value.hints == ("Put cinematic.safetensors into models/loras on the server.",)


# --- Stable Video Diffusion -------------------------------------------------------------------


def test_a_picture_is_set_in_motion_as_the_card_says() -> None:
    card = CATALOG.get("comfyui-svd-xt")
    graph = built(card, fps=10)
    told = only(graph, "SVD_img2vid_Conditioning")
    assert (told["width"], told["height"], told["video_frames"]) == (1024, 576, 25)
    # What the model is told of its training clips is not the rate that is asked for.
    assert (told["fps"], told["motion_bucket_id"]) == (7, 127)
    assert only(graph, "CreateVideo")["fps"] == 10
    assert source(graph, told["init_image"])["inputs"] == {"image": "kinoloom-image.png"}
    sampler = only(graph, "KSampler")
    assert sampler["positive"][1] == 0
    assert sampler["negative"][1] == 1
    assert sampler["latent_image"][1] == 2
    guided = source(graph, sampler["model"])
    assert (guided["class_type"], guided["inputs"]["min_cfg"]) == ("VideoLinearCFGGuidance", 1.0)


def test_a_picture_that_was_not_uploaded_is_told() -> None:
    card = CATALOG.get("comfyui-svd")
    with pytest.raises(InvalidMedia, match="image"):
        build(order_of(card), card, info_of("new"), {})


# --- Wan --------------------------------------------------------------------------------------


def test_pictures_are_seen_by_the_encoder_that_the_model_knows() -> None:
    graph = built(CATALOG.get("comfyui-wan-2.1-flf2v-14b"))
    start = only(graph, "WanFirstLastFrameToVideo")
    for image, seen, name in (
        ("start_image", "clip_vision_start_image", "kinoloom-image.png"),
        ("end_image", "clip_vision_end_image", "kinoloom-last_image.png"),
    ):
        assert source(graph, start[image])["inputs"]["image"] == name
        assert source(graph, start[seen])["inputs"]["image"] == start[image]


def test_wan_2_2_does_without_that_encoder() -> None:
    graph = built(CATALOG.get("comfyui-wan-2.2-i2v-a14b"), "flf2v")
    start = only(graph, "WanFirstLastFrameToVideo")
    assert not {"clip_vision_start_image", "clip_vision_end_image"} & start.keys()
    assert not every(graph, "CLIPVisionLoader")


def test_the_small_model_takes_a_picture_or_none() -> None:
    card = CATALOG.get("comfyui-wan-2.2-ti2v-5b")
    assert "start_image" not in only(built(card, "t2v"), "Wan22ImageToVideoLatent")
    graph = built(card, "i2v")
    image = source(graph, only(graph, "Wan22ImageToVideoLatent")["start_image"])
    assert image["inputs"] == {"image": "kinoloom-image.png"}


def test_two_experts_divide_the_steps() -> None:
    graph = built(A14B, steps=40, guidance=4.0, seed=9)
    high, low = every(graph, "KSamplerAdvanced")
    assert (high["start_at_step"], high["end_at_step"]) == (0, 26)
    assert (low["start_at_step"], low["end_at_step"]) == (26, 40)
    assert (high["cfg"], low["cfg"]) == (4.0, 3.0)
    assert (high["add_noise"], low["add_noise"]) == ("enable", "disable")
    assert high["return_with_leftover_noise"] == "enable"
    assert low["return_with_leftover_noise"] == "disable"
    assert high["noise_seed"] == low["noise_seed"] == 9
    assert source(graph, low["latent_image"])["inputs"] == high
    names = []
    for part in (high, low):
        shifted = source(graph, part["model"])
        assert shifted["inputs"]["shift"] == 12.0
        names.append(source(graph, shifted["inputs"]["model"])["inputs"]["unet_name"])
    assert ["high_noise" in name for name in names] == [True, False]


def test_distilled_experts_load_their_loras() -> None:
    graph = built(FAST)
    high, low = every(graph, "KSamplerAdvanced")
    assert (high["end_at_step"], high["cfg"], low["cfg"]) == (2, 1.0, 1.0)
    for part, word in ((high, "high_noise"), (low, "low_noise")):
        shifted = source(graph, part["model"])
        loaded = source(graph, shifted["inputs"]["model"])["inputs"]
        assert word in loaded["lora_name"]
        assert word in source(graph, loaded["model"])["inputs"]["unet_name"]


@pytest.mark.parametrize(
    ("name", "component", "changed"),
    [
        ("film-look.safetensors", "model", 2),
        ("film-look_high_noise.safetensors", "model", 1),
        ("film-look_low_noise.safetensors", "model", 1),
        ("film-look.safetensors", "transformer_2", 1),
    ],
)
def test_a_lora_is_for_both_experts_unless_its_name_says_for_which(
    name: str, component: str, changed: int
) -> None:
    data = definitions()
    for loader in ("LoraLoaderModelOnly", "LoraLoader"):
        data[loader]["input"]["required"]["lora_name"][0].append(name)
    graph = built(A14B, data=data, loras=(lora(name, component=component),))
    assert len(every(graph, "LoraLoaderModelOnly")) == changed


# --- HunyuanVideo 1.5 -------------------------------------------------------------------------


def test_hunyuan_reads_with_two_encoders() -> None:
    graph = built(CATALOG.get("comfyui-hunyuanvideo-1.5-720p-i2v"))
    assert only(graph, "DualCLIPLoader") == {
        "clip_name1": "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "clip_name2": "byt5_small_glyphxl_fp16.safetensors",
        "type": "hunyuan_video_15",
    }
    start = only(graph, "HunyuanVideo15ImageToVideo")
    seen = source(graph, start["clip_vision_output"])["inputs"]
    assert seen["image"] == start["start_image"]
    assert only(graph, "ModelSamplingSD3")["shift"] == 7.0


# --- what cannot be built ---------------------------------------------------------------------


def test_what_the_server_lacks_is_in_the_error() -> None:
    info = ObjectInfo.of(without(definitions(), "wan_2.1_vae.safetensors"))
    with pytest.raises(ModelNotFound, match=WAN.id) as told:
        build(order_of(WAN), WAN, info, {})
    (lack,) = told.value.details["missing"]
    assert (lack["what"], lack["name"], lack["folder"]) == ("file", "vae", "vae")


def test_a_task_that_the_card_has_not_is_refused() -> None:
    with pytest.raises(InvalidRequest) as told:
        build(order_of(WAN, "i2v"), WAN, info_of("new"), {})
    assert told.value.problems[0].field == "task"


def test_a_graph_that_there_is_not_is_refused() -> None:
    data = WAN.model_dump(mode="json", by_alias=True)
    data["pipelines"] = {"t2v": {"class": "sora"}}
    card = ModelCard.model_validate(data)
    with pytest.raises(InvalidRequest, match="names a graph") as told:
        build(order_of(card), card, info_of("new"), {})
    assert "wan_t2v" in told.value.problems[0].allowed


def test_every_builder_belongs_to_a_card() -> None:
    named = {card.pipelines[task].class_name for card, task in CASES}
    assert named == set(BUILDERS)
