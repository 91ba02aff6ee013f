from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from hearing import hear, holds, new_job, numbers
from kinoloom.errors import StoreBroken
from kinoloom.server import hub as hubs
from kinoloom.server.hub import BATCH, Hub, HubClosed
from kinoloom.store.events import JobEvent
from kinoloom.store.store import Store


def with_hub(store: Store, test: Callable[[Hub], Awaitable[None]]) -> None:
    async def run() -> None:
        hub = Hub(store)
        try:
            await test(hub)
        finally:
            hub.close()

    asyncio.run(run())


def follows() -> bool:
    return any(task.get_name() == "kinoloom-events" for task in asyncio.all_tasks())


def test_a_client_hears_what_happens_from_now_on_in_order(store: Store) -> None:
    job = new_job(store)

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket") as feed:
            for step in range(3):
                store.events.add(job, "progress", {"step": step})
            last = store.events.add(job, "log", {"text": "there"})
            events = await hear(feed, last)
        assert [event["type"] for event in events] == ["progress"] * 3 + ["log"]
        assert [event["data"] for event in events[:3]] == [{"step": step} for step in range(3)]
        assert {event["job"] for event in events} == {job}
        assert [event["number"] for event in events] == numbers(store)[-4:]

    with_hub(store, test)


def test_a_client_that_comes_back_hears_every_page_of_what_it_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "PAGE", 7)
    job = new_job(store)
    for n in range(40):
        store.events.add(job, "log", {"n": n})
    seen = numbers(store)[5]

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket", after=seen) as feed:
            assert feed.last == seen
            last = store.events.add(job, "state", {"state": "failed"})
            events = await hear(feed, last)
        assert [event["number"] for event in events] == numbers(store, seen)

    with_hub(store, test)


def test_progress_that_is_newer_replaces_older_when_many_wait(store: Store) -> None:
    jobs = [new_job(store) for _ in range(3)]

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket") as feed:
            for step in range(30):
                for job in jobs:
                    store.events.add(job, "progress", {"step": step})
                if step % 10 == 0:
                    store.events.add(jobs[0], "state", {"state": "running", "step": step})
                    store.events.add(jobs[1], "error", {"step": step})
                    store.events.add(jobs[2], "log", {"step": step})
                    store.events.set_preview(jobs[0], b"jpeg")
            last = numbers(store)[-1]
            await holds(lambda: hub.number == last)  # it read nothing meanwhile
            events = await hear(feed, last)
        heard = [(event["type"], event["job"], event["data"].get("step")) for event in events]
        assert [one for one in heard if one[0] == "progress"] == [
            ("progress", job, 29) for job in jobs
        ]
        kept = [("state", jobs[0]), ("error", jobs[1]), ("log", jobs[2])]
        assert [one for one in heard if one[0] not in ("progress", "preview")] == [
            (kind, job, step) for step in (0, 10, 20) for kind, job in kept
        ]
        previews = [event["data"] for event in events if event["type"] == "preview"]
        assert previews == [{"number": 3}]
        assert [event["number"] for event in events] == sorted(e["number"] for e in events)

    with_hub(store, test)


def test_progress_is_all_sent_when_little_waits(store: Store) -> None:
    job = new_job(store)

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket") as feed:
            for step in range(BATCH):
                last = store.events.add(job, "progress", {"step": step})
            await holds(lambda: hub.number == last)
            events = await hear(feed, last)
        assert [event["data"]["step"] for event in events] == list(range(BATCH))

    with_hub(store, test)


def test_a_client_slower_than_memory_reaches_misses_nothing_and_delays_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "_MOST_ENTRIES", 20)
    job = new_job(store)

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket") as slow, hub.listen("websocket") as quick:
            quickly: list[dict[str, Any]] = []
            for _ in range(6):
                for n in range(15):
                    last = store.events.add(job, "log", {"n": n})
                quickly += await hear(quick, last)
            assert len(hub.since(hub.floor)) <= 20
            slowly = await hear(slow, last)
        assert slowly == quickly
        assert [event["number"] for event in slowly] == numbers(store)[1:]

    with_hub(store, test)


def test_what_is_held_in_memory_has_a_bound_in_bytes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "_MOST_BYTES", 5_000)
    job = new_job(store)

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket") as feed:
            for _ in range(10):
                last = store.events.add(job, "log", {"text": "x" * 1000})
            await holds(lambda: hub.number == last)
            assert sum(len(entry.text) for entry in hub.since(hub.floor)) <= 5_000
            assert len(await hear(feed, last)) == 10

    with_hub(store, test)


def test_a_key_hears_of_its_own_jobs_only(store: Store) -> None:
    mine, _ = store.keys.create("mine", {"read"})
    other, _ = store.keys.create("other", {"read"})

    async def test(hub: Hub) -> None:
        async with (
            hub.listen("websocket", owner=mine.id) as live,
            hub.listen("websocket", owner=mine.id, after=0) as again,
        ):
            for owner in (mine, other, None, mine, other):
                new_job(store, owner)
            last = numbers(store)[-1]
            own = numbers(store, owner=mine.id)
            assert len(own) == 2
            for feed in (live, again):
                events = await hear(feed, own[-1])
                assert [event["number"] for event in events] == own
            # The events of others move the place to resume from as well.
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await live.next()
            assert live.last == last

    with_hub(store, test)


def test_one_job_may_be_followed(store: Store) -> None:
    job, other = new_job(store), new_job(store)

    async def test(hub: Hub) -> None:
        async with hub.listen("sse", job=job, after=0) as feed:
            store.events.add(other, "log", {})
            last = store.events.add(job, "log", {})
            events = await hear(feed, last)
        assert [event["number"] for event in events] == numbers(store, job_id=job)
        assert len(events) == 2

    with_hub(store, test)


def test_rows_are_only_read_while_somebody_listens(store: Store) -> None:
    job = new_job(store)

    async def test(hub: Hub) -> None:
        assert not follows()
        async with hub.listen("websocket"), hub.listen("poll"):
            assert follows()
            assert hub.clients == {"websocket": 1, "sse": 0, "poll": 1}
        await holds(lambda: not follows())
        assert not any(hub.clients.values())
        missed = store.events.add(job, "log", {"missed": True})
        async with hub.listen("websocket") as feed:  # it begins anew, not where it ended
            assert feed.last == missed
            last = store.events.add(job, "log", {})
            assert [event["number"] for event in await hear(feed, last)] == [last]

    with_hub(store, test)


def test_a_database_that_fails_for_a_while_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hubs, "_RETRY_SECONDS", 0.01)
    job = new_job(store)
    real, failures = store.events.after, 0

    def failing(*args: Any, **kwargs: Any) -> list[JobEvent]:
        nonlocal failures
        if failures < 5:
            failures += 1
            raise StoreBroken("The database is away.")
        return real(*args, **kwargs)

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket") as live, hub.listen("websocket", after=0) as again:
            monkeypatch.setattr(store.events, "after", failing)
            last = store.events.add(job, "log", {})
            assert [event["number"] for event in await hear(live, last)] == [last]
            assert [event["number"] for event in await hear(again, last)] == numbers(store)

    with caplog.at_level(logging.WARNING):
        with_hub(store, test)
    assert failures == 5
    assert caplog.text.count("The database is away") == 1


def test_a_number_of_the_future_means_from_now_on(store: Store) -> None:
    job = new_job(store)

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket", after=10**15) as feed:
            last = store.events.add(job, "log", {})
            assert [event["number"] for event in await hear(feed, last)] == [last]

    with_hub(store, test)


def test_when_the_server_stops_everybody_is_told(store: Store) -> None:
    async def test(hub: Hub) -> None:
        async with hub.listen("websocket") as feed:
            waiting = asyncio.create_task(feed.next())
            await asyncio.sleep(0)
            hub.close()
            with pytest.raises(HubClosed):
                await waiting
            with pytest.raises(HubClosed):
                await feed.next()
        with pytest.raises(HubClosed):
            async with hub.listen("websocket"):
                pass

    with_hub(store, test)


def test_what_is_sent_is_strict_json_without_places_of_the_disk(store: Store) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    job = new_job(store)

    async def test(hub: Hub) -> None:
        async with hub.listen("websocket") as feed:
            store.events.add(job, "log", {"eta": float("nan"), "all": [float("inf"), {"x": 1.5}]})
            store.events.add(job, "log", {"path": "/home/somebody/clip.mp4", "text": "\ud800é"})
            last = numbers(store)[-1]
            await holds(lambda: hub.number == last)
            sent = (await feed.next()).as_json()
        sent.encode()
        events = json.loads(sent, parse_constant=refuse)["events"]
        assert events[0]["data"] == {"eta": None, "all": [None, {"x": 1.5}]}
        assert events[1]["data"] == {"path": "clip.mp4", "text": "\ud800é"}

    with_hub(store, test)
