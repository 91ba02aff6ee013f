"""How are frames of the film encoded, so that they may stand beside copied ones?

The parts of an mp4 or a webm are written by the same `write_video` that writes clips: what it makes
with equal size and rate is of one kind with our own clips, today and whenever its settings change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat as PixelFormat
from av.video.reformatter import ColorRange

from kinoloom.errors import OutputFailed
from kinoloom.film.stitch.source import Kind, read_source
from kinoloom.media.frames import Frame
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.media.writer import write_video

FileFormat: TypeAlias = Literal["mp4", "webm", "prores"]


@dataclass(frozen=True)
class Recipe:
    """What a film's file is made of: container, codec and pixels of its pictures, its sound."""

    container: str
    codec: str
    pixels: str
    sound: str
    sound_bits: int
    """A second; 0 where the codec has no choice."""
    options: Mapping[str, str]


_INDEX_FIRST = {"movflags": "+faststart+use_metadata_tags"}
RECIPES: Mapping[FileFormat, Recipe] = {
    "mp4": Recipe("mp4", "h264", "yuv420p", "aac", 192_000, _INDEX_FIRST),
    "webm": Recipe("webm", "vp9", "yuv420p", "libopus", 128_000, {}),
    # What editors take without converting it first: 10 bits 4:2:2, sound of 24 bits.
    "prores": Recipe("mov", "prores", "yuv422p10le", "pcm_s24le", 0, _INDEX_FIRST),
}

_BT709 = 1
"""The number of BT.709 in ITU-T H.273, tables 2 to 4: primaries, transfer and matrix alike."""
_PRORES_HQ = "3"


def encode_part(
    path: Path,
    frames: Iterable[Frame],
    fps: Fraction,
    form: FileFormat,
    on_frame: Callable[[int], None],
) -> None:
    """Write frames [H, W, 3] as a file of pictures only. Raises OutputFailed and InvalidMedia."""
    if form == "prores":
        _write_prores(path, frames, fps, on_frame)
    else:
        write_video(path, frames, fps, format=form, on_frame=on_frame)


def encoded_kind(folder: Path, size: tuple[int, int], fps: Fraction, form: FileFormat) -> Kind:
    """The kind of what `encode_part` writes, found by encoding one grey frame in `folder`."""
    probe = folder / f"probe.{RECIPES[form].container}"
    grey = np.full((size[1], size[0], 3), 128, np.uint8)
    encode_part(probe, [grey], fps, form, lambda _: None)
    kind = read_source(probe).kind
    probe.unlink()
    if kind is None:
        raise OutputFailed(f"The encoder for {form} writes what cannot be joined.")
    return kind


def _write_prores(
    path: Path, frames: Iterable[Frame], fps: Fraction, on_frame: Callable[[int], None]
) -> None:
    """ProRes 422 HQ in QuickTime, BT.709 in limited range, constant rate."""
    with whole_file(path) as part:
        graph: Graph | None = None
        with disk_errors(path):
            container = av.open(f"file:{part}", "w", format="mov")
        try:
            options = {"profile": _PRORES_HQ, "vendor": "apl0"}
            stream = container.add_stream("prores_ks", rate=fps, options=options)
            stream.pix_fmt = RECIPES["prores"].pixels
            codec = stream.codec_context
            codec.time_base = 1 / fps
            codec.color_range = ColorRange.MPEG
            codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
            for number, frame in enumerate(frames):
                if graph is None:
                    height, width = frame.shape[:2]
                    stream.width, stream.height = width, height
                    graph = _conversion(width, height, fps)
                with disk_errors(path):
                    source = av.VideoFrame.from_ndarray(frame, format="rgb24")
                    source.pts, source.time_base, source.duration = number, 1 / fps, 1
                    graph.vpush(source)
                    container.mux(stream.encode(graph.vpull()))
                on_frame(number + 1)
            with disk_errors(path):
                container.mux(stream.encode(None))
                container.close()
        except BaseException:
            with suppress(OSError, av.FFmpegError):
                container.close()
            raise


def _conversion(width: int, height: int, fps: Fraction) -> Graph:
    """RGB to BT.709 4:2:2 with 10 bits in limited range; one frame in, one frame out."""
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=PixelFormat("rgb24"), time_base=1 / fps
    )
    scale = graph.add(
        "scale",
        "out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_inp"
        "+full_chroma_int",
    )
    # Its encoder writes what the frames say of their colours, not what its stream says.
    named = graph.add("setparams", "color_primaries=bt709:color_trc=bt709")
    layout = graph.add("format", RECIPES["prores"].pixels)
    sink = graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(named)
    named.link_to(layout)
    layout.link_to(sink)
    graph.configure()
    return graph
