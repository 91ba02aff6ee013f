"""Does `kinoloom generate` lose nothing when it is killed, alone and beside a server?"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acceptance.chaos import repeated, unfinished
from acceptance.stage import LIMIT, Program, Stage, until
from kinoloom.store.job_record import JobRecord

pytestmark = [pytest.mark.slow]

PROMPT = "a red ball rolling"
LONG = ("--frames", "49", "--steps", "2", "--size", "256x256")
"""Of a clip that takes long enough to encode to be killed in the middle of it."""


@pytest.fixture
def stage(tmp_path: Path, chaos_cards: Path) -> Iterator[Stage]:
    """A data folder without any process yet."""
    with Stage(tmp_path, chaos_cards, ttl=2) as stage:
        yield stage


def generate(stage: Stage, *arguments: str, seed: int = 1) -> Program:
    """Start the command, whose events are its log."""
    given = ("generate", PROMPT, "--json", "--seed", str(seed))
    return stage.start(*given, *arguments)


def events(program: Program) -> list[dict[str, Any]]:
    """What the command told by now, without a line that is not finished."""
    lines = program.said().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def phases(program: Program) -> set[str]:
    return {event["phase"] for event in events(program) if event["type"] == "progress"}


def reaches(program: Program, phase: str) -> None:
    """Wait until the command is in a phase, or by mistake already done."""
    until(lambda: phase in phases(program) or not program.running, f"the phase {phase}")
    assert program.running, program.said()


def clip_of(program: Program) -> dict[str, Any]:
    """The clip that the command ended with."""
    assert program.process.wait(LIMIT) == 0, program.said()
    last = events(program)[-1]
    assert last["type"] == "success", last
    return dict(last["clip"])


def jobs_of(stage: Stage) -> list[JobRecord]:
    return stage.store.jobs.list()


def judge(stage: Stage, job: str) -> None:
    """Assert that a job went as it must, and left nothing."""
    entries = stage.journal.entries(job)
    assert [*repeated(entries), *unfinished(entries)] == []
    assert stage.left_over() == []


@pytest.mark.parametrize("phase", ["denoise", "write"])
def test_a_killed_command_goes_on_when_it_is_run_again(stage: Stage, phase: str) -> None:
    killed = generate(stage, *LONG)
    reaches(killed, phase)
    killed.kill()
    until(lambda: not stage.pids(), "its child ends with it")
    (job,) = jobs_of(stage)
    assert job.state == "running", "it was killed too late"

    again = generate(stage, *LONG)
    clip = clip_of(again)
    assert clip["id"] == job.id
    assert [Path(clip["path"])] == list((stage.work / "outputs").iterdir())
    assert [record.id for record in stage.store.clips.list()] == [job.id]
    assert [found.id for found in jobs_of(stage)] == [job.id]
    if phase == "write":
        assert "denoise" not in phases(again)
    judge(stage, job.id)


def test_an_interrupted_command_leaves_nothing(stage: Stage) -> None:
    program = generate(stage, *LONG)
    reaches(program, "write")
    assert program.end(signal.SIGINT) == 130, program.said()
    assert events(program)[-1]["error"]["kind"] == "cancelled"
    (job,) = jobs_of(stage)
    assert job.state == "cancelled"
    assert stage.left_over() == []
    assert stage.store.clips.list() == []
    assert not any(path.is_file() for path in stage.place.glob("assets/**/*"))
    assert not any((stage.work / "outputs").iterdir())


def test_two_commands_at_once_keep_to_their_own_jobs(stage: Stage) -> None:
    # The very same request, so that each could take the other's job for its own.
    programs = [generate(stage, "--frames", "25", "--steps", "20") for _ in range(2)]
    clips = [clip_of(program) for program in programs]
    found = jobs_of(stage)
    ran_on = {(job.id, job.run, job.queue) for job in found if not job.reused}
    assert all(run == 1 for _, run, _ in ran_on)
    assert len({queue for *_, queue in ran_on}) == len(ran_on)
    assert {clip["id"] for clip in clips} == {clip.id for clip in stage.store.clips.list()}
    assert stage.left_over() == []


def test_a_command_beside_a_server_gets_its_clip_though_the_worker_dies(stage: Stage) -> None:
    server = stage.start_server()
    program = generate(stage, *LONG)
    until(lambda: "the worker that is running makes it" in program.said(), "it is handed over")
    until(lambda: [job.state for job in jobs_of(stage)] == ["running"], "the job begins")
    worker = stage.serving_pid(server)
    assert worker is not None
    stage.kill(worker)
    clip = clip_of(program)
    (job,) = jobs_of(stage)
    assert clip["id"] == job.id
    assert job.deaths == 1
    assert Path(clip["path"]).is_file()
    stage.end_all()
    judge(stage, job.id)


def test_a_worker_that_is_asked_to_end_gives_its_job_back(stage: Stage) -> None:
    worker = stage.start_worker("anna")
    job = stage.submit(1, frames=25, steps=40)
    until(lambda: any(e.what == "progress" for e in stage.journal.entries(job)), "it renders")
    worker.end()
    assert "Traceback" not in worker.said()
    waiting = stage.service.get(job)
    assert (waiting.state, waiting.deaths, waiting.worker) == ("queued", 0, None)
    assert stage.left_over() == []

    stage.start_worker("anna")
    until(lambda: stage.service.get(job).state == "succeeded", "it makes it after all")
    stage.end_all()
    judge(stage, job)
