"""How do clients without websockets hear of events?

As server-sent events (the WHATWG HTML standard, section 9.2): ``id`` is the event's number, so a
browser's EventSource resumes by itself, ``event`` its type and ``data`` its JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from kinoloom.errors import KinoloomError
from kinoloom.server.hub import BATCH_SECONDS, Hub, HubClosed

MEDIA_TYPE = "text/event-stream"
RETRY_MILLISECONDS = 2000
"""After which time a browser connects again."""
SEND_SECONDS = 20.0
"""How long a piece may take to leave for a client that does not read."""


class EventStream(StreamingResponse):
    """The events of all jobs, or of `job`, or of the jobs of `owner`, until the client goes."""

    def __init__(self, hub: Hub, *, job: str | None, owner: str | None, after: int | None) -> None:
        self._stream = _stream(hub, job, owner, after)
        # No proxy may keep the stream back until it has more.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._stream, headers=headers, media_type=MEDIA_TYPE)

    async def stream_response(self, send: Send) -> None:
        """Send the stream; a client that does not read any more is let go of."""

        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        try:
            async with aclosing(self._stream):
                await super().stream_response(send_soon)
        except TimeoutError:
            pass  # the server drops a connection whose answer is not complete


async def _stream(
    hub: Hub, job: str | None, owner: str | None, after: int | None
) -> AsyncGenerator[str]:
    try:
        async with hub.listen("sse", job=job, owner=owner, after=after) as feed:
            yield f"retry: {RETRY_MILLISECONDS}\nid: {feed.last}\n\n"
            while True:
                try:
                    async with asyncio.timeout(hub.heartbeat):
                        batch = await feed.next()
                except TimeoutError:
                    # An id without data is no event, but moves the place to resume from.
                    yield f": heartbeat\nid: {feed.last}\n\n"
                    continue
                yield "".join(
                    f"id: {entry.number}\nevent: {entry.type}\ndata: {entry.text}\n\n"
                    for entry in batch.entries
                )
                await asyncio.sleep(BATCH_SECONDS)
    except (HubClosed, KinoloomError):
        return  # the client connects again, and is then told what is wrong
