from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, LTXConditionPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from kinoloom.backends.base import Lora, Speed
from kinoloom.backends.local.lora import _component, _state, apply_loras
from kinoloom.backends.local.speed import apply_speed
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import StepCache
from kinoloom.errors import InvalidRequest, MissingPackage, ModelBroken

pytestmark = pytest.mark.usefixtures("one_thread")

Q, FF = "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.ff.net.0.proj"
MODULES = (Q, FF, "proj_out")
RANK = 2


@pytest.fixture(scope="module")
def loaded(tiny_card: ModelCard) -> Any:
    pipe = LTXConditionPipeline.from_pretrained(str(tiny_card.source.folder), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(loaded: Any) -> Iterator[Any]:
    """A pipeline that is without LoRAs before and after the test."""
    yield loaded
    apply_speed(loaded, Speed(), 1)
    apply_loras(loaded, ())


def render(pipe: Any, steps: int = 2) -> np.ndarray:
    with torch.inference_mode():
        return pipe(
            prompt="a red ball rolling",
            width=64,
            height=64,
            num_frames=9,
            guidance_scale=2.0,
            num_inference_steps=steps,
            max_sequence_length=16,
            image_cond_noise_scale=0.0,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
        ).frames.numpy()


def matrices(pipe: Any, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Two thin matrices for each of some modules, strong enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in MODULES:
        rows, columns = pipe.transformer.get_submodule(name).weight.shape
        found[name] = (
            torch.randn(RANK, columns, generator=generator),
            torch.randn(rows, RANK, generator=generator),
        )
    return found


def save(
    file: Path,
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]],
    prefix: str = "transformer.",
    ends: tuple[str, str] = (".lora_A.weight", ".lora_B.weight"),
    alpha: float | None = None,
    metadata: dict[str, Any] | None = None,
) -> Path:
    tensors = {}
    for name, (down, up) in pairs.items():
        stem = prefix + (name.replace(".", "_") if prefix.endswith("_") else name)
        tensors |= {stem + ends[0]: down.clone(), stem + ends[1]: up.clone()}
        if alpha is not None:
            tensors[stem + ".alpha"] = torch.tensor(alpha)
    note = {"lora_adapter_metadata": json.dumps(metadata)} if metadata else None
    save_file(tensors, file, metadata=note)
    return file


def merged(pipe: Any, parts: list[tuple[dict[str, Any], float]]) -> np.ndarray:
    """What the model gives when the LoRAs' products are added to its own weights."""
    before = {name: pipe.transformer.get_submodule(name).weight.clone() for name in MODULES}
    with torch.no_grad():
        for pairs, strength in parts:
            for name, (down, up) in pairs.items():
                pipe.transformer.get_submodule(name).weight += strength * (up @ down)
        made = render(pipe)
        for name, weight in before.items():
            pipe.transformer.get_submodule(name).weight.copy_(weight)
    return made


@pytest.mark.parametrize(
    ("form", "strength"),
    [
        ({}, 1.0),
        ({"prefix": "", "ends": (".lora_A.default.weight", ".lora_B.default.weight")}, 1.0),
        ({"prefix": "diffusion_model."}, 1.0),
        (
            {
                "prefix": "lora_unet_",
                "ends": (".lora_down.weight", ".lora_up.weight"),
                "alpha": 1.0,
            },
            0.5,
        ),
        ({"metadata": {"transformer.r": 2, "transformer.lora_alpha": 6}}, 3.0),
    ],
    ids=["diffusers", "peft", "comfyui", "kohya", "noted alpha"],
)
def test_every_form_adds_its_product_to_the_weights(
    pipe: Any, tmp_path: Path, form: dict[str, Any], strength: float
) -> None:
    pairs = matrices(pipe, 1)
    file = save(tmp_path / "look.safetensors", pairs, **form)
    plain = render(pipe)
    apply_loras(pipe, [Lora("look", file, 0.6)])
    with_it = render(pipe)
    apply_loras(pipe, [])
    assert np.array_equal(render(pipe), plain)
    assert np.abs(with_it - plain).max() > 0.01
    np.testing.assert_allclose(with_it, merged(pipe, [(pairs, 0.6 * strength)]), atol=1e-4)


def test_several_with_their_weights_come_and_go(pipe: Any, tmp_path: Path) -> None:
    first, second = matrices(pipe, 1), matrices(pipe, 2)
    a = save(tmp_path / "a.safetensors", first)
    b = save(tmp_path / "b.safetensors", {Q: second[Q]})
    plain = render(pipe)
    apply_loras(pipe, [Lora("a", a, 0.5), Lora("b", b, -1.0)])
    both = render(pipe)
    np.testing.assert_allclose(
        both, merged_without(pipe, [(first, 0.5), ({Q: second[Q]}, -1.0)]), atol=1e-4
    )
    apply_loras(pipe, [Lora("a", a, 0.5)])
    alone = render(pipe)
    apply_loras(pipe, [])
    assert np.array_equal(render(pipe), plain)
    apply_loras(pipe, [Lora("a", a, 0.5)])
    assert np.array_equal(render(pipe), alone)  # as if the other had never been there
    apply_loras(pipe, [Lora("a", a, 0.25), Lora("a", a, 0.25)])
    np.testing.assert_allclose(render(pipe), alone, atol=1e-5)


def merged_without(pipe: Any, parts: list[tuple[dict[str, Any], float]]) -> np.ndarray:
    apply_loras(pipe, [])
    return merged(pipe, parts)


def test_the_same_again_stays_and_a_changed_file_is_read_anew(pipe: Any, tmp_path: Path) -> None:
    file, other = tmp_path / "look.safetensors", matrices(pipe, 5)
    save(file, matrices(pipe, 1))
    apply_loras(pipe, [Lora("look", file)])
    layer = pipe.transformer.get_submodule(Q)
    weights = next(iter(layer.lora_A.values())).weight
    first = render(pipe)
    apply_loras(pipe, [Lora("look", file, 0.5)])
    assert next(iter(pipe.transformer.get_submodule(Q).lora_A.values())).weight is weights
    assert not np.array_equal(render(pipe), first)
    save(file, {Q: other[Q]})
    apply_loras(pipe, [Lora("look", file)])
    np.testing.assert_allclose(
        render(pipe), merged_without(pipe, [({Q: other[Q]}, 1.0)]), atol=1e-4
    )


def test_a_step_cache_works_over_a_lora_and_both_come_off(pipe: Any, tmp_path: Path) -> None:
    file = save(tmp_path / "look.safetensors", matrices(pipe, 1))
    plain = render(pipe, 6)
    cache = StepCache(
        kind="taylor_seer",
        settings={"use_lite_mode": True, "cache_interval": 3, "disable_cache_before_step": 2},
    )
    apply_loras(pipe, [Lora("look", file)])
    whole = render(pipe, 6)
    apply_speed(pipe, Speed(cache=cache), 6)
    fast = render(pipe, 6)
    assert not np.array_equal(fast, whole)
    apply_loras(pipe, [])  # below the cache's hooks, which therefore come off
    assert np.array_equal(render(pipe, 6), plain)
    apply_speed(pipe, Speed(cache=cache), 6)
    apply_loras(pipe, [Lora("look", file)])
    assert np.array_equal(render(pipe, 6), whole)
    apply_speed(pipe, Speed(cache=cache), 6)
    assert np.array_equal(render(pipe, 6), fast)


def test_one_of_another_model_leaves_the_pipeline_as_it_was(pipe: Any, tmp_path: Path) -> None:
    other = {"blocks.0.attn1.to_q": (torch.ones(2, 24), torch.ones(24, 2))}
    good = save(tmp_path / "good.safetensors", matrices(pipe, 1))
    bad = save(tmp_path / "bad.safetensors", other)
    plain = render(pipe)
    with pytest.raises(InvalidRequest, match="another model"):
        apply_loras(pipe, [Lora("bad", bad)])
    assert np.array_equal(render(pipe), plain)
    apply_loras(pipe, [Lora("good", good)])
    with pytest.raises(InvalidRequest, match="another model"):
        apply_loras(pipe, [Lora("good", good), Lora("bad", bad)])
    apply_loras(pipe, [])
    assert np.array_equal(render(pipe), plain)


def test_rows_that_were_one_are_given_to_their_modules(tmp_path: Path) -> None:
    transformer = FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    down, up = torch.randn(2, 16), torch.randn(16 * 3 + 64, 2)
    stem = "lora_unet_single_blocks_0_linear1"
    file = tmp_path / "look.safetensors"
    save_file(
        {
            f"{stem}.lora_down.weight": down,
            f"{stem}.lora_up.weight": up,
            f"{stem}.alpha": torch.tensor(4.0),
        },
        file,
    )
    state = _state(Lora("look", file), transformer)
    block = "single_transformer_blocks.0"
    parts = [f"{block}.attn.to_q", f"{block}.attn.to_k", f"{block}.attn.to_v", f"{block}.proj_mlp"]
    assert set(state) == {f"{p}.lora_{m}.weight" for p in parts for m in "AB"}
    for part in parts:
        assert torch.equal(state[f"{part}.lora_A.weight"], down * 2)
    assert torch.equal(torch.cat([state[f"{p}.lora_B.weight"] for p in parts]), up)


def test_convolutions_of_a_unet(tmp_path: Path) -> None:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=8,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    stem = "lora_unet_down_blocks_0_resnets_0_conv1"
    file = tmp_path / "look.safetensors"
    tensors = {
        f"{stem}.lora_down.weight": torch.randn(2, 8, 3, 3),
        f"{stem}.lora_up.weight": torch.randn(8, 2, 1, 1),
    }
    save_file(tensors, file)
    state = _state(Lora("look", file, component="transformer"), unet)
    target = "down_blocks.0.resnets.0.conv1"
    assert torch.equal(state[f"{target}.lora_A.weight"], tensors[f"{stem}.lora_down.weight"])
    assert torch.equal(state[f"{target}.lora_B.weight"], tensors[f"{stem}.lora_up.weight"])


def test_the_component_of_a_lora() -> None:
    lora = Lora("look", Path("look.safetensors"))
    assert _component(lora, ["transformer", "transformer_2"]) == "transformer"
    assert _component(lora, ["unet"]) == "unet"
    second = Lora("low", Path("low.safetensors"), component="transformer_2")
    assert _component(second, ["transformer", "transformer_2"]) == "transformer_2"
    with pytest.raises(ModelBroken, match="transformer_2"):
        _component(second, ["transformer"])


def test_a_file_that_went_away_is_named(pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match="look"):
        apply_loras(pipe, [Lora("look", tmp_path / "look.safetensors")])


def test_the_missing_package_is_named(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinoloom.backends.local.lora.find_spec", lambda _: None)
    file = save(tmp_path / "look.safetensors", matrices(pipe, 1))
    with pytest.raises(MissingPackage, match="LoRAs") as caught:
        apply_loras(pipe, [Lora("look", file)])
    assert "peft" in caught.value.cause
    apply_loras(pipe, [])  # without LoRAs it is not needed
