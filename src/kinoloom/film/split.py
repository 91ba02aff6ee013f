"""How does a text become the shots of a film?

By rules, always: a sentence is a shot, as long as it takes to say it. Or by a chat model at an
address of the user's, whose answer is checked, and the rules where it gives none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from kinoloom.errors import InvalidRequest, Problem
from kinoloom.film.board import MAX_SHOTS, ShotSpec
from kinoloom.film.split_chat import ChatFailed, shots_by_chat
from kinoloom.request_checks import MAX_PROMPT, Wrong, number, shown

MAX_TEXT_BYTES = 100_000
"""A hundred kilobytes are a short story of an hour, more than a film of a thousand shots needs."""

MIN_SECONDS, MAX_SECONDS = 2.0, 10.0
"""The shortest shot that one can follow, and about the longest that a video model makes at once."""

WORDS_PER_SECOND = 2.5
"""150 words a minute, about the rate at which a text is read aloud."""
PACE = (0.5, 10.0)
"""The slowest and the fastest words a second."""

_WIDE_CHARACTERS_PER_WORD = 2
"""Chinese and Japanese have no spaces; most of their words are of one to three characters."""

_WRAPPED = 60
"""A line of so many characters goes on in the next one; a shorter one is a thing of its own."""

_NEAR = 40
"""Characters beside a mark that are looked at; longer than any abbreviation."""

# What ends a sentence with a space behind it, and what does without one.
# Possessive, and only from where a row of marks begins: a page of dots takes no longer than others.
_END = re.compile(r"(?<![.!?…؟۔।])[.!?…؟۔।]++[\"'”’»)\]]*+(?=\s)|[。！？｡]+[」』”’）》]*")
_ITEM = re.compile(
    r"\s*(?:(?:shot|scene)\s+\d{1,4}\s*[.:)–-]|\(?\d{1,4}(?:[.)]\s|、)|[-*•‣]\s)\s*",
    re.IGNORECASE,
)
_NEXT_ITEM = re.compile(r"(?<=[.!?;])\s+(?=\(?\d{1,4}[.)]\s)")
_RULE = re.compile(r"\s*([-*_=~#])(\s*\1){2,}\s*")
_BETWEEN_WIDE = re.compile("(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")
_CLAUSE = re.compile(r"[,;:،؛—–]\s+|[，、；：]")


@dataclass(frozen=True)
class Split:
    """The shots of a text; `note` says why they were not made in the way that was asked for."""

    shots: tuple[ShotSpec, ...]
    note: str | None = None


def split(
    text: str,
    *,
    words_per_second: float = WORDS_PER_SECOND,
    url: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
) -> Split:
    """The shots that a text of up to 100 kB tells, each of 2 to 10 seconds.

    With the `url` of an OpenAI-compatible endpoint (``http://host/v1``) its chat `model` is asked;
    where it gives no usable answer there are the rules, and a note. Raises InvalidRequest for a
    text without words, one that is too long, and one of more than 1000 shots.
    """
    try:
        words_per_second = number(*PACE)(words_per_second)
    except Wrong as wrong:
        pace = Problem("words_per_second", words_per_second, wrong.allowed, wrong.nearest)
        raise InvalidRequest([pace]) from None
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_TEXT_BYTES:
        allowed = f"at most {MAX_TEXT_BYTES} bytes; split it into several films"
        raise InvalidRequest([Problem("text", f"{size} bytes", allowed)])
    clean = _clean(text)
    if not any(c.isalnum() for c in clean):
        raise InvalidRequest([Problem("text", shown(text), "a text with words")])
    note = None
    if url is not None:
        try:
            told = shots_by_chat(clean, url=url, model=model, api_key=api_key, most=MAX_SHOTS)
        except ChatFailed as error:
            note = f"The text was split by rules, since the chat model {error}."
        else:
            return Split(
                tuple(_spec(n, words, s, words_per_second) for n, (words, s) in enumerate(told))
            )
    prompts = list(_prompts(clean, words_per_second))
    if len(prompts) > MAX_SHOTS:
        allowed = f"a text of at most {MAX_SHOTS} shots; split it into several films"
        raise InvalidRequest([Problem("text", f"{len(prompts)} shots", allowed)])
    return Split(
        tuple(_spec(n, words, None, words_per_second) for n, words in enumerate(prompts)), note
    )


def _spec(index: int, prompt: str, seconds: float | None, words_per_second: float) -> ShotSpec:
    if seconds is None:
        seconds = _words(prompt) / words_per_second
    duration = round(min(max(seconds, MIN_SECONDS), MAX_SECONDS), 1)
    return ShotSpec(id=f"shot-{index + 1:03d}", prompt=prompt, duration=duration)


def _prompts(text: str, words_per_second: float) -> Iterator[str]:
    few, many = MIN_SECONDS * words_per_second, MAX_SECONDS * words_per_second
    for block, is_item in _blocks(text):
        # What somebody listed as one thing stays one, as long as a prompt can hold it.
        sentences = [block] if is_item else _merged(list(_sentences(block)), few, many)
        for sentence in sentences:
            yield from _divided(sentence, 2 * many)


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """The parts between which no shot goes on: paragraphs, lines of their own, items of lists."""
    lines: list[str] = []
    is_item = False

    def block() -> Iterator[tuple[str, bool]]:
        words = _BETWEEN_WIDE.sub("", " ".join(" ".join(lines).split()))
        if any(c.isalnum() for c in words):
            yield words, is_item
        lines.clear()

    for line in _lines(text):
        bare = line.strip()
        item = _ITEM.match(line)
        goes_on = bool(lines) and (_width(lines[-1]) >= _WRAPPED or bare[:1].islower())
        if not bare or _RULE.fullmatch(line):
            yield from block()
            is_item = False
        elif item is not None:
            yield from block()
            lines.append(line[item.end() :].strip())
            is_item = True
        else:
            if not goes_on and not (is_item and line[:1].isspace()):
                yield from block()
                is_item = False
            lines.append(bare)
    yield from block()


def _lines(text: str) -> Iterator[str]:
    """The lines of a text; a list that stands in one line has one for each of its items."""
    for line in text.split("\n"):
        yield from _NEXT_ITEM.split(line) if _ITEM.match(line) else [line]


def _sentences(block: str) -> Iterator[str]:
    begin = 0
    for mark in _END.finditer(block):
        # What decides lies close to the mark, and looking no further keeps a long text quick.
        before = block[max(begin, mark.start() - _NEAR) : mark.start()]
        if not _goes_on(before, mark[0], block[mark.end() : mark.end() + _NEAR]):
            if any(c.isalnum() for c in block[begin : mark.end()]):
                yield block[begin : mark.end()].strip()
            begin = mark.end()
    if any(c.isalnum() for c in block[begin:]):
        yield block[begin:].strip()


def _goes_on(before: str, mark: str, rest: str) -> bool:
    """Whether a sentence goes on behind a mark: `"Stop!" she said`, `Mr. Hill`, `J. R. Hill`."""
    first = next((c for c in rest if c.isalpha() or c.isdecimal()), "")
    if first.islower():
        return True
    if mark != "." or not before.strip():
        return False
    last = before.rsplit(None, 1)[-1].lstrip("\"'“‘«([").lower()
    if (len(last) == 1 and last.islower()) or last in _listed("abbreviations"):
        return True
    return first.isdecimal() and last in _listed("before_numbers")


def _merged(sentences: list[str], few: float, many: float) -> list[str]:
    """Sentences too short for a shot, each with the one behind it, the last with the one before."""
    merged: list[str] = []
    for sentence in sentences:
        if merged and _words(merged[-1]) < few and _words(merged[-1]) + _words(sentence) <= many:
            merged[-1] = _joined(merged[-1], sentence)
        else:
            merged.append(sentence)
    if len(merged) > 1 and _words(merged[-1]) < few:
        last = merged.pop()
        if _words(merged[-1]) + _words(last) <= many:
            merged[-1] = _joined(merged[-1], last)
        else:
            merged.append(last)
    return merged


def _joined(one: str, other: str) -> str:
    return one + other if _is_wide(one[-1]) or _is_wide(other[0]) else f"{one} {other}"


def _divided(sentence: str, most: float) -> Iterator[str]:
    """A sentence of more words than a shot can show, or than a prompt can hold, in halves."""
    if _words(sentence) <= most and len(sentence) <= MAX_PROMPT:
        yield sentence
        return
    middle = len(sentence) / 2
    inner = range(len(sentence) // 4, 3 * len(sentence) // 4)
    places = [m.end() for m in _CLAUSE.finditer(sentence) if m.end() in inner]
    places = places or [m.end() for m in re.finditer(r"\s+", sentence) if m.end() in inner]
    place = min(places, key=lambda p: abs(p - middle)) if places else int(middle)
    for half in (sentence[:place].strip(), sentence[place:].strip()):
        if half:
            yield from _divided(half, most)


def _words(text: str) -> float:
    """How many words a text has, by spaces, and by characters where writing has no spaces."""
    wide = sum(map(_is_wide, text))
    spaced = "".join(" " if _is_wide(c) else c for c in text).split()
    return sum(any(c.isalnum() for c in w) for w in spaced) + wide / _WIDE_CHARACTERS_PER_WORD


def _width(text: str) -> int:
    """How many columns a line takes."""
    return len(text) + sum(map(_is_wide, text))


def _is_wide(character: str) -> bool:
    # Korean is wide too, and has spaces.
    wide = unicodedata.east_asian_width(character) == "W"
    return wide and not "\uac00" <= character <= "\ud7a3"


def _clean(text: str) -> str:
    """The text with its line breaks as such, and no character that a prompt must not have."""
    lines = re.sub(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text).lstrip("\ufeff")
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else " " for c in lines
    )


@cache
def _listed(name: str) -> frozenset[str]:
    import yaml

    file = resources.files("kinoloom.film") / "splitting.yaml"
    groups = yaml.safe_load(file.read_text(encoding="utf-8"))[name]
    return frozenset(word for group in groups for word in group)
