"""Which graph of nodes makes a take on a ComfyUI server?

One file a family; `base` holds a graph against what the server declares, `nodes` has what several
families share, `saving` chooses the nodes that write the video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kinoloom.backends.base import Order
from kinoloom.backends.comfyui import workflow
from kinoloom.backends.comfyui.graphs import animatediff, hunyuan_video15, svd, wan
from kinoloom.backends.comfyui.graphs.base import Brief, Graph, Images
from kinoloom.backends.comfyui.graphs.saving import save
from kinoloom.backends.comfyui.object_info import ObjectInfo, chosen_files, lacking, missing
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import InvalidRequest, Problem

BUILDERS: Mapping[str, Callable[[Graph, Brief], Images]] = {
    "animatediff": animatediff.text_to_video,
    "svd": svd.image_to_video,
    "wan_t2v": wan.text_to_video,
    "wan_i2v": wan.image_to_video,
    "wan_flf2v": wan.first_last_to_video,
    "wan22_5b": wan.small_wan22,
    "wan22_a14b_t2v": wan.experts_text_to_video,
    "wan22_a14b_i2v": wan.experts_image_to_video,
    "wan22_a14b_flf2v": wan.experts_first_last_to_video,
    "hunyuan15_t2v": hunyuan_video15.text_to_video,
    "hunyuan15_i2v": hunyuan_video15.image_to_video,
}
"""By the class of a card's pipeline; `workflow` is a graph of the user's own."""


def build(
    order: Order, card: ModelCard, info: ObjectInfo, uploads: Mapping[str, str]
) -> dict[str, Any]:
    """The graph of an order in API format, for a server that answered `info`.

    `uploads` are the server's names of the uploaded pictures, by the names of `Inputs`. The files
    it saves begin with ``kinoloom/`` and the order's key.

    Raises ModelNotFound, with what is missing in `details`, when the server lacks nodes or files;
    InvalidRequest for what it does not allow; InvalidMedia when a picture was not uploaded.
    """
    take = order.take
    pipeline = card.pipelines.get(take.task)
    if pipeline is None:
        allowed = ", ".join(card.tasks)
        raise InvalidRequest([Problem("task", take.task, f"{allowed} with {card.id}")])
    lacks = missing(card, info, take.task)
    if lacks:
        raise lacking(card, lacks)
    if pipeline.class_name == workflow.CLASS:
        return workflow.fill(order, card, info, uploads)
    builder = BUILDERS.get(pipeline.class_name)
    if builder is None:
        known = ", ".join(sorted(BUILDERS))
        raise InvalidRequest(
            [Problem("class", pipeline.class_name, f"one of {known}")],
            message=f"The card {card.id} names a graph that there is not.",
        )
    graph = Graph(info)
    brief = Brief(take, card, pipeline, chosen_files(card, info), uploads)
    images = builder(graph, brief)
    prefix = workflow.prefix(order)
    save(graph, images, take.fps, prefix, helper_first=card.family == "animatediff")
    return graph.api()
