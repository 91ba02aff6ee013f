"""How is HunyuanVideo 1.5 run?"""

from __future__ import annotations

from kinoloom.backends.comfyui.graphs.base import (
    Brief,
    Clip,
    Conditioning,
    Graph,
    Images,
    Latent,
    Model,
    Vae,
)
from kinoloom.backends.comfyui.graphs.nodes import (
    decode,
    empty_clip,
    encode,
    load_image,
    load_model,
    load_vae,
    sample,
    see,
    shifted,
    with_loras,
)


def text_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip from words."""
    model, vae, positive, negative = _loaded(graph, brief)
    latent = empty_clip(graph, "EmptyHunyuanVideo15Latent", brief.take)
    return decode(graph, sample(graph, brief, model, positive, negative, latent), vae)


def image_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip from a first picture and words."""
    take = brief.take
    model, vae, positive, negative = _loaded(graph, brief)
    image = load_image(graph, brief.picture("image"))
    start = graph.node(
        "HunyuanVideo15ImageToVideo",
        positive=positive,
        negative=negative,
        vae=vae,
        width=take.width,
        height=take.height,
        length=take.frames,
        batch_size=1,
        start_image=image,
        clip_vision_output=see(graph, brief.files["clip_vision"], image),
    )
    positive, negative = start.out(Conditioning), start.out(Conditioning, 1)
    latent = sample(graph, brief, model, positive, negative, start.out(Latent, 2))
    return decode(graph, latent, vae)


def _loaded(graph: Graph, brief: Brief) -> tuple[Model, Vae, Conditioning, Conditioning]:
    take, files = brief.take, brief.files
    model = with_loras(graph, load_model(graph, files["diffusion_model"]), take.loras)
    clip = graph.node(
        "DualCLIPLoader",
        clip_name1=files["text_encoder_1"],
        clip_name2=files["text_encoder_2"],
        type="hunyuan_video_15",
    ).out(Clip)
    vae = load_vae(graph, files["vae"])
    positive = encode(graph, clip, take.prompt)
    negative = encode(graph, clip, take.negative)
    return shifted(graph, model, brief.shift), vae, positive, negative
