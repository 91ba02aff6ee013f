"""How is Stable Video Diffusion run?"""

from __future__ import annotations

from kinoloom.backends.comfyui.graphs.base import (
    Brief,
    ClipVision,
    Conditioning,
    Graph,
    Images,
    Latent,
    Model,
    Vae,
)
from kinoloom.backends.comfyui.graphs.nodes import decode, load_image, sample


def image_to_video(graph: Graph, brief: Brief) -> Images:
    """A clip that sets a picture in motion, without words.

    The guidance grows from 1 at the first frame to the take's at the last one, as in the makers'
    own program. The card says what the model is told: frames a second, how much moves, and the
    noise on the picture.
    """
    take = brief.take
    loader = graph.node("ImageOnlyCheckpointLoader", ckpt_name=brief.files["image_checkpoint"])
    model, vision, vae = loader.out(Model), loader.out(ClipVision, 1), loader.out(Vae, 2)
    guided = graph.node("VideoLinearCFGGuidance", model=model, min_cfg=1.0).out(Model)
    told = graph.node(
        "SVD_img2vid_Conditioning",
        clip_vision=vision,
        init_image=load_image(graph, brief.picture("image")),
        vae=vae,
        width=take.width,
        height=take.height,
        video_frames=take.frames,
        motion_bucket_id=round(brief.argument("motion_bucket_id", 127)),
        fps=round(brief.argument("fps", 7)),
        augmentation_level=brief.argument("augmentation_level", 0.0),
    )
    positive, negative = told.out(Conditioning), told.out(Conditioning, 1)
    latent = sample(graph, brief, guided, positive, negative, told.out(Latent, 2))
    return decode(graph, latent, vae)
