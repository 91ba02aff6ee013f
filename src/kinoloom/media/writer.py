"""How does a clip become a video file that plays everywhere and tells how it was made?

Frames are taken one at a time, so a clip never needs to be in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import av
import numpy as np
from av.filter import Graph
from av.packet import Packet
from av.video.format import VideoFormat as PixelFormat
from av.video.reformatter import ColorRange

from kinoloom.errors import OutputFailed
from kinoloom.media.audio import AudioEncoder, AudioTrack, checked_track
from kinoloom.media.frames import Frame, checked_frames
from kinoloom.media.gif import GifEncoder
from kinoloom.media.output import check_writable, disk_errors, whole_file
from kinoloom.media.rates import exact_rate
from kinoloom.media.sequence import write_sequence
from kinoloom.media.settings_tag import encode_settings

__all__ = ["AudioTrack", "VideoFormat", "check_writable", "write_video"]

VideoFormat: TypeAlias = Literal["mp4", "webm", "gif", "png"]
_Packets: TypeAlias = "list[Packet[av.VideoStream]] | list[Packet[av.AudioStream]]"

_BT709 = 1
"""The number of BT.709 in ITU-T H.273, tables 2 to 4: primaries, transfer and matrix alike."""


# 4:2:0 stores one colour for 2x2 pixels. Left to itself, FFmpeg places it in their middle, yet
# reads H.264 as having it at the left edge, as players do; half a pixel off costs 4 dB in colourful
# detail. So it is placed at the left, and the stream says so.
_CHROMA = "left"
_CONVERSION = (
    f"out_color_matrix=bt709:out_range=tv:out_chroma_loc={_CHROMA}"
    ":flags=bicubic+accurate_rnd+full_chroma_inp+full_chroma_int"
)


@dataclass(frozen=True)
class _Recipe:
    """What one container needs: its encoders with options, and whether sizes must be even."""

    codec: str
    sound: str
    options: Mapping[str, str]
    container_options: Mapping[str, str]
    even: bool


_RECIPES = {
    # CRF 17 is what x264's authors call visually lossless; generated clips are small, so the bytes
    # do not matter, while banding in their smooth areas would.
    "mp4": _Recipe(
        "libx264",
        "aac",
        # fast keeps medium's PSNR at its size; faster and veryfast lose 1 to 2 dB in fine colour.
        {"crf": "17", "preset": "fast", "profile": "high"},
        # faststart: plays before it is fully loaded; the tags: keeps keys beyond the standard set.
        {"movflags": "+faststart+use_metadata_tags"},
        even=True,
    ),
    # b=0 makes crf the only target (libvpx constant quality). The realtime mode at speed 4 takes
    # half the time of the good one for the same PSNR and 15 % more bytes.
    "webm": _Recipe(
        "libvpx-vp9",
        "libopus",
        {"crf": "20", "b": "0", "deadline": "realtime", "cpu-used": "4", "row-mt": "1"},
        {},
        even=False,
    ),
}


class _Encoder(Protocol):
    def add(self, frame: Frame) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


def write_video(
    path: str | Path,
    frames: Iterable[Frame] | Frame,
    fps: float | Fraction,
    *,
    format: VideoFormat,  # noqa: A002 - the word users know
    settings: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    audio: AudioTrack | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> None:
    """Write uint8 RGB frames [H, W, 3] as a video: as many frames as come in, whole or not at all.

    - mp4: H.264, 4:2:0, BT.709, limited range, index at the front. 4:2:0 has one colour for 2x2
      pixels and H.264 players outside browsers and editors know little else, so an odd width or
      height is made even by repeating the last column or row.
    - webm: VP9, 4:2:0, BT.709; odd sizes as they are.
    - gif: 256 colours a frame, at most 50 fps, loops for ever.
    - png: a folder of lossless PNGs with a manifest (see `sequence`).

    `settings` is stored in the file as JSON (see `settings`). Given as a function, an mp4 or webm
    asks for it when all frames are encoded, so that it may be worked out meanwhile; the packets
    wait in memory until then. `audio` becomes the file's sound, AAC in an mp4 and Opus in a webm,
    cut or filled with silence to the length of the pictures; gif and png cannot hold sound and
    leave it out. `on_frame` is called after each frame with the number written so far; what it
    raises stops the writing and passes through. Missing parent folders are created; an existing
    file is replaced only at the very end.
    Raises OutputFailed (disk, permission), InvalidMedia (no frames, unequal or not RGB; sound that
    is none), InvalidRequest (fps), ValueError (settings too large for a file).
    """
    path = Path(path)
    rate = exact_rate(fps)
    late = settings if callable(settings) and format in _RECIPES else None
    comment = "" if late else encode_settings(settings() if callable(settings) else settings)
    checked = checked_frames(frames)
    track = checked_track(audio) if audio is not None and format in _RECIPES else None
    if format == "png":
        write_sequence(path, checked, float(rate), comment, on_frame)
        return
    check_writable(path)
    first = next(checked)
    with whole_file(path) as part:
        with disk_errors(path):
            encoder: _Encoder
            if format == "gif":
                encoder = GifEncoder(part, first, rate, comment)
            else:
                encoder = _ContainerEncoder(part, first, rate, format, late is not None, track)
                encoder.say(comment)
        try:
            for count, frame in enumerate(chain([first], checked), start=1):
                with disk_errors(path):
                    encoder.add(frame)
                if on_frame is not None:
                    on_frame(count)
            if late is not None and isinstance(encoder, _ContainerEncoder):
                encoder.say(encode_settings(late()))
            with disk_errors(path):
                encoder.close()
        except BaseException:
            encoder.abandon()
            raise


class _ContainerEncoder:
    """Writes frames into an MP4 or WebM, converting them to BT.709 and saying so in the stream."""

    def __init__(
        self,
        part: Path,
        first: Frame,
        rate: Fraction,
        container: VideoFormat,
        hold: bool,
        track: AudioTrack | None,
    ) -> None:
        """With `hold`, packets are kept until `close`: the comment stands before them in a file."""
        self._held: list[_Packets] | None = [] if hold else None
        recipe = _RECIPES[container]
        height, width = first.shape[:2]
        self._pad = (height % 2, width % 2) if recipe.even else (0, 0)
        self._time_base = 1 / rate
        self._count = 0
        self._conversion = _conversion(width + self._pad[1], height + self._pad[0], rate)
        # The "file:" keeps FFmpeg from reading a name such as "pipe:1" as an address.
        self._container = av.open(
            f"file:{part}",
            "w",
            format=container,
            # By itself FFmpeg stops sorting pictures and sound by time when one is 10 s ahead, as
            # the sound of a slow clip is while x264's threads still hold its pictures.
            container_options={**recipe.container_options, "max_interleave_delta": "0"},
        )
        # Two seconds between key frames: quick to scrub, and the last frame is quick to find.
        options = {
            **recipe.options,
            "g": str(max(1, round(2 * rate))),
            "chroma_sample_location": _CHROMA,
        }
        stream = self._container.add_stream(recipe.codec, rate=rate, options=options)
        if not isinstance(stream, av.VideoStream):  # tells mypy what the codec's name implies
            raise OutputFailed(f"{recipe.codec} is not a video encoder.")
        stream.width, stream.height = width + self._pad[1], height + self._pad[0]
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.time_base = self._time_base
        codec.color_range = ColorRange.MPEG
        codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
        self._stream = stream
        self._sound = AudioEncoder(self._container, recipe.sound, track) if track else None

    def add(self, frame: Frame) -> None:
        if any(self._pad):
            bottom, right = self._pad
            frame = np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="edge")
        source = av.VideoFrame.from_ndarray(frame, format="rgb24")
        source.pts, source.time_base, source.duration = self._count, self._time_base, 1
        self._conversion.vpush(source)
        picture = self._conversion.vpull()
        self._count += 1
        self._mux(self._stream.encode(picture))
        if self._sound is not None:
            self._mux(self._sound.until(self._count * self._time_base))

    def say(self, comment: str) -> None:
        if comment:
            self._container.metadata["comment"] = comment

    def _mux(self, packets: _Packets) -> None:
        if self._held is not None:
            self._held.append(packets)
        else:
            self._container.mux(packets)

    def close(self) -> None:
        last: list[_Packets] = [self._stream.encode(None)]
        if self._sound is not None:
            last.append(self._sound.finish())
        for packets in (*(self._held or ()), *last):
            self._container.mux(packets)
        self._container.close()

    def abandon(self) -> None:
        with suppress(OSError, av.FFmpegError):
            self._container.close()


def _conversion(width: int, height: int, rate: Fraction) -> Graph:
    """RGB to BT.709 4:2:0 in limited range; one frame in, one frame out."""
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=PixelFormat("rgb24"), time_base=1 / rate
    )
    scale = graph.add("scale", _CONVERSION)
    layout = graph.add("format", "yuv420p")
    sink = graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(layout)
    layout.link_to(sink)
    graph.configure()
    return graph
