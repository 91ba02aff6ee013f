"""How does somebody else's video become an mp4 of ours without being encoded again?

Its pictures and its sound are copied packet by packet, so nothing is lost and nothing is held in
memory. Everything else that the file holds stays behind: subtitles, covers, attachments, data of
cameras, and whatever it says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from kinoloom.errors import InvalidMedia
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.media.reader import check_size, open_container
from kinoloom.media.settings_tag import encode_settings

_PICTURES: Mapping[str, frozenset[str]] = {
    "h264": frozenset({"yuv420p", "yuvj420p"}),
    "hevc": frozenset({"yuv420p", "yuvj420p", "yuv420p10le"}),
    "av1": frozenset({"yuv420p", "yuv420p10le"}),
}
"""Codecs in an mp4 that today's players show, with the layouts of pixels that they know of each.

ProRes, VP8, VP9 and H.264 for editors (4:2:2, 10 bits) are not among them.
"""
_SOUNDS = frozenset({"aac", "mp3"})
_TAGS = {"hevc": "hvc1"}
"""What Apple's players want a codec to be called in the file; they do not show it otherwise."""


def remux(
    source: Path,
    target: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    check: Callable[[], None] = lambda: None,
) -> bool:
    """Copy the video in `source` to `target`, an mp4 with `settings` in it and its index in front.

    The first moving picture and the first sound are copied. False, and nothing written, when one
    of them is in a codec that players of mp4 do not know: it must be encoded. `check` is called
    now and then; what it raises stops the copying. Raises InvalidMedia and OutputFailed.
    """
    comment = encode_settings(settings)
    with open_container(source) as read:
        streams = _playable(read, source)
        if streams is None:
            return False
        with whole_file(target) as part:
            _copy(read, streams, target, part, comment, check)
    return True


def _playable(
    container: InputContainer, source: Path
) -> list[av.VideoStream | av.AudioStream] | None:
    """The streams to copy; None when one of them needs another codec."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise InvalidMedia(f"{source} has no video in it.")
    picture = moving[0]
    codec: av.VideoCodecContext | None = picture.codec_context
    if codec is None:  # FFmpeg has no decoder for it
        return None
    check_size(source, codec.width, codec.height)
    if codec.pix_fmt not in _PICTURES.get(codec.codec.canonical_name, ()):
        return None
    sound = container.streams.audio[0] if container.streams.audio else None
    if sound is None:
        return [picture]
    known: av.AudioCodecContext | None = sound.codec_context
    if known is None or known.codec.canonical_name not in _SOUNDS:
        return None
    return [picture, sound]


def _copy(
    read: InputContainer,
    streams: list[av.VideoStream | av.AudioStream],
    target: Path,
    part: Path,
    comment: str,
    check: Callable[[], None],
) -> None:
    with disk_errors(target):
        written = av.open(
            f"file:{part}",
            "w",
            format="mp4",
            # The same as of what is encoded here; see `writer`.
            container_options={"movflags": "+faststart+use_metadata_tags"},
        )
    try:
        with disk_errors(target):
            copies = {s.index: written.add_stream_from_template(s, opaque=True) for s in streams}
            for stream in streams:
                name = stream.codec_context.codec.canonical_name
                copies[stream.index].codec_context.codec_tag = _TAGS.get(name, "\0\0\0\0")
            if comment:
                written.metadata["comment"] = comment
        for number, packet in enumerate(read.demux(streams)):
            if number % 64 == 0:
                check()
            if packet.dts is None:  # the mark of the end
                continue
            packet.stream = copies[packet.stream.index]
            with disk_errors(target):
                written.mux(packet)
        with disk_errors(target):
            written.close()
    except BaseException:
        with suppress(OSError, av.FFmpegError):
            written.close()
        raise
