"""How is a picture at an address that a client named brought here, and nothing else?

Only where the settings allow it (`image_urls`), only from the public internet over http and https
at their usual ports, and only what begins like a picture. `kinoloom.net` makes each connection to
an address that it has checked; a redirect is a new address, and is checked as the first one was.
"""

from __future__ import annotations

import time

import httpx

from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia, NetworkFailed, TooLarge
from kinoloom.net import guarded_client
from kinoloom.server.uploads import check_media

MAX_BYTES = 64 * 1024**2
_MAX_URL = 2048
_MAX_REDIRECTS = 3
_PORTS = frozenset({80, 443})
# For each of connecting and waiting for the next bytes, and for all of it together.
_STEP_SECONDS = 10.0
_ALL_SECONDS = 30.0
_HINT = "Send the picture itself as a file."


def fetch_image(url: str, settings: Settings, field: str = "image") -> bytes:
    """The picture at `url`: PNG, JPEG, WebP or GIF, told by its first bytes.

    Raises InvalidMedia when this server fetches none, the URL is not one of http or https, or there
    is no picture; NetworkFailed when it cannot be reached, or must not be; TooLarge.
    """
    if not settings.image_urls:
        raise InvalidMedia(
            "This server fetches no pictures from other servers.",
            cause="Its setting image_urls is off.",
            hints=[_HINT, "Set image_urls: true in the settings of the server."],
        )
    with guarded_client(timeout=_STEP_SECONDS) as client:
        limit = min(MAX_BYTES, settings.max_upload)
        data = fetch_with(client, url, limit=limit)
    check_media(data[:64], field, "image")
    return data


def fetch_with(
    client: httpx.Client, url: str, *, limit: int, ports: frozenset[int] = _PORTS
) -> bytes:
    """What the client gets at `url`, at most `limit` bytes, over at most three redirects."""
    deadline = time.monotonic() + _ALL_SECONDS
    target = _checked(url, ports)
    try:
        for _ in range(_MAX_REDIRECTS + 1):
            # Unpacking could make gigabytes of a few bytes, so nothing packed is asked for.
            headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
            with client.stream("GET", target, headers=headers) as response:
                if response.is_redirect:
                    target = _checked(str(target.join(response.headers["Location"])), ports)
                    continue
                return _content(response, limit, deadline)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NetworkFailed(
            f"The picture at {target.host} cannot be fetched.",
            cause=str(error) or type(error).__name__,
            hints=["Check the address.", _HINT],
        ) from error
    raise NetworkFailed(
        f"The picture at {target.host} cannot be fetched.",
        cause=f"It redirects more than {_MAX_REDIRECTS} times.",
        hints=["Give the last address.", _HINT],
    )


def _content(response: httpx.Response, limit: int, deadline: float) -> bytes:
    host = response.url.host
    if response.status_code != httpx.codes.OK:
        raise NetworkFailed(
            f"The picture at {host} cannot be fetched.",
            cause=f"The server answered {response.status_code}.",
            hints=["Check the address.", _HINT],
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise NetworkFailed(
            f"The picture at {host} cannot be fetched.",
            cause="The server sent it packed, though it was asked not to.",
            hints=[_HINT],
        )
    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) > limit:
            raise TooLarge(
                f"The picture at {host} is too large.",
                cause=f"At most {limit / 1024**2:g} MiB are fetched.",
                hints=["Give a smaller version."],
            )
        if time.monotonic() > deadline:
            raise NetworkFailed(
                f"The picture at {host} cannot be fetched.",
                cause=f"It took longer than {_ALL_SECONDS:g} seconds.",
                hints=[_HINT],
            )
    return bytes(data)


def _checked(text: str, ports: frozenset[int]) -> httpx.URL:
    """The URL as the client will read it. Raises InvalidMedia for one that it must not call."""
    try:
        url = httpx.URL(text) if len(text) <= _MAX_URL else None
    except httpx.InvalidURL:
        url = None
    usual = {"http": 80, "https": 443}.get(url.scheme, 0) if url else 0
    if url is None or not usual or not url.host:
        problem = "It is not a URL of http or https."
    elif url.userinfo:
        problem = "It holds a user or password."
    elif (url.port or usual) not in ports:
        problem = "Its port is not the usual one of http or https."
    else:
        return url.copy_with(fragment=None)
    raise InvalidMedia(
        "The address of the picture is not one that this server may call.",
        cause=problem,
        hints=["Give a plain URL such as https://pictures.example/cat.png.", _HINT],
    )
