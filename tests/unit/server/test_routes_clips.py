from __future__ import annotations

import hashlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from api_client import Api, api, png
from kinoloom.config import Settings
from kinoloom.store.job_record import JobRecord
from paying import pay

ID = "019aa4a6-3b10-7e44-9c0d-2f4f7a1b8e33"
# A clip's file says in itself which clip it is.
VIDEO = ID.encode() + (bytes(range(256)) * 4)[len(ID) :]


@pytest.fixture
def studio_api(settings: Settings) -> Iterator[Api]:
    with api(settings) as found:
        yield found


@pytest.fixture(scope="module")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for the tests that do not mind what the others left in it."""
    settings = Settings(home=tmp_path_factory.mktemp("shared"), webhook_secret=SecretStr("s"))
    with api(settings) as found:
        yield found


def test_a_clip_is_asked_for_and_answered_at_once(shared_api: Api) -> None:
    answer = shared_api.client.post("/api/clips", json={"prompt": "a red ball", "seed": 5})
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/jobs/{job['id']}")
    assert (job["state"], job["plan"]["seed"], job["origin"]) == ("queued", 5, "api")


def test_options_reach_the_job(shared_api: Api) -> None:
    job = shared_api.job(priority=1, hold=True, timeout=60, webhook="https://u:p@me.example/h")
    assert (job["state"], job["priority"]) == ("held", 1)
    assert job["deadline_at"] is not None
    assert "p@" not in job["webhook"].replace("***@", "")


def test_every_mistake_of_a_request_is_answered(studio_api: Api) -> None:
    for path in ("/api/clips", "/api/plan"):
        answer = studio_api.client.post(path, json={"steps": 999, "output": "a.mp4", "x": 1})
        assert answer.status_code == 422
        fields = {problem["field"] for problem in answer.json()["problems"]}
        assert fields == {"prompt", "steps", "output", "x"}
    assert studio_api.client.get("/api/jobs").json()["items"] == []


def test_a_plan_tells_all_and_makes_nothing(studio_api: Api) -> None:
    answer = studio_api.client.post("/api/plan", json={"prompt": "a red ball", "tier": "preview"})
    plan = answer.json()
    assert answer.status_code == 200
    assert (plan["model"], plan["steps"], plan["tier"]) == ("spark", 14, "preview")
    assert plan["complexity"]["level"] == "simple"
    assert plan["estimate"]["seconds"] > 0
    assert studio_api.client.get("/api/jobs").json()["items"] == []


def test_a_model_that_is_not_there_is_not_found(shared_api: Api) -> None:
    answer = shared_api.client.post("/api/plan", json={"prompt": "a ball", "model": "sparc"})
    assert (answer.status_code, answer.json()["kind"]) == (404, "model_not_found")
    assert "spark" in answer.json()["hints"][0]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_kind_of_body_is_refused(shared_api: Api, kind: str) -> None:
    headers = {"content-type": kind}
    answer = shared_api.client.post("/api/clips", content=b"prompt=a", headers=headers)
    assert answer.status_code == 415


def test_a_repeated_request_gives_the_same_job(studio_api: Api) -> None:
    headers = {"Idempotency-Key": "one"}
    body = {"prompt": "a red ball", "priority": 3}
    first = studio_api.client.post("/api/clips", json=body, headers=headers)
    again = studio_api.client.post("/api/clips", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    for other in ({"prompt": "a blue ball"}, body | {"priority": 4}, {"prompt": "a red ball"}):
        refused = studio_api.client.post("/api/clips", json=other, headers=headers)
        assert (refused.status_code, refused.json()["kind"]) == (409, "conflict")
    assert len(studio_api.client.get("/api/jobs").json()["items"]) == 1


def test_idempotency_keys_of_two_callers_do_not_meet(settings: Settings) -> None:
    with api(settings, require_key=True) as found:
        _, one = found.key("one", "read", "write")
        _, two = found.key("two", "read", "write")
        word = {"Idempotency-Key": "same"}
        jobs = {
            found.client.post("/api/clips", json={"prompt": "a ball"}, headers=key | word).json()[
                "id"
            ]
            for key in (one, two)
        }
        assert len(jobs) == 2


@pytest.mark.parametrize("word", ["", "a b", "a" * 256])
def test_an_idempotency_key_has_bounds(shared_api: Api, word: str) -> None:
    headers = {"Idempotency-Key": word}
    answer = shared_api.client.post("/api/clips", json={"prompt": "a"}, headers=headers)
    assert answer.status_code == 422


def test_a_form_is_read_as_json_would_be(shared_api: Api) -> None:
    fields = {
        "prompt": "a red ball",
        "steps": "12",
        "guidance": "2.5",
        "size": "256x160",
        "hold": "true",
        "negative": "",
    }
    answer = shared_api.client.post("/api/clips", files=_parts(fields))
    job = answer.json()
    assert answer.status_code == 202, job
    assert (job["request"]["steps"], job["request"]["guidance"]) == (12, 2.5)
    assert (job["state"], job["request"]["negative"]) == ("held", None)


def test_a_form_may_hold_the_request_as_json(shared_api: Api) -> None:
    parts = _parts({"request": '{"prompt": "a red ball", "seed": 3}'})
    assert shared_api.client.post("/api/plan", files=parts).json()["seed"] == 3
    both = _parts({"request": '{"prompt": "a red ball"}', "seed": "3"})
    assert shared_api.client.post("/api/plan", files=both).status_code == 422


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": "a", "steps": "many"}, "steps"),
        ({"prompt": "a", "hold": "perhaps"}, "hold"),
        ({"prompt": "a", "seed": "1" * 5000}, "seed"),
        ({"prompt": "a", "image": "/etc/passwd"}, "image"),
        ({"prompt": "a", "keyframes": "0=/etc/passwd"}, "keyframes.0"),
        ({"request": "[1]"}, "body"),
        ({"request": "{"}, "body"),
    ],
)
def test_mistakes_in_a_form_are_named(shared_api: Api, fields: dict[str, str], field: str) -> None:
    answer = shared_api.client.post("/api/plan", files=_parts(fields))
    assert answer.status_code == 422
    assert field in {problem["field"] for problem in answer.json()["problems"]}


def test_a_file_under_a_name_that_takes_none_is_refused(shared_api: Api) -> None:
    parts = [*_parts({"prompt": "a"}), ("output", ("a.png", png(), "image/png"))]
    answer = shared_api.client.post("/api/plan", files=parts)
    assert answer.json()["problems"][0]["field"] == "output"


def test_a_file_is_told_by_its_content(shared_api: Api) -> None:
    parts = [*_parts({"prompt": "a"}), ("image", ("a.png", b"<svg/>", "image/png"))]
    answer = shared_api.client.post("/api/plan", files=parts)
    assert (answer.status_code, answer.json()["kind"]) == (422, "invalid_media")


def test_an_upload_is_kept_under_its_content(shared_api: Api) -> None:
    parts = {"file": ("../../evil.png", png(), "text/html")}
    answer = shared_api.client.post("/api/assets", files=parts)
    digest = "sha256:" + hashlib.sha256(png()).hexdigest()
    assert answer.status_code == 201
    assert answer.json() == {"digest": digest, "size": len(png()), "kind": "image"}
    assert shared_api.store.assets.path(digest).read_bytes() == png()
    assert shared_api.client.post("/api/assets", files=parts).json() == answer.json()


@pytest.mark.parametrize(
    "parts",
    [
        [("file", ("a", b"", "image/png"))],
        [("file", ("a", b"text", "image/png"))],
        [("other", ("a", png(), "image/png"))],
        [("file", ("a", png(), "image/png")), ("file", ("b", png(), "image/png"))],
        [("file", (None, "text"))],
    ],
)
def test_an_upload_that_is_not_one_picture_or_video_is_refused(
    shared_api: Api, parts: list[Any]
) -> None:
    assert shared_api.client.post("/api/assets", files=parts).status_code == 422


def test_a_clip_is_shown(shared_api: Api) -> None:
    made = shared_api.clip(VIDEO)
    clip = shared_api.client.get(f"/api/clips/{made.id}").json()
    assert clip["file_name"] == "a-red-ball-rolling-7.mp4"
    assert clip["seconds"] == pytest.approx(25 / 12, abs=1e-4)
    assert clip["asset"] == "sha256:" + hashlib.sha256(VIDEO).hexdigest()
    assert clip["links"]["thumbnail"] is None
    assert shared_api.client.get(f"/api/clips/{made.id}/thumbnail").status_code == 404


def test_clips_come_in_pages_and_are_found(studio_api: Api) -> None:
    made = [studio_api.clip(b"v%d" % n, seed=n).id for n in range(3)]
    other = studio_api.clip(b"w", model="wan", format="webm", request={"prompt": "A GREEN star"}).id

    def found(**query: Any) -> list[str]:
        answer = studio_api.client.get("/api/clips", params=query)
        assert answer.status_code == 200, answer.text
        return [clip["id"] for clip in answer.json()["items"]]

    assert found() == [other, *reversed(made)]
    assert found(model="wan") == found(format="webm") == found(search="star green") == [other]
    assert found(backend="replicate") == found(task="i2v") == []
    page = studio_api.client.get("/api/clips", params={"limit": 3}).json()
    assert page["next"] == page["items"][-1]["id"]
    assert found(cursor=page["next"]) == [made[0]]


def test_the_record_has_everything_but_places(shared_api: Api, tmp_path: Path) -> None:
    file = tmp_path / "mine.mp4"
    file.write_bytes(VIDEO)
    made = shared_api.clip(file, request={"prompt": "a", "image": str(tmp_path / "me.png")})
    answer = shared_api.client.get(f"/api/clips/{made.id}/record")
    record = answer.json()
    assert set(record) == set(made.as_dict())
    assert (record["path"], record["request"]["image"]) == ("mine.mp4", "me.png")
    assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=0-99", 206, slice(0, 100)),
        ("bytes=1000-", 206, slice(1000, None)),
        ("bytes=-24", 206, slice(1000, None)),
        ("bytes=0-99999", 206, slice(0, None)),
        ("bytes=-99999", 206, slice(0, None)),
        ("bytes=0-0,5-6", 200, slice(0, None)),
        ("bytes=9-3", 200, slice(0, None)),
        ("frames=0-1", 200, slice(0, None)),
        ("bytes=1024-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_file_is_sent_whole_or_in_part(
    shared_api: Api, tmp_path: Path, header: str, status: int, part: slice | None, kept: bool
) -> None:
    made = _clip_of(shared_api, tmp_path, kept)
    answer = shared_api.client.get(f"/api/clips/{made}/file", headers={"Range": header})
    assert answer.status_code == status
    if part is None:
        assert answer.headers["content-range"] == f"bytes */{len(VIDEO)}"
        assert answer.headers["content-type"] == "application/problem+json"
        return
    video = VIDEO if kept else made.encode() + VIDEO[len(ID) :]
    assert answer.content == video[part]
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    if status == 206:
        first, last, _ = part.indices(len(VIDEO))
        assert answer.headers["content-range"] == f"bytes {first}-{last - 1}/{len(VIDEO)}"


@pytest.mark.parametrize("kept", [True, False])
def test_conditions_spare_what_is_known_and_guard_parts(
    shared_api: Api, tmp_path: Path, kept: bool
) -> None:
    url = f"/api/clips/{_clip_of(shared_api, tmp_path, kept)}/file"
    tag = shared_api.client.get(url).headers["etag"]
    known = shared_api.client.get(url, headers={"If-None-Match": f'"x", {tag}'})
    assert (known.status_code, known.content) == (304, b"")
    same = shared_api.client.get(url, headers={"Range": "bytes=0-9", "If-Range": tag})
    assert (same.status_code, len(same.content)) == (206, 10)
    changed = shared_api.client.get(url, headers={"Range": "bytes=0-9", "If-Range": '"x"'})
    assert (changed.status_code, len(changed.content)) == (200, len(VIDEO))


def test_head_tells_of_the_file_without_it(shared_api: Api) -> None:
    made = shared_api.clip(VIDEO)
    # A range means nothing here (RFC 9110, 14.2).
    headers = {"Range": "bytes=0-9"}
    answer = shared_api.client.head(f"/api/clips/{made.id}/file", headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(VIDEO))


def test_a_download_has_a_plain_name(shared_api: Api) -> None:
    made = shared_api.clip(VIDEO, request={"prompt": 'x"\r\nSet-Cookie: a=b; Ünïcode/../ball'})
    url = f"/api/clips/{made.id}/file"
    shown = shared_api.client.get(url).headers
    saved = shared_api.client.get(url, params={"download": True}).headers
    name = 'filename="x-set-cookie-a-b-unicode-7.mp4"'
    assert shown["content-disposition"] == f"inline; {name}"
    assert saved["content-disposition"] == f"attachment; {name}"
    assert "set-cookie" not in shown


def test_a_file_that_is_gone_or_a_folder_is_said_so(shared_api: Api, tmp_path: Path) -> None:
    gone = shared_api.clip(tmp_path / "gone.mp4")
    folder = shared_api.clip(tmp_path, format="png")
    assert shared_api.client.get(f"/api/clips/{gone.id}/file").status_code == 404
    assert shared_api.client.get(f"/api/clips/{folder.id}/file").status_code == 409


def test_a_deleted_clip_takes_along_only_what_is_its_own(studio_api: Api) -> None:
    assets = studio_api.store.assets
    shared = assets.put_bytes(png(), "input").digest
    poster = assets.put_bytes(png(4, 4), "poster").digest
    made = studio_api.clip(VIDEO, inputs={"image": shared}, poster=poster)
    other = studio_api.clip(b"another", inputs={"image": shared})
    assert studio_api.client.delete(f"/api/clips/{made.id}").status_code == 204
    assert studio_api.client.get(f"/api/clips/{made.id}").status_code == 404
    assert studio_api.client.delete(f"/api/clips/{made.id}").status_code == 404
    assert studio_api.client.get(f"/api/clips/{other.id}/file").content == b"another"
    assert assets.path(shared).is_file()
    assert not _is_kept(studio_api, made.asset)
    assert not _is_kept(studio_api, poster)


def test_a_clip_of_a_job_that_runs_is_not_deleted(studio_api: Api) -> None:
    job: JobRecord = studio_api.move(studio_api.job()["id"], "running")
    made = studio_api.clip(VIDEO, job_id=job.id)
    answer = studio_api.client.delete(f"/api/clips/{made.id}")
    assert answer.status_code == 409
    assert "running" in answer.json()["detail"]
    studio_api.move(job.id, "failed")
    assert studio_api.client.delete(f"/api/clips/{made.id}").status_code == 204


def test_a_file_that_a_command_wrote_stays_with_its_user(studio_api: Api, tmp_path: Path) -> None:
    file = tmp_path / "mine.mp4"
    file.write_bytes(VIDEO)
    made = studio_api.clip(file)
    assert studio_api.client.delete(f"/api/clips/{made.id}").status_code == 204
    assert file.read_bytes() == VIDEO


def test_a_key_sees_only_its_own_clips(settings: Settings) -> None:
    with api(settings, require_key=True) as found:
        key, mine = found.key("mine", "read", "write")
        _, other = found.key("other", "read", "write")
        _, admin = found.key("admin", "admin")
        made = found.clip(VIDEO, owner=key.id)
        for part in ("", "/file", "/thumbnail", "/preview", "/record"):
            url = f"/api/clips/{made.id}{part}"
            assert found.client.get(url, headers=other).status_code == 404
        assert found.client.delete(f"/api/clips/{made.id}", headers=other).status_code == 404
        for headers, count in ((mine, 1), (admin, 1), (other, 0)):
            listed = found.client.get("/api/clips", headers=headers).json()["items"]
            assert len(listed) == count
        assert found.client.get(f"/api/clips/{made.id}/file", headers=mine).content == VIDEO


def test_a_clip_that_was_there_already_is_seen_by_all_who_asked_for_it(settings: Settings) -> None:
    with api(settings, require_key=True) as found:
        key, first = found.key("first", "read", "write")
        _, second = found.key("second", "read", "write")
        made = found.clip(VIDEO, owner=key.id)
        body = {"prompt": "a red ball"}
        job = found.client.post("/api/clips", json=body, headers=second).json()["id"]
        url = f"/api/clips/{made.id}"
        assert found.client.get(url, headers=second).status_code == 404
        found.store.jobs.move(job, "running", expect=("queued",), worker_to="w")
        found.store.jobs.finish(job, run=1, worker="w", clip=made, reused=True)
        shown = found.client.get(f"/api/jobs/{job}", headers=second).json()
        assert (shown["reused"], shown["links"]["clip"]) == (True, url)
        assert found.client.get(f"{url}/file", headers=second).content == VIDEO
        assert found.client.delete(url, headers=second).status_code == 403
        assert found.client.delete(url, headers=first).status_code == 204


def test_a_clip_says_what_was_tried_and_what_it_cost(shared_api: Api) -> None:
    tried = [{"backend": "google", "error": {"kind": "rate_limited"}}, {"backend": "runway"}]
    made = shared_api.clip(VIDEO, attempts=tried, cost=Decimal("0.60"), currency="USD")
    for path in (f"/api/clips/{made.id}", f"/api/clips/{made.id}/record"):
        shown = shared_api.client.get(path).json()
        assert (shown["attempts"], shown["cost"], shown["currency"]) == (tried, "0.6", "USD")


def test_a_key_whose_budget_is_used_up_asks_for_nothing_more(settings: Settings) -> None:
    with api(settings, require_key=True) as found:
        key, secret = found.store.keys.create("poor", frozenset({"read", "write"}), Decimal(1))
        headers = {"Authorization": f"Bearer {secret}"}

        def ask() -> Any:
            return found.client.post("/api/clips", json={"prompt": "a ball"}, headers=headers)

        first = ask()
        assert first.status_code == 202
        pay(found.store, first.json()["id"], "0.5", owner=key.id)
        second = ask()
        assert second.status_code == 202
        pay(found.store, second.json()["id"], "0.5", owner=key.id)
        job = found.client.get(f"/api/jobs/{second.json()['id']}", headers=headers).json()
        assert (job["cost"], job["currency"]) == ("0.5", "USD")
        refused = ask()
        assert (refused.status_code, refused.json()["kind"]) == (402, "budget_exceeded")
        assert found.client.get("/api/jobs", headers=headers).status_code == 200


def _parts(fields: dict[str, str]) -> list[Any]:
    """Plain fields of a multipart form."""
    return [(name, (None, value)) for name, value in fields.items()]


def _clip_of(studio_api: Api, folder: Path, kept: bool) -> str:
    """A clip whose video is kept in the store, or lies where a command wrote it."""
    if kept:
        return studio_api.clip(VIDEO).id
    file = folder / "clip.mp4"
    made = studio_api.clip(file).id
    file.write_bytes(made.encode() + VIDEO[len(made) :])
    return made


def _is_kept(studio_api: Api, digest: str | None) -> bool:
    answer = studio_api.client.post(
        "/api/plan", json={"prompt": "a", "references": [digest]}
    ).json()
    return "problems" not in answer
