"""What is said on a websocket of events?

The server sends batches ``{"events": [...], "last": N}`` and, first of all and then every 30
seconds, ``{"type": "heartbeat", "last": N}``: N is what a client gives as `after` when it comes
back. The client may send ``{"subscribe": {"job": ID, "after": N}}``, which replaces what it hears,
and ``{"ping": true}``, which is answered with ``{"type": "pong", "last": N}``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from kinoloom.errors import InvalidRequest, KinoloomError, Problem
from kinoloom.server.auth import accepted_subprotocol
from kinoloom.server.hub import BATCH_SECONDS, Feed, Hub, HubClosed
from kinoloom.server.problems import invalid_request, status_of

SEND_SECONDS = 20.0
"""How long a message may take to leave for a client that does not read."""
MAX_MESSAGE = 4096
"""The most characters of a message from a client."""
JOB_ID = r"^[0-9A-Za-z_-]{1,64}$"
MAX_NUMBER = 2**63 - 1

_CLOSE_SECONDS = 1.0
# Close codes (RFC 6455, section 7.4.1, and IANA's registry of them).
_NOT_UNDERSTOOD, _REFUSED, _TOO_BIG, _BROKEN, _RESTART, _LATER = 1003, 1008, 1009, 1011, 1012, 1013


class Wish(BaseModel):
    """Which events a client wants: of one job or all, after a number or from now on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str | None = Field(default=None, pattern=JOB_ID)
    after: int | None = Field(default=None, ge=0, le=MAX_NUMBER)


class _Message(BaseModel):
    """What a client may say: one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subscribe: Wish | None = None
    ping: bool | None = None


class _Ended(Exception):
    """The conversation ends with a close code and its reason, and an error where it is one."""

    def __init__(self, code: int, reason: str, error: KinoloomError | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.error = error


class Conversation:
    """One client on its websocket, from its acceptance to its end."""

    def __init__(
        self,
        websocket: WebSocket,
        hub: Hub,
        *,
        owner: str | None,
        check: Callable[[str | None], Awaitable[None]],
    ) -> None:
        """`check` raises KinoloomError unless the client may hear of a job, or with None of all;
        it is asked at the beginning and then with every heartbeat."""
        self._websocket = websocket
        self._hub = hub
        self._owner = owner
        self._check = check
        self._feed: Feed | None = None

    async def run(self, query: Mapping[str, str]) -> None:
        """Serve the client, who said with `query` what it wants, until it or the server goes."""
        await self._websocket.accept(accepted_subprotocol(self._websocket.scope))
        try:
            await self._converse(_wish(query))
        except WebSocketDisconnect:
            return
        except HubClosed:
            end = _Ended(_RESTART, "the server stops; connect again with after=LAST")
        except KinoloomError as error:
            code = _REFUSED if status_of(error.kind) < 500 else _BROKEN
            end = _Ended(code, str(error.kind), error)
        except _Ended as ended:
            end = ended
        await self._close(end)

    async def _converse(self, wish: Wish) -> NoReturn:
        while True:
            sending = asyncio.create_task(self._send_events(wish))
            try:
                wish = await self._next_wish(sending)
            finally:
                sending.cancel()
                # Not gather: cancelled meanwhile, it would raise the cancellation of `sending`.
                await asyncio.wait({sending})
                if not sending.cancelled():
                    sending.exception()  # seen, whatever it is: this conversation is over

    # --- what the client says -------------------------------------------------------------------

    async def _next_wish(self, sending: asyncio.Task[NoReturn]) -> Wish:
        """Answer the client until it wants other events, or `sending` fails."""
        while True:
            # Nobody needs to say more than that; what comes meanwhile waits in the connection.
            await asyncio.sleep(BATCH_SECONDS)
            receiving = asyncio.create_task(self._websocket.receive())
            try:
                await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                receiving.cancel()
            if sending.done():
                sending.result()  # it ends only by raising
            received = receiving.result()
            if received["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(received.get("code", 1005))
            message = _understood(received.get("text"))
            if message.subscribe is not None:
                return message.subscribe
            await self._say_where("pong")

    # --- what the server says -------------------------------------------------------------------

    async def _send_events(self, wish: Wish) -> NoReturn:
        clock = asyncio.get_running_loop().time
        await self._check(wish.job)
        async with self._hub.listen(
            "websocket", job=wish.job, owner=self._owner, after=wish.after
        ) as feed:
            self._feed = feed
            await self._say_where("heartbeat")
            due = clock() + self._hub.heartbeat
            while True:
                batch = None
                try:
                    async with asyncio.timeout_at(due):
                        batch = await feed.next()
                except TimeoutError:
                    pass  # nothing happened: time for a heartbeat
                if batch is not None:
                    await self._say(batch.as_json())
                    await asyncio.sleep(BATCH_SECONDS)
                if clock() >= due:
                    await self._check(wish.job)
                    await self._say_where("heartbeat")
                    due = clock() + self._hub.heartbeat

    async def _say_where(self, what: str) -> None:
        last = 0 if self._feed is None else self._feed.last
        await self._say(json.dumps({"type": what, "last": last}))

    async def _say(self, text: str) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._websocket.send_text(text)
        except TimeoutError:
            raise _Ended(_LATER, "too slow; connect again with after=LAST") from None

    async def _close(self, end: _Ended) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if end.error is not None:
                    await self._websocket.send_json({"type": "error", **end.error.as_dict()})
                await self._websocket.close(end.code, end.reason)
        except (TimeoutError, WebSocketDisconnect):
            pass  # it does not read, or is gone: the server drops the connection


def _wish(query: Mapping[str, str]) -> Wish:
    try:
        return Wish.model_validate_strings(dict(query))
    except ValidationError as error:
        raise _request_error("query", error) from error


def _understood(text: str | None) -> _Message:
    """What a client said. Raises _Ended for what is nothing that it may say."""
    if text is None:
        raise _Ended(_NOT_UNDERSTOOD, "only text is understood")
    if len(text) > MAX_MESSAGE:
        raise _Ended(_TOO_BIG, f"at most {MAX_MESSAGE} characters")
    try:
        message = _Message.model_validate_json(text)
    except ValidationError as error:
        problem = _request_error("message", error)
        raise _Ended(_NOT_UNDERSTOOD, "not understood", problem) from error
    if message.subscribe is None and message.ping is None:
        allowed = '{"subscribe": {"job": ID, "after": N}} or {"ping": true}'
        raise _Ended(
            _NOT_UNDERSTOOD, "not understood", InvalidRequest([Problem("message", text, allowed)])
        )
    return message


def _request_error(where: str, error: ValidationError) -> InvalidRequest:
    return invalid_request([{**found, "loc": (where, *found["loc"])} for found in error.errors()])
