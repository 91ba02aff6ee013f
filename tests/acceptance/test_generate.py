"""Does the main job work from the command line, and can a clip be made again?"""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kinoloom
from acceptance.command import PROMPT, QUICK, Made, User
from kinoloom.jobs.progress import HERE
from kinoloom.media.reader import probe, read_video
from kinoloom.media.settings import read_settings

pytestmark = pytest.mark.model

# Runs the command with every way to another machine closed.
OFFLINE = """
import socket, sys
def forbidden(self, address, *rest):
    if self.family != socket.AF_UNIX:
        raise AssertionError(f"a connection to {address}")
    return real(self, address, *rest)
real = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = forbidden
def lookup(*rest, **more):
    raise AssertionError(f"a look-up of {rest[0]}")
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = lookup
from kinoloom.cli import main
main()
"""


def frames_of(path: Path) -> np.ndarray:
    return read_video(path)[0]


def test_the_clip_is_a_video_in_the_output_folder(made: Made) -> None:
    assert made.path.parent == made.user.folder / "outputs"
    assert list(made.path.parent.iterdir()) == [made.path]
    info = probe(made.path)
    assert (info.width, info.height, info.frames, info.fps) == (256, 160, 17, 12.0)
    assert (info.codec, info.format) == ("h264", "mp4")


def test_programs_read_the_whole_run_as_json(made: Made) -> None:
    plan, *progress, success = made.ended.events()
    assert made.ended.err == ""
    assert plan["type"] == "plan"
    assert (plan["plan"]["seed"], plan["plan"]["steps"], plan["plan"]["frames"]) == (7, 8, 17)

    steps = [e for e in progress if e["type"] == "progress"]
    previews = [e for e in progress if e["type"] == "preview"]
    assert len(steps) + len(previews) == len(progress)
    phases = [HERE.index(e["phase"]) for e in steps]
    assert phases == sorted(phases)
    assert set(phases) == set(range(len(HERE)))
    assert [e["step"] for e in steps if e["phase"] == "denoise"] == list(range(1, 9))
    assert all(a["elapsed"] <= b["elapsed"] for a, b in pairwise(steps))

    assert previews
    for preview in previews:
        head, _, data = preview["image"].partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data)), formats=("JPEG",)) as image:
            assert image.convert("RGB").size == (16, 10)

    assert success["type"] == "success"
    clip = success["clip"]
    assert (clip["seed"], clip["task"], clip["model"]) == (7, "t2v", "spark")
    assert 0 <= clip["scores"]["overall"] <= 1
    assert clip["timings"]["total"] > 0
    assert [record.path for record in made.user.records()] == [made.path]


def test_the_same_seed_gives_the_same_frames(made: Made, user: User) -> None:
    ended = user.run("generate", PROMPT, *QUICK, "--seed", "7", "--quiet").succeeded()
    # Quiet: nothing but the path, so that a script can take it.
    assert ended.err == ""
    (line,) = ended.out.splitlines()
    np.testing.assert_array_equal(frames_of(Path(line)), frames_of(made.path))


def test_a_clip_is_made_again_from_its_file(made: Made, user: User) -> None:
    again = user.run("generate", "--from", made.path, "--output", "again.mp4").succeeded()
    assert again.out.splitlines()[0].endswith("again.mp4")
    assert "scores: overall " in again.out
    assert "note:" not in again.out
    assert "again: kinoloom generate --from " in again.out
    np.testing.assert_array_equal(frames_of(user.folder / "again.mp4"), frames_of(made.path))
    # For a log, the steps of the work are plain lines.
    assert "rendering 8/8" in again.err
    assert "\x1b" not in again.err + again.out


def test_another_seed_gives_other_frames(made: Made, studio: Path) -> None:
    from kinoloom import api
    from kinoloom.config import load_settings

    settings = load_settings()
    remake = api.remake(made.path, {"seed": 8, "output": studio / "other.mp4"}, settings)
    clip = api.run(remake.request, settings)
    assert clip.seed == 8
    other, first = frames_of(clip.path), frames_of(made.path)
    assert other.shape == first.shape
    assert np.abs(other.astype(int) - first).mean() > 2


@pytest.mark.parametrize("format_", ["mp4", "webm", "gif", "png"])
def test_every_format_opens_again_and_says_how_it_was_made(
    studio: Path, user: User, format_: str
) -> None:
    suffix = "" if format_ == "png" else f".{format_}"
    path = studio / f"formats{suffix}"
    clip = kinoloom.generate(PROMPT, steps=8, frames=9, seed=3, format=format_, output=path)
    assert clip.path == path
    assert clip.frames.shape == (9, 160, 256, 3)
    settings = read_settings(path)
    assert settings is not None
    assert settings["plan"]["seed"] == 3
    assert settings["plan"]["prompt"] == PROMPT

    # A GIF counts time in hundredths of a second.
    scored: dict[str, Any] = user.run("score", path, "--json").succeeded().events()[0]
    assert scored["frames"] == 9
    assert scored["fps"] == pytest.approx(12, rel=0.02)
    assert 0 <= scored["overall"] <= 1
    if format_ in ("mp4", "png"):
        # Nothing or little is lost: the file scores as the frames did that it was made from.
        assert scored["overall"] == pytest.approx(clip.scores["overall"], abs=0.1)


def test_show_tells_people_and_programs_how_a_clip_was_made(made: Made) -> None:
    text = made.user.run("show", made.path).succeeded().out
    assert PROMPT in text
    (settings,) = made.user.run("show", made.path, "--json").succeeded().events()
    assert settings["plan"]["prompt"] == PROMPT
    assert settings["scores"]["overall"] == made.ended.events()[-1]["clip"]["scores"]["overall"]


def test_a_dry_run_writes_nothing(user: User) -> None:
    ended = user.run("generate", PROMPT, "--dry-run").succeeded()
    assert "t2v with spark" in ended.err
    assert user.files() == []
    assert user.records() == []


def test_nothing_is_downloaded(made: Made, user: User) -> None:
    ended = user.run(
        "generate", PROMPT, "--steps", "8", "--frames", "1", "--quiet", program=("-c", OFFLINE)
    ).succeeded()
    assert Path(ended.out.strip()).is_file()


def test_the_ways_out_are_really_closed(user: User) -> None:
    # The test above would pass for nothing if the lock did not hold.
    attempt = OFFLINE.replace(
        "from kinoloom.cli import main\nmain()",
        "socket.socket().connect(('127.0.0.1', 9))",
    )
    ended = user.run(program=("-c", attempt))
    assert ended.code == 1
    assert "a connection to" in ended.err


def test_doctor_finds_a_new_installation_well(user: User) -> None:
    (answer,) = user.run("doctor", "--json").succeeded().events()
    states = {check["name"]: check["state"] for check in answer["checks"]}
    assert "failed" not in states.values(), answer
    assert states["model spark"] == "ok"
