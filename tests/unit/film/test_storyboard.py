"""Tests of kinoloom.film.storyboard: storyboards are read, and every mistake is told at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.errors import InvalidRequest, Problem
from kinoloom.film.shots import shots_of
from kinoloom.film.storyboard import ShotSpec, Storyboard, read_storyboard, storyboard_of
from kinoloom.request_checks import Wrong

Write = Callable[..., Path]

WHOLE = """\
title: A day
mode: keyframe
model: spark
backend: local
size: 720p
fps: 23.976
seed: 7
budget: 12.50
keyframe_model: painter
defaults:
  duration: 2
  tier: preview
  transition: {kind: crossfade, duration: 0.25}
characters:
  mara:
    references: [mara.png, pictures/side.png]
    description: a woman in a red coat
    trigger: mara_v2
audio:
  bed: music.wav
  gain_db: -9.5
  fade: 2
  keep_shots: no
shots:
  - id: opening
    title: Morning
    prompt: 12
    frames: 30
    start: mara.png
    characters: mara
    seed: 9223372036854775807
    guidance: 3
    steps: 0
    candidates: 2
    negative: blur
    audio: {file: wind.wav, gain_db: -3, offset: 1.5}
  - prompt: |
      she opens
      the window
    transition: fade
    end: pictures/side.png
    audio: wind.wav
  - {prompt: the street, keyframe: mara.png, model: other, backend: cloud}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a storyboard beside some media, and gives its path."""
    (tmp_path / "pictures").mkdir()
    for name in ("mara.png", "pictures/side.png", "music.wav", "wind.wav"):
        (tmp_path / name).write_bytes(b"not looked into")

    def written(text: str, name: str = "film.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return written


def problems(file: Path) -> list[Problem]:
    with pytest.raises(InvalidRequest) as caught:
        read_storyboard(file)
    return list(caught.value.problems)


def of(**film: Any) -> Storyboard:
    return storyboard_of(film)


def wrong(**film: Any) -> list[Problem]:
    with pytest.raises(InvalidRequest) as caught:
        storyboard_of(film)
    return list(caught.value.problems)


class TestReading:
    def test_every_field(self, write: Write) -> None:
        file = write(WHOLE)
        board = read_storyboard(file)
        assert (board.title, board.mode, board.model) == ("A day", "keyframe", "spark")
        assert (board.size, board.fps, board.seed) == ((1280, 720), 23.976, 7)
        assert board.budget == Decimal("12.5")
        assert board.keyframe_model == "painter"
        mara = board.characters["mara"]
        assert mara.references == (file.parent / "mara.png", file.parent / "pictures/side.png")
        assert (mara.description, mara.trigger) == ("a woman in a red coat", "mara_v2")
        assert board.audio.bed == file.parent / "music.wav"
        assert (board.audio.gain_db, board.audio.fade, board.audio.keep_shots) == (-9.5, 2, False)
        first, second, third = board.shots
        assert (first.id, first.title, first.prompt) == ("opening", "Morning", "12")
        assert (first.frames, first.seed, first.candidates) == (30, 2**63 - 1, 2)
        assert first.characters == ("mara",)
        assert first.audio is not None
        assert (first.audio.gain_db, first.audio.offset) == (-3, 1.5)
        assert (second.id, second.prompt) == ("shot-002", "she opens the window")
        assert second.transition is not None
        assert (second.transition.kind, second.transition.duration) == ("fade", 0.5)
        assert second.audio is not None
        assert second.audio.file == file.parent / "wind.wav"
        assert (third.keyframe, third.model) == (file.parent / "mara.png", "other")
        assert third.transition is None

    def test_json_is_the_same(self, write: Write) -> None:
        import yaml

        data = yaml.safe_load(WHOLE) | {"budget": "12.50"}
        data["shots"][0]["prompt"] = "12"
        compact = write(json.dumps(data), "film.json")
        indented = write(json.dumps(data, indent="\t"), "tabs.json")
        board = read_storyboard(write(WHOLE))
        assert read_storyboard(compact) == read_storyboard(indented) == board
        assert storyboard_of(data, folder=compact.parent) == board

    @pytest.mark.parametrize(
        "words", ["\U0001f600 at 5 \\u2013 \\ud83d\\ude00", "a\\b", "日本\u2028語"]
    )
    def test_json_with_any_characters(self, write: Write, words: str) -> None:
        data = {"shots": [{"prompt": words}]}
        for text in (json.dumps(data), json.dumps(data, ensure_ascii=False)):
            assert read_storyboard(write(text)).shots[0].prompt == words

    def test_round_trip(self, write: Write) -> None:
        board = read_storyboard(write(WHOLE))
        assert Storyboard.model_validate(board.model_dump(mode="json")) == board
        assert Storyboard.model_validate_json(board.to_json()) == board
        assert storyboard_of(json.loads(board.to_json()), folder=Path("/")) == board

    def test_what_is_left_empty_is_not_given(self, write: Write) -> None:
        board = read_storyboard(write("title:\ndefaults:\nshots:\n- prompt: a\n  seed:\n"))
        assert (board.title, board.shots[0].seed) == ("Untitled", None)

    def test_merged_keys(self, write: Write) -> None:
        text = "shots:\n- &a {prompt: a, seed: 3}\n- {<<: *a, prompt: b}\n"
        assert [(s.prompt, s.seed) for s in read_storyboard(write(text)).shots] == [
            ("a", 3),
            ("b", 3),
        ]


class TestMistakes:
    def test_all_at_once_with_their_lines(self, write: Write) -> None:
        found = problems(
            write(
                "mode: chain\n"
                "fps: 500\n"
                "defaults: {duraton: 3}\n"
                "shots:\n"
                "  - prompt: a\n"
                "    duration: -1\n"
                "    start: missing.png\n"
                "  - seed: 5\n"
                "  - prompt: c\n"
                "    transition:\n"
                "      kind: wipe\n"
                "    characters: [nobody]\n"
            )
        )
        assert [(p.field, p.nearest) for p in found] == [
            ("line 1: mode", "chaining"),
            ("line 2: fps", 120.0),
            ("line 3: defaults.duraton", "duration"),
            ("line 6: shots[0].duration", 0.01),
            ("line 7: shots[0].start", None),
            ("line 8: shots[1].prompt", None),
            ("line 11: shots[2].transition.kind", None),
            ("line 12: shots[2].characters", None),
        ]
        assert "does not exist" in found[4].allowed

    def test_json_has_lines_too(self, write: Write) -> None:
        data = {"fps": 500, "shots": [{"prompt": "a"}, {"promt": "b"}]}
        found = problems(write(json.dumps(data, indent="\t"), "film.json"))
        assert [p.field for p in found] == [
            "line 2: fps",
            "line 7: shots[1].prompt",
            "line 8: shots[1].promt",
        ]

    def test_the_message_names_the_file_and_helps(self, write: Write) -> None:
        file = write("shots: [{prompt: a, sed: 1}]")
        with pytest.raises(InvalidRequest) as caught:
            read_storyboard(file)
        assert caught.value.message == f"The storyboard {file} has 1 mistake."
        assert "kinoloom film new" in caught.value.hints[0]

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("shots: [\n", "line 2"),
            ("- a\n", "line 1"),
            ("title: !!python/object:os.system x\n", "line 1"),
            ("a: \x00", "line 1"),
            ("x: &x [*x]\n", None),
            ("a: " + "[" * 1000, "line 1"),
        ],
    )
    def test_what_is_no_storyboard(self, write: Write, text: str, place: str | None) -> None:
        with pytest.raises(InvalidRequest) as caught:
            read_storyboard(write(text))
        assert "storyboard" in caught.value.message
        if place:
            assert caught.value.problems[0].field == place

    def test_no_file_a_huge_one_and_bytes(self, tmp_path: Path) -> None:
        assert "No such file" in problems(tmp_path / "none.yaml")[0].value
        (tmp_path / "huge").write_bytes(b"# " + b"x" * 1_000_001)
        assert "1000000 bytes" in problems(tmp_path / "huge")[0].value
        (tmp_path / "bytes").write_bytes(b"title: \xff\xfe\n")
        assert "UTF-8" in problems(tmp_path / "bytes")[0].value

    def test_aliases_of_aliases_end(self, write: Write) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        assert "aliases" in problems(write("\n".join(lines)))[0].value

    def test_a_key_twice(self, write: Write) -> None:
        found = problems(write("shots:\n- prompt: a\n  seed: 1\n  seed: 2\n"))
        assert [(p.field, p.value) for p in found] == [("line 4: shots[0].seed", "a second time")]

    def test_a_thousand_shots_and_no_more(self, write: Write) -> None:
        shot = "- {prompt: a, duration: 1, seed: 4, transition: {kind: cut}, title: t, steps: 9}\n"
        assert len(read_storyboard(write("shots:\n" + shot * 1000)).shots) == 1000
        assert "1 to 1000 shots" in problems(write("shots:\n" + shot * 1001))[0].allowed

    def test_the_list_of_mistakes_ends(self, write: Write) -> None:
        file = write("shots:\n" + "- {promt: a, duraton: 1}\n" * 1000)
        with pytest.raises(InvalidRequest) as caught:
            read_storyboard(file)
        assert len(caught.value.problems) == 100
        assert "100 mistakes or more" in caught.value.message

    @pytest.mark.parametrize("data", [None, [], "text", 5, {}, {"shots": []}, {"shots": "a"}])
    def test_data_that_is_no_storyboard(self, data: Any) -> None:
        with pytest.raises(InvalidRequest):
            storyboard_of(data)

    @pytest.mark.parametrize("shot", [None, 5, "a", ["a"], {}, {"prompt": ""}, {"prompt": ["a"]}])
    def test_shots_that_are_none(self, shot: Any) -> None:
        assert all(p.field.startswith("shots[0]") for p in wrong(shots=[shot, {"prompt": "b"}]))

    def test_values_of_data_have_their_types(self) -> None:
        found = wrong(seed="7", fps=True, audio={"keep_shots": "no"}, shots=[{"prompt": 5}])
        assert [(p.field, p.nearest) for p in found] == [
            ("seed", 7),
            ("fps", None),
            ("audio.keep_shots", False),
            ("shots[0].prompt", None),
        ]

    def test_money(self) -> None:
        assert of(budget="0.1", shots=[{"prompt": "a"}]).budget == Decimal("0.1")
        assert wrong(budget="much", shots=[{"prompt": "a"}])[0].field == "budget"

    def test_either_frames_or_duration(self) -> None:
        found = wrong(
            defaults={"frames": 5, "duration": 1},
            shots=[{"prompt": "a", "frames": 5, "duration": 1}],
        )
        assert [p.field for p in found] == ["defaults.duration", "shots[0].duration"]

    def test_ids(self) -> None:
        found = wrong(
            shots=[
                {"prompt": "a", "id": "Shot-002"},
                {"prompt": "b"},
                {"prompt": "c", "id": "../up"},
                {"prompt": "d", "id": "shot-002"},
            ]
        )
        assert [(p.field, p.nearest) for p in found] == [
            ("shots[2].id", "up"),
            ("shots[1].id", None),
            ("shots[3].id", None),
        ]

    def test_unknown_characters_with_the_nearest(self) -> None:
        found = wrong(
            characters={"mara": {"description": "a woman"}, "tom": None},
            defaults={"characters": ["tim"]},
            shots=[{"prompt": "a", "characters": ["mora", "tom"]}],
        )
        assert [(p.field, p.nearest) for p in found] == [
            ("defaults.characters", "tom"),
            ("shots[0].characters", "mara"),
        ]

    def test_a_wrong_character_is_told_once(self) -> None:
        found = wrong(
            characters={"mara": {"descrption": "x"}},
            shots=[{"prompt": "a", "characters": ["mara"]}],
        )
        assert [p.field for p in found] == ["characters.mara.descrption"]

    def test_words_too_long_together(self) -> None:
        found = wrong(
            characters={n: {"description": f"{n}{'x' * 998}"} for n in ("a", "b")},
            shots=[{"prompt": "p", "characters": ["a", "b"]}],
        )
        assert [(p.field, p.value) for p in found] == [("shots[0].prompt", "2003 characters")]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
SHOT = st.dictionaries(
    st.sampled_from(list(ShotSpec.model_fields)),
    ANY | st.sampled_from(["fade", "cut", "a", 1, 0.5, ["m"]]),
    max_size=9,
)
FILM = st.dictionaries(st.sampled_from(list(Storyboard.model_fields)), ANY, max_size=5)


@given(FILM, st.lists(SHOT | ANY, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_anything_is_a_storyboard_or_a_list_of_mistakes(
    film: dict[str, Any], shots: list[Any], cast: bool, prompts: bool
) -> None:
    data = {**film, "shots": shots}
    if cast:
        data["characters"] = {"m": {"description": "d", "references": "r.png"}}
    if prompts:
        data["shots"] = [{**s, "prompt": "p"} if isinstance(s, dict) else s for s in shots]
    found, mistakes = attempt(data)
    if found is None:
        assert mistakes
        return
    assert len(shots_of(found)) == len(shots)
    assert Storyboard.model_validate_json(found.to_json()) == found


def attempt(data: dict[str, Any]) -> tuple[Storyboard | None, list[Any]]:
    try:
        return storyboard_of(data, media=lambda value: Path("/m") / hex(hash(str(value)))), []
    except InvalidRequest as error:
        return None, json.loads(json.dumps(error.as_dict()))["problems"]


class TestTransitions:
    def two(self, *, fps: float = 10, **second: Any) -> dict[str, Any]:
        shots = [{"prompt": "a", "frames": 11}, {"prompt": "b", "frames": 30, **second}]
        return {"fps": fps, "shots": shots}

    def test_up_to_half_of_the_shorter_neighbour(self) -> None:
        fine = self.two(transition={"kind": "crossfade", "duration": 0.5})
        assert storyboard_of(fine).shots[1].transition is not None
        for kind in ("crossfade", "fade"):
            found = wrong(**self.two(transition={"kind": kind, "duration": 0.6}))
            assert [(p.field, p.nearest) for p in found] == [
                ("shots[1].transition.duration", "0.5")
            ]

    def test_a_default_too_long_names_the_shot(self) -> None:
        found = wrong(defaults={"transition": {"kind": "fade", "duration": 1}}, **self.two())
        assert found[0].field == "shots[1].transition.duration"
        assert "defaults" in found[0].allowed

    def test_into_the_first(self) -> None:
        found = wrong(shots=[{"prompt": "a", "transition": "crossfade"}])
        assert [(p.field, p.nearest) for p in found] == [("shots[0].transition", "fade")]
        assert of(shots=[{"prompt": "a", "transition": "fade"}])
        assert of(defaults={"transition": "crossfade"}, shots=[{"prompt": "a"}])

    def test_a_cut_takes_no_time_and_a_fade_takes_some(self) -> None:
        found = wrong(**self.two(transition={"kind": "cut", "duration": 1}))
        assert found[0].field == "shots[1].transition.duration"
        found = wrong(**self.two(transition={"kind": "fade", "duration": 0.01}))
        assert (found[0].field, found[0].nearest) == ("shots[1].transition.duration", "cut")

    def test_not_judged_by_a_length_that_is_wrong(self) -> None:
        film = self.two(transition={"kind": "fade", "duration": 5}, steps=-1)
        film["shots"][0]["frames"] = 0
        assert [p.field for p in wrong(**film)] == ["shots[0].frames", "shots[1].steps"]
        film["shots"][0]["frames"] = 11
        assert [p.field for p in wrong(**film)] == [
            "shots[1].steps",
            "shots[1].transition.duration",
        ]


class TestPictures:
    def film(self, write: Write, text: str) -> Path:
        return write("shots:\n" + text)

    def test_chaining(self, write: Write) -> None:
        fine = "- {prompt: a, start: mara.png}\n- {prompt: b, keyframe: mara.png}\n"
        assert read_storyboard(self.film(write, fine)).shots[1].keyframe is not None
        found = problems(
            self.film(write, "- {prompt: a, end: mara.png}\n- {prompt: b, start: mara.png}\n")
        )
        assert [(p.field, p.nearest) for p in found] == [
            ("line 2: shots[0].end", None),
            ("line 3: shots[1].start", "keyframe"),
        ]

    def test_a_cut_shares_one_picture(self, write: Write) -> None:
        text = (
            "mode: keyframe\nshots:\n- {prompt: a, end: mara.png}\n"
            "- {prompt: b, start: %s, transition: %s}\n"
        )
        assert read_storyboard(write(text % ("mara.png", "cut")))
        assert read_storyboard(write(text % ("pictures/../mara.png", "cut")))
        assert read_storyboard(write(text % ("pictures/side.png", "fade")))
        found = problems(write(text % ("pictures/side.png", "cut")))
        assert [(p.field, p.nearest) for p in found] == [("line 4: shots[1].start", "mara.png")]

    def test_start_and_keyframe_are_one(self, write: Write) -> None:
        shot = "- {prompt: a, start: mara.png, keyframe: pictures/side.png}\n"
        for mode in ("keyframe", "chaining"):
            found = problems(write(f"mode: {mode}\nshots:\n{shot}"))
            assert [p.field for p in found] == ["line 3: shots[0].keyframe"]

    def test_a_mode_that_is_wrong_is_not_taken_for_another(self, write: Write) -> None:
        found = problems(write("mode: keyfram\nshots:\n- {prompt: a, end: mara.png}\n"))
        assert [p.field for p in found] == ["line 1: mode"]

    def test_too_many_references(self, write: Write, tmp_path: Path) -> None:
        names = [f"{n}.png" for n in range(9)]
        for name in names:
            (tmp_path / name).write_bytes(b"x")
        people = f"{{a: {{references: [{', '.join(names[:5])}]}}, b: {{references: ["
        people += f"{', '.join(names[4:])}]}}}}"
        found = problems(
            write(f"characters: {people}\nshots:\n- {{prompt: p, characters: [a, b]}}")
        )
        assert [(p.field, p.value) for p in found] == [
            ("line 3: shots[0].characters", "9 references")
        ]

    def test_no_folder_no_paths(self) -> None:
        found = wrong(shots=[{"prompt": "a", "start": "/etc/passwd"}])
        assert [p.field for p in found] == ["shots[0].start"]

    def test_media_are_found_by_a_hook(self, tmp_path: Path) -> None:
        digest = "sha256:" + "0" * 64

        def media(value: object) -> Path:
            if value != {"asset": digest}:
                raise Wrong("an uploaded file")
            return tmp_path / "asset"

        data = {"shots": [{"prompt": "a", "start": {"asset": digest}, "audio": {"asset": digest}}]}
        shot = storyboard_of(data, media=media).shots[0]
        assert shot.start == tmp_path / "asset"
        assert shot.audio is not None
        assert shot.audio.file == tmp_path / "asset"
        with pytest.raises(InvalidRequest) as caught:
            storyboard_of({"shots": [{"prompt": "a", "start": "mara.png"}]}, media=media)
        assert caught.value.problems[0].allowed == "an uploaded file"
