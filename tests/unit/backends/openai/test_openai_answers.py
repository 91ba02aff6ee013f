from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from kinoloom.backends.openai.answers import (
    STATES,
    address_of,
    changes_of,
    document_of,
    error_of_answer,
    status_of,
)
from kinoloom.errors import ErrorKind


def read(document: dict[str, Any]) -> dict[str, Any]:
    """A document as it comes over the wire, where fractions are exact."""
    told: dict[str, Any] = json.loads(json.dumps(document), parse_float=Decimal)
    return told


@pytest.mark.parametrize("word", sorted(STATES))
def test_every_word_for_a_state_is_understood_whatever_its_case(word: str) -> None:
    for said in (word, word.upper()):
        status = status_of({"status": said}, free=False)
        assert status.state == STATES[word]
        assert (status.error is not None) == (status.state == "failed")


@pytest.mark.parametrize(
    ("progress", "share"),
    [(0, 0), (41, 0.41), (100, 1), (250, 1), (-3, 0), (0.5, 0.5), (37.5, 0.375), (None, None)],
)
def test_progress_is_percent_or_a_fraction(progress: Any, share: float | None) -> None:
    told = read({"status": "in_progress", "progress": progress})
    assert status_of(told, free=False).progress == share


@pytest.mark.parametrize("progress", [True, "41", {}, []])
def test_progress_that_is_none_is_left_out(progress: Any) -> None:
    assert status_of({"status": "running", "progress": progress}, free=True).progress is None


def test_a_word_that_nobody_knows_is_shown_and_waited_for() -> None:
    status = status_of({"status": "upscaling"}, free=True)
    assert (status.state, status.detail) == ("running", "upscaling")


def test_a_document_with_nothing_but_an_address_is_a_finished_video() -> None:
    assert status_of({"url": "https://example.com/a.mp4"}, free=True).state == "succeeded"
    assert status_of({}, free=True).state == "running"


def test_a_video_that_another_kinoloom_cancelled_is_cancelled() -> None:
    document = {"status": "failed", "error": {"code": "cancelled", "message": "Cancelled."}}
    assert status_of(document, free=True).state == "cancelled"


@pytest.mark.parametrize("kind", [k for k in ErrorKind if k is not ErrorKind.CANCELLED])
def test_another_kinolooms_kinds_are_ours(kind: ErrorKind) -> None:
    error = {"code": str(kind), "message": "So it is."}
    status = status_of({"status": "failed", "error": error}, free=True)
    assert status.error is not None
    assert status.error.kind is kind
    assert "So it is." in status.error.cause


@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        ({"cost": 0.25}, Decimal("0.25")),
        ({"cost": "1.50"}, Decimal("1.50")),
        ({"cost": 3}, Decimal(3)),
        ({"cost": -1}, None),
        ({"cost": "NaN"}, None),
        ({"cost": "much"}, None),
        ({"cost": True}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_charge_is_exact_or_unknown(usage: Any, charged: Decimal | None) -> None:
    told = read({"status": "completed", "usage": usage})
    assert status_of(told, free=False).charged == charged
    assert status_of(read({"status": "queued", "usage": usage}), free=False).charged is None


@pytest.mark.parametrize(
    ("document", "address"),
    [
        ({"url": "https://cdn.example/a.mp4"}, "https://cdn.example/a.mp4"),
        ({"url": "/files/a.mp4"}, "http://host:8000/files/a.mp4"),
        ({"video_url": "https://cdn.example/b.mp4"}, "https://cdn.example/b.mp4"),
        ({"unsigned_urls": ["https://cdn.example/c.mp4"]}, "https://cdn.example/c.mp4"),
        ({"urls": []}, None),
        ({"url": 5}, None),
        ({"url": None}, None),
        ({}, None),
    ],
)
def test_an_address_is_found_where_servers_put_it(
    document: dict[str, Any], address: str | None
) -> None:
    assert address_of(document, "http://host:8000/v1/") == address


def test_what_another_kinoloom_changed_is_told() -> None:
    change = {"field": "size", "asked": "300x180", "used": "256x160", "why": "native sizes only"}
    video = {"kinoloom": {"adjustments": [change], "warnings": ["It is a small model."]}}
    assert list(changes_of(video)) == [
        "The server changed size: 300x180 -> 256x160 (native sizes only)",
        "The server warns: It is a small model.",
    ]
    assert list(changes_of({"kinoloom": "x"})) == []


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b"<html>", "authentication"),
        (403, b'{"error": {"message": "Not in your country."}}', "forbidden"),
        (403, b'{"error": {"code": 403, "message": "Input flagged"}}', "content_rejected"),
        (404, b'{"detail": "Video not found"}', "not_found"),
        (404, b'{"detail": "The model `wan` does not exist."}', "model_not_found"),
        (404, b'{"error": {"message": "sora-2 was shut down"}}', "provider_retired"),
        (413, b"", "too_large"),
        (429, b'{"error": {"code": "rate_limited", "message": "Slow down"}}', "rate_limited"),
        (429, b'{"error": {"type": "insufficient_quota"}}', "quota_exceeded"),
        (400, b'{"error": {"code": "invalid_params", "message": "bad"}}', "invalid_params"),
        (503, b"", "worker_unavailable"),
        (302, b"", "unknown"),
    ],
)
def test_recorded_answers_have_the_right_kind(status: int, body: bytes, kind: str) -> None:
    assert error_of_answer(httpx.Response(status, content=body)).kind == kind


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'"text"', b"\xff", b"[" * 100_000])
def test_what_is_no_document_is_an_empty_one(body: bytes) -> None:
    assert document_of(httpx.Response(200, content=body)) == {}
