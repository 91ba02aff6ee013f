"""What is the sound of this video?"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import av
import numpy as np

from kinoloom.errors import InvalidMedia
from kinoloom.media.audio import AudioTrack
from kinoloom.media.reader import open_container

RATE = 48_000
"""Hz, to which all sound is brought: that of video, and the one that Opus works at."""
MAX_SECONDS = 600
"""How much sound is put into memory: 230 MB in stereo."""


def read_sound(path: Path) -> AudioTrack | None:
    """The first sound of a video file, mono or stereo at 48 kHz; None where it has none.

    More channels are mixed to two. Raises InvalidMedia, also for more than ten minutes.
    """
    with open_container(path) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        codec: av.AudioCodecContext | None = stream.codec_context
        if codec is None:
            raise InvalidMedia(
                f"The sound of {path} uses a codec that is not supported.",
                hints=("Convert it to AAC first.",),
            )
        layout = "mono" if codec.channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=RATE)
        pieces, length = [], 0
        for frame in chain(container.decode(stream), [None]):  # None: what it still holds
            for piece in resampler.resample(frame):
                pieces.append(piece.to_ndarray())
                length += pieces[-1].shape[1]
            if length > MAX_SECONDS * RATE:
                raise InvalidMedia(
                    f"The sound of {path} is too long.",
                    cause=f"More than {MAX_SECONDS} seconds are not taken.",
                )
    if not length:
        return None
    return AudioTrack(np.concatenate(pieces, axis=1), RATE)
