"""How does a test wait for what an order elsewhere becomes?"""

from __future__ import annotations

import time
from collections.abc import Callable

from kinoloom.backends.base import RemoteStatus

DEADLINE = 20.0


def until(look: Callable[[], RemoteStatus], good: Callable[[RemoteStatus], object]) -> RemoteStatus:
    """Look again and again until something holds."""
    end = time.monotonic() + DEADLINE
    while not good(status := look()):
        assert time.monotonic() < end, f"still {status}"
        time.sleep(0.01)
    return status


def ended(status: RemoteStatus) -> bool:
    return status.state in ("succeeded", "failed", "cancelled")
