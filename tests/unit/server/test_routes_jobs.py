from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api_client import Api, api
from kinoloom.config import Settings
from kinoloom.server.schemas import Job
from kinoloom.store.remote_calls import Limits


@pytest.fixture
def studio_api(settings: Settings) -> Iterator[Api]:
    with api(settings) as found:
        yield found


@pytest.fixture(scope="module")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for the tests that do not mind what the others left in it."""
    with api(Settings(home=tmp_path_factory.mktemp("shared"))) as found:
        yield found


def test_a_job_is_shown_with_links_and_without_places(shared_api: Api) -> None:
    made = shared_api.job(prompt="a blue star", priority=5)
    job = shared_api.client.get(f"/api/jobs/{made['id']}").json()
    assert job == made
    assert (job["state"], job["priority"], job["prompt"]) == ("queued", 5, "a blue star")
    assert job["plan"]["steps"] > 0
    assert job["links"] == {
        "self": f"/api/jobs/{job['id']}",
        "events": f"/api/events?job={job['id']}",
        "preview": None,
        "clip": None,
    }


def test_the_answer_has_all_that_a_record_shows(shared_api: Api) -> None:
    record = shared_api.service.get(shared_api.job()["id"])
    assert set(record.as_dict()) | {"links"} == set(Job.model_fields)


def test_jobs_come_in_pages_newest_first(studio_api: Api) -> None:
    made = [studio_api.job(seed=seed)["id"] for seed in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = studio_api.client.get("/api/jobs", params=query).json()
        seen.append([job["id"] for job in page["items"]])
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [[made[4], made[3]], [made[2], made[1]], [made[0]]]


def test_jobs_are_found_by_state_queue_and_words(studio_api: Api) -> None:
    star = studio_api.job(prompt="a blue star")["id"]
    ball = studio_api.job(prompt="a red ball", hold=True)["id"]

    def found(**query: Any) -> list[str]:
        answer = studio_api.client.get("/api/jobs", params=query)
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["items"]]

    assert found(state="held") == [ball]
    assert found(state=["held", "queued"]) == [ball, star]
    assert found(search="STAR blue") == [star]
    assert found(queue="cpu", model="spark", backend="local", task="t2v") == [ball, star]
    assert found(model="another") == []
    assert found(search="100%") == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": "x"},
        {"cursor": "a b"},
        {"cursor": "\0"},
        {"search": "\0"},
        {"search": "a" * 201},
        {"state": "asleep"},
        {"task": "x2v"},
        {"queue": "a\0b"},
    ],
)
def test_parameters_out_of_bounds_are_a_problem_of_the_request(
    shared_api: Api, query: dict[str, Any]
) -> None:
    answer = shared_api.client.get("/api/jobs", params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["problems"][0]["field"].partition(".")[0] == next(iter(query))


def test_a_job_is_held_released_cancelled_and_tried_again(shared_api: Api) -> None:
    job = shared_api.job()["id"]

    def ask(what: str) -> str:
        answer = shared_api.client.post(f"/api/jobs/{job}/{what}")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["state"])

    assert [ask(what) for what in ("hold", "release", "cancel", "retry")] == [
        *("held", "queued", "cancelled", "queued")
    ]


@pytest.mark.parametrize(
    ("states", "wish"),
    [
        ((), "release"),
        ((), "retry"),
        (("running", "succeeded"), "cancel"),
        (("running", "succeeded"), "hold"),
        (("running", "succeeded"), "retry"),
        (("running", "failed"), "release"),
    ],
)
def test_a_wish_that_does_not_go_with_the_state_names_it(
    shared_api: Api, states: tuple[str, ...], wish: str
) -> None:
    job = shared_api.job()["id"]
    state = shared_api.move(job, *states).state
    answer = shared_api.client.post(f"/api/jobs/{job}/{wish}")
    assert answer.status_code == 409
    assert state in answer.json()["detail"]


@pytest.mark.parametrize("wish", ["", "/cancel", "/hold", "/release", "/retry", "/preview"])
def test_a_job_that_is_not_there_is_not_found(shared_api: Api, wish: str) -> None:
    method = "GET" if wish in ("", "/preview") else "POST"
    answer = shared_api.client.request(method, f"/api/jobs/none{wish}")
    assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/clips", "GET, POST"),
        ("/api/clips/x", "DELETE, GET"),
        ("/api/clips/x/file", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_taken_is_answered_with_those_that_are(
    shared_api: Api, path: str, methods: str
) -> None:
    answer = shared_api.client.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def test_the_preview_is_the_newest_picture_of_the_render(shared_api: Api) -> None:
    job = shared_api.job()["id"]
    assert shared_api.client.get(f"/api/jobs/{job}/preview").status_code == 404
    shared_api.move(job, "running")
    shared_api.store.events.set_preview(job, b"\xff\xd8\xff one")
    shared_api.store.events.set_preview(job, b"\xff\xd8\xff two")
    answer = shared_api.client.get(f"/api/jobs/{job}/preview")
    assert answer.content == b"\xff\xd8\xff two"
    assert answer.headers["content-type"] == "image/jpeg"
    shown = shared_api.client.get(f"/api/jobs/{job}").json()
    assert shown["links"]["preview"] == f"/api/jobs/{job}/preview"


def test_a_key_sees_and_steers_only_its_own_jobs(settings: Settings) -> None:
    with api(settings, require_key=True) as found:
        _, mine = found.key("mine", "read", "write")
        _, other = found.key("other", "read", "write")
        _, reader = found.key("reader", "read")
        _, admin = found.key("admin", "admin")
        body = {"prompt": "a red ball"}
        job = found.client.post("/api/clips", json=body, headers=mine).json()["id"]

        def listed(headers: dict[str, str]) -> int:
            return len(found.client.get("/api/jobs", headers=headers).json()["items"])

        assert [listed(headers) for headers in (mine, admin, other, reader)] == [1, 1, 0, 0]
        for wish in ("cancel", "hold", "release", "retry"):
            answer = found.client.post(f"/api/jobs/{job}/{wish}", headers=other)
            assert answer.status_code == 404
        assert found.client.get(f"/api/jobs/{job}", headers=other).status_code == 404
        assert found.client.post("/api/clips", json=body, headers=reader).status_code == 403
        assert found.client.post(f"/api/jobs/{job}/cancel", headers=reader).status_code == 403
        assert found.client.post(f"/api/jobs/{job}/cancel", headers=admin).status_code == 200


def test_an_uncertain_order_is_resolved(shared_api: Api) -> None:
    job = shared_api.job(hold=True)["id"]
    address, store = f"/api/jobs/{job}/resolve", shared_api.store
    assert shared_api.client.post(address, json={"not_accepted": True}).status_code == 409
    calls = store.remote_calls
    call = calls.reserve(job, 0, backend="runway", model="gen", amount=None, limits=Limits())
    assert calls.send(call.id)
    assert calls.doubt(call.id, {"kind": "uncertain", "message": "No answer."})
    for body in ({}, {"remote_id": "x", "not_accepted": True}, {"else": 1}):
        assert shared_api.client.post(address, json=body).status_code == 422
    answer = shared_api.client.post(address, json={"remote_id": "task-7"})
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert [c.remote_id for c in calls.of_job(job)] == ["task-7"]
    assert shared_api.client.post("/api/jobs/none/resolve", json={}).status_code in (404, 422)
