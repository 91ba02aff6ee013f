"""What does a client see when something goes wrong?

Under ``/api`` it is a problem document (RFC 9457, ``application/problem+json``) that carries the
kind, cause and hints of the error; under ``/v1`` it has the shape that OpenAI's clients know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from kinoloom.errors import ErrorKind, InvalidRequest, KinoloomError, Problem, RateLimited
from kinoloom.server.schemas import without_places

PROBLEM_TYPE = "application/problem+json"

_STATUS = {
    ErrorKind.INVALID_PARAMS: 422,
    ErrorKind.INVALID_MEDIA: 422,
    ErrorKind.MODEL_NOT_FOUND: 404,
    ErrorKind.MODEL_BROKEN: 409,
    ErrorKind.LICENCE_NOT_ACCEPTED: 403,
    ErrorKind.DOWNLOAD_FAILED: 502,
    ErrorKind.MISSING_PACKAGE: 501,
    ErrorKind.INSUFFICIENT_VRAM: 422,
    ErrorKind.OUTPUT_FAILED: 507,
    ErrorKind.STORE_BROKEN: 500,
    ErrorKind.WORKER_UNAVAILABLE: 503,
    ErrorKind.TIMEOUT: 504,
    ErrorKind.NETWORK_ERROR: 422,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.AUTHENTICATION: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.BUDGET_EXCEEDED: 402,
    ErrorKind.QUOTA_EXCEEDED: 402,
    ErrorKind.CONTENT_REJECTED: 422,
    ErrorKind.PROVIDER_RETIRED: 410,
    ErrorKind.UNCERTAIN: 409,
    ErrorKind.CANCELLED: 409,
    ErrorKind.UNKNOWN: 500,
}
# What a client may do again after a while, in seconds, where the error itself names no time.
_RETRY_SECONDS = {429: 1.0, 503: 5.0}
# Errors of the framework that have no kind of their own.
_HTTP_KINDS = {
    400: ErrorKind.INVALID_PARAMS,
    401: ErrorKind.AUTHENTICATION,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.NOT_FOUND,
    405: ErrorKind.INVALID_PARAMS,
    406: ErrorKind.INVALID_PARAMS,
    409: ErrorKind.CONFLICT,
    413: ErrorKind.TOO_LARGE,
    415: ErrorKind.INVALID_PARAMS,
    416: ErrorKind.INVALID_PARAMS,
    422: ErrorKind.INVALID_PARAMS,
    429: ErrorKind.RATE_LIMITED,
}
# What the framework says no more of than the status's name: (message, hint).
_HTTP_WORDS = {
    404: ("There is nothing at this path.", "GET /api/openapi.json lists what there is."),
    405: ("This path does not take that method.", "The header Allow says which it takes."),
}
_OPENAI_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# A value that a client sent is quoted back, but not at any length.
_SHOWN = 200


def status_of(kind: ErrorKind | str) -> int:
    """The HTTP status of an error's kind; 500 for a word that is none."""
    try:
        return _STATUS[ErrorKind(kind)]
    except ValueError:
        return 500


def problem_of(error: KinoloomError, status: int | None = None) -> dict[str, Any]:
    """The error as a problem document: type, title, status, detail, kind, cause, hints, and the
    list of mistakes when it is a request that has some."""
    status = status or status_of(error.kind)
    data = without_places(error.as_dict())
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": data["message"],
        "kind": data["kind"],
        "cause": data["cause"],
        "hints": data["hints"],
    }
    return document | {"problems": data["problems"]} if "problems" in data else document


def openai_error_of(error: KinoloomError, status: int | None = None) -> dict[str, Any]:
    """The error in the shape of OpenAI's API: what, why and what to do are one message."""
    status = status or status_of(error.kind)
    data = without_places(error.as_dict())
    parts = (data["message"], data["cause"], *data["hints"])
    param = None
    if isinstance(error, InvalidRequest) and error.problems:
        param = error.problems[0].field
    usual = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": " ".join(part for part in parts if part),
            "type": _OPENAI_TYPES.get(status, usual),
            "param": param,
            "code": str(error.kind),
        }
    }


def is_openai(path: str) -> bool:
    """Whether clients of OpenAI's API use this path."""
    return path == "/v1" or path.startswith("/v1/")


def error_response(
    error: KinoloomError,
    path: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer to a request for `path` that failed with `error`."""
    status = status or status_of(error.kind)
    more = dict(headers or {})
    if status == 401:
        more["WWW-Authenticate"] = 'Bearer realm="kinoloom"'
    if status in _RETRY_SECONDS:
        after = error.retry_after if isinstance(error, RateLimited) else _RETRY_SECONDS[status]
        more["Retry-After"] = str(max(1, math.ceil(after)))
    if is_openai(path):
        status = 400 if status == 422 else status  # as that API has it, and its clients name it
        return JSONResponse(openai_error_of(error, status), status, more)
    return JSONResponse(problem_of(error, status), status, more, media_type=PROBLEM_TYPE)


def unexpected_response(path: str, number: str) -> JSONResponse:
    """The answer to a request for `path` that nobody expected to fail; `number` is in the log.

    A problem document has it as its `id` too.
    """
    error = KinoloomError(
        "Something went wrong on the server.",
        cause=f"Its log says more under the id {number}.",
        hints=["Try again; if it happens again, report it with what the log says."],
    )
    if is_openai(path):
        return error_response(error, path)
    return JSONResponse(problem_of(error) | {"id": number}, 500, media_type=PROBLEM_TYPE)


class HttpFailure(KinoloomError):
    """What the framework refused (no such path, method, media type) in the words of the house."""

    def __init__(self, status: int, detail: str) -> None:
        phrase = HTTPStatus(status).phrase
        usual, hint = _HTTP_WORDS.get(status, (phrase, ""))
        said = detail if detail and detail != phrase else ""
        super().__init__(said or usual, hints=[hint] if hint and not said else [])
        self.kind = _HTTP_KINDS.get(status, ErrorKind.UNKNOWN)  # type: ignore[misc]


def invalid_request(errors: Sequence[Mapping[str, Any]]) -> InvalidRequest:
    """pydantic's errors as the list of mistakes that every part of Kinoloom answers with."""
    problems = []
    for error in errors:
        where, *rest = error.get("loc", ())
        if error["type"] == "json_invalid":
            problems.append(Problem("body", "...", f"valid JSON ({error['ctx']['error']})"))
            continue
        field = ".".join(str(part) for part in rest) or str(where)
        value = None if error["type"] == "missing" else error.get("input")
        if not isinstance(value, int | float | None):
            value = str(value)
            value = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
        problems.append(Problem(field, value, _allowed(error)))
    return InvalidRequest(problems)


def _allowed(error: Mapping[str, Any]) -> str:
    """What pydantic's message says is allowed: "Input should be a valid integer" -> "a valid
    integer"."""
    message = str(error.get("msg", "another value"))
    for start in ("Input should be ", "Value error, ", "Assertion failed, "):
        message = message.removeprefix(start)
    return "a value (it is missing)" if error["type"] == "missing" else message


# --- documentation --------------------------------------------------------------------------

_EXAMPLES: dict[int, tuple[str, str, str, str]] = {
    400: ("invalid_params", "The body cannot be read.", "It is not valid multipart data.", ""),
    401: (
        "authentication",
        "This server needs an API key.",
        "The request has no `Authorization: Bearer kl_...` header.",
        "Create one with `kinoloom keys create NAME`.",
    ),
    402: (
        "budget_exceeded",
        "The key's budget does not cover this clip.",
        "It would cost 0.40 USD, and 0.25 USD of 5.00 USD are left.",
        "Create a key with a larger budget.",
    ),
    403: (
        "forbidden",
        "This key may not do that.",
        "It has the scope read, and this needs write.",
        "Use a key with the scope write.",
    ),
    404: ("not_found", "There is no clip 0199.", "It was deleted, or never was.", ""),
    409: (
        "conflict",
        "The job cannot be held.",
        "It is succeeded already.",
        "Only queued and running jobs can be held.",
    ),
    413: (
        "too_large",
        "The request is too large.",
        "At most 512 MiB are taken.",
        "Send a smaller file, or raise max_upload in the server's settings.",
    ),
    415: ("invalid_params", "That media type is not taken.", "", "Send application/json."),
    416: ("invalid_params", "The range is not in the file.", "", ""),
    422: ("invalid_params", "The request has 1 mistake.", "", ""),
    429: (
        "rate_limited",
        "Too many requests.",
        "At most 600 a minute are taken.",
        "Wait as long as Retry-After says.",
    ),
    500: ("unknown", "Something went wrong on the server.", "", "See the server's log."),
    501: ("missing_package", "A package is not installed.", "", "pip install 'kinoloom[local]'"),
    502: ("download_failed", "The model's weights cannot be downloaded.", "It timed out.", ""),
    503: ("worker_unavailable", "No worker runs.", "", "Start one with `kinoloom worker`."),
    504: ("timeout", "The file took too long to read.", "", ""),
    507: ("output_failed", "The disk is full.", "", "Make room."),
}


def problem_docs(*statuses: int, openai: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these statuses, each with an example.

    With `openai` they have the shape of the routes under ``/v1``.
    """
    return {status: _doc(status, openai) for status in statuses}


def _doc(status: int, openai: bool) -> dict[str, Any]:
    kind, message, cause, hint = _EXAMPLES[status]
    error = KinoloomError(message, cause=cause, hints=[hint] if hint else [])
    if status == 422:
        error = InvalidRequest([Problem("frames", 100_000, "1 to 10000", 10_000)])
    example = openai_error_of(error, status) if openai else problem_of(error, status)
    if openai:
        example["error"]["code"] = kind
    else:
        example["kind"] = kind
    schema = {"$ref": f"#/components/schemas/{'OpenAIError' if openai else 'ProblemDetails'}"}
    doc: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {
            "application/json" if openai else PROBLEM_TYPE: {"schema": schema, "example": example}
        },
    }
    if status in _RETRY_SECONDS:
        doc["headers"] = {
            "Retry-After": {
                "description": "Seconds after which it may be tried again.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return doc


ALWAYS = (400, 401, 403, 413, 422, 429, 500)
"""What any route may answer; `create_app` documents these for all of them."""

SCHEMAS: dict[str, dict[str, Any]] = {
    "ProblemDetails": {
        "type": "object",
        "title": "ProblemDetails",
        "description": "An error (RFC 9457): what failed, why, and what to do next.",
        "required": ["type", "title", "status", "detail", "kind", "cause", "hints"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string", "description": "The status in words."},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What failed."},
            "kind": {
                "type": "string",
                "enum": [str(kind) for kind in ErrorKind],
                "description": "A stable word that programs may match on.",
            },
            "cause": {"type": "string", "description": "Why it failed; may be empty."},
            "hints": {
                "type": "array",
                "items": {"type": "string"},
                "description": "What to do next, most useful first.",
            },
            "problems": {
                "type": "array",
                "description": "Every mistake in the request.",
                "items": {
                    "type": "object",
                    "required": ["field", "value", "allowed", "nearest"],
                    "properties": {
                        "field": {"type": "string"},
                        "value": {},
                        "allowed": {"type": "string"},
                        "nearest": {},
                    },
                },
            },
            "id": {"type": "string", "description": "Where the server's log tells more."},
        },
    },
    "OpenAIError": {
        "type": "object",
        "title": "OpenAIError",
        "description": "An error in the shape of OpenAI's API.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": "string", "enum": [str(kind) for kind in ErrorKind]},
                },
            }
        },
    },
}
