from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from kinoloom import cli, terminal
from kinoloom.backends.local import hardware
from kinoloom.jobs.progress import Event
from kinoloom.media.reader import probe, read_video
from kinoloom.media.writer import write_video
from kinoloom.planner.plan import Plan
from kinoloom.store.store import Store
from within import Within

PROMPT = "a red ball rolling"

Kinoloom = Callable[..., Result]


@pytest.fixture(autouse=True)
def place(studio: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    hardware.gpu_name.cache_clear()
    monkeypatch.setattr("kinoloom.jobs.here.RenderProcess", Within)
    yield studio
    hardware.gpu_name.cache_clear()


@pytest.fixture
def kinoloom() -> Kinoloom:
    """Run a command; an exception that is no exit fails the test."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A video that Kinoloom did not make."""
    file = tmp_path / "foreign.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    write_video(file, frames, 24, format="mp4")
    return file


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]


def written(place: Path) -> list[Path]:
    out = place / "out"
    return list(out.rglob("*")) if out.exists() else []


# --- help -----------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    root = typer.main.get_command(cli.app)
    found = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            found |= {f"{name} {sub}": c for sub, c in command.commands.items()}
        else:
            found[name] = command
    return found


def test_the_commands() -> None:
    models = {f"models {name}" for name in ("list", "show", "check", "pull", "add", "remove")}
    jobs = {f"jobs {name}" for name in ("list", "show", "cancel", "hold", "release", "retry")}
    jobs |= {"jobs resolve"}
    keys = {f"keys {name}" for name in ("create", "list", "revoke")}
    films = "new check plan render list status retake takes choose export delete"
    keys |= {f"film {name}" for name in films.split()}
    others = {"generate", "batch", "plan", "show", "score", "doctor", "serve", "worker", "stats"}
    others |= {"backends", "costs"} | {f"config {name}" for name in ("check", "sample", "show")}
    assert set(commands()) == others | models | jobs | keys


@pytest.mark.parametrize("name", ["", "models", "jobs", "keys", *commands()])
def test_help_lists_every_option(
    name: str, kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = kinoloom(*name.split(), "--help")
    assert result.exit_code == 0
    command = commands().get(name)
    if command is None:
        below = [n.removeprefix(name).split()[0] for n in commands() if n.startswith(name)]
        assert below
        assert all(word in result.stdout for word in below)
        return
    for parameter in command.params:
        if parameter.opts[0].startswith("-") and not getattr(parameter, "hidden", False):
            assert any(option in result.stdout for option in parameter.opts)
            assert parameter.help


def test_generate_and_plan_take_every_field_of_a_request() -> None:
    from kinoloom.request import VideoRequest

    repeated = {"references": "reference", "keyframes": "keyframe", "loras": "lora"}
    fields = {repeated.get(name, name) for name in VideoRequest.model_fields}
    taken = {n.rstrip("_") for n in inspect.signature(cli.generate).parameters}
    assert fields <= taken
    planned = set(inspect.signature(cli.plan).parameters)
    assert fields - {"output", "format"} <= planned


def test_version_and_no_command(kinoloom: Kinoloom) -> None:
    import kinoloom as package

    assert kinoloom("--version").stdout == f"kinoloom {package.__version__}\n"
    assert "Usage" in kinoloom().output
    assert kinoloom("models").exit_code == kinoloom().exit_code == 2


# --- generate -------------------------------------------------------------------------------


def test_generate(place: Path, kinoloom: Kinoloom) -> None:
    result = kinoloom("generate", PROMPT, "--seed", 7)
    assert result.exit_code == 0
    path = place / "out" / "a-red-ball-rolling-7.mp4"
    assert written(place) == [path]
    assert probe(path).frames == 9
    shown = result.stdout.splitlines()
    assert str(path) in shown
    assert any(line.startswith("scores: overall 0.") for line in shown)
    assert f"again: kinoloom generate --from {path}" in shown
    assert result.stderr.startswith("t2v with tiny on cpu")
    assert "rendering 2/2" in result.stderr


def test_generate_with_every_option(place: Path, kinoloom: Kinoloom) -> None:
    for name in ("first", "last"):
        Image.new("RGB", (96, 64), "red").save(place / f"{name}.png")
    result = kinoloom(
        "generate", PROMPT, "--model", "tiny", "--backend", "local", "--tier", "premium",
        "--size", "96x64", "--duration", "1.4", "--fps", "12", "--steps", "3", "--guidance", "3",
        "--seed", "5", "--negative", "blue", "--image", "first.png", "--last-image", "last.png",
        "--format", "webm", "-o", "there/clip.webm", "--json",
    )  # fmt: skip
    assert result.exit_code == 0
    clip = lines(result)[-1]["clip"]
    assert clip["path"] == str(place / "there" / "clip.webm")
    assert (clip["task"], clip["width"], clip["height"], clip["frames"]) == ("flf2v", 96, 64, 17)
    plan = Plan.model_validate(clip["plan"])
    assert (plan.steps, plan.guidance, plan.seed, plan.negative) == (3, 3.0, 5, "blue")
    assert probe(place / "there" / "clip.webm").codec.startswith("vp9")


def test_quiet_prints_the_path_alone(place: Path, kinoloom: Kinoloom) -> None:
    result = kinoloom("generate", PROMPT, "--seed", 7, "-q", "--output", "mine.gif")
    assert (result.stdout, result.stderr) == (f"{place / 'mine.gif'}\n", "")


def test_json_events(place: Path, kinoloom: Kinoloom) -> None:
    result = kinoloom("generate", PROMPT, "--seed", 7, "--json")
    assert result.stderr == ""
    events = lines(result)
    assert [e["type"] for e in events][:2] == ["plan", "progress"]
    assert events[-1]["type"] == "success"
    phases = [e["phase"] for e in events if e["type"] == "progress"]
    assert list(dict.fromkeys(phases)) == ["load", "encode", "denoise", "decode", "score", "write"]
    assert events[-1]["clip"]["path"] == str(written(place)[0])


@pytest.mark.parametrize("flags", [[], ["--json"], ["--quiet"]])
def test_a_dry_run_writes_nothing(place: Path, kinoloom: Kinoloom, flags: list[str]) -> None:
    result = kinoloom("generate", PROMPT, "--dry-run", *flags)
    assert result.exit_code == 0
    assert not (place / "out").exists()
    with Store.open(place / "home") as store:
        assert store.clips.list() == []
    if flags == ["--json"]:
        [line] = lines(result)
        assert line["type"] == "plan"
    elif not flags:
        assert "t2v with tiny" in result.stderr


def test_made_again_from_its_own_file(place: Path, kinoloom: Kinoloom) -> None:
    kinoloom("generate", PROMPT, "--format", "png", "-o", "first")
    again = kinoloom("generate", "--from", "first", "-o", "second", "--format", "png")
    assert "may differ" not in again.stdout
    other = kinoloom("generate", "--from", "first", "-o", "third", "--seed", "9")
    first, second, third = (read_video(place / n)[0] for n in ("first", "second", "third"))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)
    assert "may differ" not in other.stdout


def test_a_model_that_changed_since_is_said(
    place: Path, kinoloom: Kinoloom, tiny_cards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinoloom("generate", PROMPT, "-o", "first.mp4")
    cards = place / "cards"
    cards.mkdir()
    (cards / "tiny").symlink_to(tiny_cards / "tiny")
    text = (tiny_cards / "tiny.yaml").read_text()
    (cards / "tiny.yaml").write_text(text.replace("{kind: linear}", "{kind: shifted, shift: 2}"))
    monkeypatch.setenv("KINOLOOM_MODELS", str(cards))
    assert "may differ" in kinoloom("generate", "--from", "first.mp4", "-o", "b.mp4").stdout
    changed = kinoloom("generate", "--from", "first.mp4", "-o", "c.mp4", "--seed", "1")
    assert "may differ" not in changed.stdout


# --- exit codes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate"], "prompt"),
        (["generate", "--image", "."], "image"),
        (["generate", ""], "prompt"),
        (["generate", "x" * 70_000], "at most 2000 characters"),
        (["generate", PROMPT, "--frames", "0"], "nearest is 1"),
        (["generate", PROMPT, "--frames", "1000000"], "nearest is 100000"),
        (["generate", PROMPT, "--size", "huge"], "WIDTHxHEIGHT"),
        (["generate", PROMPT, "--frames", "9", "--duration", "2"], "not both"),
        (["generate", PROMPT, "--format", "mp5"], "nearest is mp4"),
        (["generate", PROMPT, "--tier", "premum"], "nearest is premium"),
        (["generate", PROMPT, "-o", "a.webm", "--format", "gif"], "nearest is webm"),
        (["generate", PROMPT, "--last-image", "a.png"], "last_image"),
        (["generate", PROMPT, "--backend", "moon"], "nearest is local"),
        (["plan", PROMPT, "--seed", "-1"], "nearest is 0"),
        (["generate", PROMPT, "--frames", "many"], "--frames"),
        (["generate", PROMPT, "--no-such-option"], "No such option"),
        (["generate", PROMPT, "again"], "unexpected extra argument"),
        (["show"], "FILE"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_2(
    place: Path, kinoloom: Kinoloom, arguments: list[str], words: str
) -> None:
    result = kinoloom(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words.lower() in " ".join(result.stderr.split()).lower()
    assert written(place) == []


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["generate", PROMPT, "--model", "tinny"], "model_not_found"),
        (["plan", PROMPT, "--model", "tinny"], "model_not_found"),
        (["generate", "--image", "gone.png"], "invalid_media"),
        (["generate", "--image", "text.txt"], "invalid_media"),
        (["generate", "--video", "text.txt"], "invalid_media"),
        (["generate", "--from", "text.txt"], "invalid_media"),
        (["generate", "--from", "gone.mp4"], "invalid_media"),
        (["generate", PROMPT, "-o", "text.txt/clip.mp4"], "output_failed"),
        (["generate", PROMPT, "-o", "x" * 300 + ".mp4"], "output_failed"),
        (["show", "gone.mp4"], "invalid_media"),
        (["show", "text.txt"], "invalid_media"),
        (["show", "x" * 5000], "invalid_media"),
        (["score", "text.txt"], "invalid_media"),
        (["score", "gone"], "invalid_media"),
        (["score", "x" * 5000], "invalid_media"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_fails_is_1_with_a_named_error(
    place: Path, kinoloom: Kinoloom, arguments: list[str], kind: str, as_json: bool
) -> None:
    (place / "text.txt").write_text("just words")
    result = kinoloom(*arguments, *(["--json"] if as_json else []))
    assert result.exit_code == 1
    if as_json:
        assert result.stderr == ""
        error = lines(result)[-1]
        assert error["type"] == "error"
        assert error["error"]["kind"] == kind
    else:
        assert f"error ({kind}): " in result.stderr
        assert "Traceback" not in result.output
    assert written(place) == []


def test_an_unknown_model_names_the_nearest(kinoloom: Kinoloom) -> None:
    assert "Did you mean tiny" in kinoloom("generate", PROMPT, "--model", "tinny").stderr


def test_wrong_settings_are_named_with_their_place(
    kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINOLOOM_DTYPE", "float31")
    for command in (["generate", PROMPT], ["plan", PROMPT], ["models", "list"], ["doctor"]):
        result = kinoloom(*command)
        assert result.exit_code == 2
        assert "KINOLOOM_DTYPE" in result.stderr
        assert "nearest is float32" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["load", "denoise", "write"])
def test_interrupted_is_130_and_leaves_nothing(
    place: Path,
    kinoloom: Kinoloom,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    phase: str,
) -> None:
    def interrupt(_: object, event: Event) -> None:
        if event.phase == phase:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(terminal.QuietView, "progress", interrupt)
    before = signal.getsignal(signal.SIGTERM)
    result = kinoloom("generate", PROMPT, "--quiet")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert "error (cancelled): Interrupted" in result.stderr
    assert written(place) == []
    assert signal.getsignal(signal.SIGTERM) == before
    with Store.open(place / "home") as store:
        assert store.clips.list() == []


def test_interrupted_in_json_is_an_event(
    kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object, plan: Plan) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal.JsonView, "plan", interrupt)
    result = kinoloom("generate", PROMPT, "--json")
    assert result.exit_code == 130
    assert lines(result)[-1]["error"]["kind"] == "cancelled"


def test_a_reader_that_goes_away_is_no_traceback(place: Path) -> None:
    """As in ``kinoloom models list --json | true``."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "kinoloom", "models", "list", "--json"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_the_module_is_the_command(place: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "kinoloom", "plan", "ein roter Bäll", "--model", "gröss"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"gr\\xf6ss" in done.stderr


# --- the other commands ---------------------------------------------------------------------


def test_plan(place: Path, kinoloom: Kinoloom) -> None:
    result = kinoloom("plan", PROMPT, "--seed", 7, "--size", "70x70")
    assert result.exit_code == 0
    for words in ("t2v with tiny", "size: 70x70 -> 64x64", "because", "share", "key: "):
        assert words in result.stdout
    [data] = lines(kinoloom("plan", PROMPT, "--seed", 7, "--size", "70x70", "--json"))
    plan = Plan.model_validate(data)
    assert f"key: {plan.key}" in result.stdout
    assert not (place / "out").exists()


def test_plan_takes_a_tier(kinoloom: Kinoloom) -> None:
    [data] = lines(kinoloom("plan", PROMPT, "--tier", "premium", "--json"))
    assert (data.get("tier"), data.get("steps")) == ("premium", 3), data


def test_show(kinoloom: Kinoloom) -> None:
    for name in ("clip.mp4", "clip.webm", "clip.gif"):
        kinoloom("generate", PROMPT, "--seed", 7, "-o", name)
        result = kinoloom("show", name)
        assert result.exit_code == 0
        for words in ("prompt", PROMPT, "seed", "overall", "torch"):
            assert words in result.stdout
        [data] = lines(kinoloom("show", name, "--json"))
        assert Plan.model_validate(data["plan"]).seed == 7


@pytest.mark.parametrize("as_json", [False, True])
def test_show_of_a_strangers_video(kinoloom: Kinoloom, foreign: Path, as_json: bool) -> None:
    result = kinoloom("show", foreign, *(["--json"] if as_json else []))
    assert result.exit_code == 1
    assert "does not say how it was made" in result.output


@pytest.mark.parametrize(
    "comment",
    [
        '{"kinoloom": 1, "plan": {"fps": 1e999, "seed": -1e999}, "scores": {"overall": 1e999}}',
        '{"kinoloom": 1, "plan": ' + "[" * 400 + "]" * 400 + "}",
        '{"kinoloom": 1, "plan": {"prompt": "\\ud800 \\u001b[2J"}}',
    ],
    ids=["infinite", "deep", "odd characters"],
)
def test_show_of_made_up_settings(
    kinoloom: Kinoloom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comment: str
) -> None:
    file = tmp_path / "forged.gif"
    monkeypatch.setattr("kinoloom.media.writer.encode_settings", lambda _: comment)
    write_video(file, np.zeros((2, 16, 16, 3), np.uint8), 10, format="gif", settings={})
    plain = kinoloom("show", file)
    assert plain.exit_code == 0
    assert "\x1b" not in plain.stdout
    [data] = lines(kinoloom("show", file, "--json"))
    assert data["kinoloom"] == 1


def test_score(kinoloom: Kinoloom, foreign: Path) -> None:
    result = kinoloom("score", foreign)
    assert result.exit_code == 0
    assert f"{foreign}: 5 frames at 24 fps" in result.stdout
    [data] = lines(kinoloom("score", foreign, "--json"))
    assert (data["file"], data["frames"], data["fps"]) == (str(foreign), 5, 24.0)
    assert 0 <= data["overall"] <= 1
    assert f"{data['overall']:.3f}" in result.stdout


def test_score_of_a_folder_of_frames(kinoloom: Kinoloom, tmp_path: Path) -> None:
    write_video(tmp_path / "frames", np.zeros((3, 32, 32, 3), np.uint8), 10, format="png")
    [data] = lines(kinoloom("score", tmp_path / "frames", "--json"))
    assert data["frames"] == 3


def test_models_list(kinoloom: Kinoloom) -> None:
    result = kinoloom("models", "list")
    assert result.exit_code == 0
    assert "tiny" in result.stdout
    assert "spark" in result.stdout
    [data] = lines(kinoloom("models", "list", "--json"))
    [row] = [r for r in data["models"] if r["id"] == "tiny"]
    assert row["ready"]
    assert row["tasks"] == ["t2v", "i2v", "flf2v", "extend"]
    assert row["frames"] == [1, 25]
    assert data["problems"] == []


def test_models_list_tells_of_broken_cards(
    place: Path, kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "cards").mkdir()
    (place / "cards" / "odd.yaml").write_text("id: odd\ntitel: Odd\n")
    monkeypatch.setenv("KINOLOOM_MODELS", str(place / "cards"))
    assert "did you mean title" in kinoloom("models", "list").stdout
    [data] = lines(kinoloom("models", "list", "--json"))
    assert any("odd.yaml" in p for p in data["problems"])


def test_doctor(kinoloom: Kinoloom, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, data = kinoloom("doctor"), lines(kinoloom("doctor", "--json"))[0]
    names = [c["name"] for c in data["checks"]]
    assert {"versions", "device", "model tiny", "codecs", "store"} <= set(names)
    for check in data["checks"]:
        assert check["name"] in plain.stdout
    failed = any(c["state"] == "failed" for c in data["checks"])
    assert plain.exit_code == (1 if failed else 0)
    monkeypatch.setattr(hardware, "torch_version", lambda: None)
    broken = kinoloom("doctor")
    assert broken.exit_code == 1
    assert "XX  device" in broken.stdout
    assert "-> pip install" in broken.stdout
