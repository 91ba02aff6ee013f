"""How do tests have several threads do something at the same moment?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What each returns, or raises, when all start at the same moment."""
    together = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def do(index: int, work: Callable[[], Any]) -> None:
        together.wait(60)
        try:
            results[index] = work()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=do, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
