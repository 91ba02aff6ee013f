"""How does every client hear of every event, each at its own pace?

Events are rows, so nothing has to be kept for a client: it is no more than a number, that of the
last event it has seen. The hub reads new rows once for all clients while there are any, and holds
the newest in memory. A client that is further behind than memory reaches (it came back, or is slow)
reads rows of its own until it has caught up. Since both are in order of their numbers, nothing is
missed and nothing comes twice where one takes over from the other; a slow client costs no memory
and delays nobody.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, TypeVar

from kinoloom.errors import KinoloomError
from kinoloom.server.schemas import without_places
from kinoloom.store.events import JobEvent
from kinoloom.store.store import Store

Transport = Literal["websocket", "sse", "poll"]
TRANSPORTS: tuple[Transport, ...] = ("websocket", "sse", "poll")

POLL_SECONDS = 0.1
"""How often the rows are looked at while events come."""
HEARTBEAT_SECONDS = 30.0
"""After which silence a client is told that the server is there."""
BATCH = 10
"""The most events that a client is sent at a time."""
BATCH_SECONDS = 0.1
"""The least time between two batches to one client."""
PAGE = 200
"""The most rows that are read at a time."""

_IDLE_SECONDS = 0.25
_IDLE_AFTER = 10.0
_RETRY_SECONDS = 2.0
_THREADS = 4
# What is held in memory for all clients together.
_MOST_ENTRIES = 2_000
_MOST_BYTES = 8_000_000
_MOST_OWNERS = 10_000
# Of these only the newest of a job counts; every other event is always sent.
_PASSING = frozenset({"progress", "preview"})

_log = logging.getLogger(__name__)
_number = attrgetter("number")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it is sent: `text` is its JSON, made once for all clients. Whose the job is, is
    known only of events that are held for all clients."""

    number: int
    job: str
    type: str
    text: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Events for one client, in order; it has now seen, or did not want, all up to `last`."""

    entries: Sequence[Entry]
    last: int

    def as_json(self) -> str:
        """``{"events": [...], "last": N}``."""
        events = ",".join(entry.text for entry in self.entries)
        return f'{{"events":[{events}],"last":{self.last}}}'


class HubClosed(Exception):
    """The server stops; the client may come back to the next one and go on where it was."""


class Hub:
    """The events of a store for all clients of one server process; used from one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.heartbeat = HEARTBEAT_SECONDS
        self.clients: dict[Transport, int] = dict.fromkeys(TRANSPORTS, 0)
        """How many clients listen now, and in which way."""
        self.sent = 0
        """How many events were sent to clients so far."""
        self.closed = False
        # The last row that was read, and the last one that is not held in memory any more.
        self.number = 0
        self.floor = 0
        self.news = asyncio.Event()
        self._entries: list[Entry] = []
        self._bytes = 0
        self._owners: OrderedDict[str, str | None] = OrderedDict()
        self._tail: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, "kinoloom-events")

    @asynccontextmanager
    async def listen(
        self,
        transport: Transport,
        *,
        job: str | None = None,
        owner: str | None = None,
        after: int | None = None,
    ) -> AsyncIterator[Feed]:
        """The events of all jobs, or of `job`, or of the jobs of `owner`, from the one that follows
        number `after` on, or from now on.

        Raises HubClosed when the server stops, and KinoloomError when the database cannot be read.
        """
        if self.closed:
            raise HubClosed
        self.clients[transport] += 1
        try:
            await self._start()
            if after is None:
                after = self.number
            elif after > self.number:  # of the future: the numbers of another database
                after = min(after, await self.call(self._store.events.last_number))
            yield Feed(self, job, owner, after)
        finally:
            self.clients[transport] -= 1

    async def read(
        self, after: int, *, job: str | None = None, owner: str | None = None, limit: int = PAGE
    ) -> list[Entry]:
        """The rows after a number. Raises KinoloomError when the database cannot be read."""
        events = self._store.events.after
        rows = await self.call(lambda: events(after, limit=limit, job_id=job, owner=owner))
        return [_entry(row) for row in rows]

    async def call(self, function: Callable[[], _T]) -> _T:
        """What a function says that asks the database, in one of the hub's own threads: however
        many clients come back at once, the rest of the server keeps its threads."""
        if self.closed:
            raise HubClosed
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def since(self, number: int) -> Sequence[Entry]:
        """What is held of the events after `number`, which is `floor` or later."""
        return self._entries[bisect.bisect_right(self._entries, number, key=_number) :]

    def close(self) -> None:
        """Send everyone away; the server stops."""
        self.closed = True
        if self._tail is not None:
            self._tail.cancel()
        self._wake()
        self._threads.shutdown(wait=False)

    # --- reading rows ---------------------------------------------------------------------------

    async def _start(self) -> None:
        """Follow the rows, from the newest one on, unless that is done already."""
        async with self._starting:
            if self._tail is None:
                self.number = self.floor = await self.call(self._store.events.last_number)
                self._tail = asyncio.create_task(self._follow(), name="kinoloom-events")

    async def _follow(self) -> None:
        """Read new rows as long as anybody listens."""
        loop = asyncio.get_running_loop()
        last_news = loop.time()
        failing = False
        while any(self.clients.values()):
            try:
                page = await self.call(self._new_entries)
            except Exception as error:  # whatever it is, the next look may succeed
                if not failing:
                    known = isinstance(error, KinoloomError)
                    _log.warning(
                        "Events cannot be read, trying again: %s", error, exc_info=not known
                    )
                failing = True
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            failing = False
            if page:
                last_news = loop.time()
                self._keep(page)
            if len(page) < PAGE:
                idle = loop.time() - last_news > _IDLE_AFTER
                await asyncio.sleep(_IDLE_SECONDS if idle else POLL_SECONDS)
        self._tail = None
        self._entries.clear()
        self._bytes = 0

    def _keep(self, page: Sequence[Entry]) -> None:
        """Hold the page for all clients, let go of the oldest, and wake those who wait."""
        self._entries.extend(page)
        self._bytes += sum(len(entry.text) for entry in page)
        self.number = page[-1].number
        excess = 0
        while self._bytes > _MOST_BYTES or len(self._entries) - excess > _MOST_ENTRIES:
            self._bytes -= len(self._entries[excess].text)
            excess += 1
        if excess:
            self.floor = self._entries[excess - 1].number
            del self._entries[:excess]
        self._wake()

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def _new_entries(self) -> list[Entry]:
        """The rows after the last one that was read, with their owners."""
        events = self._store.events.after(self.number, limit=PAGE)
        return [_entry(event, self._owner(event.job_id)) for event in events]

    def _owner(self, job_id: str) -> str | None:
        """Whose a job is. That never changes, so it is asked for once."""
        if job_id not in self._owners:
            record = self._store.jobs.get(job_id)
            if len(self._owners) >= _MOST_OWNERS:
                self._owners.popitem(last=False)
            self._owners[job_id] = None if record is None else record.owner
        return self._owners[job_id]


class Feed:
    """One client's place in the events."""

    def __init__(self, hub: Hub, job: str | None, owner: str | None, after: int) -> None:
        self._hub = hub
        self._job = job
        self._owner = owner
        self.last = after
        """The client has seen, or does not want, all events up to this number."""
        # Rows of its own, while it is behind, and up to where they are all that it wants.
        self._page: Sequence[Entry] = ()
        self._page_end = after

    async def next(self) -> Batch:
        """The next events, as soon as there are any; at most `BATCH`.

        May be given up while it waits, and called again. Raises HubClosed when the server stops.
        """
        hub = self._hub
        while not hub.closed:
            news = hub.news
            if not self._page and self.last < hub.floor:
                await self._turn_page()
                continue
            waiting, end = self._waiting()
            batch, rest = waiting[:BATCH], waiting[BATCH:]
            if self._page:
                self._page = rest
            self.last = batch[-1].number if rest else max(self.last, end)
            if batch:
                hub.sent += len(batch)
                return Batch(batch, self.last)
            await news.wait()
        raise HubClosed

    def _waiting(self) -> tuple[Sequence[Entry], int]:
        """What the client has not been sent yet, and up to which number that is all."""
        if self._page:
            return self._page, self._page_end
        entries = self._hub.since(self.last)
        if self._job is not None or self._owner is not None:
            entries = [entry for entry in entries if self._wants(entry)]
        return (_newest(entries) if len(entries) > BATCH else entries), self._hub.number

    def _wants(self, entry: Entry) -> bool:
        return self._job in (None, entry.job) and self._owner in (None, entry.owner)

    async def _turn_page(self) -> None:
        """Read rows of its own. Rows become visible in order of their numbers: a page that is not
        full has all that the hub had read when it was asked for."""
        read = self._hub.number
        try:
            page = await self._hub.read(self.last, job=self._job, owner=self._owner)
        except KinoloomError:
            await asyncio.sleep(_RETRY_SECONDS)  # the hub has reported it
            return
        if len(page) == PAGE:
            self._page, self._page_end = _newest(page), page[-1].number
            return
        self._page, self._page_end = page, max(read, page[-1].number if page else 0)
        if not page:
            self.last = max(self.last, read)


def _newest(entries: Sequence[Entry]) -> list[Entry]:
    """Without what a newer event of the same job has made old."""
    newest = {(entry.job, entry.type): entry.number for entry in entries if entry.type in _PASSING}
    return [
        entry
        for entry in entries
        if entry.type not in _PASSING or newest[entry.job, entry.type] == entry.number
    ]


def _entry(event: JobEvent, owner: str | None = None) -> Entry:
    return Entry(event.number, event.job_id, event.type, _text(event), owner)


def _text(event: JobEvent) -> str:
    """The event as JSON that every browser reads, whatever is in it."""
    data = without_places(event.as_dict())
    try:
        return json.dumps(data, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(data), separators=(",", ":"))


def _finite(value: Any) -> Any:
    """JSON knows no infinity and nothing that is not a number: these become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
