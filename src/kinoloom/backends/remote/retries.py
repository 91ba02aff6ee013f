"""When is a call that failed made again?

Only one that changes nothing there: reading how far something is, downloading, looking up. A call
that may cost something never comes through here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from kinoloom.errors import KinoloomError, RateLimited

ATTEMPTS = 5
_FIRST_SECONDS, _MOST_SECONDS = 0.5, 20.0

T = TypeVar("T")


def read_again(
    call: Callable[[], T],
    *,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `call` gives, tried again while it raises an error of a kind that may pass.

    The pauses double from half a second to twenty, each a random share of that ("full jitter",
    Brooker 2015, "Exponential Backoff And Jitter", AWS Architecture Blog), but never shorter than a
    service asks for. Raises what the last attempt raised.
    """
    pause = _FIRST_SECONDS
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except KinoloomError as error:
            if error.recovery.retry == "no" or attempt == attempts:
                raise
            asked = error.retry_after if isinstance(error, RateLimited) else 0.0
            sleep(max(asked, random.uniform(0, pause)))
            pause = min(2 * pause, _MOST_SECONDS)
    raise AssertionError("the last attempt answers or raises")
