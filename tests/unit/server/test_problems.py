from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI

from kinoloom import errors
from kinoloom.errors import ErrorKind, InvalidRequest, KinoloomError, Problem
from kinoloom.server.problems import _EXAMPLES, SCHEMAS, problem_docs, problem_of, status_of
from serving import local_client


def test_every_kind_has_a_status_that_clients_understand() -> None:
    found = {kind: status_of(kind) for kind in ErrorKind}
    assert all(400 <= status < 600 for status in found.values())
    # What a client can mend is no fault of the server's.
    for kind in ("invalid_params", "invalid_media", "not_found", "network_error", "conflict"):
        assert found[ErrorKind(kind)] < 500
    assert status_of("no such kind") == 500


def test_a_known_error_is_a_problem_document(shell: Callable[..., FastAPI]) -> None:
    app = shell()

    @app.get("/api/fail")
    @app.get("/v1/fail")
    def fail() -> None:
        raise InvalidRequest([Problem("frames", 0, "1 to 100", 1)], hints=["Try 1."])

    answer = local_client(app).get("/api/fail")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "The request has 1 mistake.",
        "kind": "invalid_params",
        "cause": "frames = 0: allowed is 1 to 100; nearest is 1",
        "hints": ["Try 1."],
        "problems": [{"field": "frames", "value": 0, "allowed": "1 to 100", "nearest": 1}],
    }
    openai = local_client(app).get("/v1/fail")
    assert openai.status_code == 400
    assert openai.json() == {
        "error": {
            "message": "The request has 1 mistake. frames = 0: allowed is 1 to 100; nearest is 1"
            " Try 1.",
            "type": "invalid_request_error",
            "param": "frames",
            "code": "invalid_params",
        }
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/test/write", 405, "invalid_params"),
        ("GET", "/v1/nowhere", 404, "not_found"),
    ],
)
def test_what_the_framework_refuses_has_the_same_shape(
    shell: Callable[..., FastAPI], method: str, path: str, status: int, kind: str
) -> None:
    answer = local_client(shell()).request(method, path)
    assert answer.status_code == status
    found = answer.json()
    if path.startswith("/v1"):
        assert found["error"]["code"] == kind
        assert "openapi.json" in found["error"]["message"]
    else:
        assert found["kind"] == kind
        assert found["hints"]
    assert (status == 405) == ("allow" in answer.headers)


def test_mistakes_in_parameters_are_listed_with_their_fields(shell: Callable[..., FastAPI]) -> None:
    app = shell()

    @app.get("/api/count")
    def count(limit: int, name: str) -> int:
        return limit + len(name)

    answer = local_client(app).get("/api/count", params={"limit": "x" * 10_000}).json()
    fields = {p["field"]: p for p in answer["problems"]}
    assert set(fields) == {"limit", "name"}
    assert len(fields["limit"]["value"]) < 300
    assert "integer" in fields["limit"]["allowed"]
    assert fields["name"]["value"] is None


def test_broken_json_is_a_mistake_of_the_request(shell: Callable[..., FastAPI]) -> None:
    answer = local_client(shell()).post(
        "/test/write", content=b"{nope", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["field"] == "body"


def test_what_nobody_expected_shows_no_inside_but_an_id_that_is_in_the_log(
    shell: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    app = shell()

    @app.get("/api/broken")
    def broken() -> None:
        raise RuntimeError("the inside")

    answer = local_client(app).get("/api/broken")
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    found = answer.json()
    assert found["kind"] == "unknown"
    assert "inside" not in answer.text
    assert "Traceback" not in answer.text
    logged = next(r for r in caplog.records if r.name == "kinoloom.server")
    assert found["id"] in logged.getMessage()
    assert logged.exc_info is not None


def test_waiting_and_authenticating_are_said_in_headers(shell: Callable[..., FastAPI]) -> None:
    app = shell()

    @app.get("/api/{name}")
    def fail(name: str) -> None:
        raise {
            "busy": errors.RateLimited("no", retry_after=2.2),
            "gone": errors.WorkerUnavailable("no"),
            "who": errors.NotAuthenticated("no"),
        }[name]

    client = local_client(app)
    assert client.get("/api/busy").headers["retry-after"] == "3"
    assert int(client.get("/api/gone").headers["retry-after"]) >= 1
    assert client.get("/api/who").headers["www-authenticate"].startswith("Bearer")


def test_the_documentation_has_every_error_with_an_example_of_its_shape(
    shell: Callable[..., FastAPI],
) -> None:
    document = local_client(shell()).get("/api/openapi.json").json()
    assert document["components"]["schemas"]["ProblemDetails"] == SCHEMAS["ProblemDetails"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    required = set(SCHEMAS["ProblemDetails"]["required"])
    for status, doc in problem_docs(*_EXAMPLES).items():
        example = doc["content"]["application/problem+json"]["example"]
        assert required <= set(example)
        assert example["status"] == status
        assert status_of(example["kind"]) == status or status in (400, 405, 415, 416)
    openai = problem_docs(404, openai=True)[404]["content"]["application/json"]["example"]
    assert openai["error"]["code"] == "not_found"


def test_no_page_of_the_documentation_loads_from_elsewhere(shell: Callable[..., FastAPI]) -> None:
    client = local_client(shell())
    for path in ("/docs", "/redoc", "/api/docs"):
        assert client.get(path).status_code == 404


def test_a_problem_of_another_status_says_that_status() -> None:
    assert problem_of(KinoloomError("no"), 415)["title"] == "Unsupported Media Type"
