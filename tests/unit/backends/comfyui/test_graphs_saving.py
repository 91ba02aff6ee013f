from __future__ import annotations

from typing import Any

import pytest

from fakes.comfyui_validation import definitions, validate, without
from fakes.orders import order_of
from kinoloom.backends.comfyui.graphs import build
from kinoloom.backends.comfyui.graphs.base import Graph, Images
from kinoloom.backends.comfyui.graphs.saving import save
from kinoloom.backends.comfyui.object_info import ObjectInfo
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import ModelNotFound

CATALOG = Catalog.load()
WAN = CATALOG.get("comfyui-wan-2.1-t2v-1.3b")
ANIMATEDIFF = CATALOG.get("comfyui-animatediff")


def saved(data: dict[str, Any], card: Any = WAN) -> dict[str, Any]:
    """The node that saves."""
    order = order_of(card, fps=16.0)
    graph = build(order, card, ObjectInfo.of(data), {})
    error, (output,), node_errors = validate(graph, data)
    assert error is None
    assert node_errors == {}
    found: dict[str, Any] = graph[output]
    assert found["inputs"]["filename_prefix"] == f"kinoloom/{order.key}"
    return found


def test_a_new_server_is_asked_for_a_codec_with_the_format() -> None:
    node = saved(definitions("new"))
    assert node["class_type"] == "SaveVideo"
    assert node["inputs"]["format"] == "mp4"
    assert node["inputs"]["format.codec"] == "h264"
    assert "codec" not in node["inputs"]


def test_an_old_server_is_asked_for_format_and_codec() -> None:
    node = saved(definitions("old"))
    assert node["class_type"] == "SaveVideo"
    assert node["inputs"]["format"] == "mp4"
    assert node["inputs"]["codec"] == "h264"
    assert "format.codec" not in node["inputs"]


def test_what_a_server_does_not_offer_is_left_to_it() -> None:
    data = definitions("old")
    for name in ("format", "codec"):
        data["SaveVideo"]["input"]["required"][name] = ["COMBO", {"options": ["auto", "mjpeg"]}]
    node = saved(data)
    assert (node["inputs"]["format"], node["inputs"]["codec"]) == ("auto", "auto")


@pytest.mark.parametrize("version", ["old", "new"])
def test_animations_are_saved_by_the_helper_suite_where_it_is(version: Any) -> None:
    node = saved(definitions(version), ANIMATEDIFF)
    assert node["class_type"] == "VHS_VideoCombine"
    assert node["inputs"]["format"] == "video/h264-mp4"
    assert node["inputs"]["frame_rate"] == 16.0
    assert node["inputs"]["save_output"] is True
    without_it = without(definitions(version), "VHS_VideoCombine")
    assert saved(without_it, ANIMATEDIFF)["class_type"] == "SaveVideo"


def test_other_graphs_use_it_where_the_server_has_nothing_else() -> None:
    left = without(definitions(), "SaveVideo")
    assert saved(left)["class_type"] == "VHS_VideoCombine"


@pytest.mark.parametrize("version", ["old", "new"])
def test_webm_is_the_last_way(version: Any) -> None:
    node = saved(without(definitions(version), "CreateVideo", "VHS_VideoCombine"))
    assert node["class_type"] == "SaveWEBM"
    assert (node["inputs"]["codec"], node["inputs"]["fps"]) == ("vp9", 16.0)


def test_a_helper_suite_without_ffmpeg_is_passed_over() -> None:
    # It then offers pictures only.
    data = definitions()
    data["VHS_VideoCombine"]["input"]["required"]["format"] = [["image/gif", "image/webp"], {}]
    assert saved(data, ANIMATEDIFF)["class_type"] == "SaveVideo"


def test_a_server_that_saves_no_video_is_told() -> None:
    info = ObjectInfo.of(without(definitions(), "SaveVideo", "SaveWEBM", "VHS_VideoCombine"))
    with pytest.raises(ModelNotFound, match="no node that saves a video"):
        save(Graph(info), Images("1", 0), 16, "x", helper_first=False)
