"""What is in this video file, and what are its frames?

Every file is hostile until checked: it must be a regular local file of a known kind, with a video
stream of a sensible size, and not cut short. Whatever FFmpeg stumbles over becomes InvalidMedia.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from kinoloom.errors import InvalidMedia
from kinoloom.media.frames import Frame
from kinoloom.media.gif import read_gif_facts
from kinoloom.media.images import load_image
from kinoloom.media.localfile import check_file
from kinoloom.media.rates import MAX_FPS, exact_rate
from kinoloom.media.sequence import SequenceInfo, read_sequence_info, sequence_frames
from kinoloom.media.structure import is_cut

MAX_SIDE = 16_384
MAX_PIXELS = 64_000_000
"""Pixels a frame: 8K is 33 million."""

MAX_CLIP_BYTES = 4_000_000_000
"""How much of a clip `read_video` puts into memory: 3,800 frames of 720x480."""

# FFmpeg picks the demuxer by content, not by name, and some "videos" are really play lists (HLS,
# DASH, concat) that make it open other files or addresses. Only demuxers that read nothing but the
# file itself may be chosen, and only local files may be opened, should one of them try after all.
_OPEN_OPTIONS = {
    "format_whitelist": "mov,matroska,webm,gif,avi,mpegts,mpeg,ogg,flv,asf,ivf,yuv4mpegpipe",
    "protocol_whitelist": "file",
    # Bounds the frames that FFmpeg decodes to find out about a stream, before we see its size.
    "max_pixels": str(MAX_PIXELS),
}

_UNSPECIFIED_MATRIX = 2
"""H.273's number for a stream that does not say how its colours were made."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video is: size in pixels as shown (upright), frames a second, number of frames,
    seconds, names of the codec and the container, and whether it has sound."""

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    codec: str
    format: str
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """What the video file or the folder of PNG frames is.

    The frames are counted in the stream, not believed from the header, and the first one is
    decoded. Raises InvalidMedia when it is not a usable video.
    """
    if os.path.isdir(path):  # noqa: PTH112 (never raises)
        sequence = read_sequence_info(path)
        height, width = load_image(sequence.files[0]).shape[:2]
        count = len(sequence.files)
        return VideoInfo(
            width, height, sequence.fps, count, count / sequence.fps, "png", "png", False
        )
    with _opened(path) as video:
        first = next(video.frames(), None)
        if first is None:
            raise _no_frames(path)
        count = video.count()
        fps = video.fps(count)
        return VideoInfo(
            width=first.shape[1],
            height=first.shape[0],
            fps=fps,
            frames=count,
            duration=count / fps,
            codec=video.stream.codec_context.name,
            format=_short_format(video.container.format.name, Path(path)),
            has_audio=bool(video.container.streams.audio),
        )


def read_frames(path: str | Path, limit: int | None = None) -> Iterator[Frame]:
    """The frames [H, W, 3], uint8 RGB, in the order of display, at most `limit` of them.

    Colours are converted by what the stream says of itself (BT.709 for ours); transparent parts
    are shown over white; a phone's rotation is applied. Raises InvalidMedia, also while iterating.
    """
    if os.path.isdir(path):  # noqa: PTH112 (never raises)
        yield from islice(sequence_frames(read_sequence_info(path)), limit)
        return
    with _opened(path) as video:
        count = 0
        for frame in islice(video.frames(), limit):
            yield frame
            count += 1
        if count == 0 and limit != 0:
            raise _no_frames(path)


def read_video(path: str | Path, *, max_bytes: int = MAX_CLIP_BYTES) -> tuple[Frame, float]:
    """The whole clip [T, H, W, 3] and its frames a second.

    Raises InvalidMedia when it is not a usable video or takes more than `max_bytes` of memory.
    """
    info = probe(path)
    _check_memory(path, info.frames * info.width * info.height * 3, max_bytes)
    frames, size = [], 0
    for frame in read_frames(path):
        size += frame.nbytes
        _check_memory(path, size, max_bytes)
        frames.append(frame)
    return np.stack(frames), info.fps


def first_frame(path: str | Path) -> Frame:
    """The first frame [H, W, 3] as shown. Raises InvalidMedia."""
    for frame in read_frames(path, limit=1):
        return frame
    raise _no_frames(path)


def last_frame(path: str | Path) -> Frame:
    """The very last frame [H, W, 3]: the same as the last of a full decode, without one.

    Goes back a second from the end, to the key frame before, and decodes from there, draining the
    decoder for the frames it still holds; the largest time wins. Raises InvalidMedia.
    """
    if os.path.isdir(path):  # noqa: PTH112 (never raises)
        info = read_sequence_info(path)
        tail = SequenceInfo(info.files[-1:], info.digests[-1:], info.fps, info.settings)
        return next(sequence_frames(tail))
    with _opened(path) as video:
        last = video.last()
    if last is None:
        raise _no_frames(path)
    return last


class _OpenVideo:
    """An open file with the one stream that is looked at."""

    def __init__(self, path: Path, container: InputContainer, stream: av.VideoStream) -> None:
        self.path = path
        self.container = container
        self.stream = stream
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None

    def frames(self) -> Iterator[Frame]:
        for picture in self.container.decode(self.stream):
            yield self._rgb(picture)

    def count(self) -> int:
        """How many frames the stream shows, by its packets; decodes nothing."""
        if self.container.format.name == "gif":
            # FFmpeg makes one packet too many of a GIF that ends with a comment, as ours do.
            return read_gif_facts(self.path).frames
        self.container.seek(0)
        packets = self.container.demux(self.stream)
        return sum(1 for p in packets if p.size and not p.is_discard)

    def fps(self, count: int) -> float:
        if self.container.format.name == "gif":
            # FFmpeg rounds a GIF's rate to the nearest usual one; its delays are exact.
            centiseconds = read_gif_facts(self.path).centiseconds
            return float(min(Fraction(100 * count, max(1, centiseconds)), Fraction(100)))
        for rate in (self.stream.average_rate, self.stream.guessed_rate, self.stream.base_rate):
            if rate and Fraction(1, 100) <= rate <= MAX_FPS:
                return float(exact_rate(rate))
        raise InvalidMedia(
            f"The video {self.path} has no usable frame rate.",
            cause="Its stream does not say how many frames it shows a second.",
            hints=("Convert it to H.264 in MP4.",),
        )

    def last(self) -> Frame | None:
        end = self._end()
        for start in (end - av.time_base, None):
            if start is not None and start > 0:
                self.container.seek(start, backward=True)
            elif start is None:
                self.container.seek(0)
            last: VideoFrame | None = None
            for picture in self.container.decode(self.stream):
                if last is None or (picture.pts or 0) >= (last.pts or 0):
                    last = picture
            if last is not None:
                return self._rgb(last)
        return None

    def _end(self) -> int:
        """Where the stream ends, in microseconds; 0 when the file does not say."""
        begin = self.container.start_time or 0
        if self.stream.duration is not None and self.stream.time_base is not None:
            return begin + int(self.stream.duration * self.stream.time_base * av.time_base)
        return begin + (self.container.duration or 0)

    def _rgb(self, picture: VideoFrame) -> Frame:
        size = (picture.width, picture.height)
        if self._size is None:
            check_size(self.path, *size)
            self._size = size
        elif size != self._size:
            raise InvalidMedia(
                f"The video {self.path} changes its size.",
                cause=f"It starts with {self._size[0]}x{self._size[1]} and goes on with "
                f"{size[0]}x{size[1]}.",
                hints=("Convert it to one size first.",),
            )
        transparent = any(part.is_alpha for part in picture.format.components)
        target = "rgba" if transparent else "rgb24"
        converted = self._reformatter.reformat(
            picture,
            format=target,
            src_colorspace=_assumed_matrix(picture),
            interpolation=Interpolation.BICUBIC
            | Interpolation.ACCURATE_RND
            | Interpolation.FULL_CHR_H_INT,
        )
        array = np.asarray(converted.to_ndarray(), dtype=np.uint8)
        if transparent:
            array = _over_white(array)
        turns = round(picture.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(array, turns) if turns else array)


def check_size(path: Path, width: int, height: int) -> None:
    """Raise InvalidMedia unless a frame of this size may be decoded."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE) or width * height > MAX_PIXELS:
        raise InvalidMedia(
            f"The video {path} has an unusable size.",
            cause=f"Its frames are {width}x{height}; allowed are sides up to {MAX_SIDE} and "
            f"{MAX_PIXELS / 1e6:g} million pixels.",
            hints=("Use a smaller version.",),
        )


@contextmanager
def open_container(path: str | Path) -> Iterator[InputContainer]:
    """Open a checked local video file and close it; FFmpeg's errors inside become InvalidMedia."""
    found = check_file(path, "video")
    try:
        with av.open(
            f"file:{found}", "r", options=dict(_OPEN_OPTIONS), metadata_errors="replace"
        ) as container:
            _check_whole(found, container.format.name)
            yield container
    except (av.FFmpegError, EOFError) as error:
        raise InvalidMedia(
            f"{path} is not a video that can be read.",
            cause=getattr(error, "strerror", None) or str(error),
            hints=("Check that it plays elsewhere, or convert it to MP4.",),
        ) from error


@contextmanager
def _opened(path: str | Path) -> Iterator[_OpenVideo]:
    with open_container(path) as container:
        moving = [s for s in container.streams.video if not _is_cover(s)]
        if not moving:
            raise InvalidMedia(
                f"{path} has no video in it.",
                cause="It holds sound only." if container.streams.audio else "It has no stream.",
                hints=("Name another file.",),
            )
        stream = moving[0]
        codec: av.VideoCodecContext | None = stream.codec_context
        if codec is None:  # FFmpeg has no decoder for it
            raise InvalidMedia(
                f"The video {path} uses a codec that is not supported.",
                hints=("Convert it to H.264 in MP4.",),
            )
        check_size(Path(path), codec.width, codec.height)
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        codec.thread_type = "AUTO"
        yield _OpenVideo(Path(path), container, stream)


def _check_whole(path: Path, container: str) -> None:
    if container == "gif":
        read_gif_facts(path)
    elif is_cut(path, container):
        raise InvalidMedia(
            f"The video {path} is cut short.",
            cause="The file ends before the length that it states.",
            hints=("Copy or download it again.",),
        )


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _assumed_matrix(picture: VideoFrame) -> Colorspace | None:
    """The colour matrix of a stream that names none; None where the frame knows its own.

    Players agree on BT.709 for high definition and BT.601 below.
    """
    if picture.format.is_rgb or picture.colorspace != _UNSPECIFIED_MATRIX:
        return None
    high = picture.width >= 1280 or picture.height > 576
    return Colorspace.ITU709 if high else Colorspace.ITU601


def _over_white(rgba: Frame) -> Frame:
    if bool((rgba[..., 3] == 255).all()):
        return rgba[..., :3]
    alpha = rgba[..., 3:].astype(np.float32) / 255
    mixed = rgba[..., :3] * alpha + 255 * (1 - alpha)
    return np.asarray(mixed.round(), dtype=np.uint8)


def _check_memory(path: str | Path, needed: int, allowed: int) -> None:
    if needed > allowed:
        raise InvalidMedia(
            f"The video {path} is too long to be held in memory.",
            cause=f"It takes {needed / 1e6:,.0f} MB, allowed are {allowed / 1e6:,.0f} MB.",
            hints=("Cut it or make it smaller first.",),
        )


def _short_format(names: str, path: Path) -> str:
    """FFmpeg's "mov,mp4,m4a,..." as one word: the one in the file's name, else the first."""
    known = names.split(",")
    suffix = path.suffix.lower().lstrip(".")
    return suffix if suffix in known else known[0]


def _no_frames(path: str | Path) -> InvalidMedia:
    return InvalidMedia(
        f"The video {path} holds no frames.",
        cause="Nothing in it could be decoded; it may be damaged or cut short.",
        hints=("Copy or download it again.",),
    )
