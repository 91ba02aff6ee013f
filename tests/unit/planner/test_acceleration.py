from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import diffusers
import pytest

from kinoloom.backends.base import Speed
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.speed import Acceleration, CacheKind, StepCache
from kinoloom.errors import InvalidRequest
from kinoloom.planner.acceleration import _known, check_cache, resolve_speed

GOOD: dict[str, dict[str, Any]] = {
    "first_block": {"threshold": 0.1},
    "mag": {"mag_ratios": [1.0, 1.0]},
    "taylor_seer": {"use_lite_mode": True},
    "pyramid": {
        "spatial_attention_block_skip_range": 2,
        "spatial_attention_timestep_skip_range": [100, 800],
    },
}
"""Settings with which a cache works where it works at all."""

Model = Callable[..., ModelCard]


@pytest.fixture
def model(tiny_card: ModelCard) -> Model:
    """The tiny card with another pipeline and other accelerations."""

    def make(pipeline: str = "LTXConditionPipeline", **acceleration: Any) -> ModelCard:
        recipe = tiny_card.pipelines["t2v"].model_copy(update={"class_name": pipeline})
        return tiny_card.model_copy(
            update={
                "pipelines": {"t2v": recipe},
                "acceleration": Acceleration(**acceleration),
            }
        )

    return make


def resolve(card: ModelCard, level: str, **changes: Any) -> tuple[Speed, list[str]]:
    values: dict[str, Any] = {
        "guidance": 5.0,
        "steps": 30,
        "frames": 81,
        "placement": "resident",
        "device_kind": "cuda",
    }
    return resolve_speed(card, "t2v", level, **(values | changes))  # type: ignore[arg-type]


def cache(kind: str, **settings: Any) -> StepCache:
    return StepCache(kind=kind, settings=settings or GOOD[kind])  # type: ignore[arg-type]


def test_nothing_is_used_that_the_card_does_not_name(model: Model) -> None:
    for level in ("lossless", "balanced", "fast"):
        speed, reasons = resolve(model(), level)
        assert speed == Speed()
        assert len(reasons) == (level != "lossless")


def test_a_level_takes_its_step_cache(model: Model) -> None:
    both = model(balanced=cache("first_block"), fast=cache("taylor_seer"))
    assert resolve(both, "lossless")[0].cache is None
    assert resolve(both, "balanced")[0].cache == cache("first_block")
    speed, reasons = resolve(both, "fast")
    assert speed.cache == cache("taylor_seer")
    assert "taylor seer" in reasons[-1]
    assert resolve(model(balanced=cache("mag")), "fast")[0].cache == cache("mag")
    assert resolve(model(fast=cache("mag")), "balanced")[0].cache is None


def test_short_runs_have_no_step_cache(model: Model) -> None:
    card = model(balanced=cache("first_block"))
    fewest = _known().fewest_steps
    assert resolve(card, "balanced", steps=fewest)[0].cache is not None
    speed, reasons = resolve(card, "balanced", steps=fewest - 1)
    assert speed.cache is None
    assert f"{fewest} steps" in reasons[-1]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_attention_and_compiling_are_for_cuda(model: Model, device: str) -> None:
    card = model(attention=["_native_cudnn"], compile=True, balanced=cache("mag"))
    assert resolve(card, "balanced", device_kind=device)[0] == Speed(cache=cache("mag"))


def test_the_best_attention_that_is_here_and_exact_enough(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"torch", "kernels"}
    monkeypatch.setattr(
        "kinoloom.planner.acceleration.find_spec", lambda name: name if name in here else None
    )
    card = model(attention=["telepathy", "sage", "_flash_3_hub", "flash", "_native_cudnn"])
    speed, reasons = resolve(card, "balanced")
    assert speed.attention == "_native_cudnn"
    assert [r.split(":")[0] for r in reasons[:5]] == [
        f"attention {name}" for name in card.acceleration.attention
    ]
    assert "not known to work" in reasons[0]
    assert "sageattention is not installed" in reasons[1]
    assert "download" in reasons[2]
    here.update({"sageattention", "flash_attn"})
    assert resolve(card, "balanced")[0].attention == "sage"
    speed, reasons = resolve(card, "lossless")
    assert speed.attention == "flash"
    assert "quantizes" in reasons[1]


def test_compiling_must_pay_and_needs_weights_that_stay(model: Model) -> None:
    card = model(compile=True)
    assert resolve(card, "lossless", frames=81, steps=50)[0].compile
    assert not resolve(card, "lossless", frames=25, steps=20)[0].compile
    assert resolve(card, "lossless", frames=25, steps=20, takes=8)[0].compile
    for placement, compiles in {
        "fp8": True,
        "model_offload": True,
        "group_offload": False,
        "sequential": False,
    }.items():
        speed, reasons = resolve(card, "lossless", frames=81, steps=50, placement=placement)
        assert speed.compile is compiles
        assert len(reasons) == 1


WRONG = [
    ("WanVACEPipeline", "first_block", 1.0, "second time"),
    ("WanVACEPipeline", "mag", 1.0, "second time"),
    ("WanPipeline", "pyramid", 5.0, "without the prompt"),
    ("WanVACEPipeline", "pyramid", 5.0, "without the prompt"),
    ("HunyuanVideo15Pipeline", "pyramid", 6.0, "without the prompt"),
    ("SkyReelsV2ImageToVideoPipeline", "pyramid", 5.0, "without the prompt"),
    ("SkyReelsV2DiffusionForcingPipeline", "pyramid", 6.0, "without the prompt"),
    ("LTX2Pipeline", "first_block", 1.0, "does not know"),
    ("LTX2Pipeline", "taylor_seer", 1.0, "not known to work"),
    ("AnimateDiffPipeline", "mag", 1.0, "UNet"),
    ("MochiPipeline", "pyramid", 1.0, "not known to work"),
]


@pytest.mark.parametrize(("pipeline", "kind", "guidance", "why"), WRONG)
def test_what_is_wrong_or_unknown_is_refused_with_its_reason(
    model: Model, pipeline: str, kind: str, guidance: float, why: str
) -> None:
    card = model(pipeline, balanced=cache(kind))
    with pytest.raises(InvalidRequest) as caught:
        resolve(card, "balanced", guidance=guidance)
    error = caught.value
    assert why in error.message
    assert kind in error.message
    assert "lossless" in error.hints[0]
    assert error.problems[0].field == "acceleration"
    assert resolve(card, "lossless", guidance=guidance)[0].cache is None


RIGHT = [
    ("WanPipeline", "first_block", 5.0),
    ("WanImageToVideoPipeline", "taylor_seer", 5.0),
    ("WanPipeline", "pyramid", 1.0),
    ("WanVACEPipeline", "taylor_seer", 5.0),
    ("HunyuanVideo15Pipeline", "mag", 6.0),
    ("SkyReelsV2Pipeline", "first_block", 6.0),
    ("LTXPipeline", "pyramid", 3.0),
    ("HunyuanVideoFramepackPipeline", "first_block", 6.0),
    ("AnimateDiffPipeline", "pyramid", 7.5),
    ("StableVideoDiffusionPipeline", "pyramid", 3.0),
]


@pytest.mark.parametrize(("pipeline", "kind", "guidance"), RIGHT)
def test_what_works_is_allowed(model: Model, pipeline: str, kind: str, guidance: float) -> None:
    speed, _ = resolve(model(pipeline, balanced=cache(kind)), "balanced", guidance=guidance)
    assert speed.cache == cache(kind)


@pytest.mark.parametrize(
    ("pipeline", "kind", "settings", "why"),
    [
        ("LTXPipeline", "taylor_seer", {"cache_interval": 3}, "do nothing"),
        ("WanPipeline", "taylor_seer", {"use_lite_mode": False}, "do nothing"),
        ("WanVACEPipeline", "taylor_seer", {"cache_identifiers": ["x"]}, "lite"),
        ("WanPipeline", "mag", {"threshold": 0.1}, "mag_ratios"),
        ("LTXPipeline", "pyramid", {"spatial_attention_timestep_skip_range": [1, 2]}, "range"),
        (
            "StableVideoDiffusionPipeline",
            "pyramid",
            {"spatial_attention_block_skip_range": 2},
            "log",
        ),
    ],
)
def test_settings_without_which_it_would_do_nothing_are_missed(
    model: Model, pipeline: str, kind: str, settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        check_cache(model(pipeline), "t2v", cache(kind, **settings), 1.0)


def test_the_data_speaks_of_what_diffusers_has() -> None:
    known = _known()
    classes = [name for entry in known.pipelines for name in entry.classes]
    assert len(classes) == len(set(classes))
    for name in classes:
        assert isinstance(getattr(diffusers, name), type)
    for entry in known.pipelines:
        for verdict in entry.caches.values():
            assert verdict.works == "always" or verdict.why
            if verdict.works == "unguided":
                assert entry.guidance == "split"
    backends = {b.value for b in diffusers.models.attention_dispatch.AttentionBackendName}
    assert set(known.attention) <= backends


def test_every_packaged_card_names_only_what_is_known() -> None:
    for card in Catalog.load():
        assert set(card.acceleration.attention) <= set(_known().attention), card.id
        for level in (card.acceleration.balanced, card.acceleration.fast):
            if level is None:
                continue
            assert level.kind in get_args(CacheKind)
            for task in card.pipelines:
                check_cache(card, task, level, card.guidance.default)
