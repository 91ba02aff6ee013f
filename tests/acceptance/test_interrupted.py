"""Is nothing left of a run that was interrupted?"""

from __future__ import annotations

import signal

import pytest

from acceptance.command import PROMPT, QUICK, User

pytestmark = [pytest.mark.model, pytest.mark.slow]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(user: User, number: signal.Signals) -> None:
    # Far more steps than are done by the time that the signal arrives.
    ended = user.interfere(
        lambda process: process.send_signal(number), PROMPT, "--steps", "40", "--frames", "49"
    )
    assert ended.code == 130, ended.err
    assert "Traceback" not in ended.err + ended.out
    last = ended.events()[-1]
    assert last["type"] == "error"
    assert last["error"]["kind"] == "cancelled"
    assert not any(e.get("phase") in ("score", "write") for e in ended.events())
    assert user.files() == []
    assert user.records() == []

    if number is signal.SIGINT:  # the next run is not held up by what the first one left
        again = user.run("generate", PROMPT, *QUICK, "--seed", "1", "--quiet").succeeded()
        (record,) = user.records()
        assert str(record.path) == again.out.strip()
        assert [name for name in user.files() if name.endswith(".part")] == []


def test_a_listener_that_raises_stops_the_work(user: User, studio: object) -> None:
    import kinoloom

    class Enough(Exception):
        pass

    def listen(event: object) -> None:
        if getattr(event, "phase", "") == "write" and getattr(event, "step", 0) == 3:
            raise Enough

    target = user.folder / "clip.mp4"
    with pytest.raises(Enough):
        kinoloom.generate(PROMPT, steps=8, frames=9, output=target, on_progress=listen)
    assert user.files() == []
