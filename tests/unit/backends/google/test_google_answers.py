"""Google's errors, from shapes that were recorded or are documented, in our words."""

from __future__ import annotations

from typing import Any

import pytest

from kinoloom.backends.google.answers import Answer, answer_of, code_word, create, read
from kinoloom.backends.remote import retries
from kinoloom.backends.remote.error_table import ErrorTable
from kinoloom.errors import InvalidRequest, KinoloomError, NetworkFailed, NotFound, RateLimited

RPC = "type.googleapis.com/google.rpc."


class _Response:
    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers


class _Interactions(Exception):
    """As the SDK's interactions raise it: a status and the body as it came."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__("Error code")
        self.status_code, self.body, self.response = status, body, _Response(headers or {})


class _Models(Exception):
    """As the SDK's models, files and operations raise it."""

    def __init__(self, status: int, details: Any) -> None:
        super().__init__(f"{status} {details}")
        self.code, self.details, self.response = status, details, _Response({})


SHAPES: list[tuple[int, Any, str]] = [
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": f"{RPC}ErrorInfo", "reason": "API_KEY_INVALID"}],
            }
        },
        "authentication",
    ),
    (400, {"error": {"code": "invalid_request", "message": "Unknown field 'x'"}}, "invalid_params"),
    (
        400,
        [{"error": {"code": 400, "message": "API key expired.", "status": "INVALID_ARGUMENT"}}],
        "authentication",
    ),
    (
        403,
        {"error": {"code": 403, "message": "Your API key was reported as leaked. Use another."}},
        "authentication",
    ),
    (
        403,
        {
            "error": {
                "code": 403,
                "message": "Vertex AI API has not been used in project 1 before or it is disabled.",
                "status": "PERMISSION_DENIED",
                "details": [{"@type": f"{RPC}ErrorInfo", "reason": "SERVICE_DISABLED"}],
            }
        },
        "forbidden",
    ),
    (
        403,
        {
            "error": {
                "code": 403,
                "message": "This API method requires billing to be enabled.",
                "status": "PERMISSION_DENIED",
                "details": [{"@type": f"{RPC}ErrorInfo", "reason": "BILLING_DISABLED"}],
            }
        },
        "quota_exceeded",
    ),
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "User location is not supported for the API use.",
                "status": "FAILED_PRECONDITION",
            }
        },
        "forbidden",
    ),
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "The prompt could not be submitted. It contains sensitive words that"
                " violate Google's Responsible AI practices. Support codes: 35561575",
                "status": "INVALID_ARGUMENT",
            }
        },
        "content_rejected",
    ),
    (400, {"error": {"code": "safety", "message": "no"}}, "content_rejected"),
    (403, {"error": {"message": "This violates your organisation's policy."}}, "forbidden"),
    (
        400,
        {"error": {"code": 400, "message": "Invalid value at 'safety_settings[0]'"}},
        "invalid_params",
    ),
    (
        404,
        {
            "error": {
                "code": 404,
                "message": "Publisher Model `veo-9` was not found or your project does not have"
                " access to it.",
                "status": "NOT_FOUND",
            }
        },
        "model_not_found",
    ),
    (
        404,
        {"error": {"code": 404, "message": "This model models/x is no longer available."}},
        "provider_retired",
    ),
    (
        429,
        {
            "error": {
                "code": 429,
                "message": "Quota exceeded for aiplatform.googleapis.com/"
                "long_running_online_prediction_requests_per_base_model.",
                "status": "RESOURCE_EXHAUSTED",
            }
        },
        "rate_limited",
    ),
    (
        429,
        {
            "error": {
                "code": 429,
                "message": "You exceeded your current quota, please check your plan and billing"
                " details.",
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {
                        "@type": f"{RPC}QuotaFailure",
                        "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}],
                    }
                ],
            }
        },
        "quota_exceeded",
    ),
    (429, {"error": {"code": 429, "message": "Prepaid credits are depleted."}}, "quota_exceeded"),
    (413, "Request Entity Too Large", "too_large"),
    (
        400,
        {"error": {"code": 400, "message": "Request payload size exceeds the limit: 20971520"}},
        "too_large",
    ),
    (400, {"error": {"code": 400, "message": "Unable to process input image."}}, "invalid_media"),
    (500, {"error": {"code": 500, "message": "", "status": "INTERNAL"}}, "worker_unavailable"),
    (503, "", "worker_unavailable"),
    (504, {"error": {"code": 504, "status": "DEADLINE_EXCEEDED", "message": ""}}, "timeout"),
    (418, {"error": {"message": "I am a teapot."}}, "unknown"),
]


@pytest.mark.parametrize(("status", "body", "kind"), SHAPES)
def test_each_shape_has_its_kind(status: int, body: Any, kind: str) -> None:
    for raised in (_Interactions(status, body), _Models(status, body)):
        answer = answer_of(raised)
        assert answer is not None
        assert answer.error().kind == kind


def test_every_rule_that_asks_for_something_says_what() -> None:
    unhelpful = ("invalid_params", "unknown")
    for rule in ErrorTable.of("google")._rules:
        assert rule.hints or rule.kind in unhelpful, rule.message


def test_the_pause_is_taken_from_the_header_or_the_details() -> None:
    info = {"@type": f"{RPC}RetryInfo", "retryDelay": "12.5s"}
    body = {"error": {"code": 429, "message": "", "details": ["odd", info]}}
    told = answer_of(_Interactions(429, body))
    assert told == Answer(429, retry_after=12.5)
    error = told.error()
    assert isinstance(error, RateLimited)
    assert error.retry_after == 12.5
    told = answer_of(_Interactions(429, body, {"retry-after": "3"}))
    assert told is not None
    assert told.retry_after == 3
    told = answer_of(_Interactions(429, None, {"retry-after": "Fri, 21 Nov 2026 10:00:00 GMT"}))
    assert told is not None
    assert told.retry_after is None


@pytest.mark.parametrize(
    "error", [ValueError("x"), _Interactions(200, {}), OSError(5, "input/output")]
)
def test_what_is_no_answer_is_none(error: Exception) -> None:
    assert answer_of(error) is None


def test_a_code_is_a_number_or_a_word() -> None:
    assert [code_word(c) for c in (13, 99, "INTERNAL", None)] == ["INTERNAL", "99", "INTERNAL", ""]


def test_a_create_that_the_sdk_refuses_was_not_sent() -> None:
    def refuse() -> None:
        raise ValueError("bad argument")

    with pytest.raises(KinoloomError, match="nothing was sent") as caught:
        create(refuse, hints=())
    assert caught.value.kind == "unknown"
    assert "bad argument" in caught.value.cause


def test_our_own_errors_pass_through() -> None:
    def ours() -> None:
        raise InvalidRequest([])

    for way in (lambda: create(ours, hints=()), lambda: read(ours, gone="")):
        with pytest.raises(InvalidRequest):
            way()


def test_a_read_is_made_again_and_says_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_SECONDS", 0.0001)
    seen: list[int] = []

    def fails() -> None:
        seen.append(1)
        raise ConnectionResetError

    with pytest.raises(NetworkFailed):
        read(fails, gone="")
    assert len(seen) == retries.ATTEMPTS

    def gone() -> None:
        raise _Models(404, {"error": {"message": "no"}})

    with pytest.raises(NotFound, match="It went"):
        read(gone, gone="It went.")
