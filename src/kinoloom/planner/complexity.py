"""How much does a prompt ask of a model?

Seven factors (motion, scene, camera, lighting, quality words, length, several subjects), each
from 0 to 1, each with a weight; the weighted sum is the score. The word lists, the weights and
the bounds of the classes are data in ``words.yaml``. Words say little about what is hard for a
particular model, so the score only spreads the steps within the range that the model's card gives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FactorName = Literal["motion", "scene", "camera", "lighting", "quality", "length", "subjects"]
Level = Literal["simple", "moderate", "complex", "very_complex"]
Unit = Annotated[float, Field(ge=0, le=1)]


class Factor(BaseModel):
    """One factor: its value, its weight, its share of the score, and the words that count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: FactorName
    value: Unit
    weight: Unit
    share: Unit
    found: tuple[str, ...]


class Complexity(BaseModel):
    """The complexity of a prompt: a score from 0 to 1, its class, and the seven factors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Unit
    level: Level
    factors: tuple[Factor, ...]


class _Entry(BaseModel):
    """A factor's data: `full` is the count at which it reaches 1; `*` ends an open word."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: Unit
    full: int = Field(ge=1)
    words: list[str] = []
    nouns: list[str] = []


class _Words(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: dict[FactorName, _Entry]
    levels: dict[Level, Unit]

    @model_validator(mode="after")
    def _complete(self) -> _Words:
        if abs(sum(e.weight for e in self.factors.values()) - 1) > 1e-9:
            raise ValueError("the weights of the factors must add up to 1")
        return self


@lru_cache(maxsize=256)
def complexity(prompt: str) -> Complexity:
    """The complexity of a prompt (English words are known); an empty one scores 0."""
    words = _words()
    text = prompt.lower()
    factors = []
    for name, entry in words.factors.items():
        found: tuple[str, ...] = ()
        if name == "length":
            count = len(re.findall(r"\w+", text))
        else:
            found = _found(text, tuple(entry.words))
            count = len(found)
            # One subject is what every prompt has; each further one makes it harder.
            nouns = _found(text, tuple(entry.nouns))
            if len(nouns) > 1:
                found, count = found + nouns, count + len(nouns) - 1
        value = min(1.0, count / entry.full)
        share = round(entry.weight * value, 4)
        factors.append(
            Factor(name=name, value=value, weight=entry.weight, share=share, found=found)
        )
    score = min(1.0, round(sum(f.share for f in factors), 4))
    level = max((bound, name) for name, bound in words.levels.items() if score >= bound)[1]
    return Complexity(score=score, level=level, factors=tuple(factors))


@cache
def _words() -> _Words:
    text = (resources.files("kinoloom.planner") / "words.yaml").read_text(encoding="utf-8")
    return _Words.model_validate(yaml.safe_load(text))


def _found(text: str, entries: Sequence[str]) -> tuple[str, ...]:
    """The entries that stand in the text, as they stand there, each once, in order."""
    if not entries:
        return ()
    return tuple(dict.fromkeys(m.group() for m in _pattern(tuple(entries)).finditer(text)))


@cache
def _pattern(entries: tuple[str, ...]) -> re.Pattern[str]:
    # Longest first, so that "tracking shot" counts once and not as "tracking" and "shot".
    parts = [
        re.escape(e.removesuffix("*")).replace(r"\ ", r"[\s-]+") + (r"\w*" if e[-1] == "*" else "")
        for e in sorted(entries, key=len, reverse=True)
    ]
    return re.compile(r"\b(?:" + "|".join(parts) + r")\b")
