"""How much may one client ask, and how much may it send?"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinoloom.errors import RateLimited, TooLarge
from kinoloom.server.problems import is_openai

MAX_JSON = 1024**2
"""The most bytes of a body that is no upload; also what an upload may have besides its files."""
MAX_OPENAI_JSON = 32 * 1024**2
"""The same under ``/v1/``, where clients put pictures into JSON."""

# Callers that are remembered; the one that was silent longest is forgotten first.
_MAX_CALLERS = 10_000
# What is still read of a body after its refusal, so that the client gets to see the answer: a
# connection that is closed while data is on its way loses what was sent in the other direction.
_LINGER_BYTES = 8 * 1024**2
_LINGER_SECONDS = 2.0


class RateLimit:
    """A bucket of tokens for each caller: `per_minute` fit in, and as many come in a minute.

    0 is no limit. Used from the event loop only, hence without a lock.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Take one token. Raises RateLimited, with the seconds to wait, when there is none."""
        if not self._per_minute:
            return
        now, rate = self._clock(), self._per_minute / 60
        tokens, then = self._buckets.pop(caller, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - then) * rate)
        enough = tokens >= 1
        self._buckets[caller] = (tokens - 1 if enough else tokens, now)
        if len(self._buckets) > _MAX_CALLERS:
            self._buckets.popitem(last=False)
        if not enough:
            raise RateLimited(
                "Too many requests.",
                cause=f"At most {self._per_minute} a minute are taken of one caller.",
                hints=["Wait as long as Retry-After says.", "Raise rate_limit in the settings."],
                retry_after=(1 - tokens) / rate,
            )


class BodyLimit:
    """The ASGI middleware that counts a body's bytes as they arrive and ends it where they are
    too many: `MAX_JSON` (or `MAX_OPENAI_JSON`), and for multipart `max_upload` more.

    What a client says of the length is only believed where it says too much already. Of a body that
    nobody wants any more a little is read, so that the answer arrives, then the connection closes.
    """

    def __init__(self, app: ASGIApp, *, max_upload: int) -> None:
        self._app = app
        self._max_upload = max_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        multipart = headers.get("content-type", "").lower().startswith("multipart/form-data")
        limit = MAX_OPENAI_JSON if is_openai(scope["path"]) else MAX_JSON
        if multipart:
            limit += self._max_upload
        declared = headers.get("content-length", "")
        too_long = declared.isdecimal() and int(declared[:20]) > limit
        ended = "content-length" not in headers and "transfer-encoding" not in headers
        count = 0

        async def counted() -> Message:
            nonlocal count, ended
            if too_long:
                raise _too_large(limit)
            message = await receive()
            if message["type"] == "http.request":
                count += len(message.get("body", b""))
                ended = not message.get("more_body", False)
                if count > limit:
                    raise _too_large(limit)
            else:
                ended = True
            return message

        async def drained() -> None:
            nonlocal ended
            left = _LINGER_BYTES
            while not ended and left > 0:
                message = await receive()
                left -= len(message.get("body", b"")) + 1
                ended = message["type"] != "http.request" or not message.get("more_body", False)

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and not ended:
                await send({**message, "more_body": True})
                try:
                    await asyncio.wait_for(drained(), _LINGER_SECONDS)
                except TimeoutError:
                    pass  # a client that neither sends nor ends has had its chance
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, counted, answered)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        "The request is too large.",
        cause=f"At most {limit / 1024**2:g} MiB are taken of a request of this kind.",
        hints=["Send less, or files as multipart/form-data.", "Raise max_upload in the settings."],
    )
