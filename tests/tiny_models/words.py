"""Tokenizers of a few hundred symbols that spell every text, of the classes that models use."""

from __future__ import annotations

import string

from transformers import CLIPTokenizer, GemmaTokenizer, LlamaTokenizer, Qwen2Tokenizer, T5Tokenizer

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PLAIN = string.ascii_letters + string.digits + string.punctuation


def t5() -> T5Tokenizer:
    """A T5 tokenizer of single characters; 98 symbols or fewer."""
    symbols = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*symbols, *((c, -3.0) for c in _PLAIN)], extra_ids=0)


def qwen2(phrases: tuple[str, ...] = ()) -> Qwen2Tokenizer:
    """A Qwen2 tokenizer of bytes, with a chat template, where each of `phrases` is one token."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {c: i for i, c in enumerate([*_byte_symbols(), *specials])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], extra_special_tokens=specials[1:])
    tokenizer.chat_template = CHAT
    tokenizer.add_tokens(list(phrases))
    return tokenizer


def clip() -> CLIPTokenizer:
    """A CLIP tokenizer of bytes, 77 of them at most."""
    symbols = _byte_symbols()
    ends = [f"{c}</w>" for c in symbols]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    vocab = {c: i for i, c in enumerate([*symbols, *ends, *specials])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def llama(phrases: tuple[str, ...] = ()) -> LlamaTokenizer:
    """A Llama tokenizer of characters, where each of `phrases` is one token."""
    vocab = _bytes_and_characters(["<unk>", "<s>", "</s>", "<pad>"])
    tokenizer = LlamaTokenizer(vocab=vocab, merges=[], pad_token="<pad>")
    tokenizer.add_tokens(list(phrases))
    return tokenizer


def gemma() -> GemmaTokenizer:
    """A Gemma tokenizer of characters."""
    return GemmaTokenizer(
        vocab=_bytes_and_characters(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]), merges=[]
    )


def _bytes_and_characters(specials: list[str]) -> dict[str, int]:
    symbols = [*specials, *(f"<0x{b:02X}>" for b in range(256)), "▁", *_PLAIN]
    return {c: i for i, c in enumerate(symbols)}


def _byte_symbols() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level tokenizers."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())
