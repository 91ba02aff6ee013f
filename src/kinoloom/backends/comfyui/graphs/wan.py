"""How are the Wan 2.1 and 2.2 models run?

Wan 2.2's larger models are two experts: one removes much noise, the other the rest. Which one makes
a step follows from the noise at its start, against the card's argument `boundary`, as in the
weights' own ``boundary_ratio``.
"""

from __future__ import annotations

from collections.abc import Callable

from kinoloom.backends.base import Lora
from kinoloom.backends.comfyui.graphs.base import (
    Brief,
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
    load_clip,
    load_image,
    load_model,
    load_vae,
    sample,
    see,
    shifted,
    with_lora,
    with_loras,
)
from kinoloom.catalog.card import ModelCard

Start = tuple[Conditioning, Conditioning, Latent]
"""What sampling starts from: what to show, what not to show, and the latent."""


def text_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip from words."""
    return _by_one(graph, brief, _from_words)


def image_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip from a first picture and words."""
    return _by_one(graph, brief, _from_image)


def first_last_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip between a first and a last picture."""
    return _by_one(graph, brief, _from_first_and_last)


def small_wan22(graph: Graph, brief: Brief) -> Images:
    """A clip from words, or from a first picture and words, by Wan 2.2's small model."""
    return _by_one(graph, brief, _from_words_or_image)


def experts_text_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip from words, by two experts."""
    return _by_two(graph, brief, _from_words)


def experts_image_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip from a first picture and words, by two experts."""
    return _by_two(graph, brief, _from_image)


def experts_first_last_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip between a first and a last picture, by two experts."""
    return _by_two(graph, brief, _from_first_and_last)


def steps_of_first(boundary: float, steps: int, shift: float) -> int:
    """How many of `steps` are above the `boundary` (0 to 1), so that the first expert makes them.

    At step i of n the noise is shift * t / (1 + (shift - 1) * t) with t = 1 - i / n, which is what
    ComfyUI's scheduler `simple` takes (Esser et al. 2024, section 5.3.2). Each expert makes at
    least one step where there are two.
    """
    noise = [shift * t / (1 + (shift - 1) * t) for t in (1 - i / steps for i in range(steps))]
    above = sum(level >= boundary for level in noise)
    return min(max(above, 1), max(steps - 1, 1))


_Starts = Callable[[Graph, Brief, Vae, Conditioning, Conditioning], Start]


def _by_one(graph: Graph, brief: Brief, starts: _Starts) -> Images:
    model = with_loras(graph, load_model(graph, brief.files["diffusion_model"]), brief.take.loras)
    vae, start = _started(graph, brief, starts)
    return decode(graph, sample(graph, brief, shifted(graph, model, brief.shift), *start), vae)


def _by_two(graph: Graph, brief: Brief, starts: _Starts) -> Images:
    take = brief.take
    high = _expert(graph, brief, "high_noise", "transformer")
    low = _expert(graph, brief, "low_noise", "transformer_2")
    vae, (positive, negative, latent) = _started(graph, brief, starts)
    switch = steps_of_first(brief.argument("boundary", 0.9), take.steps, brief.shift or 1.0)

    def part(model: Model, latent: Latent, cfg: float, first: bool) -> Latent:
        return graph.node(
            "KSamplerAdvanced",
            model=model,
            add_noise="enable" if first else "disable",
            noise_seed=take.seed,
            steps=take.steps,
            cfg=cfg,
            sampler_name=brief.setting("sampler", "euler"),
            scheduler=brief.setting("scheduler", "simple"),
            positive=positive,
            negative=negative,
            latent_image=latent,
            start_at_step=0 if first else switch,
            end_at_step=switch if first else take.steps,
            return_with_leftover_noise="enable" if first else "disable",
        ).out(Latent)

    rough = part(high, latent, take.guidance, first=True)
    # A request's guidance is the first expert's; the card has the second's.
    guidance = brief.argument("guidance_scale_2", take.guidance)
    return decode(graph, part(low, rough, guidance, first=False), vae)


def _expert(graph: Graph, brief: Brief, role: str, name: str) -> Model:
    model = load_model(graph, brief.files[role])
    if f"{role}_lora" in brief.files:
        model = with_lora(graph, model, brief.files[f"{role}_lora"])
    own = [x for x in brief.take.loras if _changes(x, name, brief.card)]
    return shifted(graph, with_loras(graph, model, own), brief.shift)


def _changes(lora: Lora, expert: str, card: ModelCard) -> bool:
    """Whether a LoRA is for an expert: a name without a word for one of them means both."""
    file = lora.path.name.casefold()
    named = [name for name, words in card.experts.items() if any(word in file for word in words)]
    return lora.component == expert or (
        lora.component not in card.experts and (not named or expert in named)
    )


def _started(graph: Graph, brief: Brief, starts: _Starts) -> tuple[Vae, Start]:
    clip = load_clip(graph, brief.files["text_encoder"], "wan")
    vae = load_vae(graph, brief.files["vae"])
    positive = encode(graph, clip, brief.take.prompt)
    negative = encode(graph, clip, brief.take.negative)
    return vae, starts(graph, brief, vae, positive, negative)


def _from_words(
    graph: Graph, brief: Brief, vae: Vae, positive: Conditioning, negative: Conditioning
) -> Start:
    return positive, negative, empty_clip(graph, "EmptyHunyuanLatentVideo", brief.take)


def _from_words_or_image(
    graph: Graph, brief: Brief, vae: Vae, positive: Conditioning, negative: Conditioning
) -> Start:
    take = brief.take
    image = load_image(graph, brief.picture("image")) if take.task == "i2v" else None
    latent = graph.node(
        "Wan22ImageToVideoLatent",
        vae=vae,
        width=take.width,
        height=take.height,
        length=take.frames,
        batch_size=1,
        start_image=image,
    ).out(Latent)
    return positive, negative, latent


def _from_image(
    graph: Graph, brief: Brief, vae: Vae, positive: Conditioning, negative: Conditioning
) -> Start:
    take, image = brief.take, load_image(graph, brief.picture("image"))
    # Wan 2.2 does without the encoder of pictures that 2.1 was trained with.
    vision = brief.files.get("clip_vision")
    node = graph.node(
        "WanImageToVideo",
        positive=positive,
        negative=negative,
        vae=vae,
        width=take.width,
        height=take.height,
        length=take.frames,
        batch_size=1,
        clip_vision_output=see(graph, vision, image) if vision else None,
        start_image=image,
    )
    return node.out(Conditioning), node.out(Conditioning, 1), node.out(Latent, 2)


def _from_first_and_last(
    graph: Graph, brief: Brief, vae: Vae, positive: Conditioning, negative: Conditioning
) -> Start:
    take = brief.take
    first = load_image(graph, brief.picture("image"))
    last = load_image(graph, brief.picture("last_image"))
    vision = brief.files.get("clip_vision")
    node = graph.node(
        "WanFirstLastFrameToVideo",
        positive=positive,
        negative=negative,
        vae=vae,
        width=take.width,
        height=take.height,
        length=take.frames,
        batch_size=1,
        clip_vision_start_image=see(graph, vision, first) if vision else None,
        clip_vision_end_image=see(graph, vision, last) if vision else None,
        start_image=first,
        end_image=last,
    )
    return node.out(Conditioning), node.out(Conditioning, 1), node.out(Latent, 2)
