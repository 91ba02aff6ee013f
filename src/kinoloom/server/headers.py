"""What goes with every answer, and what is written down about it?"""

from __future__ import annotations

import logging
import secrets
import time
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinoloom.errors import KinoloomError
from kinoloom.server.problems import unexpected_response

_log = logging.getLogger("kinoloom.server")
_access = logging.getLogger("kinoloom.access")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    # What a key may see is nothing for a cache; routes that serve files say so themselves.
    "Cache-Control": "no-store",
}


class SafeAnswers:
    """The outermost ASGI middleware: headers, one line in the log a request, and no traceback.

    The line holds neither the query nor a header, so no secret can get into it. What nobody
    expected is answered with an id that is in the log beside the traceback.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:
            if status:  # too late for another answer: the server cuts the connection
                raise
            number = secrets.token_hex(8)
            known = isinstance(error, KinoloomError)
            _log.error("request failed, id %s", number, exc_info=None if known else error)
            await unexpected_response(scope["path"], number)(scope, receive, with_headers)
        finally:
            _access.info(
                "%s %s %s %d ms",
                scope["method"],
                quote(scope["path"])[:200],
                status or "-",
                round((time.monotonic() - began) * 1000),
            )
