"""What does the server tell Prometheus?

What lies in the database is read when somebody asks, by a few cheap queries; it is true of all
servers and workers that share the database. Times of jobs come from the events since this server
started, so that each job counts once and no history has to be added up. Requests and clients are
this process's own. Names follow the conventions of Prometheus: base units, totals of what only
grows; the values of each label are bounded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinoloom.server.hub import Hub
from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.events import JobEvent
from kinoloom.store.job_record import ACTIVE, FINISHED
from kinoloom.store.store import Store

# Seconds. A tiny model on a CPU takes parts of a second, a long film on one hours.
_REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WAITS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
_DURATIONS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10_800)
_STEPS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE = "none"
_PAGE = 500
# What one request for the metrics reads at most; the next one goes on.
_MOST_PAGES = 20


class Metrics:
    """The numbers of one server."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._registry = CollectorRegistry()
        self._jobs = _JobTimes(store, self._registry)
        self._reading = threading.Lock()
        self._registry.register(_Stored(store))
        self._registry.register(_Clients(hub))
        self._requests = Counter(
            "kinoloom_http_requests",
            "Requests that were answered, by the template of their path.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "kinoloom_http_request_duration_seconds",
            "Time until the answer to a request began.",
            ("route", "method"),
            buckets=_REQUESTS,
            registry=self._registry,
        )

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that took `seconds` until its answer began."""
        route = getattr(scope.get("route"), "path", _NO_ROUTE)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(route, method, status).inc()
        self._latency.labels(route, method).observe(seconds)

    def text(self, accept: str) -> tuple[bytes, str]:
        """All numbers in the format that an ``Accept`` header asks for, and its media type.

        Raises KinoloomError when the database cannot be read.
        """
        encode, media_type = choose_encoder(accept)
        with self._reading:
            self._jobs.read()
        return encode(self._registry), media_type


class Measured:
    """The ASGI middleware that counts every request, those that are refused as well."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answered(scope, message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, watched)


class _JobTimes:
    """How long jobs wait and take, and what they find in the cache, from their events."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        self._last = store.events.last_number()
        self._wait = Histogram(
            "kinoloom_job_queue_wait_seconds",
            "Time from a job's creation to its first start.",
            ("queue",),
            buckets=_WAITS,
            registry=registry,
        )
        self._duration = Histogram(
            "kinoloom_job_duration_seconds",
            "Time from a job's last start to its end, by how it ended.",
            ("queue", "state"),
            buckets=_DURATIONS,
            registry=registry,
        )
        self._step = Histogram(
            "kinoloom_denoise_step_seconds",
            "Time of a denoising step, the mean of each clip.",
            ("model",),
            buckets=_STEPS,
            registry=registry,
        )
        self._hits = Counter(
            "kinoloom_result_cache_hits",
            "Jobs whose clip was there already.",
            registry=registry,
        )
        self._misses = Counter(
            "kinoloom_result_cache_misses",
            "Jobs that succeeded and whose clip had to be made.",
            registry=registry,
        )

    def read(self) -> None:
        """Take in what happened since the last time."""
        for _ in range(_MOST_PAGES):
            page = self._store.events.after(self._last, limit=_PAGE)
            for event in page:
                if event.type == "state":
                    self._take(event)
                self._last = event.number
            if len(page) < _PAGE:
                break

    def _take(self, event: JobEvent) -> None:
        state = event.data.get("state")
        started = state == "running" and event.data.get("run") == 1
        if not started and state not in FINISHED:
            return
        job = self._store.jobs.get(event.job_id)
        if job is None:  # deleted meanwhile
            return
        if started:
            self._wait.labels(job.queue).observe(_seconds(job.created_at, event.created_at))
            return
        if job.started_at is not None:
            took = _seconds(job.started_at, event.created_at)
            self._duration.labels(job.queue, state).observe(took)
        if state == "succeeded":
            (self._hits if job.reused else self._misses).inc()
            clip = None if job.reused or job.clip_id is None else self._store.clips.get(job.clip_id)
            step = None if clip is None else clip.timings.get("step")
            if step is not None:
                self._step.labels(job.model).observe(step)


class _Stored(Collector):
    """What the database says now."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not ask the database for the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Jobs, workers and the cache of embeddings."""
        jobs = GaugeMetricFamily(
            "kinoloom_jobs", "Jobs that are remembered.", labels=("queue", "state")
        )
        for queue, counts in self._store.jobs.counts().items():
            for state in (*ACTIVE, *FINISHED):
                jobs.add_metric((queue, state), counts.get(state, 0))
        yield jobs
        live = self._store.workers.live()
        yield GaugeMetricFamily("kinoloom_workers", "Workers that are there.", value=len(live))
        totals = self._store.statistics.totals()
        yield CounterMetricFamily(
            "kinoloom_embedding_cache_hits",
            "Prompts whose embeddings were in the cache.",
            value=totals.get(HITS, 0),
        )
        yield CounterMetricFamily(
            "kinoloom_embedding_cache_misses",
            "Prompts whose embeddings had to be computed.",
            value=totals.get(MISSES, 0),
        )


class _Clients(Collector):
    """Who listens to this process, and how much it told them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """Clients by the way in which they listen, and events sent."""
        clients = GaugeMetricFamily(
            "kinoloom_event_clients", "Clients that listen to events.", labels=("transport",)
        )
        for transport, count in self._hub.clients.items():
            clients.add_metric((transport,), count)
        yield clients
        yield CounterMetricFamily(
            "kinoloom_events_sent", "Events sent to clients.", value=self._hub.sent
        )


def _seconds(start: datetime, end: datetime) -> float:
    """From start to end, which two clocks may have told."""
    return max(0.0, (end - start).total_seconds())
