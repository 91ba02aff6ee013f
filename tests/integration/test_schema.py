"""Does the server do what its OpenAPI document says, whatever is sent to it?

Every operation is called with the examples of the document, with each bound and each way to break
it, and with values at random: always the same ones, so that nobody's change is blamed for another
one's luck. `KINOLOOM_TEST_EXAMPLES=500` looks for longer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

from kinoloom.config import Settings
from kinoloom.film.storyboard import storyboard_of
from kinoloom.jobs.service import JobService
from kinoloom.media.images import save_png
from kinoloom.media.writer import write_video
from kinoloom.request import VideoRequest
from kinoloom.server.app import create_app
from kinoloom.server.problems import PROBLEM_TYPE, SCHEMAS
from kinoloom.store.clips import ClipRecord
from kinoloom.store.films import FilmRecord
from kinoloom.store.job_record import JobState
from kinoloom.store.store import Store
from serving import running

pytestmark = [pytest.mark.slow]

# The ids that the document gives as examples: what they name is there.
JOB = "019aa4a6-2f7c-7d3e-8a51-6c1f0e5b9d21"
CLIP = "019aa4a6-3b10-7e44-9c0d-2f4f7a1b8e33"
FILM = "019aa4a6-4c21-7f55-8d1e-7a6b5c4d3e2f"
SHOT = "shot-001"
STATES: tuple[JobState, ...] = ("queued", "held", "running", "failed", "cancelled", "dead")
JOBS = [JOB, *(f"job-{state}" for state in STATES)]
CLIPS = [CLIP, "clip-of-a-command"]


def _document() -> dict[str, Any]:
    """What `/api/openapi.json` answers: the same of every server."""
    with tempfile.TemporaryDirectory() as place:
        settings = Settings(home=Path(place))
        with Store.of(settings) as store:
            return create_app(settings, store, None).openapi()  # type: ignore[arg-type]


def _often(*values: str) -> dict[str, Any]:
    return {"values": list(values)}


DOCUMENT = _document()
REFUSED = {"expected-statuses": ["2xx", "400", "404", "409", "422"]}
schema = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {
                "max-examples": int(os.environ.get("KINOLOOM_TEST_EXAMPLES", "10")),
                "deterministic": True,
                "database": "none",
                # The tests bring a key of their own.
                "with-security-parameters": False,
            },
            "dictionaries": {
                "jobs": _often(*JOBS),
                "clips": _often(*CLIPS),
                "films": _often(FILM),
                "shots": _often(SHOT, "shot-002"),
                "videos": _often(*(f"video_{job}" for job in JOBS)),
                "models": _often("spark", "wan-2.2-ti2v-5b"),
            },
            "parameters": {
                f"path.{name}": {"dictionary": f"{name}s", "probability": 0.5}
                for name in ("job", "clip", "film", "shot", "video", "model")
            },
            "operations": [
                # What is documented for a server without a worker, as this one is.
                {
                    "include-operation-id": "get_ready",
                    "checks": {"not_a_server_error": {"expected-statuses": ["200", "4xx", "503"]}},
                },
                # Some mistakes no schema can tell: that there is no such file, that a length is
                # given twice, that a job is over. Those must be refused in the documented way.
                {
                    "include-path": ["/v1/videos/extensions", "/v1/videos/edits"],
                    "checks": {
                        "positive_data_acceptance": REFUSED,
                        # Such a path is also that of a video with this name, which has more.
                        "allow_header_conformance": {"enabled": False},
                    },
                },
                {"include-method": "POST", "checks": {"positive_data_acceptance": REFUSED}},
                {"include-method": "PUT", "checks": {"positive_data_acceptance": REFUSED}},
            ],
        }
    ),
)
OPERATIONS = [
    pytest.param(method.upper(), path, operation, id=operation["operationId"])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


@dataclass(frozen=True)
class Server:
    """Where a server that needs keys answers, and the keys of its clients by their scope."""

    address: str
    admin: dict[str, str]
    reader: dict[str, str]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), rate_limit=0)
    with Store.of(settings) as store:
        service = JobService(settings, store)
        try:
            yield Shelf(settings, store, service, tmp_path_factory.mktemp("media"))
        finally:
            service.close()


@pytest.fixture(scope="module")
def server(shelf: Shelf) -> Iterator[Server]:
    """A server without a worker, with jobs in all states and two clips."""
    admin, reader = (
        {"Authorization": f"Bearer {shelf.store.keys.create(scope, frozenset({scope}), None)[1]}"}
        for scope in ("admin", "read")
    )
    app = create_app(shelf.settings, shelf.store, shelf.service, require_key=True)
    with running(app) as address:
        yield Server(address, admin, reader)


@pytest.fixture(autouse=True)
def _filled(shelf: Shelf) -> None:
    shelf.fill()


class Shelf:
    """What the server has before each test, whatever the tests before have deleted."""

    def __init__(self, settings: Settings, store: Store, service: JobService, place: Path) -> None:
        self.settings = settings
        self.store = store
        self.service = service
        self._place = place
        frames = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
        write_video(place / "clip.mp4", frames, 12, format="mp4")
        save_png(place / "clip.png", frames[0])
        self._queued = service.submit(VideoRequest(prompt="a red ball", seed=7, frames=9))

    def fill(self) -> None:
        """Put back what is missing."""
        asked = self._queued
        then = asked.created_at
        jobs = [replace(asked, id=JOB, state="succeeded", clip_id=CLIP, finished_at=then)]
        jobs += (replace(asked, id=f"job-{state}", state=state) for state in STATES)
        for job in jobs:
            if self.store.jobs.get(job.id) is None:
                self.store.jobs.add(job)
        self.store.events.set_preview("job-running", b"\xff\xd8 a rough picture \xff\xd9")
        assert asked.plan is not None
        kept = ClipRecord(
            id=CLIP,
            job_id=JOB,
            path=Path(f"{CLIP}.mp4"),
            asset=self.store.assets.put_file(self._place / "clip.mp4", "clip").digest,
            poster=self.store.assets.put_file(self._place / "clip.png", "poster").digest,
            plan_key=asked.plan_key or "",
            **{name: asked.plan[name] for name in ("task", "model", "backend", "seed")},
            width=64,
            height=64,
            frames=9,
            fps=12.0,
            format="mp4",
            request=asked.request,
            plan=asked.plan,
            timings={"denoise": 2.5, "total": 3.0},
            scores={"overall": 0.9},
        )
        moved = replace(kept, id=CLIPS[1], path=self._place / "moved.mp4", asset=None)
        if self.store.films.get(FILM) is None:
            board = storyboard_of({"shots": [{"prompt": "a"}, {"prompt": "b"}]})
            said = board.model_dump(mode="json")
            film = FilmRecord(id=FILM, title="A film", mode=board.mode, storyboard=said)
            self.store.films.add(film)
        for clip in (kept, moved):
            if self.store.clips.get(clip.id) is None:
                self.store.clips.add(clip)


def is_error(path: str, media_type: str, body: Any) -> None:
    """Assert that an answer is an error as the clients of that path know it."""
    openai = path.startswith("/v1/")
    assert media_type == ("application/json" if openai else PROBLEM_TYPE)
    jsonschema_rs.validate(SCHEMAS["OpenAIError" if openai else "ProblemDetails"], body)


def errors_are_ours(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A check: also an error that the document does not name has the shape of the others."""
    ready = response.status_code == 503 and case.operation.path == "/ready"
    if response.status_code >= 400 and response.content and not ready:
        is_error(case.operation.path, response.headers["content-type"][0], response.json())


@schema.parametrize()
def test_every_answer_is_as_documented(case: schemathesis.Case, server: Server) -> None:
    wait = case.query.get("wait")
    if isinstance(wait, float | int) and wait > 0.1:
        case.query["wait"] = wait / 300  # as wrong as before, but nobody waits for it
    case.call_and_validate(
        base_url=server.address, headers=server.admin, additional_checks=[errors_are_ours]
    )


def _filled_in(path: str) -> str:
    for name, value in (
        ("job", JOB),
        ("clip", CLIP),
        ("film", FILM),
        ("shot", SHOT),
        ("video", f"video_{JOB}"),
        ("model", "spark"),
    ):
        path = path.replace(f"{{{name}}}", value)
    return path


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_only_who_may_is_let_in(
    method: str, path: str, operation: dict[str, Any], server: Server
) -> None:
    with httpx.Client(base_url=server.address) as client:

        def status(headers: dict[str, str]) -> int:
            answer = client.request(method, _filled_in(path), headers=headers)
            if answer.status_code in (401, 403) and method != "HEAD":
                is_error(path, answer.headers["content-type"], answer.json())
            return answer.status_code

        if not operation.get("security"):
            assert path in ("/health", "/ready")
            assert status({}) not in (401, 403)
            return
        assert status({}) == 401
        assert status({"Authorization": "Bearer kl_" + "x" * 43}) == 401
        plans = operation["operationId"] in ("plan_clip", "plan_film", "plan_kept_film")
        changes = method in ("POST", "PUT", "DELETE") and not plans
        assert (status(server.reader) == 403) == changes


@pytest.mark.parametrize("path", sorted(DOCUMENT["paths"]))
def test_a_method_that_a_path_has_not_is_refused(path: str, server: Server) -> None:
    has = {method.upper() for method in DOCUMENT["paths"][path]}
    with httpx.Client(base_url=server.address, headers=server.admin) as client:
        for method in sorted({"PUT", "PATCH", "DELETE", "POST", "OPTIONS"} - has):
            answer = client.request(method, _filled_in(path))
            if method == "DELETE" and path in ("/v1/videos/edits", "/v1/videos/extensions"):
                assert answer.status_code == 404  # there is no video of that name
                continue
            assert answer.status_code == 405, method
            is_error(path, answer.headers["content-type"], answer.json())
            assert has <= set(answer.headers["allow"].split(", "))
