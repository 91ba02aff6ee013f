"""Where on Replicate is a model, a version of one, a prediction?"""

from __future__ import annotations

import re
from urllib.parse import quote

BASE_URL = "https://api.replicate.com"
MODEL = re.compile(r"([\w.-]+)/([\w.-]+)(?::([0-9a-f]{64}))?", re.ASCII)
"""A model by its name there, ``owner/name``, and perhaps one version of it."""


def model_path(model: str) -> str:
    """The path of a model, or of one version of it. Raises ValueError for what names none."""
    found = MODEL.fullmatch(model)
    if found is None or {".", ".."} & {found[1], found[2]}:
        raise ValueError("a model is named OWNER/NAME, one version of it OWNER/NAME:VERSION")
    owner, name, version = found.groups()
    path = f"/v1/models/{owner}/{name}"
    return path if version is None else f"{path}/versions/{version}"


def prediction_path(remote_id: str) -> str:
    """The path of a prediction; its id may have been typed by the user."""
    return f"/v1/predictions/{quote(remote_id, safe='')}"
