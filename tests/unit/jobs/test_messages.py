from __future__ import annotations

import math

import pytest

from kinoloom.catalog.reading import CardProblem, CatalogProblems
from kinoloom.errors import (
    Cancelled,
    ErrorKind,
    InvalidRequest,
    KinoloomError,
    Problem,
    RateLimited,
    TimedOut,
)
from kinoloom.jobs.messages import MAX_LINE, error_from, pack, unpack


def test_a_message_is_one_line_of_ascii() -> None:
    message = {"do": "plan", "words": "Käse\n\u2028", "n": [1, 2.5, None]}
    line = pack(message)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert unpack(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",  # cut off before its end
        b"[1]\n",
        b"nothing\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"x":"' + b"x" * MAX_LINE + b'"}\n',
    ],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(a line|JSON) that is"):
        unpack(line)


@pytest.mark.parametrize("message", [{"x": "x" * MAX_LINE}, {"x": math.nan}])
def test_what_cannot_be_a_message_is_not_sent(message: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"bytes|JSON compliant"):
        pack(message)


@pytest.mark.parametrize(
    "error",
    [
        KinoloomError("odd", cause="why", hints=["do this", "or that"]),
        Cancelled("stopped"),
        TimedOut("late", cause="a deadline"),
        RateLimited("slower"),
        InvalidRequest(
            [Problem("steps", -1, "0 to 9", 0), Problem("size", "big", "a size")],
            message="No.",
            hints=["ask for less"],
        ),
        CatalogProblems((CardProblem("tiny.yaml", "steps", "is missing"),)),
    ],
)
def test_an_error_arrives_as_it_was(error: KinoloomError) -> None:
    found = error_from(unpack(pack(error.as_dict())))
    assert (found.kind, str(found)) == (error.kind, str(error))
    assert (found.message, found.cause, found.hints) == (error.message, error.cause, error.hints)
    if isinstance(error, InvalidRequest):
        assert isinstance(found, InvalidRequest)
        assert found.problems == error.problems


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_has_its_class(kind: ErrorKind) -> None:
    assert error_from({"kind": str(kind), "message": "m"}).kind is kind


def test_a_kind_that_is_not_known_is_an_error_all_the_same() -> None:
    found = error_from({"kind": "new", "message": "m", "cause": "c"})
    assert (found.kind, found.message, found.cause) == (ErrorKind.UNKNOWN, "m", "c")
