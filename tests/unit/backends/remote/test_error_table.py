from __future__ import annotations

from importlib import resources

import pytest

from kinoloom.backends.remote.error_table import ErrorTable, Rule, shown
from kinoloom.errors import ErrorKind, RateLimited

TABLE = ErrorTable(
    [
        Rule(status=[429], kind=ErrorKind.RATE_LIMITED, message="Too many.", hints=["Wait."]),
        Rule(status=[400], text="credit", kind=ErrorKind.QUOTA_EXCEEDED, message="No credit."),
        Rule(code=r"^SAFETY\.", kind=ErrorKind.CONTENT_REJECTED, message="Refused."),
        Rule(status=[400, 422], kind=ErrorKind.INVALID_PARAMS, message="Wrong."),
    ]
)
TABLES = sorted(
    file.name.removesuffix(".yaml")
    for file in (resources.files("kinoloom.backends.remote") / "errors").iterdir()
)


def test_the_first_rule_that_matches_counts() -> None:
    assert TABLE.error(status=400, text="not enough CREDITS").kind == "quota_exceeded"
    assert TABLE.error(status=400, text="bad ratio").kind == "invalid_params"
    assert TABLE.error(status="FAILED", code="SAFETY.INPUT.TEXT").kind == "content_rejected"
    error = TABLE.error(status=429, retry_after=30)
    assert isinstance(error, RateLimited)
    assert (error.retry_after, error.hints) == (30, ("Wait.",))


def test_the_services_own_words_are_the_cause() -> None:
    error = TABLE.error(status=422, code="E1", text="the ratio\nis none", details={"ratio": "9:1"})
    assert error.cause == "E1: the ratio is none"
    assert error.details == {"ratio": "9:1"}


def test_what_no_rule_knows_is_unknown_and_says_what_came() -> None:
    error = TABLE.error(status=418, text="a teapot")
    assert error.kind == "unknown"
    assert "418" in error.message
    assert error.cause == "a teapot"


@pytest.mark.parametrize(
    ("before", "secret"),
    [
        ("Authorization: Bearer ", "abc.def-ghi_jkl"),
        ("api_key=", "abcdefghijkl"),
        ('"token": "', "abcdefghijkl"),
        ("", "sk-abcdefghijkl"),
        ("", "key_1234567890abcdef"),
        ("", "r8_abcdefghijkl"),
        ("", "AIzaSyABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("data:image/png;base64,", "iVBORw0KGgo" * 40),
        ("", "iVBORw0KGgo" * 40),
    ],
)
def test_no_secret_is_passed_on(before: str, secret: str) -> None:
    error = TABLE.error(status=400, text=f"you sent {before}{secret} to us")
    assert secret not in error.cause
    assert "***" in error.cause
    assert "to us" in error.cause


def test_long_words_are_cut() -> None:
    assert len(shown("far too much " * 1000)) == 500


@pytest.mark.parametrize("name", TABLES)
def test_every_table_that_is_shipped_can_be_read(name: str) -> None:
    assert ErrorTable.of(name).error(status=599, text="never seen").kind in set(ErrorKind)
