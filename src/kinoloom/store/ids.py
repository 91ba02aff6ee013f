"""How does a record get a name that is unique everywhere and sorts by the time it was made?"""

from __future__ import annotations

import secrets
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7) as text; later ids of a process are greater.

    The 12 bits after the milliseconds count on within one (section 6.2, method 1), and 62 bits
    are random.
    """
    global _last  # noqa: PLW0603  (the clock of this process)
    with _lock:
        # Milliseconds, then a counter: running over simply borrows the next millisecond.
        _last = max(time.time_ns() // 1_000_000 << 12, _last + 1)
        ticks = _last
    value = (ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62
    return str(uuid.UUID(int=value | secrets.randbits(62)))
