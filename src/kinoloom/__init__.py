"""Kinoloom turns a prompt or a picture into finished video.

    import kinoloom
    clip = kinoloom.generate("a red ball rolling to the right on green grass")

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinoloom.api import (
        agenerate,
        generate,
        generate_many,
        image_to_video,
        plan,
        text_to_video,
    )
    from kinoloom.clip import Clip
    from kinoloom.errors import KinoloomError
    from kinoloom.film_api import Film
    from kinoloom.request import VideoRequest

__all__ = [
    "Clip",
    "Film",
    "KinoloomError",
    "VideoRequest",
    "agenerate",
    "generate",
    "generate_many",
    "image_to_video",
    "plan",
    "text_to_video",
]

_HOME = {
    "Clip": "clip",
    "Film": "film_api",
    "KinoloomError": "errors",
    "VideoRequest": "request",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kinoloom")
    if name not in __all__:
        raise AttributeError(f"module 'kinoloom' has no attribute {name!r}")
    return getattr(import_module(f"kinoloom.{_HOME.get(name, 'api')}"), name)
