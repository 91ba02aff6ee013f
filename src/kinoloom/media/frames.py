"""What is a frame, and are these really frames?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kinoloom.errors import InvalidMedia

Frame: TypeAlias = npt.NDArray[np.uint8]
"""One picture [H, W, 3] or a whole clip [T, H, W, 3], RGB, 0..255."""


def checked_frame(frame: Any, where: str = "The frame") -> Frame:
    """`frame` as a contiguous uint8 array [H, W, 3].

    Raises InvalidMedia when it is anything else; values are never rescaled silently.
    """
    array = np.asarray(frame)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InvalidMedia(
            f"{where} is not an RGB picture.",
            cause=f"Its shape is {array.shape}; it must be (height, width, 3).",
        )
    if array.dtype != np.uint8:
        raise InvalidMedia(
            f"{where} is not 8-bit RGB.",
            cause=f"Its type is {array.dtype}; it must be uint8 with values 0 to 255.",
        )
    return np.ascontiguousarray(array)


def checked_frames(frames: Iterable[Any]) -> Iterator[Frame]:
    """The frames one by one, each checked and all of one size.

    Raises InvalidMedia at the first frame that is not uint8 [H, W, 3] or differs in size from the
    first, and at the end when there was none at all.
    """
    size: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        array = checked_frame(frame, f"Frame {index}")
        if size is None:
            size = array.shape
        elif array.shape != size:
            raise InvalidMedia(
                f"Frame {index} differs in size from the first.",
                cause=f"It is {array.shape[1]}x{array.shape[0]}, the first is {size[1]}x{size[0]}.",
            )
        yield array
    if size is None:
        raise InvalidMedia("There are no frames.", cause="The clip is empty.")
