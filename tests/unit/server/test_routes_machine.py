from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api_client import Api, api
from hand_made import write_card
from kinoloom.config import Settings
from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.workers import WorkerQueue, WorkerRecord


@pytest.fixture
def studio_api(settings: Settings) -> Iterator[Api]:
    with api(settings) as found:
        yield found


@pytest.fixture(scope="module")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """With cards of the user: one whose model was never downloaded."""
    folder = tmp_path_factory.mktemp("shared")
    write_card(folder / "cards", "{repo: nobody/nothing}", name="far")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RUNWAYML_API_SECRET", raising=False)
        with api(Settings(home=folder, models=folder / "cards")) as found:
            yield found


def test_models_tell_whether_they_can_run_here(shared_api: Api) -> None:
    models = {model["id"]: model for model in shared_api.client.get("/api/models").json()["items"]}
    assert (models["spark"]["state"], models["spark"]["ready"]) == ("ready", True)
    assert models["far"]["state"] == "missing"
    assert models["far"]["hints"][0] == "kinoloom models pull far"


def test_models_are_found_by_task_and_family(shared_api: Api) -> None:
    def found(**query: str) -> set[str]:
        items = shared_api.client.get("/api/models", params=query).json()["items"]
        return {model["id"] for model in items}

    assert {"spark", "far"} <= found(task="i2v", family="ltx")
    assert found(family="none") == set()
    assert shared_api.client.get("/api/models", params={"task": "x"}).status_code == 422


def test_a_card_is_shown_without_places(shared_api: Api, tmp_path: Path) -> None:
    card = shared_api.client.get("/api/models/spark").json()
    assert card["frames"]["multiple"] == 8
    folder = tmp_path / "cards"
    write_card(folder, f"{{path: {tmp_path}/mine}}", name="mine")
    with api(Settings(home=tmp_path / "home", models=folder)) as found:
        answer = found.client.get("/api/models/mine")
        assert answer.json()["source"]["path"] == "mine"
        assert str(tmp_path) not in answer.text


def test_requirements_say_what_is_here_and_what_helps(shared_api: Api) -> None:
    spark = shared_api.client.get("/api/models/spark/requirements").json()
    assert spark["ready"]
    assert spark["missing"] == []
    assert {"model_index.json"} <= {file["path"] for file in spark["found"]}
    assert spark["vram_enough"] is True
    assert spark["licence"]["id"] == "Apache-2.0"
    far = shared_api.client.get("/api/models/far/requirements").json()
    assert not far["ready"]
    assert any("kinoloom models pull far" in hint for hint in far["hints"])


def test_a_model_elsewhere_needs_no_files(shared_api: Api) -> None:
    models = {model["id"]: model for model in shared_api.client.get("/api/models").json()["items"]}
    far = models["runway-gen4.5"]
    assert (far["remote"], far["state"], far["price"]) == (True, "unavailable", "0.12 USD/s")
    needs = shared_api.client.get("/api/models/runway-gen4.5/requirements").json()
    assert (needs["ready"], needs["missing"], needs["disk_needed"]) == (False, [], 0)
    assert needs["hints"]
    assert "price: 0.12 USD/s" in needs["notes"]


@pytest.mark.parametrize("part", ["", "/requirements"])
def test_a_model_that_is_not_there_is_not_found(shared_api: Api, part: str) -> None:
    answer = shared_api.client.get(f"/api/models/sparkk{part}")
    assert (answer.status_code, answer.json()["kind"]) == (404, "model_not_found")


def test_only_models_that_are_here_are_detected(shared_api: Api) -> None:
    items = shared_api.client.get("/api/models/detected").json()["items"]
    found = {model["id"]: model for model in items}
    assert "far" not in found
    assert found["spark"]["state"] == "ready"
    assert found["spark"]["size"] > 10_000_000


def test_a_backend_tells_what_it_can_run(shared_api: Api) -> None:
    items = shared_api.client.get("/api/backends").json()["items"]
    found = {backend["name"]: backend for backend in items}
    local, runway = found["local"], found["runway"]
    assert (local["remote"], local["ready"], local["reasons"]) == (False, True, [])
    assert "spark" in local["models"]
    assert "far" not in local["models"]
    assert local["memory_free"] > 0
    assert (runway["remote"], runway["ready"], runway["models"]) == (True, False, [])
    assert runway["reasons"]
    assert runway["hints"]


def test_queues_count_jobs_and_workers(studio_api: Api) -> None:
    first, second, third = (studio_api.job(seed=seed)["id"] for seed in range(3))
    studio_api.move(first, "running")
    studio_api.move(second, "running", "failed")
    studio_api.service.hold(third)
    _worker(studio_api)
    answer = studio_api.client.get("/api/queues").json()
    (queue,) = answer["items"]
    counts = {"waiting": 0, "active": 1, "held": 1, "completed": 0, "failed": 1, "cancelled": 0}
    assert answer["totals"] == counts
    assert counts.items() <= queue.items()
    assert (queue["name"], queue["workers"], queue["devices"]) == ("cpu", 1, ["cpu x2"])


def test_statistics_add_up(studio_api: Api) -> None:
    empty = studio_api.client.get("/api/statistics").json()
    assert (empty["clips"], empty["average_fps"], empty["results"]["rate"]) == (0, None, None)
    studio_api.clip(b"1", timings={"total": 4.0})
    studio_api.clip(b"2", timings={"total": 6.0}, task="i2v", plan={"steps": 10})
    studio_api.store.statistics.add("clips.reused", 2)
    studio_api.store.statistics.add(HITS, 3)
    studio_api.store.statistics.add(MISSES, 1)
    studio_api.job()
    found = studio_api.client.get("/api/statistics").json()
    assert (found["clips"], found["frames"], found["seconds"]) == (2, 50, 10.0)
    assert (found["average_fps"], found["average_steps"]) == (5.0, 15.0)
    assert found["average_frame_rate"] == 12.0
    assert found["tasks"]["i2v"] == {"clips": 1, "frames": 25, "seconds": 6.0}
    assert found["backends"]["local"]["clips"] == 2
    assert found["embeddings"] == {"hits": 3, "misses": 1, "rate": 0.75}
    assert found["results"] == {"hits": 2, "misses": 2, "rate": 0.5}
    assert found["saved"] == {"clips": 2, "seconds": 10.0}
    assert found["jobs"] == {"queued": 1}


def test_the_process_is_healthy_before_it_is_ready(studio_api: Api) -> None:
    assert studio_api.client.get("/health").json()["status"] == "ok"
    lonely = studio_api.client.get("/ready")
    assert lonely.status_code == 503
    states = {check["name"]: check["ok"] for check in lonely.json()["checks"]}
    assert states == {"database": True, "assets": True, "worker": False}
    _worker(studio_api)
    assert studio_api.client.get("/ready").json()["ready"] is True


def test_files_that_cannot_be_kept_are_said(studio_api: Api) -> None:
    _worker(studio_api)
    # A file in the place of the folder is in the way also of whoever may write everywhere.
    folder = studio_api.store.home / "assets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("in the way")
    answer = studio_api.client.get("/ready")
    assert answer.status_code == 503
    states = {check["name"]: check["ok"] for check in answer.json()["checks"]}
    assert states == {"database": True, "assets": False, "worker": True}


def test_the_server_loads_nothing_heavy_or_hostile(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from api_client import api, png
from kinoloom.config import Settings
with api(Settings(home=Path(sys.argv[1]))) as studio:
    get, post = studio.client.get, studio.client.post
    job = studio.job()["id"]
    clip = studio.clip().id
    for path in (
        "/health", "/ready", "/api/openapi.json", "/api/models", "/api/models/detected",
        "/api/models/spark", "/api/models/spark/requirements", "/api/backends", "/api/queues",
        "/api/statistics", "/api/jobs", f"/api/jobs/{job}", "/api/clips", f"/api/clips/{clip}",
        f"/api/clips/{clip}/file", f"/api/clips/{clip}/record", "/api/films",
    ):
        assert get(path).status_code in (200, 503), path
    assert post("/api/plan", json={"prompt": "a ball"}).status_code == 200
    film = {"shots": [{"prompt": "a ball"}]}
    assert post("/api/plan/film", json=film).status_code == 200
    film = post("/api/films", json=film).json()["id"]
    assert post(f"/api/films/{film}/render").status_code == 202
    assert get(f"/api/films/{film}").status_code == 200
    assert post("/api/assets", files={"file": png()}).status_code == 201
print(sorted({"torch", "numpy", "cv2", "av", "PIL", "diffusers"} & set(sys.modules)))
"""
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tests), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def _worker(studio_api: Api) -> None:
    now = datetime.now(UTC)
    queues = (WorkerQueue("cpu", "cpu x2", 8_000_000_000),)
    machine = {"device": "cpu x2", "free": 8_000_000_000, "ram": 8_000_000_000, "dtype_bytes": 4}
    record = WorkerRecord(
        id="w1",
        host="here",
        pid=1,
        queues=queues,
        machine=machine,
        version="1",
        started_at=now,
        beat_at=now,
    )
    studio_api.store.workers.beat(record)
