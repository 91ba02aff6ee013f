from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from hearing import new_job
from kinoloom.server import metrics
from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerRecord
from serving import local_client

Make = Callable[..., FastAPI]
WEBSOCKET = "ws://127.0.0.1/api/events"
Numbers = Callable[..., float | None]


def read(client: TestClient) -> Numbers:
    """A function (name of a sample, labels...) -> its value now, None when there is none."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    return lambda name, **labels: samples.get((name, frozenset(labels.items())))


def clip_of(job_id: str, step: float) -> ClipRecord:
    return ClipRecord(
        path=Path("clip.mp4"),
        plan_key="0" * 64,
        task="t2v",
        model="spark",
        backend="local",
        seed=7,
        width=256,
        height=160,
        frames=25,
        fps=12.0,
        format="mp4",
        request={},
        plan={"steps": 20},
        timings={"step": step, "total": 5.0},
        scores={},
        job_id=job_id,
    )


def finish(store: Store, job_id: str, *, reused: bool = False, step: float = 0.2) -> None:
    """Run a job as a worker would, in no time; it began two minutes ago."""
    began = datetime.now(UTC) - timedelta(seconds=120)
    started = store.jobs.move(
        job_id, "running", expect=("queued",), worker_to="worker", started_at=began
    )
    assert started is not None
    clip = clip_of(job_id, step)
    if reused:
        store.clips.add(clip)
    assert store.jobs.finish(job_id, run=1, worker="worker", clip=clip, reused=reused) is not None


def test_jobs_workers_and_caches_are_what_the_database_says(shell: Make, store: Store) -> None:
    first, _ = new_job(store), new_job(store)
    store.jobs.move(first, "failed", expect=("queued",))
    store.workers.beat(WorkerRecord(id="w", host="here", pid=1, version="1"))
    store.statistics.add(HITS, 3)
    store.statistics.add(MISSES, 5)
    with local_client(shell()) as client:
        value = read(client)
    assert value("kinoloom_jobs", queue="cpu", state="queued") == 1
    assert value("kinoloom_jobs", queue="cpu", state="failed") == 1
    assert value("kinoloom_jobs", queue="cpu", state="running") == 0
    assert value("kinoloom_workers") == 1
    assert value("kinoloom_embedding_cache_hits_total") == 3
    assert value("kinoloom_embedding_cache_misses_total") == 5


def test_each_job_counts_once_however_often_one_asks(
    shell: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_PAGE", 3)  # several pages
    finish(store, new_job(store))  # before the server started: not its own
    with local_client(shell()) as client:
        finish(store, new_job(store), step=0.2)
        finish(store, new_job(store), step=0.4)
        finish(store, new_job(store), reused=True)
        store.jobs.move(new_job(store), "cancelled", expect=("queued",))
        for _ in range(2):
            value = read(client)
            assert value("kinoloom_job_queue_wait_seconds_count", queue="cpu") == 3
            labels = {"queue": "cpu", "state": "succeeded"}
            assert value("kinoloom_job_duration_seconds_count", **labels) == 3
            assert value("kinoloom_job_duration_seconds_bucket", le="60.0", **labels) == 0
            assert value("kinoloom_job_duration_seconds_bucket", le="300.0", **labels) == 3
            assert value("kinoloom_denoise_step_seconds_count", model="spark") == 2
            assert value("kinoloom_denoise_step_seconds_sum", model="spark") == pytest.approx(0.6)
            assert value("kinoloom_result_cache_hits_total") == 1
            assert value("kinoloom_result_cache_misses_total") == 2


def test_a_second_start_of_a_job_is_no_second_wait(shell: Make, store: Store) -> None:
    job = new_job(store)
    with local_client(shell()) as client:
        for run in (1, 2):
            store.jobs.move(job, "queued", expect=("queued", "running"), run_to=run)
            store.jobs.move(job, "running", expect=("queued",))
        assert read(client)("kinoloom_job_queue_wait_seconds_count", queue="cpu") == 1


def test_requests_are_counted_by_the_template_of_their_path(shell: Make) -> None:
    with local_client(shell()) as client:
        for n in range(3):
            assert client.get(f"/api/jobs/{n}/preview").status_code >= 400
        client.get("/test/read")
        client.get("/no/such/path")
        client.get("/no/such/other/path")
        client.request("BREW", "/test/read")
        value = read(client)
    name = "kinoloom_http_requests_total"
    assert value(name, route="/test/read", method="GET", status="200") == 1
    assert value(name, route="none", method="GET", status="404") == 2
    assert value(name, route="/test/read", method="other", status="405") == 1
    duration = "kinoloom_http_request_duration_seconds_count"
    assert value(duration, route="/api/jobs/{job}/preview", method="GET") == 3


def test_whoever_may_read_may_scrape_and_refusals_count(shell: Make, store: Store) -> None:
    _, reader = store.keys.create("prometheus", {"read"})
    _, writer = store.keys.create("writer", {"write"})
    with local_client(shell(require_key=True)) as client:
        assert client.get("/metrics").status_code == 401
        writing = client.get("/metrics", headers={"Authorization": f"Bearer {writer}"})
        assert writing.status_code == 403
        client.headers["Authorization"] = f"Bearer {reader}"
        value = read(client)
    name = "kinoloom_http_requests_total"
    assert value(name, route="none", method="GET", status="401") == 1
    assert value(name, route="/metrics", method="GET", status="403") == 1


def test_each_app_has_numbers_of_its_own(shell: Make) -> None:
    with local_client(shell()) as one, local_client(shell()) as other:
        one.get("/test/read")
        name, labels = "kinoloom_http_requests_total", {"route": "/test/read", "method": "GET"}
        assert read(one)(name, **labels, status="200") == 1
        assert read(other)(name, **labels, status="200") is None


def test_who_listens_is_counted(shell: Make, store: Store) -> None:
    with local_client(shell()) as client, client.websocket_connect(WEBSOCKET) as websocket:
        assert websocket.receive_json()["type"] == "heartbeat"
        new_job(store)
        assert len(websocket.receive_json()["events"]) == 1
        value = read(client)
        assert value("kinoloom_event_clients", transport="websocket") == 1
        assert value("kinoloom_event_clients", transport="sse") == 0
        assert value("kinoloom_events_sent_total") == 1


def test_openmetrics_is_spoken_when_asked_for(shell: Make) -> None:
    with local_client(shell()) as client:
        answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
