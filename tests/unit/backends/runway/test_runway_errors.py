"""Recorded answers of Runway, and that each rule of the table has one."""

from __future__ import annotations

import pytest

from kinoloom.backends.remote.error_table import ErrorTable

RECORDED = [
    ("FAILED", "SAFETY.INPUT.TEXT", "Your prompt was rejected.", "content_rejected"),
    ("FAILED", "SAFETY.OUTPUT.VIDEO", "The output was moderated.", "content_rejected"),
    ("FAILED", "ASSET.INVALID", "The image could not be read.", "invalid_media"),
    ("FAILED", "INTERNAL.BAD_OUTPUT.CODE01", "An error occurred.", "worker_unavailable"),
    ("FAILED", "INTERNAL", "An unexpected error occurred.", "worker_unavailable"),
    ("FAILED", "", "An unexpected error occurred.", "unknown"),
    (402, "", "Payment required", "quota_exceeded"),
    (400, "", "You do not have enough credits to run this task.", "quota_exceeded"),
    (401, "", "The API key you provided is not valid.", "authentication"),
    (403, "", "This model is not available to your organization.", "forbidden"),
    (400, "", "The model gen3a_turbo is no longer available.", "provider_retired"),
    (400, "", "The prompt did not pass moderation.", "content_rejected"),
    (404, "", "A task with that ID was not found.", "not_found"),
    (413, "", "", "too_large"),
    (429, "", "You have reached your daily limit.", "rate_limited"),
    (400, "", 'Validation of body failed [{"path": ["ratio"]}]', "invalid_params"),
    (503, "", "Service unavailable.", "worker_unavailable"),
]


@pytest.mark.parametrize(("status", "code", "text", "kind"), RECORDED)
def test_a_recorded_answer_has_its_kind(status: int | str, code: str, text: str, kind: str) -> None:
    error = ErrorTable.of("runway").error(status=status, code=code, text=text)
    assert error.kind == kind
    assert "\n" not in error.cause


def test_no_rule_is_without_an_answer() -> None:
    table = ErrorTable.of("runway")
    hit = {
        next(i for i, rule in enumerate(table._rules) if rule.matches(status, code, text))
        for status, code, text, _ in RECORDED
    }
    assert hit == set(range(len(table._rules)))
