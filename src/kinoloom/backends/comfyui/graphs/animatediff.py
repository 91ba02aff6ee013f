"""How is AnimateDiff run, with the nodes of ComfyUI-AnimateDiff-Evolved?

The motion module makes up to 16 frames at once; a longer clip is made in windows of 16 that share
4 frames, as the extension's author recommends and as locally.
"""

from __future__ import annotations

from kinoloom.backends.base import Lora
from kinoloom.backends.comfyui.graphs.base import (
    Brief,
    Clip,
    ContextOptions,
    Graph,
    Images,
    Latent,
    Model,
    MotionLora,
    MotionModel,
    MotionModels,
    Vae,
)
from kinoloom.backends.comfyui.graphs.nodes import decode, encode, find_lora, lora_file, sample
from kinoloom.backends.comfyui.object_info import ROLES

WINDOW = 16
"""Frames that the motion modules of Stable Diffusion 1.5 were trained on."""
OVERLAP = 4


def text_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip from words: an image model, set in motion."""
    take, files = brief.take, brief.files
    loader = graph.node("CheckpointLoaderSimple", ckpt_name=files["checkpoint"])
    model, clip, vae = loader.out(Model), loader.out(Clip, 1), loader.out(Vae, 2)
    motion, looks = _divided(graph, take.loras)
    model, clip = _with_looks(graph, model, clip, looks)
    moving = _animated(graph, brief, model, _motion_lora(graph, brief, motion))
    positive = encode(graph, clip, take.prompt)
    negative = encode(graph, clip, take.negative)
    latent = graph.node(
        "EmptyLatentImage", width=take.width, height=take.height, batch_size=take.frames
    ).out(Latent)
    return decode(graph, sample(graph, brief, moving, positive, negative, latent), vae)


def _animated(graph: Graph, brief: Brief, model: Model, lora: MotionLora | None) -> Model:
    module = graph.node("ADE_LoadAnimateDiffModel", model_name=brief.files["motion_model"])
    applied = graph.node(
        "ADE_ApplyAnimateDiffModelSimple", motion_model=module.out(MotionModel), motion_lora=lora
    )
    context = None
    if brief.take.frames > WINDOW:
        context = graph.node(
            "ADE_StandardUniformContextOptions",
            context_length=WINDOW,
            context_stride=1,
            context_overlap=OVERLAP,
        ).out(ContextOptions)
    return graph.node(
        "ADE_UseEvolvedSampling",
        model=model,
        beta_schedule="autoselect",
        m_models=applied.out(MotionModels),
        context_options=context,
    ).out(Model)


def _divided(graph: Graph, loras: tuple[Lora, ...]) -> tuple[list[Lora], list[Lora]]:
    """The LoRAs of the motion module, which lie in a folder of their own, and those of looks."""
    moves = graph.info.choices(ROLES["motion_lora"].node, ROLES["motion_lora"].input)
    motion = [lora for lora in loras if lora_file(lora, moves) is not None]
    return motion, [lora for lora in loras if lora not in motion]


def _motion_lora(graph: Graph, brief: Brief, loras: list[Lora]) -> MotionLora | None:
    """The chain of motion LoRAs: the card's own, then those that were asked for."""
    role = ROLES["motion_lora"]
    chain = [
        (find_lora(x, graph.info.choices(role.node, role.input), role.folder), x.weight)
        for x in loras
    ]
    if "motion_lora" in brief.files:
        chain.insert(0, (brief.files["motion_lora"], brief.argument("motion_lora_weight", 1.0)))
    last: MotionLora | None = None
    for file, weight in chain:
        node = graph.node(role.node, name=file, strength=weight, prev_motion_lora=last)
        last = node.out(MotionLora)
    return last


def _with_looks(graph: Graph, model: Model, clip: Clip, loras: list[Lora]) -> tuple[Model, Clip]:
    """The image model and its text encoder with LoRAs on top."""
    for lora in loras:
        file = find_lora(lora, graph.info.choices("LoraLoader", "lora_name"), "loras")
        node = graph.node(
            "LoraLoader",
            model=model,
            clip=clip,
            lora_name=file,
            strength_model=lora.weight,
            strength_clip=lora.weight,
        )
        model, clip = node.out(Model), node.out(Clip, 1)
    return model, clip
