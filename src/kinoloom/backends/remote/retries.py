"""When is a call that failed made again?

Only one that changes nothing there: reading how far something is, downloading, looking up. A call
that may cost something never comes through here.
"""

from __future__ import annotations

import datetime
import random
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

from kinoloom.errors import KinoloomError, RateLimited

ATTEMPTS = 5
_FIRST_SECONDS, _MOST_SECONDS = 0.5, 20.0
_ASKED_SECONDS = 120.0
"""The longest pause that a service gets for asking; who has to wait longer may ask again later."""

T = TypeVar("T")


def wait_asked(header: str | None) -> float | None:
    """The seconds that a Retry-After header asks for; None where it says nothing readable.

    It holds seconds or a date (RFC 9110, section 10.2.3); one that is past means no wait.
    """
    text = (header or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        return None
    return max((date - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)


def read_again(
    call: Callable[[], T],
    *,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `call` gives, tried again while it raises an error of a kind that may pass.

    The pauses double from half a second to twenty, each a random share of that ("full jitter",
    Brooker 2015, "Exponential Backoff And Jitter", AWS Architecture Blog), but not shorter than a
    service asks for, up to two minutes. Raises what the last attempt raised.
    """
    pause = _FIRST_SECONDS
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except KinoloomError as error:
            if error.recovery.retry == "no" or attempt == attempts:
                raise
            asked = error.retry_after if isinstance(error, RateLimited) else 0.0
            sleep(max(min(asked, _ASKED_SECONDS), random.uniform(0, pause)))
            pause = min(2 * pause, _MOST_SECONDS)
    raise AssertionError("the last attempt answers or raises")
