"""Was a call that got no answer made at all?

A paid call is made once. When nothing comes back, it matters whether the request can have reached
the service: without a connection it cannot, after that nobody here knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from kinoloom.errors import KinoloomError, NetworkFailed, Uncertain

_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
"""What httpx raises before the first byte of a request is sent."""

FRESH = httpx.Limits(max_keepalive_connections=0)
"""For a client of paid calls. A kept connection that the server has closed meanwhile fails only
when the next request is written to it, which looks like a request that got lost; a new connection
either comes about or does not."""


def unanswered(
    error: BaseException | None, service: str, *, hints: Sequence[str] = ()
) -> KinoloomError:
    """The error of a call that httpx gave up with `error`: NetworkFailed when it certainly never
    arrived, else Uncertain, whose `hints` say how the user finds out."""
    cause = type(error).__name__ if error is not None else ""
    if isinstance(error, _NOT_SENT):
        return NetworkFailed(
            f"{service} cannot be reached.",
            cause=cause,
            hints=["Check the connection and the address."],
        )
    return Uncertain(
        f"{service} did not answer, and may have taken the order.", cause=cause, hints=hints
    )
