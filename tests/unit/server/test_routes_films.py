from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import SecretStr

from api_client import Api, api, png
from kinoloom.config import Settings
from kinoloom.film.storyboard import storyboard_of
from kinoloom.server.film_document import EXAMPLE, STORYBOARD_BODY
from kinoloom.server.film_request import shown_storyboard
from kinoloom.store.clips import ClipRecord

BOARD: dict[str, Any] = {
    "title": "Two balls!",
    "model": "spark",
    "fps": 12,
    "seed": 3,
    "shots": [
        {"id": "first", "prompt": "a red ball", "frames": 9},
        {"id": "second", "prompt": "a blue ball", "frames": 9},
    ],
}
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + b"\0" * 16


@pytest.fixture
def studio_api(settings: Settings) -> Iterator[Api]:
    with api(settings) as found:
        yield found


@pytest.fixture(scope="module")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for the tests that do not mind what the others left in it."""
    settings = Settings(home=tmp_path_factory.mktemp("shared"))
    with api(settings) as found:
        yield found


def begin(found: Api, **changes: Any) -> dict[str, Any]:
    answer = found.client.post("/api/films", json=BOARD | changes)
    assert answer.status_code == 201, answer.text
    film: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/films/{film['id']}"
    return film


def upload(found: Api, data: bytes) -> dict[str, str]:
    answer = found.client.post("/api/assets", files={"file": ("it", data)})
    assert answer.status_code == 201, answer.text
    return {"asset": answer.json()["digest"]}


def joined(found: Api, film_id: str, video: bytes = b"video") -> ClipRecord:
    """The film as a worker would leave it: a clip of each shot, and one of all."""
    shots = [found.clip(b"shot %d" % n) for n in range(2)]
    pieces = [{"clip": shot.id, "video": "elsewhere.mp4"} for shot in shots]
    clip = found.clip(video, plan={"cut": {"pieces": pieces}, "shots": [], "film": film_id})
    found.store.films.update(film_id, clip_id=clip.id)
    return clip


def test_a_film_is_kept_and_shown(shared_api: Api) -> None:
    film = begin(shared_api)
    assert (film["title"], film["mode"], film["job_id"]) == ("Two balls!", "chaining", None)
    assert film["storyboard"]["shots"][0]["prompt"] == "a red ball"
    shown = shared_api.client.get(f"/api/films/{film['id']}").json()
    assert {name: shown[name] for name in film} == film
    assert (shown["done"], shown["total"], shown["job"]) == (0, 2, None)
    assert (shown["step"], shown["spent"]) == ("not rendered yet", "0")
    shots = shared_api.client.get(f"/api/films/{film['id']}/shots").json()["items"]
    assert shots == shown["shots"]
    assert [(s["id"], s["state"], s["frames"]) for s in shots] == [
        ("first", "waiting", 9),
        ("second", "waiting", 9),
    ]


def test_every_mistake_of_a_storyboard_is_answered(shared_api: Api) -> None:
    wrong = {"titel": "x", "shots": [{"prompt": "a", "frames": 0, "start": "/etc/passwd"}]}
    film = begin(shared_api)["id"]
    for method, path in (("POST", "films"), ("POST", "plan/film"), ("PUT", f"films/{film}")):
        answer = shared_api.client.request(method, f"/api/{path}", json=wrong)
        assert answer.status_code == 422, answer.text
        fields = {problem["field"] for problem in answer.json()["problems"]}
        assert fields == {"titel", "shots[0].frames", "shots[0].start"}
    # What lies on the server's disk is not told.
    assert "does not exist" not in answer.text


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"shots: []", "application/yaml", 415),
        (b"a", "multipart/form-data; boundary=x", 415),
        (b"[]", "application/json", 422),
        (b"{", "application/json", 422),
        (b'{"shots": ' + b"[" * 50_000, "application/json", 422),
        (b"{}", "application/json", 422),
    ],
)
def test_what_is_no_storyboard_is_refused(
    shared_api: Api, body: bytes, kind: str, status: int
) -> None:
    headers = {"content-type": kind}
    answer = shared_api.client.post("/api/films", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "file",
    [
        "film.png",
        {"asset": "sha256:" + "0" * 64},
        {"asset": "../../etc/passwd"},
        {"asset": "sha256:" + "0" * 64, "more": 1},
        "https://example.com/a.png",
        7,
    ],
)
def test_media_are_uploaded_files(shared_api: Api, file: Any) -> None:
    board = {"shots": [{"prompt": "a", "keyframe": file}]}
    answer = shared_api.client.post("/api/films", json=board)
    assert answer.status_code == 422
    (problem,) = answer.json()["problems"]
    assert problem["field"] == "shots[0].keyframe"
    assert "POST /api/assets" in problem["allowed"]


def test_what_is_shown_may_be_sent_again(shared_api: Api, tmp_path: Path) -> None:
    picture, sound = upload(shared_api, png()), upload(shared_api, WAV)
    board = {
        "title": "All",
        "mode": "keyframe",
        "model": "spark",
        "size": [256, 160],
        "budget": "2.50",
        "seed": 1,
        "defaults": {"duration": 2, "characters": "start", "transition": "fade"},
        "characters": {
            "start": {"description": "Mara", "references": [picture]},
            "file": {},
        },
        "audio": {"bed": sound, "gain_db": -6},
        "shots": [
            {"prompt": "a", "start": picture, "audio": {"file": sound, "offset": 1}},
            {"prompt": "b", "end": picture, "audio": sound, "characters": []},
        ],
    }
    film = begin(shared_api, **board)
    shown = film["storyboard"]
    assert shown["shots"][0]["start"] == shown["characters"]["start"]["references"][0] == picture
    assert shown["audio"]["bed"] == shown["shots"][1]["audio"]["file"] == sound
    assert str(shared_api.store.home) not in str(film)
    path = f"/api/films/{film['id']}"
    again = shared_api.client.put(path, json=shown)
    assert again.status_code == 200, again.text
    assert again.json()["storyboard"] == shown


def test_a_file_of_a_command_is_shown_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    board = storyboard_of({"shots": [{"prompt": "a", "start": "a.png"}]}, folder=tmp_path)
    shown = shown_storyboard(board.model_dump(mode="json"))
    assert shown["shots"] == [{"id": "shot-001", "prompt": "a", "start": "a.png"}]


def test_films_come_in_pages(studio_api: Api) -> None:
    made = [begin(studio_api)["id"] for _ in range(3)]
    page = studio_api.client.get("/api/films", params={"limit": 2}).json()
    assert [film["id"] for film in page["items"]] == [made[2], made[1]]
    rest = studio_api.client.get("/api/films", params={"cursor": page["next"]}).json()
    assert ([film["id"] for film in rest["items"]], rest["next"]) == ([made[0]], None)


def test_a_plan_tells_all_and_makes_nothing(studio_api: Api) -> None:
    plan = studio_api.client.post("/api/plan/film", json=BOARD).json()
    assert (plan["frames"], plan["clips"], plan["fits"]) == (18, 2, True)
    assert [shot["model"] for shot in plan["shots"]] == ["spark", "spark"]
    assert studio_api.client.get("/api/films").json()["items"] == []
    film = begin(studio_api)["id"]
    assert studio_api.client.post(f"/api/films/{film}/plan").json() == plan
    assert studio_api.client.get("/api/jobs").json()["items"] == []


def test_rendering_is_a_job_and_only_one(studio_api: Api) -> None:
    film = begin(studio_api)["id"]
    answer = studio_api.client.post(f"/api/films/{film}/render")
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/jobs/{job['id']}")
    assert (job["kind"], job["state"], job["queue"]) == ("film", "queued", "film")
    again = studio_api.client.post(f"/api/films/{film}/render", json={"unknown_price": True})
    assert again.json()["id"] == job["id"]
    shown = studio_api.client.get(f"/api/films/{film}").json()
    assert shown["job"]["id"] == shown["job_id"] == job["id"]
    assert shown["links"]["job"] == f"/api/jobs/{job['id']}"
    for method, path, body in (("PUT", "", BOARD), ("DELETE", "", None)):
        refused = studio_api.client.request(method, f"/api/films/{film}{path}", json=body)
        assert (refused.status_code, refused.json()["kind"]) == (409, "conflict")
    studio_api.move(job["id"], "cancelled")
    assert studio_api.client.delete(f"/api/films/{film}").status_code == 204
    assert studio_api.client.get(f"/api/films/{film}").status_code == 404


def test_a_webhook_needs_a_secret(settings: Settings, shared_api: Api) -> None:
    body = {"webhook": "https://me.example/h"}
    film = begin(shared_api)["id"]
    refused = shared_api.client.post(f"/api/films/{film}/render", json=body)
    assert (refused.status_code, refused.json()["problems"][0]["field"]) == (422, "webhook")
    with api(settings.model_copy(update={"webhook_secret": SecretStr("s")})) as found:
        film = begin(found)["id"]
        job = found.client.post(f"/api/films/{film}/render", json=body).json()
        assert job["webhook"] == body["webhook"]
        for wrong in ("ftp://me.example", "https://me.example/ h", "me"):
            path = f"/api/films/{begin(found)['id']}/render"
            assert found.client.post(path, json={"webhook": wrong}).status_code == 422


def test_takes_are_asked_for_and_chosen(shared_api: Api) -> None:
    shots = f"/api/films/{begin(shared_api)['id']}/shots"
    body = {"seed": 5, "candidates": 2, "prompt": "a round ball"}
    takes = shared_api.client.post(f"{shots}/second/takes", json=body).json()["items"]
    assert [(t["number"], t["seed"], t["chosen"]) for t in takes] == [(1, 5, True), (2, 6, False)]
    assert {take["prompt"] for take in takes} == {"a round ball"}
    more = shared_api.client.post(f"{shots}/second/takes")
    assert (more.status_code, more.json()["items"][0]["number"]) == (201, 3)
    chosen = shared_api.client.put(f"{shots}/second/chosen", json={"take": 2}).json()
    assert (chosen["take"]["number"], chosen["take"]["chosen"]) == (2, True)
    assert chosen["next"].endswith(".")
    second = shared_api.client.get(shots).json()["items"][1]
    assert [take["chosen"] for take in second["takes"]] == [False, True, False]
    assert second["take"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "third/takes", {}, 404),
        ("POST", "first/takes", {"seed": -1}, 422),
        ("POST", "first/takes", {"candidates": 0}, 422),
        ("POST", "first/takes", {"prompt": ""}, 422),
        ("POST", "first/takes", {"more": 1}, 422),
        ("POST", "first/takes", {"seed": False}, 422),
        ("PUT", "first/chosen", {"take": 7}, 404),
        ("PUT", "first/chosen", {"take": 10**30}, 422),
        ("PUT", "first/chosen", {}, 422),
        ("PUT", "third/chosen", {"take": 1}, 404),
    ],
)
def test_what_cannot_be_taken(
    shared_api: Api, method: str, path: str, body: dict[str, Any], status: int
) -> None:
    shots = f"/api/films/{begin(shared_api)['id']}/shots"
    assert shared_api.client.request(method, f"{shots}/{path}", json=body).status_code == status


def test_the_film_is_sent_whole_or_in_part(shared_api: Api) -> None:
    film = begin(shared_api)["id"]
    path = f"/api/films/{film}/file"
    for what in ("file", "sheet", "timeline"):
        answer = shared_api.client.get(f"/api/films/{film}/{what}")
        assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")
    joined(shared_api, film, b"0123456789")
    assert shared_api.client.get(path).content == b"0123456789"
    part = shared_api.client.get(path, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"
    head = shared_api.client.head(path, params={"download": True})
    assert head.headers["content-length"] == "10"
    assert head.headers["content-disposition"] == 'attachment; filename="two-balls.mp4"'
    shown = shared_api.client.get(f"/api/films/{film}").json()["links"]
    assert (shown["file"], shown["sheet"]) == (path, f"/api/films/{film}/sheet")


def test_the_sheet_is_made_once(shared_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from kinoloom.jobs import film_service

    film = begin(shared_api)["id"]
    clip = joined(shared_api, film)
    made: list[str] = []

    def write(_self: object, record: ClipRecord, target: Path, form: str) -> None:
        made.append(form)
        target.write_bytes(png())

    monkeypatch.setattr(film_service.Exporter, "write", write)
    answers = [shared_api.client.get(f"/api/films/{film}/sheet") for _ in range(2)]
    assert [answer.content for answer in answers] == [png(), png()]
    assert answers[0].headers["content-type"] == "image/png"
    assert made == ["sheet"]
    shared_api.store.films.update(film, clip_id=joined(shared_api, film).id)
    assert shared_api.client.get(f"/api/films/{film}/sheet").status_code == 200
    assert (made, clip.id) == (["sheet"] * 2, clip.id)


def test_a_timeline_names_clips_by_their_address(
    shared_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinoloom.jobs import film_service

    film = begin(shared_api)["id"]
    joined(shared_api, film)
    clips = shared_api.client.get("/api/clips").json()["items"]
    ids = [clip["id"] for clip in clips if clip["asset"] is not None][1:3][::-1]

    def write(_self: object, record: ClipRecord, target: Path, form: str) -> None:
        folder = target.with_name("film-media")
        folder.mkdir()
        for number in range(2):
            (folder / f"a b-{number}.mp4").write_bytes(b"shot %d" % number)
        names = [f"film-media/a%20b-{number}.mp4" for number in range(2)]
        names.append("../../home/user/bed.wav")
        media = [{"target_url": name} for name in names]
        target.write_text(json.dumps({"media": media}))

    monkeypatch.setattr(film_service.Exporter, "write", write)
    media = shared_api.client.get(f"/api/films/{film}/timeline").json()["media"]
    assert [one["target_url"] for one in media] == [
        *(f"/api/clips/{clip}/file" for clip in ids),
        "bed.wav",
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/plan"),
        ("POST", "/render"),
        ("GET", "/shots"),
        ("POST", "/shots/first/takes"),
        ("PUT", "/shots/first/chosen"),
        ("GET", "/file"),
        ("GET", "/sheet"),
        ("GET", "/timeline"),
    ],
)
def test_the_film_of_another_key_is_not_there(settings: Settings, method: str, path: str) -> None:
    with api(settings, require_key=True) as found:
        key, mine = found.key("mine", "read", "write")
        _, other = found.key("other", "read", "write")
        _, reader = found.key("reader", "read")
        _, admin = found.key("admin", "admin")
        film = found.client.post("/api/films", json=BOARD, headers=mine).json()
        assert film["owner"] == key.id
        body = {"take": 1} if path.endswith("chosen") else BOARD if method == "PUT" else None

        def ask(film_id: str, headers: dict[str, str]) -> Any:
            url = f"/api/films/{film_id}{path}"
            return found.client.request(method, url, json=body, headers=headers)

        strange, missing = ask(film["id"], other), ask("none", other)
        assert strange.status_code == missing.status_code == 404
        assert strange.text.replace(film["id"], "none") == missing.text
        changes = method != "GET" and path != "/plan"
        assert (ask(film["id"], reader).status_code == 403) == changes
        assert found.client.get("/api/films", headers=other).json()["items"] == []
        mine_or_all = found.client.get("/api/films", headers=admin).json()["items"]
        assert [one["id"] for one in mine_or_all] == [film["id"]]
        assert ask(film["id"], admin).status_code in (200, 201, 202, 204, 404)


def test_the_document_says_what_a_storyboard_is(shared_api: Api) -> None:
    document = shared_api.client.get("/api/openapi.json").json()
    schema = STORYBOARD_BODY["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["shots"]
    shot = {"prompt": "a ball", "audio": None, "transition": {"kind": "fade", "duration": None}}
    empty = {"size": None, "audio": None, "characters": {"anna": None}, "shots": [shot]}
    for body in (EXAMPLE, empty):  # null is an empty line of a storyboard
        jsonschema_rs.validate(schema, body)
        assert shared_api.client.post("/api/films", json=body).status_code == 201
    text = (Path(__file__).parents[3] / "docs" / "films.md").read_text(encoding="utf-8")
    for path, methods in document["paths"].items():
        if path.startswith(("/api/films", "/api/plan/film")):
            for method, operation in methods.items():
                assert f"`{method.upper()} {re.sub(r'{[a-z]+}', 'ID', path)}`" in text, path
                assert operation["description"].endswith("."), path
                assert "film" in operation["operationId"] or "shot" in path, path


def test_a_film_file_that_is_gone_is_said(shared_api: Api, tmp_path: Path) -> None:
    film = begin(shared_api)["id"]
    gone = replace(joined(shared_api, film), id="gone", asset=None, path=tmp_path / "gone.mp4")
    shared_api.store.clips.add(gone)
    shared_api.store.films.update(film, clip_id="gone")
    answer = shared_api.client.get(f"/api/films/{film}/file")
    assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")
