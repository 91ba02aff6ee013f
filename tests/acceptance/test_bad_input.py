"""What does a new user see who asks for something that cannot be done?

Every case is a process of its own; most end before torch would be loaded.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from acceptance.command import PROMPT, Made, User
from kinoloom.media.images import save_png
from kinoloom.media.writer import write_video

USAGE = 2


def png_bomb(path: Path, side: int = 30_000) -> None:
    """A PNG of a hundred kB that unfolds into 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def gif_bomb(path: Path) -> None:
    """A GIF of some bytes whose header promises four billion pixels."""
    side = struct.pack("<HH", 65_535, 65_535)
    picture = b"\x2c" + bytes(4) + side + b"\x00\x02\x02\x44\x01\x00"
    path.write_bytes(b"GIF89a" + side + b"\x80\x00\x00" + bytes(6) + picture + b"\x3b")


@pytest.fixture
def media(user: User, made: Made) -> Path:
    """The user's folder with one file of every sort that cannot be used."""
    folder = user.folder
    frame = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    save_png(folder / "good.png", frame)
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:-4000])
    (folder / "noise.png").write_bytes(np.random.default_rng(1).bytes(5000))
    (folder / "noise.mp4").write_bytes(np.random.default_rng(2).bytes(5000))
    (folder / "text.png").write_text("this is no picture\n" * 20, encoding="utf-8")
    (folder / "text.mp4").write_text("this is no video\n" * 20, encoding="utf-8")
    (folder / "empty").write_bytes(b"")
    (folder / "folder").mkdir()
    png_bomb(folder / "bomb.png")
    gif_bomb(folder / "bomb.gif")
    whole = made.path.read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    # A play list that makes a careless reader open other files.
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", encoding="utf-8")
    write_video(folder / "short.mp4", frame[None], 12, format="mp4")
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "prompt = '': allowed is 1 to 2000 characters"),
        ([""], "prompt = '': allowed is 1 to 2000 characters"),
        (["   \n "], "prompt = '"),
        (["word " * 10_000], "at most 2000 characters; this has 49999 (10000 words)"),
        (["a red ball\x07"], "without control characters"),
        ([PROMPT, "--frames", "0"], "nearest is 1"),
        ([PROMPT, "--frames", "1000000"], "nearest is 100000"),
        ([PROMPT, "--frames", "-3"], "nearest is 1"),
        ([PROMPT, "--size", "0x0"], "sides from 16 to 8192"),
        ([PROMPT, "--size", "1000000x1000000"], "sides from 16 to 8192"),
        ([PROMPT, "--size", "big"], "or one of 240p"),
        ([PROMPT, "--duration", "nan"], "duration = "),
        ([PROMPT, "--fps", "0"], "fps = 0.0"),
        ([PROMPT, "--seed", "-1"], "nearest is 0"),
        ([PROMPT, "--tier", "premum"], "nearest is premium"),
        ([PROMPT, "--format", "mpeg"], "nearest is "),
        ([PROMPT, "--output", "clip.mp4", "--format", "gif"], "nearest is mp4"),
        ([PROMPT, "--last-image", "end.png"], "only together with a first one"),
        ([PROMPT, "--backend", "loocal"], "nearest is local"),
    ],
)
def test_what_cannot_be_asked_for_is_explained(user: User, arguments: list[str], said: str) -> None:
    ended = user.run("generate", *arguments).failed("invalid_params", USAGE)
    assert said in ended.err
    assert ended.out == ""
    assert user.files() == []


def test_every_mistake_is_told_at_once(user: User) -> None:
    ended = user.run("generate", "", "--frames", "0", "--size", "9x9", "--steps", "9999", "--json")
    assert ended.code == USAGE
    (event,) = ended.events()
    assert event["error"]["kind"] == "invalid_params"
    assert {p["field"] for p in event["error"]["problems"]} == {
        "prompt",
        "frames",
        "size",
        "steps",
    }


def test_what_can_nearly_be_done_is_changed_and_said(user: User) -> None:
    ended = user.run(
        "generate", PROMPT, "--size", "333x111", "--frames", "24", "--fps", "30", "--dry-run"
    ).succeeded()
    assert "256x160, 25 frames at 12 fps" in ended.err
    for line in ("changed size", "changed frames", "changed fps"):
        assert line in ended.err, ended.err


def test_words_that_the_model_does_not_know_are_named(user: User) -> None:
    ended = user.run("generate", "a dragon eats a castle", "--dry-run").succeeded()
    assert "dragon" in ended.err
    assert "red" in ended.err  # words that it does know
    assert "LTX-Video" in ended.err  # and who knows more


def test_a_reader_that_goes_away_is_no_crash(user: User) -> None:
    # As in `kinoloom models list | head -0`.
    process = subprocess.Popen(
        [sys.executable, "-m", "kinoloom", "models", "list", "--json"],
        cwd=user.folder,
        env=user.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    process.stdout.close()
    with process:
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1


def test_an_unknown_option_names_the_nearest(user: User) -> None:
    ended = user.run("generate", PROMPT, "--stepz", "9")
    assert ended.code == USAGE
    assert "No such option: --stepz" in ended.err
    assert "--steps" in ended.err
    assert "Traceback" not in ended.err


def test_an_unknown_model_names_the_nearest(user: User) -> None:
    ended = user.run("generate", PROMPT, "--model", "sparc").failed("model_not_found")
    assert "Did you mean spark?" in ended.err


@pytest.mark.model
@pytest.mark.parametrize(
    ("option", "file", "said"),
    [
        ("--image", "missing.png", "does not exist"),
        ("--image", "cut.png", "is damaged"),
        ("--image", "noise.png", "not a picture"),
        ("--image", "text.png", "not a picture"),
        ("--image", "empty", "is empty"),
        ("--image", "folder", "is a folder"),
        ("--image", "bomb.png", "is too large"),
        ("--image", "bomb.gif", "is too large"),
        ("--image", "/dev/zero", "not a regular file"),
        ("--video", "missing.mp4", "does not exist"),
        ("--video", "cut.mp4", "cut.mp4"),
        ("--video", "noise.mp4", "noise.mp4"),
        ("--video", "text.mp4", "text.mp4"),
        ("--video", "good.png", "good.png"),
        ("--video", "empty", "is empty"),
        ("--video", "folder", "folder"),
        ("--video", "bomb.gif", "bomb.gif"),
        ("--video", "list.mp4", "list.mp4"),
        ("--video", "/dev/zero", "not a regular file"),
        ("--from", "missing.mp4", "does not exist"),
        ("--from", "noise.mp4", "noise.mp4"),
        ("--from", "short.mp4", "does not say how it was made"),
    ],
)
def test_media_that_cannot_be_used_are_explained(
    user: User, media: Path, option: str, file: str, said: str
) -> None:
    before = user.files()
    prompt = [] if option == "--from" else [PROMPT]
    ended = user.run("generate", *prompt, option, file).failed("invalid_media")
    assert said in ended.err
    assert user.files() == before


@pytest.mark.model
@pytest.mark.parametrize("command", ["show", "score"])
def test_the_other_commands_explain_it_too(user: User, media: Path, command: str) -> None:
    user.run(command, "cut.mp4" if command == "score" else "text.mp4").failed("invalid_media")
    ended = user.run(command, "missing.mp4", "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["error"]["kind"] == "invalid_media"
