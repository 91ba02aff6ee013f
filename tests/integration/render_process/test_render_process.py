"""Real child processes: does a child do its work, stop when asked, and name its errors?"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from children import Start, linux, size_of
from kinoloom.backends.local.backend import LocalBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.config import Settings
from kinoloom.errors import Cancelled, InvalidMedia, InvalidRequest, KinoloomError
from kinoloom.jobs import child_process
from kinoloom.jobs.media import read_inputs
from kinoloom.jobs.messages import MAX_LINE, pack
from kinoloom.jobs.planning import plan_request
from kinoloom.jobs.record import RenderFacts, measurement_of, settings_of
from kinoloom.jobs.render_process import RenderProcess
from kinoloom.jobs.takes import plan_of_take, take_of
from kinoloom.media.reader import probe, read_video
from kinoloom.media.settings import read_settings
from kinoloom.media.writer import write_video
from kinoloom.planner.inputs import Inputs
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.held import held_store

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory, tiny_cards: Path) -> Iterator[RenderProcess]:
    """A process that renders and stays for all tests that leave it in order."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, models=tiny_cards, default_model="tiny", device="cpu")
    with RenderProcess(settings, threads=1) as process:
        process.start()
        yield process


@pytest.fixture
def film(tmp_path: Path) -> Path:
    file = tmp_path / "film.mp4"
    greys = [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(24)]
    write_video(file, greys, 12, format="mp4", settings={"large": "x" * 20_000})
    return file


def planned(process: RenderProcess, **values: Any) -> Plan:
    request = VideoRequest.checked(**{"prompt": "a red ball rolling", "seed": 7} | values)
    found = process.call("inputs", {"request": request.model_dump(mode="json")})["inputs"]
    settings = process._settings
    inputs = Inputs.model_validate(found)
    return plan_request(request, settings, held_store(settings), inputs=inputs)


def render(process: RenderProcess, plan: Plan, folder: Path, **options: Any) -> Answer:
    arguments = {"plan": plan.model_dump(mode="json"), "number": 0, "inputs": {}}
    number = options.pop("number", 0)
    return process.call("render", arguments | {"folder": str(folder), "number": number}, **options)


# --- what a child can do ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_in_steps_gives_the_same_frames_as_in_one_process(
    renderer: RenderProcess,
    one_thread: None,
    tiny_card: ModelCard,
    tmp_path: Path,
) -> None:
    plan = planned(renderer, candidates=2)
    told: list[Answer] = []
    answers = [render(renderer, plan, tmp_path, number=n, on_message=told.append) for n in range(2)]
    backend = LocalBackend(Settings(home=tmp_path / "here"))
    for number, answer in enumerate(answers):
        take = plan_of_take(plan, number)
        here = backend.render(take_of(take), tiny_card, read_inputs(take), lambda _: None)
        assert np.array_equal(np.load(answer["frames"]), here.frames)
        assert answer["audio"] is None
    facts = RenderFacts.from_dict(answers[0]["rendered"])
    assert measurement_of(plan, facts).seconds_per_step > 0
    assert {m["take"] for m in told if m["type"] == "progress"} == {1, 2}
    assert [m["step"] for m in told if m.get("phase") == "denoise"] == [1, 2, 1, 2]
    previews = [base64.b64decode(m["jpeg"]) for m in told if m["type"] == "preview"]
    assert previews
    assert all(jpeg.startswith(b"\xff\xd8\xff") for jpeg in previews)
    # The model stays loaded between calls.
    assert answers[1]["rendered"]["seconds"]["load"] < answers[0]["rendered"]["seconds"]["load"] / 5

    frames = answers[0]["frames"]
    scored = renderer.call("score", {"frames": frames, "fps": plan.fps})
    assert 0 <= scored["scores"]["overall"] <= 1
    poster = tmp_path / "poster.png"
    assert renderer.call("poster", {"frames": frames, "target": str(poster)}) == {}
    with Image.open(poster) as opened:
        assert (opened.format, opened.size) == ("PNG", plan.size)
    target = tmp_path / "clip.mp4"
    written: list[Answer] = []
    answer = renderer.call(
        "encode",
        {
            "plan": plan_of_take(plan, 0).model_dump(mode="json"),
            "frames": frames,
            "audio": None,
            "target": str(target),
            "settings": settings_of("a-clip", plan, scored["scores"], facts.all_versions),
            "format": "mp4",
        },
        on_message=written.append,
    )
    assert answer == {"path": str(target)}
    assert {m["phase"] for m in written} == {"write"}
    assert (written[-1]["step"], written[-1]["steps"]) == (plan.frames, plan.frames)
    assert probe(target).frames == plan.frames
    found = read_settings(target)
    assert found is not None
    assert found["clip"] == "a-clip"


@pytest.mark.slow
def test_inputs_may_lie_elsewhere_than_in_the_plan(
    renderer: RenderProcess, picture: Path, tmp_path: Path
) -> None:
    plan = planned(renderer, image=str(picture))
    moved = picture.rename(tmp_path / "moved.png")
    arguments = {"plan": plan.model_dump(mode="json"), "number": 0, "folder": str(tmp_path)}
    with pytest.raises(InvalidMedia, match="does not exist"):
        renderer.call("render", arguments | {"inputs": {}})
    answer = renderer.call("render", arguments | {"inputs": {"image": str(moved)}})
    assert np.load(answer["frames"]).shape == (9, plan.height, plan.width, 3)


def test_what_others_sent_is_shown_small(start: Start, film: Path, tmp_path: Path) -> None:
    process = start()
    assert process.call("probe", {"path": str(film)}) == {
        "kind": "video",
        "width": 64,
        "height": 48,
        "frames": 24,
        "fps": 12.0,
        "duration": 2.0,
        "codec": "h264",
        "format": "mp4",
        "has_audio": False,
    }
    for command, size in {"thumbnail": (64, 48), "spritesheet": (256, 192)}.items():
        target = tmp_path / command
        assert process.call(command, {"video": str(film), "target": str(target)}) == {}
        with Image.open(target) as opened:
            assert (opened.format, opened.size) == ("JPEG", size)
    target = tmp_path / "small.gif"
    process.call("gif", {"video": str(film), "target": str(target)})
    frames, fps = read_video(target)
    assert len(frames) / fps == pytest.approx(2.0, abs=0.1)


def test_another_one_works_while_this_one_is_busy(start: Start, film: Path, tmp_path: Path) -> None:
    process = start()
    answers = []

    def meanwhile(_: Answer) -> None:
        if answers:
            return
        with process.another() as other:
            frames = other.call("probe", {"path": str(film)})["frames"]
            answers.append((frames, other.pid not in (None, process.pid)))

    pieces = [{"video": str(film), "frames": 24}]
    cut = {"pieces": pieces, "fps": "12", "size": [64, 48], "frames": 24, "bed": None}
    arguments = {"cut": cut, "target": str(tmp_path / "a.mp4"), "settings": None, "format": "mp4"}
    assert process.call("stitch", arguments, on_message=meanwhile)["frames"] == 24
    assert answers == [(24, True)]


# --- stopping -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_render_stops_at_its_next_step_and_leaves_the_child_in_order(
    renderer: RenderProcess, tmp_path: Path
) -> None:
    plan = planned(renderer, steps=8, frames=25)
    whole = render(renderer, plan, tmp_path)
    pid = renderer.pid
    again = tmp_path / "again"
    again.mkdir()

    class Enough(Exception):
        pass

    def listen(message: Answer) -> None:
        if message.get("phase") == "load":
            raise Enough

    with pytest.raises(Enough):
        render(renderer, plan, again, on_message=listen)
    with pytest.raises(Cancelled):
        render(renderer, plan, again, should_stop=lambda: True)
    assert list(again.iterdir()) == []
    answer = render(renderer, plan, again)
    assert renderer.pid == pid
    assert np.array_equal(np.load(answer["frames"]), np.load(whole["frames"]))


@pytest.mark.model
@pytest.mark.slow
def test_no_further_step_is_made_once_the_stop_is_read(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", device="cpu")
    with RenderProcess(settings, light=True) as planner:
        plan = planned(planner, steps=40)
    child = child_process.ChildProcess(settings, light=False, threads=1)
    try:
        data = settings.model_dump(mode="json")
        child.send(pack({"do": "set up", "settings": data}), 60.0)
        arguments = {
            "plan": plan.model_dump(mode="json"),
            "number": 0,
            "folder": str(tmp_path),
            "inputs": {},
        }
        request = {"do": "render", "number": 1, "arguments": arguments, "timeout": None}
        child.send(pack(request), 60.0)
        steps = []
        while True:
            message = child.heard.get(timeout=120)
            assert isinstance(message, dict)
            if message["type"] == "error":
                break
            if message.get("phase") == "denoise":
                steps.append(message["step"])
                if len(steps) == 3:
                    child.send(pack({"do": "stop", "number": 1}), 60.0)
    finally:
        child.end()
    assert message["error"]["kind"] == "cancelled"
    assert steps in ([1, 2, 3], [1, 2, 3, 4])


# --- errors of the child's own ------------------------------------------------------------------


def test_the_childs_errors_arrive_as_they_were_and_the_child_stays(
    start: Start, picture: Path
) -> None:
    process = start()
    with pytest.raises(InvalidRequest) as wrong:
        process.call("inputs", {"request": {"steps": -1, "prompt": ""}})
    assert {p.field for p in wrong.value.problems} == {"steps", "prompt"}
    pid = process.pid
    with pytest.raises(InvalidMedia) as missing:
        planned(process, image="nowhere.png")
    assert "nowhere.png" in missing.value.message
    with pytest.raises(KinoloomError, match="knows no command 'dance'"):
        process.call("dance", {})
    with pytest.raises(KinoloomError, match="should not") as odd:
        process.call("probe", {})
    assert odd.value.cause == "KeyError: 'path'"
    with pytest.raises(ValueError, match="bytes"):
        process.call("probe", {"path": "x" * MAX_LINE})
    assert size_of(process, picture) == (64, 48)
    assert process.pid == pid


def test_hostile_media_end_with_a_named_error_and_the_next_call_works(
    start: Start, film: Path, picture: Path, tmp_path: Path
) -> None:
    process = start()
    bomb, cut, torn = tmp_path / "bomb.png", tmp_path / "cut.mp4", tmp_path / "torn.png"
    Image.new("1", (30_000, 30_000)).save(bomb)
    assert bomb.stat().st_size < 1_000_000
    cut.write_bytes(film.read_bytes()[:-2000])
    torn.write_bytes(picture.read_bytes()[:60])
    for file, why in {bomb: "too large", cut: "cut short", torn: "damaged"}.items():
        with pytest.raises(InvalidMedia, match=why):
            process.call("probe", {"path": str(file)})
    with pytest.raises(InvalidMedia, match="cut short"):
        process.call("thumbnail", {"video": str(cut), "target": str(tmp_path / "t.jpg")})
    assert not (tmp_path / "t.jpg").exists()
    assert size_of(process, picture) == (64, 48)


@linux
def test_a_light_child_is_held_to_its_memory(start: Start, picture: Path, tmp_path: Path) -> None:
    import resource

    process = start()
    size_of(process, picture)
    pid = process.pid
    assert pid is not None
    allowed = 4 * 2**30
    assert resource.prlimit(pid, resource.RLIMIT_AS) == (allowed, allowed)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"
    status = Path(f"/proc/{pid}/status").read_text()
    used = next(int(x.split()[1]) * 1024 for x in status.splitlines() if x.startswith("VmSize"))
    less = used + 64 * 2**20
    resource.prlimit(pid, resource.RLIMIT_AS, (less, allowed))
    large = tmp_path / "large.png"
    Image.new("RGB", (7900, 7900)).save(large)
    with pytest.raises(InvalidMedia, match="memory"):
        process.call("probe", {"path": str(large)})
    assert size_of(process, picture) == (64, 48)
    assert process.pid == pid


# --- the parent ---------------------------------------------------------------------------------


LIGHT = """
import sys
from kinoloom.jobs import render_process, record
heavy = {"numpy", "torch", "cv2", "av", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_parent_loads_nothing_heavy() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)
