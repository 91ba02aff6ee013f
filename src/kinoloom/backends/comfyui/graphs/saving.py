"""How does a graph save its frames as a video, with the nodes that the server has?

``SaveVideo`` came with ComfyUI 0.3.30. It took a format and a codec; newer ones bring the codec
with the format (``format.codec``). ``VHS_VideoCombine`` belongs to ComfyUI-VideoHelperSuite.
``SaveWEBM`` is what older servers have.
"""

from __future__ import annotations

from kinoloom.backends.comfyui.graphs.base import Graph, Images, Video
from kinoloom.errors import ModelNotFound

_VHS_FORMATS = ("video/h264-mp4", "video/webm")
_VIDEO_HELPER_FIRST = ("VHS_VideoCombine", "SaveVideo", "SaveWEBM")
_CORE_FIRST = ("SaveVideo", "VHS_VideoCombine", "SaveWEBM")


def save(graph: Graph, images: Images, fps: float, prefix: str, *, helper_first: bool) -> None:
    """Add what saves `images` at `fps` frames a second, in files that begin with `prefix`.

    H.264 in MP4 where the server can, else WebM. `helper_first` prefers ComfyUI-VideoHelperSuite
    where it is installed. Raises ModelNotFound when the server has no node for it.
    """
    for node in _VIDEO_HELPER_FIRST if helper_first else _CORE_FIRST:
        if node == "SaveVideo" and graph.info.has(node) and graph.info.has("CreateVideo"):
            return _save_video(graph, images, fps, prefix)
        if node == "VHS_VideoCombine" and _vhs_format(graph) is not None:
            return _combine(graph, images, fps, prefix)
        if node == "SaveWEBM" and graph.info.has(node):
            return _save_webm(graph, images, fps, prefix)
    raise ModelNotFound(
        "The ComfyUI server has no node that saves a video.",
        hints=["Update ComfyUI, or install ComfyUI-VideoHelperSuite."],
    )


def _save_video(graph: Graph, images: Images, fps: float, prefix: str) -> None:
    video = graph.node("CreateVideo", images=images, fps=fps).out(Video)
    declared = graph.info.node("SaveVideo")
    known = declared.inputs if declared else {}
    container = known.get("format")
    inputs = {"format": _one_of("mp4", container.choices if container else ())}
    if container is not None and "codec" in container.chosen.get(inputs["format"], {}):
        codec = container.chosen[inputs["format"]]["codec"]
        inputs["format.codec"] = _one_of("h264", codec.choices)
    elif "codec" in known:
        inputs["codec"] = _one_of("h264", known["codec"].choices)
    graph.node("SaveVideo", video=video, filename_prefix=prefix, **inputs)


def _one_of(wanted: str, choices: tuple[str, ...]) -> str:
    return wanted if wanted in choices else "auto"


def _vhs_format(graph: Graph) -> str | None:
    choices = graph.info.choices("VHS_VideoCombine", "format")
    return next((name for name in _VHS_FORMATS if name in choices), None)


def _combine(graph: Graph, images: Images, fps: float, prefix: str) -> None:
    graph.node(
        "VHS_VideoCombine",
        images=images,
        frame_rate=fps,
        loop_count=0,
        filename_prefix=prefix,
        format=_vhs_format(graph),
        pingpong=False,
        save_output=True,
    )


def _save_webm(graph: Graph, images: Images, fps: float, prefix: str) -> None:
    # 18 of 63 is near what 19 of 51 is for H.264: no loss that is seen at a glance.
    graph.node("SaveWEBM", images=images, filename_prefix=prefix, codec="vp9", fps=fps, crf=18.0)
