"""Does a prompt use words that a small model does not know?

Only for cards with a vocabulary. A large model reads any language; a tiny one drops what it never
saw, and the user should hear that before waiting for the wrong picture.
"""

from __future__ import annotations

import re
from functools import lru_cache

from kinoloom.catalog.card import ModelCard, Vocabulary

_SHOWN = 8
"""Words of one group that a warning lists, the first ones; the card has them all."""


def unknown_words(prompt: str, vocabulary: Vocabulary) -> list[str]:
    """The words of a prompt that the vocabulary lacks, each once, in their order."""
    known = _known(vocabulary)
    return [word for word in dict.fromkeys(_words(prompt)) if word not in known]


def vocabulary_warnings(prompt: str, negative: str, card: ModelCard) -> list[str]:
    """What the user should know about words that the model does not: none or one warning."""
    vocabulary = card.vocabulary
    if vocabulary is None:
        return []
    unknown = unknown_words(f"{prompt} {negative}", vocabulary)
    if not unknown:
        return []
    quoted = ", ".join(f'"{word}"' for word in unknown[:_SHOWN])
    if len(unknown) > _SHOWN:
        quoted += f" and {len(unknown) - _SHOWN} more"
    parts = [
        f"{card.title} does not know {quoted} and will ignore"
        f" {'it' if len(unknown) == 1 else 'them'}.",
        vocabulary.says,
        "It knows " + "; ".join(_group(name, words) for name, words in vocabulary.groups.items()),
    ]
    parts[-1] += "."
    if card.suggests:
        parts.append(f"Models that could do more: {', '.join(card.suggests)}.")
    return [" ".join(parts)]


def _group(name: str, words: list[str]) -> str:
    more = len(words) - _SHOWN
    return f"{name}: {', '.join(words[:_SHOWN])}" + (f" and {more} more" if more > 0 else "")


def _known(vocabulary: Vocabulary) -> frozenset[str]:
    phrases = (p for group in vocabulary.groups.values() for p in group)
    return _words_of((*phrases, *vocabulary.ignored))


@lru_cache(maxsize=8)
def _words_of(phrases: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word for phrase in phrases for word in _words(phrase))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())
