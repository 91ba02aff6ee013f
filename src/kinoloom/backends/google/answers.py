"""What did Google answer, and what may be done after it?

A create is made once. Only two things say that it was not accepted: an answer that refuses it, and
a request that never left. Everything else is uncertain. A read is made again while that may help.

The SDK has two families of errors for its two halves, one of them in a private module, so an error
is read by what it carries: a status, a body, the HTTP response.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from kinoloom.backends.google.access import sent
from kinoloom.backends.remote.error_table import ErrorTable, shown
from kinoloom.backends.remote.retries import read_again
from kinoloom.errors import KinoloomError, NetworkFailed, NotFound, Uncertain

T = TypeVar("T")

_MAYBE_ACCEPTED = (408, 499)
"""Answers of the 400s that tell of time, not of the request: request timeout, client closed."""
_NO_CONNECTION = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")
_DELAY = re.compile(r"^(\d+(?:\.\d+)?)s$")

_CODES = {
    1: "CANCELLED",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}
"""google.rpc.Code: what the number in an operation's error means."""


@dataclass(frozen=True)
class Answer:
    """An answer that is an error: HTTP status, Google's code and words, seconds to wait."""

    status: int
    code: str = ""
    text: str = ""
    retry_after: float | None = None

    def error(self) -> KinoloomError:
        """It in our words."""
        return ErrorTable.of("google").error(
            status=self.status, code=self.code, text=self.text, retry_after=self.retry_after
        )


def create(call: Callable[[], T], *, hints: tuple[str, ...]) -> T:
    """What `call` gives, which hands in an order and is made once.

    Raises the error of an answer that refused it, NetworkFailed where no connection was made, and
    Uncertain with `hints` for everything else.
    """
    requests: list[str] = []
    token = sent.set(requests)
    try:
        return call()
    except KinoloomError:
        raise
    except Exception as error:  # whatever the SDK raises: only what is known is certain
        answer = answer_of(error)
        if answer is not None and 400 <= answer.status < 500:
            if answer.status not in _MAYBE_ACCEPTED:
                raise answer.error() from None
        elif not requests:  # it never left: refused by the SDK itself
            raise KinoloomError(
                "Google's SDK refused the order; nothing was sent.",
                cause=shown(f"{type(error).__name__}: {error}"),
            ) from None
        elif answer is None and _not_connected(error):
            raise NetworkFailed(
                "Google cannot be reached.",
                cause=_cause(error),
                hints=["Check the connection, and base_url or vertex_url if you set them."],
            ) from None
        raise uncertain(_cause(error), hints) from None
    finally:
        sent.reset(token)


def uncertain(cause: str, hints: tuple[str, ...]) -> Uncertain:
    """What to say of an order that may have been accepted."""
    return Uncertain("Nobody knows whether Google accepted the order.", cause=cause, hints=hints)


def read(call: Callable[[], T], *, gone: str) -> T:
    """What `call` gives, which changes nothing and is made again while that may help.

    Raises NotFound with the message `gone` where Google does not know what is asked about.
    """

    def once() -> T:
        try:
            return call()
        except KinoloomError:
            raise
        except Exception as error:
            answer = answer_of(error)
            if answer is None:
                raise NetworkFailed("Google does not answer.", cause=_cause(error)) from None
            found = answer.error()
            # An interaction that is not known is a 400 with these words, an operation a 404.
            if answer.status == 404 or "invalid interaction name" in answer.text.lower():
                raise NotFound(gone, cause=found.cause) from None
            raise found from None

    return read_again(once)


def answer_of(error: BaseException) -> Answer | None:
    """The answer that an error of the SDK tells of; None where there was none."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    if not isinstance(status, int) or not 300 <= status < 600:
        return None
    body = getattr(error, "body", None) or getattr(error, "details", None)
    if isinstance(body, list) and body:  # the front end wraps its errors in a list
        body = body[0]
    told = body.get("error", body) if isinstance(body, Mapping) else body
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    after = _seconds(headers.get("retry-after"))
    if not isinstance(told, Mapping):
        return Answer(status, text=str(told or ""), retry_after=after)
    reasons, delay = _details(told.get("details"))
    # Interactions put a word into `code`; everything else a number there and the word in `status`.
    words = (told.get("status"), told.get("code"), *reasons)
    code = " ".join(dict.fromkeys(word for word in words if isinstance(word, str) and word))
    text = told.get("message")
    after = delay if after is None else after
    return Answer(status, code, text if isinstance(text, str) else "", after)


def code_word(code: Any) -> str:
    """The word for an error's code, which may be a number or the word itself."""
    return _CODES.get(code, str(code)) if isinstance(code, int) else str(code or "")


def _details(details: Any) -> tuple[list[str], float | None]:
    """The reasons among the details of an error, and how long to wait."""
    reasons: list[str] = []
    delay = None
    for detail in details if isinstance(details, list) else []:
        if not isinstance(detail, Mapping):
            continue
        if isinstance(detail.get("reason"), str):
            reasons.append(detail["reason"])
        violations = detail.get("violations")
        reasons.extend(
            violation["quotaId"]
            for violation in (violations if isinstance(violations, list) else [])
            if isinstance(violation, Mapping) and isinstance(violation.get("quotaId"), str)
        )
        delay = _seconds(detail.get("retryDelay")) if delay is None else delay
    return reasons, delay


def _seconds(told: Any) -> float | None:
    """Seconds from a header (``34``) or a duration (``34s``)."""
    if not isinstance(told, str):
        return None
    found = _DELAY.match(told if told.endswith("s") else f"{told.strip()}s")
    return float(found[1]) if found else None


def _not_connected(error: BaseException) -> bool:
    """Whether no connection was made, so that nothing can have arrived."""
    import httpx2

    kinds = tuple(getattr(httpx2, name) for name in _NO_CONNECTION)
    return any(isinstance(each, kinds) for each in _chain(error))


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what led to it: the SDK wraps what its HTTP client raised."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__ or each.__context__
    return found


def _cause(error: BaseException) -> str:
    """What happened, without what was sent: the status, or the innermost kind of error."""
    answer = answer_of(error)
    if answer is not None:
        return shown(f"It answered {answer.status} {answer.code}: {answer.text}")
    return f"{type(_chain(error)[-1]).__name__} while waiting for its answer."
