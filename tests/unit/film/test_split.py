"""Tests of kinoloom.film.split: shots of a text, by rules and by a chat model that may be wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.chat import FakeChat
from kinoloom.errors import InvalidRequest
from kinoloom.film.split import MAX_TEXT_BYTES, Split, split
from kinoloom.film.storyboard import storyboard_of


def prompts(text: str) -> list[str]:
    return [shot.prompt for shot in split(text).shots]


LONG = "the old man walks along the grey beach"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            f"First {LONG}. Then {LONG}! Does {LONG}?",
            [f"First {LONG}.", f"Then {LONG}!", f"Does {LONG}?"],
            id="sentences",
        ),
        pytest.param(
            f"Mr. Hill says {LONG}. Prof. J. R. Ward of No. 5 nods, e.g. Here {LONG}.",
            [f"Mr. Hill says {LONG}.", f"Prof. J. R. Ward of No. 5 nods, e.g. Here {LONG}."],
            id="abbreviations",
        ),
        pytest.param(
            f'"Stop! There {LONG}!" she cried and ran. "I {LONG}." He turns and {LONG}.',
            [
                f'"Stop! There {LONG}!" she cried and ran.',
                f'"I {LONG}."',
                f"He turns and {LONG}.",
            ],
            id="dialogue",
        ),
        pytest.param(
            f"So {LONG}... and stops... Now {LONG}… until it rains.",
            [f"So {LONG}... and stops...", f"Now {LONG}… until it rains."],
            id="ellipses",
        ),
        pytest.param(
            f"There the cat sat. No. Then {LONG}. Here {LONG} in the sun. It {LONG}.",
            [
                "There the cat sat. No.",
                f"Then {LONG}.",
                f"Here {LONG} in the sun.",
                f"It {LONG}.",
            ],
            id="words that look like abbreviations",
        ),
        pytest.param(f"At 3.5 m {LONG}", [f"At 3.5 m {LONG}"], id="decimals"),
        pytest.param(
            "A cat sits\nA dog runs\n\nNight", ["A cat sits", "A dog runs", "Night"], id="lines"
        ),
        pytest.param(
            "A cat sits on the wall of an old garden behind the house\nand sleeps in the sun",
            ["A cat sits on the wall of an old garden behind the house and sleeps in the sun"],
            id="wrapped",
        ),
        pytest.param("One thing\n***\nAnother thing", ["One thing", "Another thing"], id="rule"),
        pytest.param(
            "1. A ball. It rolls.\n2) A star\n   rises\n- dusk\n• night\nScene 4: The end",
            ["A ball. It rolls.", "A star rises", "dusk", "night", "The end"],
            id="lists",
        ),
        pytest.param(
            "1. A ball rolls. 2. A star rises on the 5. of June; (3) a cube",
            ["A ball rolls.", "A star rises on the 5. of June;", "a cube"],
            id="a list in a line",
        ),
        pytest.param("3.5 metres of snow", ["3.5 metres of snow"], id="no list"),
        pytest.param(
            "春天来了，花开了。小鸟在树上唱歌！孩子们在公园里跑来跑去。「快来！」他说。",
            ["春天来了，花开了。小鸟在树上唱歌！", "孩子们在公园里跑来跑去。「快来！」他说。"],
            id="chinese",
        ),
        pytest.param(
            "دخل الرجل الغرفة المظلمة ببطء شديد. هل رأى أحدا هناك في الظلام؟ لا أحد.",
            ["دخل الرجل الغرفة المظلمة ببطء شديد.", "هل رأى أحدا هناك في الظلام؟ لا أحد."],
            id="arabic",
        ),
        pytest.param(
            "एक बूढ़ा आदमी समुद्र के किनारे चलता है। बच्चे रेत में बहुत देर तक खेलते हैं।",
            ["एक बूढ़ा आदमी समुद्र के किनारे चलता है।", "बच्चे रेत में बहुत देर तक खेलते हैं।"],
            id="hindi",
        ),
        pytest.param("It rains. He waits.", ["It rains. He waits."], id="short ones"),
        pytest.param(f"So {LONG}. No.", [f"So {LONG}. No."], id="a short last one"),
        pytest.param("a\rb\r\nc", ["a b c"], id="line ends"),
        pytest.param("bad\x07 and \ud800 half", ["bad and half"], id="control characters"),
    ],
)
def test_rules(text: str, expected: list[str]) -> None:
    assert prompts(text) == expected


def test_durations_are_by_length_within_bounds() -> None:
    words = [1, 5, 10, 25, 40]
    shots = split("\n\n".join(" ".join(["word"] * n) for n in words)).shots
    assert [shot.duration for shot in shots] == [2, 2, 4, 10, 10]
    slow = split("one two three four five six", words_per_second=1).shots
    assert slow[0].duration == 6


def test_a_sentence_of_a_page_is_divided_at_its_clauses() -> None:
    clause = " ".join(["word"] * 20)
    found = prompts(f"{clause}, {clause}, {clause}, {clause}.")
    assert found == [f"{clause}, {clause},", f"{clause}, {clause}."]


def test_ids_and_storyboard() -> None:
    shots = split("A cat sits.\n\nA dog runs.").shots
    assert [shot.id for shot in shots] == ["shot-001", "shot-002"]
    board = storyboard_of({"shots": [s.model_dump(mode="json", exclude_none=True) for s in shots]})
    assert board.shots == shots


@pytest.mark.parametrize(
    "text", ["", "  \n", "...", "***", "x" * (MAX_TEXT_BYTES + 1), "a\n\n" * 1001]
)
def test_what_makes_no_film(text: str) -> None:
    with pytest.raises(InvalidRequest):
        split(text)


@pytest.mark.parametrize("pace", [0, -1, float("nan"), 1e9])
def test_no_pace(pace: float) -> None:
    with pytest.raises(InvalidRequest):
        split("a", words_per_second=pace)


@pytest.mark.parametrize(
    "text", [".", ". ", '."', "a.", "a. ", "。", "- ", "\n", "1. ", "x ", "x, ", '"', "\u3000"]
)
def test_any_page_takes_a_moment(text: str) -> None:
    whole = (text * MAX_TEXT_BYTES)[: MAX_TEXT_BYTES // 3]
    try:
        shots = split(f"{whole} end").shots
    except InvalidRequest:
        return
    assert 1 <= len(shots) <= 1000


@given(st.text(max_size=400))
def test_any_text_makes_shots_or_a_clear_error(text: str) -> None:
    try:
        shots = split(text).shots
    except InvalidRequest:
        assert not any(c.isalnum() for c in text)
        return
    board = storyboard_of({"shots": [s.model_dump(mode="json", exclude_none=True) for s in shots]})
    assert board.shots == shots
    assert all(shot.duration and 2 <= shot.duration <= 10 for shot in shots)
    # Nothing that is said gets lost, but for the numbers of lists.
    said = [c for c in text if c.isalpha()]
    shown = [c for shot in shots for c in shot.prompt if c.isalpha()]
    assert shown == said or "shot" in text.lower() or "scene" in text.lower()


class TestChat:
    TEXT = "A cat sits on the old wall."

    @pytest.fixture
    def chat(self) -> Iterator[FakeChat]:
        with FakeChat() as chat:
            yield chat

    def asked(self, chat: FakeChat, key: str | None = None) -> Split:
        return split(self.TEXT, url=chat.url, model=chat.model, api_key=key)

    def test_its_shots(self, chat: FakeChat) -> None:
        chat.key = "k3y"
        shots = [
            {"prompt": "a grey cat\njumps", "duration": 3.25},
            {"prompt": "b", "duration": 99},
            {"prompt": "the cat", "duration": "long"},
        ]
        chat.answer = f"<think>{{}}</think>Here:\n```json\n{json.dumps({'shots': shots})}\n```"
        found = self.asked(chat, "k3y")
        assert found.note is None
        assert [(s.id, s.prompt, s.duration) for s in found.shots] == [
            ("shot-001", "a grey cat jumps", 3.2),
            ("shot-002", "b", 10),
            ("shot-003", "the cat", 2),
        ]
        (body,) = chat.asked
        assert json.loads(body["messages"][1]["content"])["text"] == self.TEXT

    @pytest.mark.parametrize(
        "answer",
        [
            "I cannot do that.",
            "{",
            "[]",
            5,
            None,
            '{"shots": []}',
            '{"shots": "a"}',
            '{"shots": [5]}',
            '{"shots": [{"duration": 3}]}',
            '{"shots": [{"prompt": "' + "x" * 2001 + '"}]}',
            json.dumps({"shots": [{"prompt": "a"}] * 1001}),
            "{" + '"a":[' * 50_000 + "}",
        ],
    )
    def test_answers_that_are_no_shots(self, chat: FakeChat, answer: Any) -> None:
        chat.answer = answer
        self.by_rules(self.asked(chat))

    def test_errors_and_breaks(self, chat: FakeChat) -> None:
        chat.status = 500
        assert "answered 500" in self.by_rules(self.asked(chat))
        chat.status, chat.drop = 200, True
        self.by_rules(self.asked(chat))
        chat.drop, chat.raw = False, b" " * 1_100_000
        assert "does not end" in self.by_rules(self.asked(chat))

    @pytest.mark.parametrize(
        ("url", "key"),
        [
            ("nothing", None),
            ("http://[", None),
            ("http://127.0.0.1:1/v1", "a\nb"),
            ("http://127.0.0.1:1", "ü"),
        ],
    )
    def test_no_such_place(self, url: str, key: str | None) -> None:
        note = self.by_rules(split(self.TEXT, url=url, api_key=key))
        assert key is None or key not in note

    def by_rules(self, found: Split) -> str:
        assert [shot.prompt for shot in found.shots] == [self.TEXT]
        assert found.note is not None
        assert "rules" in found.note
        return found.note
