from __future__ import annotations

import asyncio
import importlib.metadata
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kinoloom
from kinoloom import models
from kinoloom.config import load_settings
from kinoloom.errors import InvalidRequest, ModelBroken, ModelNotFound
from kinoloom.jobs.progress import Event
from kinoloom.media.reader import probe
from kinoloom.request import VideoRequest
from kinoloom.store.store import Store

PROMPT = "a red ball rolling"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("module", ["kinoloom", "kinoloom.cli", "kinoloom.errors"])
def test_importing_costs_nothing(module: str) -> None:
    loaded = run_python(f"import sys, {module}; print(*sys.modules)").split()
    heavy = {"torch", "diffusers", "numpy", "pydantic", "cv2", "av", "sqlalchemy", "PIL"}
    assert module in loaded
    assert not heavy & set(loaded)


@pytest.mark.usefixtures("studio")
def test_planning_from_words_imports_no_torch_and_no_codec() -> None:
    code = f"import sys, kinoloom; kinoloom.plan({PROMPT!r}); print(*sys.modules)"
    assert not {"torch", "diffusers", "cv2", "av"} & set(run_python(code).split())


def test_public_names() -> None:
    assert kinoloom.__version__ == importlib.metadata.version("kinoloom")
    for name in kinoloom.__all__:
        assert getattr(kinoloom, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        kinoloom.no_such_name  # noqa: B018


def test_a_clip(studio: Path) -> None:
    clip = kinoloom.generate(PROMPT, seed=7)
    assert clip.path == studio / "out" / "a-red-ball-rolling-7.mp4"
    assert clip.size == (64, 64)
    assert clip.fps == 12
    assert clip.seed == 7
    assert clip.seconds == 9 / 12
    assert clip.frames.shape == (9, 64, 64, 3)
    assert 0 <= clip.scores["overall"] <= 1
    assert clip.as_dict()["id"] == clip.record.id
    assert str(clip.path) in repr(clip)
    with Store.open(studio / "home") as store:
        assert store.clips.get(clip.record.id) == clip.record


@pytest.mark.usefixtures("studio")
def test_same_seed_same_frames() -> None:
    clips = [kinoloom.generate(PROMPT, seed=s, format="png", cache="bypass") for s in (7, 7, 8)]
    assert len({c.path for c in clips}) == 3
    first, again, other = (c.frames for c in clips)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.usefixtures("studio")
def test_a_drawn_seed_makes_the_clip_again() -> None:
    first = kinoloom.generate(PROMPT, format="png")
    again = kinoloom.generate(PROMPT, format="png", seed=first.seed)
    assert np.array_equal(first.frames, again.frames)


@pytest.mark.usefixtures("studio")
def test_text_and_image_to_video(picture: Path) -> None:
    assert kinoloom.text_to_video(PROMPT, seed=1).record.task == "t2v"
    assert kinoloom.image_to_video(picture, seed=1).record.task == "i2v"
    both = kinoloom.image_to_video(str(picture), PROMPT, last_image=picture, seed=1)
    assert both.record.task == "flf2v"
    longer = kinoloom.generate(video=both.path, seed=1)
    assert (longer.record.task, longer.record.frames) == ("extend", 17)


def test_a_plan_is_not_run(studio: Path) -> None:
    plan = kinoloom.plan(PROMPT, seed=7, size=(70, 70))
    assert (plan.model, plan.seed, plan.size) == ("tiny", 7, (64, 64))
    assert plan.estimate.source == "card"
    assert not (studio / "out").exists()
    assert kinoloom.generate(PROMPT, seed=7, size=(70, 70)).record.plan_key == plan.key
    assert kinoloom.plan(PROMPT).estimate.source == "measured"


@pytest.mark.usefixtures("studio")
def test_a_request_may_be_given_and_changed() -> None:
    request = VideoRequest.checked(prompt=PROMPT, seed=7, steps=3)
    assert kinoloom.plan(request).request == request
    changed = kinoloom.plan(request, seed=8)
    assert (changed.seed, changed.steps, changed.prompt) == (8, 3, PROMPT)


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("name", "format_"),
    [("a.mp4", "mp4"), ("a.WEBM", "webm"), ("a.gif", "gif"), ("a.mov", "mp4"), ("a", "mp4")],
)
def test_the_suffix_decides_the_format(name: str, format_: str) -> None:
    assert kinoloom.plan(PROMPT, output=name).request.format == format_
    request = VideoRequest.checked(prompt=PROMPT)
    assert kinoloom.plan(request, output=name).request.format == format_
    given = VideoRequest.checked(prompt=PROMPT, output=name)
    assert kinoloom.plan(given).request.format == format_


@pytest.mark.usefixtures("studio")
def test_a_suffix_that_contradicts_the_format_is_refused() -> None:
    for call in (
        lambda: kinoloom.plan(PROMPT, output="a.webm", format="gif"),
        lambda: kinoloom.plan(VideoRequest.checked(prompt=PROMPT, format="gif"), output="a.webm"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.problems[0].nearest == "webm"


def test_a_folder_with_a_suffix_is_a_folder(studio: Path) -> None:
    (studio / "takes.webm").mkdir()
    clip = kinoloom.generate(PROMPT, seed=7, output="takes.webm", format="gif")
    assert clip.path == studio / "takes.webm" / "a-red-ball-rolling-7.gif"


@pytest.mark.usefixtures("studio")
def test_an_output_whose_name_is_too_long_is_a_plain_error() -> None:
    with pytest.raises(kinoloom.KinoloomError, match="Cannot write"):
        kinoloom.generate(PROMPT, output="x" * 300 + ".mp4")


@pytest.mark.usefixtures("studio")
def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        kinoloom.generate("", frames=0, duration=1.0, fps=0, seeed=3)
    assert {p.field for p in caught.value.problems} == {
        "prompt",
        "frames",
        "duration",
        "fps",
        "seeed",
    }


@pytest.mark.usefixtures("studio")
def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ModelNotFound) as caught:
        kinoloom.generate(PROMPT, model="tinny")
    assert "tiny" in caught.value.hints[0]


def test_missing_and_broken_weights(
    studio: Path, tiny_cards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = studio / "cards"
    cards.mkdir()
    (cards / "tiny.yaml").write_bytes((tiny_cards / "tiny.yaml").read_bytes())
    monkeypatch.setenv("KINOLOOM_MODELS", str(cards))
    with pytest.raises(ModelNotFound, match="not on this machine"):
        kinoloom.generate(PROMPT)
    (cards / "tiny").mkdir()
    with pytest.raises(ModelBroken, match="not complete"):
        kinoloom.generate(PROMPT)
    rows, _ = models.list_models(load_settings())
    [row] = [r for r in rows if r["id"] == "tiny"]
    assert not row["ready"]
    assert row["reasons"]
    assert not any((studio / "out").iterdir())


def test_what_the_listener_raises_leaves_nothing(studio: Path) -> None:
    def stop(event: Event) -> None:
        if event.phase == "denoise":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kinoloom.generate(PROMPT, on_progress=stop)
    assert not any((studio / "out").iterdir())


def test_awaiting_a_clip(studio: Path) -> None:
    events: list[Event] = []
    clip = asyncio.run(kinoloom.agenerate(PROMPT, seed=7, on_progress=events.append))
    assert probe(clip.path).frames == 9
    assert events[0].phase == "load"
    assert events[-1].phase == "write"
    with pytest.raises(InvalidRequest):
        asyncio.run(kinoloom.agenerate(""))


@pytest.mark.parametrize("phase", ["denoise", "write"])
def test_cancelling_the_task_really_stops_the_render(studio: Path, phase: str) -> None:
    """The render waits in the middle until the task has been told to stop."""
    told = threading.Event()
    threads: list[threading.Thread] = []
    seen: list[tuple[str, int]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        middle = asyncio.Event()

        def listen(event: Event) -> None:
            threads.append(threading.current_thread())
            seen.append((event.phase, event.step))
            if (event.phase, event.step) == (phase, 1):
                loop.call_soon_threadsafe(middle.set)
                assert told.wait(60)

        task = asyncio.create_task(kinoloom.agenerate(PROMPT, on_progress=listen))
        await middle.wait()
        task.cancel()
        await asyncio.sleep(0)  # let the task see that it was cancelled
        assert not task.done()  # the render still holds the model
        told.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen[-1] == (phase, 1)  # it stopped at its very next report
        assert not any((studio / "out").iterdir())

    asyncio.run(main())
    assert threading.current_thread() not in threads
    with Store.open(studio / "home") as store:
        assert store.clips.list() == []
    assert kinoloom.generate(PROMPT).frames.shape == (9, 64, 64, 3)


def test_an_error_during_cancelling_is_not_lost_as_a_warning(
    studio: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        task = asyncio.create_task(kinoloom.agenerate(""))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert caplog.text == ""
