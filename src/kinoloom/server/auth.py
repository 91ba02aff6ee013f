"""Who may call the server?

`Gate` answers before a byte of the body is read. A server that was bound to more than this machine
needs an API key with every request. One that listens on loopback needs none, but takes only
requests that come from this machine, name it as their host (else any web page could reach it by a
name that its own DNS points here), and, where they change something, come from no other site's
page. A key that is given is checked all the same, and then counts: its scopes, budget and jobs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from kinoloom.errors import Forbidden, KinoloomError, NotAuthenticated
from kinoloom.server.limits import RateLimit
from kinoloom.server.problems import error_response, is_openai
from kinoloom.store.keys import KEY_MARK, ApiKey
from kinoloom.store.store import Store

PUBLIC_PATHS = frozenset({"/health", "/ready"})
"""What may be asked without a key: whether the server lives, and is ready."""

SIGNED_PATHS = "/api/hooks/"
"""What services call that have no key: every such request is signed, which its route checks."""

SUBPROTOCOL = "kinoloom"
_KEY_SUBPROTOCOL = "kinoloom.key."
_STATE = "kinoloom.caller"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:]+)\]|([\w.-]+))(?::\d{1,5})?", re.ASCII)
# Longer than any key; what is longer is not looked up.
_MAX_SECRET = 200


@dataclass(frozen=True)
class Caller:
    """Who makes a request: the holder of `key`, or anyone on this machine when it is None."""

    key: ApiKey | None
    address: str


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """The caller of a request that passed the gate.

    Raises NotAuthenticated for one that did not, so a route can never be reached around it.
    """
    caller = scope.get("state", {}).get(_STATE)
    if not isinstance(caller, Caller):
        raise NotAuthenticated("This request did not pass the server's gate.")
    return caller


def accepted_subprotocol(scope: Mapping[str, Any]) -> str | None:
    """What to accept a websocket with: the one without the key, when the client offered it."""
    return SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None


class Gate:
    """The ASGI middleware that lets a request in, or answers why not."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: Store,
        rate: RateLimit,
        require_key: bool,
        origins: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._store = store
        self._rate = rate
        self._require_key = require_key
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._caller(scope)
        except KinoloomError as error:
            await refuse(error, scope, receive, send)
            return
        scope.setdefault("state", {})[_STATE] = caller
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        address = (scope.get("client") or ("", 0))[0]
        signed = scope["type"] == "http" and scope["path"].startswith(SIGNED_PATHS)
        if not self._require_key and not signed:
            self._check_local(scope, headers, address)
        public = signed or scope["path"] in PUBLIC_PATHS
        secret = None if public else _secret(headers, scope)
        if secret is not None and not self._require_key and is_openai(scope["path"]):
            # The clients of these paths cannot send none; what is not one of ours says nothing.
            secret = secret if secret.startswith(KEY_MARK) else None
        if secret is None:
            self._rate.take(f"address {address}")
            if self._require_key and not public:
                raise NotAuthenticated(
                    "This server needs an API key.",
                    cause="The request has no header `Authorization: Bearer kl_...`.",
                    hints=["Create a key where the server runs: kinoloom keys create NAME"],
                )
            return Caller(None, address)
        key = None
        if len(secret) <= _MAX_SECRET:
            key = await run_in_threadpool(self._store.keys.verify, secret)
        if key is None:
            self._rate.take(f"address {address}")
            raise NotAuthenticated(
                "The API key is not valid.",
                cause="There is no such key, or it was revoked.",
                hints=["`kinoloom keys list` shows which there are."],
            )
        self._rate.take(f"key {key.id}")
        return Caller(key, address)

    def _check_local(self, scope: Scope, headers: Headers, address: str) -> None:
        """Raises Forbidden unless the request is from this machine, to it, and of its own."""
        if not _is_loopback(address):
            raise Forbidden(
                "This server answers only to this machine.",
                cause="It was started without API keys, and the request came from elsewhere.",
                hints=["Start it with `kinoloom serve --require-key` and send a key."],
            )
        host = headers.get("host", "")
        if _host_name(host) not in _THIS_MACHINE:
            raise Forbidden(
                "This server answers only to this machine's own names.",
                cause="The request names another host than localhost, 127.0.0.1 or [::1].",
                hints=[
                    "Use http://127.0.0.1 and the port.",
                    "Behind a proxy, start it with `kinoloom serve --require-key`.",
                ],
            )
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return
        origin = headers.get("origin")
        if origin is not None:
            own = origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
            allowed = own or origin.lower() in self._origins
        else:  # no browser, or one that says itself what this is
            allowed = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        if not allowed:
            raise Forbidden(
                "Pages of other sites may not call this server.",
                cause="The request's origin is not the server's own.",
                hints=["Name the origin in `cors_origins` of the server's settings."],
            )


async def refuse(error: KinoloomError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or the opening of a websocket, with the error."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get(
        "extensions", {}
    ):
        await send({"type": "websocket.close", "code": 1008, "reason": error.message[:100]})
        return
    await error_response(error, scope["path"])(scope, receive, send)


def _secret(headers: Headers, scope: Scope) -> str | None:
    """The key as sent: as a bearer, or in the subprotocols of a browser's websocket."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    for name in scope.get("subprotocols", ()):
        if name.startswith(_KEY_SUBPROTOCOL):
            return str(name.removeprefix(_KEY_SUBPROTOCOL))
    return None


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets, in lower case; "" for none."""
    match = _HOST.fullmatch(host)
    return (match[1] or match[2]).lower() if match else ""
