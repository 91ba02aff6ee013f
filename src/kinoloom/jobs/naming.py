"""Where is a clip written when the user names no file, or only a folder?"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from kinoloom.planner.plan import Plan

_WORDS = 6


def output_path(plan: Plan, outputs: Path) -> Path:
    """The file, or for a PNG sequence the folder, that the plan's clip is written to.

    A name that the user gave is taken as it is, even if something is there already. One of our
    own never takes the place of an existing file: it gets a number.
    """
    asked = plan.request.output
    suffix = "" if plan.request.format == "png" else f".{plan.request.format}"
    if asked is not None and not (os.path.isdir(asked) and suffix):  # noqa: PTH112 (never raises)
        return asked
    folder = asked if asked is not None else outputs
    stem = f"{slug(plan.prompt) or plan.task}-{plan.seed}"
    path = folder / f"{stem}{suffix}"
    number = 2
    while path.exists():
        path = folder / f"{stem}-{number}{suffix}"
        number += 1
    return path


def slug(prompt: str) -> str:
    """The first words of a prompt as a file name of plain letters, at most 60 characters."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall(r"[a-z0-9]+", plain)[:_WORDS])[:60].strip("-")
