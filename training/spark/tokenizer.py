"""How does a prompt become the few words that spark was trained on?

The tokenizer's own normaliser, saved with it in ``tokenizer.json``, maps what people write to one
word a meaning: "a crimson sphere rolls to the right across the meadow" becomes "red ball right
grass". The rules are data, in ``words.json``; they run inside the tokenizers library, so the stock
pipeline classes need to know nothing of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "words.json").read_text(encoding="utf-8")
)
CAMERAS = ("panleft", "panright", "zoomin", "zoomout")
VOCABULARY_SIZE = 64  # with room for later words
MAX_LENGTH = 32


def build() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: padding 0, end 1, unknown 2, then one id a meaning."""
    meanings = [meaning for meaning, _ in WORDS["rules"]] + list(CAMERAS)
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *meanings])}
    # A camera's clause is read before its words could be taken for the object's motion.
    foreign = r"left|right|camera|closer|nearer|away|follow|to an?\b|of\b"
    clause = rf"\b(?:the )?(?:camera|pan|pans|panning)\b(?:(?!{foreign})[^,.;])*?\b"
    zoom = r"\b(?:(?:the )?camera )?(?:(?:slow|slowly) )?zoom(?:s|ing)? "
    near, far = r"(?:closer|nearer|forwards?)\b", r"(?:away|back|backwards?)\b"
    rules = [
        (clause + r"left(?:wards?)?\b", "panleft"),
        (clause + r"right(?:wards?)?\b", "panright"),
        (zoom + r"in\b", "zoomin"),
        (zoom + r"out\b", "zoomout"),
        (r"\b(?:the )?camera (?:moves|moving|goes) " + near, "zoomin"),
        (r"\b(?:the )?camera (?:moves|moving|goes) " + far, "zoomout"),
        (r"[^a-z]+", ""),
    ]
    for meaning, phrases in WORDS["rules"]:
        longest = sorted(phrases, key=len, reverse=True)
        rules.append((r"\b(?:" + "|".join(longest) + r")\b", meaning))
    rules.append((r"\b(?:" + "|".join(WORDS["ignored"]) + r")\b", ""))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase()]
        + [
            normalizers.Replace(Regex(pattern), f" {word} " if word else " ")
            for pattern, word in rules
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_LENGTH,
    )
