"""What do the tests of events share: jobs to which things happen, and clients that hear of it?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from kinoloom.server.hub import Feed
from kinoloom.store.job_record import JobRecord
from kinoloom.store.keys import ApiKey
from kinoloom.store.store import Store

DEADLINE = 30.0


def new_job(store: Store, owner: ApiKey | None = None) -> str:
    """A queued job; its id. The first event of it is a state."""
    record = JobRecord(
        queue="cpu",
        origin="api",
        owner=None if owner is None else owner.id,
        request={"prompt": "a red ball"},
        task="t2v",
        model="spark",
        backend="local",
        prompt="a red ball",
    )
    store.jobs.add(record)
    return record.id


def numbers(store: Store, after: int = 0, **which: Any) -> list[int]:
    """The numbers of all rows after that one."""
    return [event.number for event in store.events.after(after, limit=1_000_000, **which)]


async def hear(feed: Feed, until: int) -> list[dict[str, Any]]:
    """The events that a client is sent until it has heard of that number."""
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(DEADLINE):
        while feed.last < until:
            batch = json.loads((await feed.next()).as_json())
            assert len(batch["events"]) <= 10
            assert batch["last"] == feed.last
            events += batch["events"]
    return events


async def holds(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)
