"""Do processes that a launcher starts together make one clip, the one that a single one makes?"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

import kinoloom
from kinoloom.store.store import Store
from tiny_models import shipped, wan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the loopback by name"),
]

LIMIT = 300
PROMPT = "a red ball"
GENERATE = ("generate", PROMPT, "--model", "tiny-wan-2.1-t2v", "--format", "png")

COMMANDS = """\
import os, sys
import torch
from diffusers import WanTransformer3DModel
from kinoloom.jobs import planning
from kinoloom.cli import app

passes, forward = 0, WanTransformer3DModel.forward

def failing(self, *args, **kwargs):
    global passes
    passes += 1
    if passes > 6:  # a render has four
        raise torch.OutOfMemoryError("CUDA out of memory")
    return forward(self, *args, **kwargs)

if os.environ["RANK"] == "1":
    WanTransformer3DModel.forward = failing
planning.join_others()
codes = []
for command in sys.argv[1:]:
    try:
        app(command.split("|"))
    except SystemExit as ended:
        codes.append(ended.code)
print("codes", codes)
sys.exit(codes[-1])
"""
"""Several commands in processes that are started once, of which the second fails in a render."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    name = "wan-2.1-t2v"
    write, model = wan.VARIANTS[name]
    write(folder / f"tiny-{name}")
    shipped.write_card(folder, name, model, wan.SMALL)
    return folder


@pytest.fixture
def place(studio: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KINOLOOM_MODELS", str(models))
    return studio


@contextmanager
def launched(*program: str) -> Iterator[subprocess.Popen[str]]:
    """The program in two processes, through torch's launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    address = ("--master-addr", "127.0.0.1", "--master-port", str(port))
    with subprocess.Popen(
        [sys.executable, *launcher, *address, *program],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def records(place: Path) -> int:
    with Store.open(place / "home") as store:
        return len(store.clips.list(limit=10))


def test_two_processes_make_the_clip_of_one(place: Path) -> None:
    driver = place / "commands.py"
    driver.write_text(COMMANDS, encoding="utf-8")
    commands = [
        ("generate", PROMPT, "--model", "nothing"),
        (*GENERATE, "--seed", "7", "--output", "together"),
        (*GENERATE, "--seed", "8", "--output", "stopped"),
    ]
    with launched(str(driver), *map("|".join, commands)) as process:
        out, err = process.communicate(timeout=LIMIT)

    assert "codes [1, 0, 1]" in out, err
    assert process.returncode != 0
    # One process speaks; the launcher adds its own report of how it ended.
    assert err.count("error (") == 2
    assert err.count("loading the model") == 2
    assert "error (model_not_found): " in err
    assert "error (insufficient_vram): Process 2 of 2: " in err
    assert out.count("made in") == 1
    assert records(place) == 1
    assert not (place / "stopped").exists()

    alone = kinoloom.generate(
        PROMPT, model="tiny-wan-2.1-t2v", seed=7, format="png", output="alone", cache="bypass"
    )
    assert files(place / "together") == files(alone.path)
    shown = sorted(alone.path.glob("*.png"))
    assert len(shown) == 5
    for picture in shown:
        one = cv2.imread(str(picture)).astype(int)
        two = cv2.imread(str(place / "together" / picture.name)).astype(int)
        assert one.std() > 10  # there is something to see
        assert np.abs(one - two).max() <= 1


def test_an_interrupted_launcher_leaves_nothing(place: Path) -> None:
    long = ("--steps", "8", "--frames", "17", "--size", "64x64")
    with launched("-m", "kinoloom", *GENERATE, *long, "--json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("phase") == "denoise":
                process.send_signal(signal.SIGINT)
                break
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["error"]["kind"] for e in events if e["type"] == "error"] == ["cancelled"]
    assert not any(e.get("phase") in ("score", "write") for e in events)
    assert not list((place / "out").rglob("*.png"))
    assert records(place) == 0
