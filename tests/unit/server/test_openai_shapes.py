from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Video as ClientsVideo

from kinoloom.jobs.progress import ELSEWHERE, HERE, PHASES, Phase
from kinoloom.server.openai.progress import percent
from kinoloom.server.openai.shapes import STATUS, job_id, poll_after, video_id, video_of
from kinoloom.store.job_record import JobRecord, JobState

PLAN = {
    "frames": 49,
    "fps": 24.0,
    "width": 192,
    "height": 128,
    "estimate": {"seconds": 40.0},
    "adjustments": [{"field": "size", "asked": "200x130", "used": "192x128", "why": "so"}],
    "warnings": ["mind this"],
}


def job(**changes: Any) -> JobRecord:
    values = {
        "queue": "gpu",
        "origin": "api",
        "request": {},
        "task": "t2v",
        "model": "spark",
        "backend": "local",
        "prompt": "a ball",
        "plan": PLAN,
    }
    return JobRecord(**values | changes)


def test_every_state_has_a_status() -> None:
    assert set(STATUS) == set(get_args(JobState))


@pytest.mark.parametrize("state", get_args(JobState))
def test_the_official_client_reads_every_state(state: JobState) -> None:
    # The one size of OpenAI's own models that the client's types know and a plan may have.
    shown = video_of(job(state=state, plan=PLAN | {"width": 1280, "height": 720}))
    read = ClientsVideo.model_validate(shown.model_dump(mode="json"))
    assert read.status == STATUS[state]
    assert (read.error is not None) == (read.status == "failed")
    assert read.progress == (100 if state == "succeeded" else 0)


def test_length_and_size_are_those_of_the_plan() -> None:
    shown = video_of(job())
    assert (shown.seconds, shown.size) == ("2.042", "192x128")
    assert video_of(job(plan=PLAN | {"frames": 48})).seconds == "2"
    assert shown.kinoloom.adjustments == PLAN["adjustments"]
    assert shown.kinoloom.warnings == ["mind this"]


def test_times_are_seconds_since_1970() -> None:
    created = datetime(2026, 11, 21, 12, tzinfo=UTC)
    shown = video_of(job(state="succeeded", created_at=created, finished_at=created))
    assert (shown.created_at, shown.completed_at) == (1795262400, 1795262400)
    assert video_of(job()).completed_at is None


def test_an_error_says_what_why_and_what_next() -> None:
    error = {"kind": "timeout", "message": "What.", "cause": "Why.", "hints": ["Next.", "Else."]}
    found = video_of(job(state="failed", error=error)).error
    assert found is not None
    assert (found.code, found.message) == ("timeout", "What. Why. Next.")


def test_a_job_given_up_without_a_word_has_an_error_all_the_same() -> None:
    found = video_of(job(state="dead", error=None)).error
    assert found is not None
    assert found.code == "unknown"
    assert found.message


def test_what_is_cancelled_is_called_so_whatever_else_was_wrong() -> None:
    for state in ("cancelling", "cancelled"):
        found = video_of(job(state=state, error={"kind": "timeout", "message": "x"})).error
        assert found is not None
        assert found.code == "cancelled"


def test_a_remix_names_the_video_it_was_made_after() -> None:
    assert video_of(job(remixed_from="7")).remixed_from_video_id == video_id("7")
    assert job_id(video_id("7")) == "7"
    assert job_id("7") is None


@pytest.mark.parametrize(
    ("seconds", "wait"), [(40.0, 2000), (0.0, 100), (1e6, 10_000), (None, 1000)]
)
def test_how_soon_to_ask_again(seconds: float | None, wait: int) -> None:
    assert poll_after(job(plan=PLAN | {"estimate": {"seconds": seconds}})) == wait


@pytest.mark.parametrize("phases", [HERE, ELSEWHERE])
def test_progress_grows_through_phases_steps_and_takes(phases: tuple[Phase, ...]) -> None:
    seen = [
        percent({"phase": phase, "step": step, "steps": 4, "take": take, "takes": 2})
        for take in (1, 2)
        for phase in phases
        for step in range(5)
    ]
    assert seen == sorted(seen)
    assert len(set(seen)) > 15
    assert (seen[0], seen[-1]) == (0, 99)


def test_steps_are_most_of_it() -> None:
    half = percent({"phase": "denoise", "step": 10, "steps": 20, "take": 1, "takes": 1})
    assert half == 48


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "phase": st.sampled_from([*PHASES, "other", None]),
            "step": st.none() | st.integers(0, 10_000),
            "steps": st.none() | st.integers(0, 1000),
            "take": st.none() | st.integers(0, 20),
            "takes": st.none() | st.integers(0, 16),
        },
    )
)
def test_no_progress_is_beyond_the_bounds(progress: dict[str, Any]) -> None:
    assert 0 <= percent(progress) <= 99
