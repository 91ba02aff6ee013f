"""How does a picture get to Runway?

A small one goes along in the order itself; a larger one is uploaded first, to storage that is not
Runway's own: that address is checked like any other that a service names, and our key is not for
it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import httpx

from kinoloom.backends.remote.retries import read_again
from kinoloom.errors import InvalidMedia, NetworkFailed, OutputFailed
from kinoloom.net import guarded_client

MAX_DATA_URI = 5_000_000
"""Characters of a data URI (docs.dev.runwayml.com, "Inputs": 5 MB)."""
MAX_UPLOAD = 200_000_000
"""Bytes of an upload (same page: 200 MB)."""
_PREFIX = "data:image/png;base64,"
_TIMEOUT = 120.0


def data_uri(picture: Path) -> str | None:
    """The PNG as a data URI; None when it is too large for one.

    Raises InvalidMedia when it is too large for an upload as well, OutputFailed when the file
    cannot be read.
    """
    try:
        size = picture.stat().st_size
        if size > MAX_UPLOAD:
            raise InvalidMedia(
                f"A picture has {size} bytes; Runway takes {MAX_UPLOAD}.",
                hints=["Ask for a smaller size of the clip: pictures are fitted to it."],
            )
        if len(_PREFIX) + -(-size // 3) * 4 > MAX_DATA_URI:
            return None
        return _PREFIX + base64.b64encode(picture.read_bytes()).decode("ascii")
    except OSError as error:
        raise OutputFailed(
            "A picture of this clip cannot be read any more.", cause=error.strerror or ""
        ) from error


def upload(picture: Path, url: str, fields: Mapping[str, str], *, here: bool) -> None:
    """Put the picture at `url` with the form's fields; `here` allows addresses of this machine.

    Raises NetworkFailed. It may be repeated: an upload costs nothing.
    """

    def once() -> None:
        try:
            with guarded_client(timeout=_TIMEOUT, loopback=here) as client, picture.open("rb") as f:
                files = {"file": (picture.name, f, "image/png")}
                answer = client.post(url, data=dict(fields), files=files)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NetworkFailed(
                "A picture could not be uploaded for Runway.", cause=type(error).__name__
            ) from None
        if not answer.is_success:
            raise NetworkFailed(
                "A picture could not be uploaded for Runway.",
                cause=f"The storage answered {answer.status_code}.",
            )

    read_again(once)
