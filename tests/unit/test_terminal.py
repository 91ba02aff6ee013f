from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kinoloom import tables, terminal
from kinoloom.backends.base import Frame
from kinoloom.catalog.loader import Catalog
from kinoloom.clip import Clip
from kinoloom.config import Settings
from kinoloom.doctor import Check
from kinoloom.errors import InvalidMedia, InvalidRequest, KinoloomError, Problem
from kinoloom.jobs.progress import PHASES, Event
from kinoloom.planner import resolve
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Plan
from kinoloom.quality.score import score
from kinoloom.request import VideoRequest
from kinoloom.store.clips import ClipRecord
from kinoloom.terminal import BarView, JsonView, PlainView, QuietView, View, view_for

Capture = pytest.CaptureFixture[str]

NASTY = "a\x1b[2J\x1b]0;title\x07b\rc\x9b31m\x7f\u202egnp.exe\u2028d"
"""Clears a screen, sets a title, rings, goes back, colours, turns the writing, breaks the line."""


def harmless(text: str) -> bool:
    """Whether nothing but line ends steers."""
    steering = set(map(chr, [*range(32), *range(127, 160)])) | set("\u2028\u2029\u202a\u202e\u2066")
    return not steering & set(text.replace("\n", ""))


@pytest.fixture
def plan(tiny_cards: Path, tmp_path: Path) -> Plan:
    return resolve.plan(
        VideoRequest.checked(prompt="a red ball", seed=7, size=(70, 70), negative="x", guidance=1),
        catalog=Catalog.load(tiny_cards),
        settings=Settings(home=tmp_path, default_model="tiny"),
        machine=Machine("cpu x1"),
    )


@pytest.fixture
def make_clip(plan: Plan) -> Callable[[str], Clip]:
    def make(path: str) -> Clip:
        return Clip(
            ClipRecord(
                path=Path(path),
                plan_key=plan.key,
                task=plan.task,
                model=plan.model,
                backend=plan.backend,
                seed=plan.seed,
                width=64,
                height=64,
                frames=9,
                fps=12.0,
                format="mp4",
                request={},
                plan={},
                timings={"total": 75.0},
                scores={"sharpness": 0.9, "overall": 0.834, "notes": []},
            )
        )

    return make


def preview() -> Frame:
    frame = np.zeros((4, 6, 3), np.uint8)
    frame[..., 0] = 200  # red
    return frame


def events() -> list[Event]:
    told = [Event("load", eta=12.0), Event("encode", eta=3.0)]
    told += [Event("denoise", i, 4, float(i), 4.0 - i, preview()) for i in range(1, 5)]
    return [
        *told,
        Event("decode", 4, 4),
        Event("score"),
        *[Event("write", i, 9) for i in range(10)],
    ]


def show(view: View, plan: Plan, clip: Clip) -> None:
    view.plan(plan)
    for event in events():
        view.progress(event)
    view.done(clip, ("note: something",))


def test_the_view_follows_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(view_for(as_json=True, quiet=True)) is JsonView
    assert type(view_for(as_json=False, quiet=True)) is QuietView
    assert type(view_for(as_json=False, quiet=False)) is PlainView
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(view_for(as_json=False, quiet=False)) is BarView


def test_quiet_is_the_path_alone(
    plan: Plan, make_clip: Callable[[str], Clip], capsys: Capture
) -> None:
    show(QuietView(), plan, make_clip("/there/my clip.mp4"))
    assert capsys.readouterr() == ("/there/my clip.mp4\n", "")


def test_plain_lines(plan: Plan, make_clip: Callable[[str], Clip], capsys: Capture) -> None:
    show(PlainView(), plan, make_clip("/there/my clip.mp4"))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "note: something",
        "/there/my clip.mp4",
        "scores: overall 0.83, sharpness 0.90",
        "made in 1 min 15 s; seed 7",
        "again: kinoloom generate --from '/there/my clip.mp4'",
    ]
    lines = err.splitlines()
    assert lines[0].startswith("t2v with tiny on cpu x1: 64x64, 9 frames at 12 fps, 2 steps")
    assert any("size: 70x70 -> 64x64" in line for line in lines)
    assert "loading the model, 12 s left" in lines
    assert "rendering 1/4, 3.0 s left" in lines
    assert "rendering 4/4, 0.0 s left" in lines
    assert "writing 9/9" in lines
    assert harmless(out + err)


def test_plain_lines_within_a_phase_are_seconds_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    times = iter([0.0, 0.5, 1.9, 2.1, 2.2])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(times))
    view = PlainView()
    for step in range(1, 6):
        view.progress(Event("denoise", step, 5))
    assert capsys.readouterr().err.splitlines() == [
        "rendering 1/5",
        "rendering 4/5",
        "rendering 5/5",
    ]


def test_every_phase_has_words() -> None:
    assert set(terminal.WORDS) == set(PHASES)


def test_every_line_of_json_is_json(
    plan: Plan, make_clip: Callable[[str], Clip], capsys: Capture
) -> None:
    view = JsonView()
    show(view, plan, make_clip(NASTY + "/ü.mp4"))
    view.failed(InvalidRequest([Problem("size", float("inf"), "a number", None)]))
    out, err = capsys.readouterr()
    assert err == ""
    assert harmless(out)
    lines = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "plan"
    assert kinds[-2:] == ["success", "error"]
    assert kinds.count("progress") == len(events())
    assert kinds.count("preview") == 4
    assert Plan.model_validate(lines[0]["plan"]) == plan
    assert lines[-2]["clip"]["path"] == NASTY + "/ü.mp4"
    assert lines[-2]["remarks"] == ["note: something"]
    assert lines[-1]["error"]["kind"] == "invalid_params"


def test_a_preview_in_json_is_the_picture(capsys: Capture) -> None:
    JsonView().progress(Event("denoise", 1, 4, preview=preview()))
    line = json.loads(capsys.readouterr().out.splitlines()[1])
    head, _, data = line["image"].partition(",")
    assert head == "data:image/png;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(decoded, preview())


def test_a_preview_that_is_a_jpeg_by_now_stays_one(capsys: Capture) -> None:
    JsonView().preview("/9j/4AAQ")
    assert json.loads(capsys.readouterr().out) == {
        "type": "preview",
        "image": "data:image/jpeg;base64,/9j/4AAQ",
    }


@pytest.mark.parametrize("view", [PlainView, JsonView, QuietView])
def test_a_note_is_told_where_notes_are(view: type[View], capsys: Capture) -> None:
    view().note("something \x1b[2J")
    out, err = capsys.readouterr()
    assert harmless(out + err)
    if view is JsonView:
        assert json.loads(out)["type"] == "note"
    assert ("something" in out, "something" in err) == (view is JsonView, view is PlainView)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_json_has_no_infinity(value: float, capsys: Capture) -> None:
    terminal.write_json({"a": [value, 1.5]})
    data = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert data["a"][1] == 1.5
    assert isinstance(data["a"][0], str)


def test_the_bar_goes_away_before_the_result(
    plan: Plan,
    make_clip: Callable[[str], Clip],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    view = BarView()
    view.plan(plan)
    view.progress(Event("load"))
    view.progress(Event("denoise", 1, 4, 1.0, 3.0))
    view._bar.refresh()  # as its own clock would, ten times a second
    assert "rendering" in screen.getvalue()
    assert "1/4" in screen.getvalue()
    assert "3.0 s left" in screen.getvalue()
    view.done(make_clip("/there/clip.mp4"))
    text = screen.getvalue()
    assert "\x1b[?25h" in text  # the cursor is shown again
    assert text.rindex("\x1b[?25h") < text.index("/there/clip.mp4")
    screen.truncate(0)
    view = BarView()
    view.progress(Event("load"))
    view.failed(KinoloomError("It failed."))
    text = screen.getvalue()
    assert text.rindex("\x1b[?25h") < text.index("error (unknown): It failed.")


def test_an_error_is_what_failed_why_and_what_next(capsys: Capture) -> None:
    error = InvalidMedia("It is broken.", cause="one reason\nanother", hints=["mend it", "or not"])
    for view in (QuietView(), PlainView()):
        view.failed(error)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines() == [
            "error (invalid_media): It is broken.",
            "  one reason",
            "  another",
            "  -> mend it",
            "  -> or not",
        ]


@pytest.mark.parametrize("where", ["plan", "error", "result", "settings", "models", "checks"])
def test_control_characters_never_reach_the_terminal(
    where: str, plan: Plan, make_clip: Callable[[str], Clip], capsys: Capture
) -> None:
    changed = plan.model_copy(update={"device": NASTY, "warnings": (NASTY,), "reasons": (NASTY,)})
    row: dict[str, Any] = {
        "id": NASTY,
        "backend": "local",
        "state": "found",
        "ready": False,
        "tasks": [NASTY],
        "sizes": [NASTY],
        "frames": [1, 2],
        "licence": NASTY,
        "summary": NASTY,
        "reasons": [NASTY],
        "hints": [NASTY],
    }
    actions: dict[str, Callable[[], object]] = {
        "plan": lambda: (PlainView().plan(changed), tables.show_plan(changed)),
        "error": lambda: PlainView().failed(KinoloomError(NASTY, cause=NASTY, hints=[NASTY])),
        "result": lambda: PlainView().done(make_clip(NASTY), (NASTY,)),
        "settings": lambda: tables.show_settings(
            Path(NASTY),
            {"plan": {NASTY: NASTY}, "scores": {NASTY: 0.5}, "versions": {NASTY: NASTY}},
        ),
        "models": lambda: tables.show_models(
            [row, row | {"backend": NASTY, "state": "unavailable", "price": NASTY}], [NASTY]
        ),
        "checks": lambda: tables.show_checks([Check(NASTY, "failed", NASTY, NASTY)]),
    }
    actions[where]()
    out, err = capsys.readouterr()
    assert "gnp.exe" in (out + err).replace("\n", "")
    assert harmless(out + err)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"plan": []},
        {"plan": {"prompt": "x" * 100_000, "seed": [1], "inputs": {}}},
        {"scores": {"overall": 10**400, "sharpness": float("inf"), "colour": "1", "frozen": -1}},
        {"versions": {"torch": {"deep": [1] * 1000}}},
        {"scores": [], "versions": "x"},
    ],
    ids=lambda s: next(iter(s), "nothing"),
)
def test_any_settings_can_be_shown(settings: dict[str, Any], capsys: Capture) -> None:
    tables.show_settings(Path("file.mp4"), settings)
    out = capsys.readouterr().out
    assert out.startswith("file.mp4\n")
    assert len(out) < 4000


def test_square_brackets_are_no_markup(capsys: Capture) -> None:
    tables.show_settings(Path("[red]file.mp4"), {"plan": {"prompt": "[bold]a[/bold] [link=x]b"}})
    out = capsys.readouterr().out
    assert "[red]file.mp4" in out
    assert "[bold]a[/bold] [link=x]b" in out


def test_scores_are_shown_with_their_notes(capsys: Capture) -> None:
    scores = score(np.zeros((5, 32, 32, 3), np.uint8), 12)
    tables.show_scores(Path("file.mp4"), 5, 12.0, scores)
    out = capsys.readouterr().out
    assert "file.mp4: 5 frames at 12 fps" in out
    assert f"{scores.overall:.3f}" in out
    for note in scores.notes:
        assert f"- {note}" in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_stream_that_lacks_a_character_gets_an_escape(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    terminal.write("Filme/été 赤い\udcff.mp4")
    text = raw.getvalue().decode(encoding)
    assert text.startswith("Filme/")
    assert text.rstrip().endswith("\\udcff.mp4")
    assert ("赤い" in text) == (encoding == "utf-8")
    assert ("été" in text) == (encoding != "ascii")


def test_a_table_on_a_stream_that_lacks_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    tables.show_settings(Path("f.mp4"), {"plan": {"prompt": "赤い\udcff ball"}})
    sys.stdout.flush()
    assert b"ball" in raw.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.84, "0.8 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_a_plan_without_an_estimate_says_so(plan: Plan) -> None:
    unknown = plan.estimate.model_copy(update={"seconds": None, "source": "unknown"})
    line = terminal.plan_line(plan.model_copy(update={"estimate": unknown}))
    assert line.endswith("time unknown")
