from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from kinoloom.backends.local.embeddings import EmbeddingCache
from kinoloom.config import Settings

GIVEN: dict[str, Any] = {
    "encoder_identity": "google/umt5@1234",
    "prompt": "a red ball",
    "negative": "blurry",
    "guided": True,
    "extra": {"length": 512, "dtype": torch.bfloat16},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def cache(settings: Settings) -> EmbeddingCache:
    return EmbeddingCache.open(settings)


def again(settings: Settings) -> EmbeddingCache:
    """As a new process sees it: nothing in memory."""
    return EmbeddingCache.open(settings)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int64,
        torch.bool,
        torch.float8_e4m3fn,
    ],
)
@pytest.mark.parametrize("shape", [(), (1, 7, 5), (2, 0, 4)])
def test_tensors_come_back_exactly(
    cache: EmbeddingCache, settings: Settings, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    value = torch.randn(shape).mul(3).to(dtype)
    key = cache.key(**GIVEN)
    assert cache.load(key, "cpu") is None
    cache.save(key, {"prompt_embeds": value, "mask": torch.tensor([True, False])})
    for one in (cache, again(settings)):
        found = one.load(key, torch.device("cpu"))
        assert found is not None
        assert set(found) == {"prompt_embeds", "mask"}
        assert (found["prompt_embeds"].dtype, found["prompt_embeds"].shape) == (dtype, shape)
        as_bytes = found["prompt_embeds"].contiguous().view(-1).view(torch.uint8)
        assert torch.equal(as_bytes, value.contiguous().view(-1).view(torch.uint8))


def test_special_numbers_survive(cache: EmbeddingCache) -> None:
    value = torch.tensor([float("inf"), -float("inf"), float("nan"), -0.0, 1e-45])
    cache.save(cache.key(**GIVEN), {"a": value})
    found = (cache.load(cache.key(**GIVEN), "cpu") or {})["a"]
    assert torch.equal(found.view(torch.int32), value.view(torch.int32))


def test_views_of_one_memory_and_odd_layouts(cache: EmbeddingCache) -> None:
    whole = torch.arange(24.0).reshape(2, 3, 4)
    given = {
        "first": whole[0],
        "again": whole[0],
        "expanded": whole[:1].expand(3, 3, 4),
        "turned": whole.transpose(0, 2),
        "learned": torch.nn.Parameter(torch.ones(2)),
    }
    cache.save("ab" * 32, given)
    found = cache.load("ab" * 32, "cpu") or {}
    assert set(found) == set(given)
    for name, tensor in given.items():
        assert torch.equal(found[name], tensor)
        assert not found[name].requires_grad


def test_a_change_to_what_was_loaded_stays_with_its_owner(cache: EmbeddingCache) -> None:
    cache.save("ab" * 32, {"a": torch.zeros(3)})
    (cache.load("ab" * 32, "cpu") or {})["a"].add_(1)
    assert torch.equal((cache.load("ab" * 32, "cpu") or {})["a"], torch.zeros(3))


def test_only_tensors_are_kept(cache: EmbeddingCache) -> None:
    for wrong in (None, [1.0], "text", object()):
        with pytest.raises(TypeError, match="negative is no tensor"):
            cache.save("ab" * 32, {"prompt": torch.zeros(1), "negative": wrong})  # type: ignore[dict-item]
    assert cache.load("ab" * 32, "cpu") is None


@pytest.mark.parametrize(
    "changed",
    [
        {"encoder_identity": "google/umt5@1235"},
        {"prompt": "a red  ball"},
        {"prompt": "a red ball\ud800"},
        {"negative": ""},
        {"guided": False},
        {"extra": {"length": 256, "dtype": torch.bfloat16}},
        {"extra": {"length": 512, "dtype": torch.float16}},
        {"extra": {}},
    ],
)
def test_whatever_decides_the_embeddings_is_in_the_key(
    cache: EmbeddingCache, changed: dict[str, Any]
) -> None:
    assert cache.key(**(GIVEN | changed)) != cache.key(**GIVEN)


def test_a_key_is_stable_and_ignores_what_does_not_matter(cache: EmbeddingCache) -> None:
    other_order = {"dtype": torch.bfloat16, "length": 512}
    assert cache.key(**(GIVEN | {"extra": other_order})) == cache.key(**GIVEN)
    unguided = GIVEN | {"guided": False}
    assert cache.key(**(unguided | {"negative": "x"})) == cache.key(**unguided)


def test_the_libraries_versions_are_in_the_key(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = EmbeddingCache.open(settings).key(**GIVEN)
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{name} 0.0")
    assert EmbeddingCache.open(settings).key(**GIVEN) != before


def test_a_key_of_what_has_no_stable_name_is_refused(cache: EmbeddingCache) -> None:
    for wrong in (object(), float("nan"), {1, 2}):
        with pytest.raises((TypeError, ValueError)):
            cache.key(**(GIVEN | {"extra": {"a": wrong}}))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x80\x04]q\x00.",  # a pickle
        bytes(500),
        save({"a": torch.zeros(8)})[:-5],
        b"\x10\0\0\0\0\0\0\0" + b'{"a":{"dtype":1}}',
    ],
    ids=["nothing", "pickle", "zeros", "cut short", "bad header"],
)
def test_what_is_no_safetensors_is_a_miss(cache: EmbeddingCache, value: bytes) -> None:
    cache.cache.put("ab" * 32, value)
    assert cache.load("ab" * 32, "cpu") is None


def test_a_file_cut_short_is_a_miss_and_can_be_saved_again(
    cache: EmbeddingCache, settings: Settings
) -> None:
    cache.save("ab" * 32, {"a": torch.ones(100)})
    [file] = (settings.home / "cache" / "embeddings").iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    fresh = again(settings)
    assert fresh.load("ab" * 32, "cpu") is None
    fresh.save("ab" * 32, {"a": torch.ones(100)})
    assert again(settings).load("ab" * 32, "cpu") is not None
