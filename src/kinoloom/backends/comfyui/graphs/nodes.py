"""Which nodes do graphs of several families share?"""

from __future__ import annotations

from collections.abc import Iterable

from kinoloom.backends.base import Lora, Take
from kinoloom.backends.comfyui.graphs.base import (
    Brief,
    Clip,
    ClipVision,
    Conditioning,
    Graph,
    Images,
    Latent,
    Model,
    Seen,
    Vae,
)
from kinoloom.backends.comfyui.object_info import file_name, find_file
from kinoloom.errors import ModelNotFound


def load_model(graph: Graph, file: str) -> Model:
    """A diffusion model from a file of its own."""
    return graph.node("UNETLoader", unet_name=file, weight_dtype="default").out(Model)


def load_clip(graph: Graph, file: str, kind: str) -> Clip:
    """A text encoder; `kind` is ComfyUI's word for what it is used with."""
    return graph.node("CLIPLoader", clip_name=file, type=kind).out(Clip)


def load_vae(graph: Graph, file: str) -> Vae:
    """A VAE."""
    return graph.node("VAELoader", vae_name=file).out(Vae)


def load_image(graph: Graph, name: str) -> Images:
    """An uploaded picture."""
    return graph.node("LoadImage", image=name).out(Images)


def see(graph: Graph, clip_vision: str, image: Images) -> Seen:
    """A picture as the encoder in the file `clip_vision` describes it."""
    vision = graph.node("CLIPVisionLoader", clip_name=clip_vision).out(ClipVision)
    return graph.node("CLIPVisionEncode", clip_vision=vision, image=image, crop="center").out(Seen)


def encode(graph: Graph, clip: Clip, text: str) -> Conditioning:
    """What a text says."""
    return graph.node("CLIPTextEncode", text=text, clip=clip).out(Conditioning)


def shifted(graph: Graph, model: Model, shift: float | None) -> Model:
    """A flow model with its steps shifted to much noise; None leaves it as it is."""
    if shift is None:
        return model
    return graph.node("ModelSamplingSD3", model=model, shift=shift).out(Model)


def sample(
    graph: Graph,
    brief: Brief,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    latent: Latent,
) -> Latent:
    """All steps of a take by one model."""
    take = brief.take
    return graph.node(
        "KSampler",
        model=model,
        seed=take.seed,
        steps=take.steps,
        cfg=take.guidance,
        sampler_name=brief.setting("sampler", "euler"),
        scheduler=brief.setting("scheduler", "simple"),
        positive=positive,
        negative=negative,
        latent_image=latent,
        denoise=1.0,
    ).out(Latent)


def decode(graph: Graph, latent: Latent, vae: Vae) -> Images:
    """The frames of a latent. ComfyUI decodes in tiles by itself when memory runs out."""
    return graph.node("VAEDecode", samples=latent, vae=vae).out(Images)


def empty_clip(graph: Graph, node: str, take: Take) -> Latent:
    """A latent for all frames of a take, of a node that makes empty ones."""
    return graph.node(
        node, width=take.width, height=take.height, length=take.frames, batch_size=1
    ).out(Latent)


def with_loras(graph: Graph, model: Model, loras: Iterable[Lora]) -> Model:
    """A model with LoRAs on top, in their order. Raises ModelNotFound for one that is not there."""
    for lora in loras:
        file = find_lora(lora, graph.info.choices("LoraLoaderModelOnly", "lora_name"), "loras")
        model = with_lora(graph, model, file, lora.weight)
    return model


def with_lora(graph: Graph, model: Model, file: str, weight: float = 1.0) -> Model:
    """A model with a LoRA on top, by the server's name of its file."""
    return graph.node(
        "LoraLoaderModelOnly", model=model, lora_name=file, strength_model=weight
    ).out(Model)


def find_lora(lora: Lora, there: Iterable[str], folder: str) -> str:
    """The server's name of a LoRA's file.

    Raises ModelNotFound, which names the folder below ``models`` where it is looked for.
    """
    names = tuple(there)
    found = lora_file(lora, names)
    if found is None:
        raise ModelNotFound(
            f"The LoRA {lora.name} is not on the ComfyUI server.",
            cause=f"There are: {', '.join(names[:20]) or 'none'}.",
            hints=[f"Put {lora.path.name} into models/{folder} on the server."],
        )
    return found


def lora_file(lora: Lora, there: tuple[str, ...]) -> str | None:
    """The server's name of a LoRA's file, which may be asked for without its ending."""
    wanted = lora.path.name
    return find_file(wanted, there) or next(
        (name for name in there if file_name(name).rpartition(".")[0] == wanted.lower()), None
    )
