"""How does a finished video get here, whole and from nowhere else?

Where it lies is said by the service, so the address is checked like any other from outside: public,
or this machine itself where the service is here; only what lies on a server that the user named may
be anywhere. What breaks off goes on where it broke off, an
address that expired is asked for anew, and what is no video is refused by its first bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from kinoloom.backends.remote.retries import read_again
from kinoloom.errors import InvalidMedia, KinoloomError, NetworkFailed, NotFound, TooLarge
from kinoloom.media.output import disk_errors
from kinoloom.net import guarded_client

MAX_BYTES = 4 * 2**30
"""A minute of 4K in a format for editing is smaller."""
_TIMEOUT = 60.0
_REDIRECTS = 5
_EXPIRED = (401, 403, 404, 410)


class _Expired(Exception):
    """The address is not valid any more."""


def download(
    url: str,
    target: Path,
    *,
    here: bool = False,
    trusted: bool = False,
    headers: Mapping[str, str] | None = None,
    refresh: Callable[[], str] | None = None,
    limit: int = MAX_BYTES,
) -> Path:
    """The file at `url`, written to `target` once it is whole.

    `here` allows addresses of this machine, for services that run on it; `trusted` is for an
    address on a server that the user named, and allows that one wherever it is. `headers` go only
    to the host of `url`, never to one that it redirects to. `refresh` gives a new address when the
    old one expired. Raises NetworkFailed, NotFound, TooLarge, InvalidMedia for what is no video,
    and OutputFailed.
    """
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    address = url
    own = httpx.Client(timeout=_TIMEOUT, trust_env=False) if trusted else None
    with own or guarded_client(timeout=_TIMEOUT, loopback=here) as client, disk_errors(target):

        def once() -> None:
            nonlocal address
            try:
                _go_on(client, address, part, headers or {}, limit, stay=trusted)
            except _Expired as expired:
                if refresh is None:
                    raise NotFound(
                        "The service does not have the finished video any more.",
                        cause=str(expired),
                    ) from None
                address = refresh()
                raise NetworkFailed("The address of the finished video had expired.") from None

        read_again(once)
        try:
            _check(part)
        except KinoloomError:
            part.unlink(missing_ok=True)
            raise
        part.replace(target)
    return target


def _go_on(
    client: httpx.Client,
    url: str,
    part: Path,
    headers: Mapping[str, str],
    limit: int,
    *,
    stay: bool,
) -> None:
    """Read what is missing of the file behind `url`; with `stay` from its own host only."""
    have = part.stat().st_size if part.exists() else 0
    asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with contextlib.ExitStack() as stack:
            response = stack.enter_context(_opened(client, url, asked, headers, stay))
            if response.status_code in _EXPIRED:
                raise _Expired(f"It answered {response.status_code}.")
            if response.status_code == 416:  # the file changed, or all of it was there
                part.unlink(missing_ok=True)
                raise NetworkFailed("The download has to begin anew.")
            if response.status_code not in (200, 206):
                raise NetworkFailed(
                    "The finished video cannot be downloaded.",
                    cause=f"The server answered {response.status_code}.",
                )
            going_on = response.status_code == 206 and have > 0
            length = response.headers.get("content-length", "")
            whole = int(length) + (have if going_on else 0) if length.isdigit() else None
            if whole is not None and whole > limit:
                raise TooLarge(f"The finished video has {whole} bytes; {limit} are taken.")
            size = have if going_on else 0
            with part.open("ab" if going_on else "wb") as file:
                for block in response.iter_bytes():  # as it comes, so that none is lost
                    size += len(block)
                    if size > limit:
                        raise TooLarge(f"The finished video has more than {limit} bytes.")
                    file.write(block)
            if whole is not None and size != whole:
                raise NetworkFailed(f"The download broke off after {size} of {whole} bytes.")
    except httpx.HTTPError as error:
        raise NetworkFailed(
            "The finished video could not be downloaded.", cause=type(error).__name__
        ) from error


@contextlib.contextmanager
def _opened(
    client: httpx.Client,
    url: str,
    asked: Mapping[str, str],
    private: Mapping[str, str],
    stay: bool,
) -> Iterator[httpx.Response]:
    """The answer of `url`, redirects followed; `private` headers stay with its own host."""
    origin = urlsplit(url)[:2]
    for _ in range(_REDIRECTS):
        if urlsplit(url).scheme not in ("http", "https"):
            raise NetworkFailed("The finished video lies at an address that is none of the web.")
        headers = {**asked, **(private if urlsplit(url)[:2] == origin else {})}
        with client.stream("GET", url, headers=headers) as response:
            if not response.is_redirect:
                yield response
                return
            url = urljoin(url, response.headers["location"])
            if stay and urlsplit(url)[:2] != origin:
                raise NetworkFailed("The server sends the download on to another one.")
    raise NetworkFailed("The finished video cannot be downloaded.", cause="It is redirected on.")


def _check(file: Path) -> None:
    """Refuse what does not begin like a video (ISO media, Matroska, GIF, WebP, or a PNG)."""
    with file.open("rb") as opened:
        head = opened.read(16)
    known = (
        head[4:8] == b"ftyp"
        or head.startswith((b"\x1a\x45\xdf\xa3", b"GIF8", b"\x89PNG"))
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
    )
    if not known:
        raise InvalidMedia(
            "What the service sent is no video.",
            cause=f"It begins with {head!r}." if head else "It is empty.",
        )
