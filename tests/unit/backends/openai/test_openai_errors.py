"""Recorded answers of servers that speak /v1/videos, and that each rule of the table has one."""

from __future__ import annotations

import pytest

from kinoloom.backends.remote.error_table import ErrorTable

RECORDED = [
    (429, "insufficient_quota", "You exceeded your current quota.", "quota_exceeded"),
    (402, "402", "Insufficient credits. Add more.", "quota_exceeded"),
    (400, "moderation_blocked", "Your request was blocked.", "content_rejected"),
    (403, "403", "Your input was flagged for violence.", "content_rejected"),
    ("failed", "sentinel_block", "Your request was blocked.", "content_rejected"),
    (429, "rate_limit_exceeded", "Rate limit reached.", "rate_limited"),
    (401, "", "No auth credentials found", "authentication"),
    (400, "invalid_api_key", "Wrong.", "authentication"),
    (403, "unsupported_country_region_territory", "Country not supported.", "forbidden"),
    (403, "", "Only admins may do this.", "forbidden"),
    (404, "model_not_found", "It does not exist.", "model_not_found"),
    (404, "", "The model `wan` does not exist.", "model_not_found"),
    (410, "", "This API was shut down.", "provider_retired"),
    (404, "", "Video not found", "not_found"),
    (405, "", "Method Not Allowed", "conflict"),
    (409, "", "Video is still being generated.", "conflict"),
    (413, "", "Request Entity Too Large", "too_large"),
    (422, "", "value is not a valid integer", "invalid_params"),
    ("failed", "500", "torch.OutOfMemoryError: CUDA out of memory.", "insufficient_vram"),
    ("failed", "500", "Video generation timed out.", "timeout"),
    ("failed", "500", "It fell over.", "unknown"),
    (502, "", "Bad Gateway", "worker_unavailable"),
]


@pytest.mark.parametrize(("status", "code", "text", "kind"), RECORDED)
def test_a_recorded_answer_has_its_kind(status: int | str, code: str, text: str, kind: str) -> None:
    error = ErrorTable.of("openai").error(status=status, code=code, text=text)
    assert error.kind == kind


def test_no_rule_is_without_an_answer() -> None:
    table = ErrorTable.of("openai")
    hit = {
        next(i for i, rule in enumerate(table._rules) if rule.matches(status, code, text))
        for status, code, text, _ in RECORDED
    }
    assert hit == set(range(len(table._rules)))
