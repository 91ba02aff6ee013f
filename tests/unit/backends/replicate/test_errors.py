from __future__ import annotations

from typing import Any

import pytest

from kinoloom.backends.remote.error_table import ErrorTable
from kinoloom.backends.replicate import prediction
from kinoloom.errors import ErrorKind, NetworkFailed, NotFound

THROTTLED = "Request was throttled. Your rate limit resets in ~30s."


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (401, "Unauthenticated: You did not pass a valid authentication token", "authentication"),
        (
            402,
            "Insufficient credit: You have insufficient credit to run this model",
            "quota_exceeded",
        ),
        (403, "You have reached your monthly spend limit", "quota_exceeded"),
        (403, "You do not have permission to run this model", "forbidden"),
        (404, "Model not found: The requested resource could not be found.", "model_not_found"),
        (404, "Prediction not found", "not_found"),
        (410, "Gone", "provider_retired"),
        (413, "Payload too large", "too_large"),
        (
            422,
            "Input validation failed: - input.duration: Must be one of 4, 6, 8",
            "invalid_params",
        ),
        (
            422,
            "Invalid version or not permitted: The specified version does not exist",
            "model_not_found",
        ),
        (422, "This version has been disabled because it consistently fails", "provider_retired"),
        (422, "The version abc is disabled", "provider_retired"),
        (429, THROTTLED, "rate_limited"),
        (500, "Internal server error", "worker_unavailable"),
        (502, "", "worker_unavailable"),
        (418, "teapot", "unknown"),
    ],
)
def test_answers(status: int, text: str, kind: str) -> None:
    assert ErrorTable.of("replicate").error(status=status, text=text).kind == kind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (
            "The input or output was flagged as sensitive. Please try again. (E005)",
            "content_rejected",
        ),
        (
            "NSFW content detected. Try running it again, or try a different prompt.",
            "content_rejected",
        ),
        ("Request blocked: the prompt violates our usage guidelines", "content_rejected"),
        ("Content flagged by safety filters", "content_rejected"),
        ("CUDA out of memory. Tried to allocate 20.00 MiB", "insufficient_vram"),
        ("(E1001) Model ran out of memory", "insufficient_vram"),
        ("Prediction interrupted; please retry (code: PA)", "worker_unavailable"),
        ("Director: unexpected error handling prediction (E9243)", "worker_unavailable"),
        (
            "The service is unavailable due to high demand. Try again later. (E003)",
            "rate_limited",
        ),
        ("An unknown error (E1000)", "worker_unavailable"),
        ("Prediction timed out after 1800s", "timeout"),
        ("1 validation error for Input: image must be one of", "invalid_params"),
        ("cannot identify image file", "invalid_params"),
        ("list index out of range", "unknown"),
        ("Zoom level is not a number", "unknown"),
    ],
)
def test_failures(words: str, kind: str) -> None:
    status = prediction.status_of({"status": "failed", "error": words})
    assert status.error is not None
    assert status.error.kind == kind


def test_the_words_of_a_service_are_passed_on_without_what_is_secret() -> None:
    words = "bad token: r8_abcdefghijklmnop1234 " + "x" * 900
    status = prediction.status_of({"status": "failed", "error": words})
    assert status.error is not None
    assert "r8_" not in status.error.cause
    assert len(status.error.cause) <= 500


@pytest.mark.parametrize("status", [None, 3, "sleeping"])
def test_a_state_that_is_not_known_is_no_state(status: Any) -> None:
    with pytest.raises(NetworkFailed):
        prediction.status_of({"status": status})


@pytest.mark.parametrize(
    ("logs", "progress"),
    [
        (None, None),
        ("", None),
        ("loading 100% of it", None),
        (" 10%|#  | 2/20 [00:01<00:09]\r 55%|##### | 11/20 [00:05<00:04]\n", 0.55),
        ("Using seed 7\n 999%|# | 1/1 [", 1.0),
    ],
)
def test_progress_is_that_of_the_last_bar(logs: Any, progress: float | None) -> None:
    status = prediction.status_of({"status": "processing", "logs": logs})
    assert (status.state, status.progress) == ("running", progress)


@pytest.mark.parametrize("output", [None, [], {}, "words", 3, ["", {"text": "x"}]])
def test_an_output_without_an_address_is_not_found(output: Any) -> None:
    with pytest.raises(NotFound):
        prediction.video_of({"status": "succeeded", "output": output})


def test_every_kind_of_the_table_is_one() -> None:
    kinds = {rule.kind for rule in ErrorTable.of("replicate")._rules}
    assert ErrorKind.UNKNOWN not in kinds
    assert {ErrorKind.CONTENT_REJECTED, ErrorKind.QUOTA_EXCEEDED} <= kinds
