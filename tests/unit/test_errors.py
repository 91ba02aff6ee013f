from __future__ import annotations

import pytest

from kinoloom import errors
from kinoloom.errors import (
    ErrorKind,
    InvalidRequest,
    KinoloomError,
    ModelNotFound,
    RateLimited,
    error_of,
    recovery_of,
)
from kinoloom.jobs.messages import error_from

TAXONOMY = {
    "model_not_found",
    "insufficient_vram",
    "timeout",
    "network_error",
    "worker_unavailable",
    "invalid_params",
    "content_rejected",
    "quota_exceeded",
    "rate_limited",
    "authentication",
    "budget_exceeded",
    "provider_retired",
    "uncertain",
    "cancelled",
    "unknown",
}


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_each_kind_says_what_it_means_for_a_job(kind: ErrorKind) -> None:
    recovery = recovery_of(kind)
    assert recovery.retry in ("no", "later")
    assert recovery.fall_back in ("yes", "no", "ask")
    assert recovery.next or kind is ErrorKind.CANCELLED
    assert type(error_of(kind, "x")).kind is kind


def test_the_taxonomy_is_whole() -> None:
    assert {str(kind) for kind in ErrorKind} >= TAXONOMY


def test_what_must_never_be_repeated_or_passed_on_is_not() -> None:
    assert recovery_of(ErrorKind.UNCERTAIN).retry == "no"
    assert recovery_of(ErrorKind.UNCERTAIN).fall_back == "no"
    assert recovery_of(ErrorKind.CONTENT_REJECTED).fall_back == "ask"
    assert recovery_of(ErrorKind.INVALID_PARAMS).fall_back == "no"
    assert recovery_of(ErrorKind.CANCELLED).fall_back == "no"


def test_an_error_of_a_kind_is_of_its_class() -> None:
    error = error_of("model_not_found", "not here", cause="no file", details={"missing": ["a"]})
    assert isinstance(error, ModelNotFound)
    assert error.as_dict() == {
        "kind": "model_not_found",
        "message": "not here",
        "cause": "no file",
        "hints": [],
        "details": {"missing": ["a"]},
    }
    assert isinstance(error_of("rate_limited", "slow"), RateLimited)
    assert isinstance(error_of("invalid_params", "wrong", cause="why"), InvalidRequest)
    assert error_of("invalid_params", "wrong", cause="why").cause == "why"
    assert type(error_of("of another version", "x")) is KinoloomError


def test_an_error_of_another_module_takes_no_kinds_place() -> None:
    class Own(KinoloomError):
        def __init__(self) -> None:
            super().__init__("mine alone")

    errors._classes.cache_clear()
    assert Own().kind == "unknown"
    assert type(error_of("unknown", "x")) is KinoloomError


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_an_error_survives_its_json(kind: ErrorKind) -> None:
    error = error_of(kind, "failed", cause="why", hints=["do this"], details={"vram": 1})
    assert error_from(error.as_dict()).as_dict() == error.as_dict()


def test_no_two_classes_are_of_one_kind() -> None:
    found = [c.kind for c in KinoloomError.__subclasses__() if c.__module__ == errors.__name__]
    assert len(found) == len(set(found))
