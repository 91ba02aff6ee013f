"""How does a still picture become a frame, and a frame a picture?"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from kinoloom.errors import InvalidMedia
from kinoloom.media.frames import Frame, checked_frame
from kinoloom.media.localfile import check_file
from kinoloom.media.output import disk_errors, whole_file

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""The only decoders that are tried. Pillow knows dozens more, each a way in for a crafted file."""

MAX_PIXELS = 64_000_000
MAX_BYTES = 200_000_000


def load_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Frame:
    """The picture as uint8 RGB [H, W, 3]: upright by its EXIF orientation, transparent parts over
    white, the first frame of an animation, 16 bits reduced to 8.

    The size is taken from the header and checked before any pixel is decoded, so a small file
    cannot unfold into gigabytes. Raises InvalidMedia for a missing, unreadable, corrupt, truncated
    or too large file, a folder, and anything that is not PNG, JPEG, WebP, BMP, TIFF or GIF.
    """
    found = check_file(path, "picture", max_bytes)
    with _named_errors(path), Image.open(found, formats=FORMATS) as image:
        width, height = image.size
        if width < 1 or height < 1 or width * height > max_pixels:
            raise InvalidMedia(
                f"The picture {path} is too large.",
                cause=f"It has {width}x{height} pixels, allowed are {max_pixels / 1e6:g} million.",
                hints=("Use a smaller version.",),
            )
        image.load()
        return _as_rgb(ImageOps.exif_transpose(image))


def save_png(path: str | Path, frame: Frame) -> None:
    """Write one frame [H, W, 3] as PNG without loss, whole or not at all.

    Raises OutputFailed, and InvalidMedia when `frame` is none.
    """
    path = Path(path)
    frame = checked_frame(frame)
    with whole_file(path) as part, disk_errors(path):
        write_png(part, frame)


def write_png(path: Path, frame: Frame, comment: str = "") -> None:
    """Write the frame straight to `path`, with `comment` (ASCII) as a text chunk if there is one.

    Raises OSError; callers that want it whole or not at all use `save_png`.
    """
    info = PngImagePlugin.PngInfo()
    if comment:
        info.add_text("Comment", comment)
    # Level 4 takes two thirds of the default's time for 8 % more bytes (spark's world, 720x480).
    Image.fromarray(frame).save(path, "PNG", pnginfo=info, compress_level=4)


def fit(frame: Frame, width: int, height: int) -> Frame:
    """The frame [H, W, 3] at exactly [height, width, 3]: scaled to cover, its centre kept.

    Shrinks with area averaging (no moire), enlarges with Lanczos over 8x8 pixels.
    """
    frame = checked_frame(frame)
    source_height, source_width = frame.shape[:2]
    if (source_width, source_height) == (width, height):
        return frame
    scale = max(width / source_width, height / source_height)
    # Cropped first: scaling first would make a 1x10000 strip gigabytes large.
    crop_width = min(source_width, max(1, round(width / scale)))
    crop_height = min(source_height, max(1, round(height / scale)))
    left, top = (source_width - crop_width) // 2, (source_height - crop_height) // 2
    crop = frame[top : top + crop_height, left : left + crop_width]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(crop, (width, height), interpolation=method), dtype=np.uint8)


def _as_rgb(image: Image.Image) -> Frame:
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        paper = Image.new("RGBA", over.size, "white")
        image = Image.alpha_composite(paper, over)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _from_deep_grey(image: Image.Image) -> Frame:
    """16-bit grey, which Pillow's own conversion would clip to white instead of scaling."""
    if image.mode == "F":
        raise InvalidMedia(
            "Pictures with floating-point values are not supported.",
            hints=("Save it as 8-bit PNG or JPEG.",),
        )
    grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return np.repeat((grey / 257).round().astype(np.uint8)[:, :, None], 3, axis=2)


@contextmanager
def _named_errors(path: str | Path) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError as error:
        raise InvalidMedia(
            f"{path} is not a picture that Kinoloom can read.",
            cause="Its content is none of PNG, JPEG, WebP, BMP, TIFF and GIF.",
            hints=("Save the picture as PNG or JPEG.",),
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidMedia(
            f"The picture {path} is too large.", cause=str(error), hints=("Use a smaller version.",)
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError) as error:
        # What Pillow's decoders raise on damaged data; nothing of our own code is in this block
        # that could raise one of them for another reason.
        raise InvalidMedia(
            f"The picture {path} is damaged.",
            cause=str(error) or type(error).__name__,
            hints=("Save or download it again.",),
        ) from error
