"""A video model so small that a test renders with it in a fraction of a second.

Its weights are random: what it draws means nothing, but every part of the way to it is the real
one. It lies in diffusers' own layout beside a card, as a user's own model would.
"""

from __future__ import annotations

from pathlib import Path

CARD = """\
id: tiny
title: Tiny
family: ltx
summary: Random weights for tests.
backend: local
adapter: ltx
source: {path: tiny}
pipelines:
  t2v:
    class: LTXConditionPipeline
    arguments: {max_sequence_length: 16, decode_timestep: 0.0, image_cond_noise_scale: 0.0}
  i2v:
    class: LTXConditionPipeline
    inputs: {image: conditions}
    arguments: {max_sequence_length: 16, decode_timestep: 0.0, image_cond_noise_scale: 0.0}
  flf2v:
    class: LTXConditionPipeline
    inputs: {image: conditions, last_image: conditions}
    arguments: {max_sequence_length: 16, decode_timestep: 0.0, image_cond_noise_scale: 0.0}
  extend:
    class: LTXConditionPipeline
    inputs: {video: conditions}
    arguments: {max_sequence_length: 16, decode_timestep: 0.0, image_cond_noise_scale: 0.0}
schedule: {kind: linear}
sizes: {multiple_of: 32, minimum: 64, maximum: 96, native: [[64, 64], [96, 64]], default: [64, 64]}
frames: {multiple: 8, offset: 1, minimum: 1, maximum: 25, default: 9}
fps: {default: 12, minimum: 6, maximum: 24}
steps: {default: 2, minimum: 1, maximum: 8, preview: 2, standard: 2, premium: 3}
guidance: {default: 2.0, minimum: 1.0, maximum: 8.0}
negative: true
extend: {context_frames: 9}
timing: {seconds_per_step: 0.05, at: [64, 64, 9], overhead: 0.2, machine: a test, date: 2026-11-21}
licence: {id: Apache-2.0, url: "https://www.apache.org/licenses/LICENSE-2.0"}
"""
"""A user's card, which finds the weights in the folder `tiny` beside itself."""

COMPONENTS = ("text_encoder", "transformer", "vae")


def write_model(cards: Path) -> None:
    """Write the card ``tiny.yaml`` and the model's folder ``tiny`` into `cards`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from tiny_models import ltx

    cards.mkdir(parents=True, exist_ok=True)
    cards.joinpath("tiny.yaml").write_text(CARD, encoding="utf-8")
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(_WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=16,
    )
    pipe = ltx.pipeline(tokenizer, layers=1, patch_size=2, timestep_conditioning=False)
    pipe.save_pretrained(cards / "tiny", safe_serialization=True)


_WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "ball", "square", "rolling", "grass"]
