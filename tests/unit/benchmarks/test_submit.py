from __future__ import annotations

import asyncio
import time

from benchmarks.submit import open_loop


def test_a_slow_answer_holds_no_request_back() -> None:
    count, begun = 20, 0
    all_begun = asyncio.Event()

    async def send(number: int) -> None:
        nonlocal begun
        begun += 1
        if begun == count:
            all_begun.set()
        # None of them is answered before the last one was sent.
        await asyncio.wait_for(all_begun.wait(), timeout=60)

    taken = asyncio.run(open_loop(send, 1000, count))
    assert len(taken) == count


def test_the_time_counts_from_when_a_request_was_due() -> None:
    stall, rate = 0.2, 100

    async def send(number: int) -> None:
        if number == 0:
            time.sleep(stall)  # the loop stands still: nothing can be sent meanwhile

    taken = asyncio.run(open_loop(send, rate, 3))
    assert taken[1] >= stall - 1 / rate
    assert taken[2] >= stall - 2 / rate
