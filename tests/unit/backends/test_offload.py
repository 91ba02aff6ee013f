from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, LTXConditionPipeline

from kinoloom.backends.base import Placement
from kinoloom.backends.local import offload
from kinoloom.errors import InvalidRequest

CPU = torch.device("cpu")


@pytest.fixture
def pipe(tiny_cards: Path, one_thread: None) -> Any:
    loaded = LTXConditionPipeline.from_pretrained(str(tiny_cards / "tiny"), dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def frames(pipe: Any, size: int = 64) -> Any:
    with torch.inference_mode():
        return pipe(
            prompt="a red ball",
            width=size,
            height=size,
            num_frames=9,
            num_inference_steps=2,
            guidance_scale=2.0,
            max_sequence_length=16,
            decode_timestep=0.0,
            image_cond_noise_scale=0.0,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).frames[0]


def hooks(pipe: Any) -> set[str]:
    """The names of all hooks on all layers."""
    modules = [c for c in pipe.components.values() if isinstance(c, torch.nn.Module)]
    registries = [getattr(m, "_diffusers_hook", None) for c in modules for m in c.modules()]
    return {name for registry in registries if registry is not None for name in registry.hooks}


@pytest.mark.parametrize("placement", ["resident", "group_offload", "sequential"])
def test_a_placement_changes_no_frame_and_leaves_nothing(pipe: Any, placement: Placement) -> None:
    plain = frames(pipe)
    assert offload.apply(pipe, placement, False, CPU, torch.float32) == ()
    assert bool(hooks(pipe)) == (placement != "resident")
    for _ in range(2):
        np.testing.assert_array_equal(frames(pipe), plain)
    assert offload.remove(pipe)
    assert hooks(pipe) == set()
    np.testing.assert_array_equal(frames(pipe), plain)


def test_only_what_is_large_comes_and_goes_in_groups(pipe: Any) -> None:
    def moving() -> set[str]:
        return {
            name
            for name in ("transformer", "text_encoder", "vae")
            for part in getattr(pipe, name).modules()
            if getattr(part, "_diffusers_hook", None) is not None and part._diffusers_hook.hooks
        }

    offload.apply(pipe, "group_offload", False, CPU, torch.float32)
    assert moving() == {"transformer", "text_encoder"}
    offload.apply(pipe, "sequential", False, CPU, torch.float32)
    assert moving() == {"transformer", "text_encoder", "vae"}
    offload.apply(pipe, "resident", False, CPU, torch.float32)
    assert moving() == set()


def test_eight_bits_are_half_the_weights_and_change_the_frames(pipe: Any) -> None:
    plain = frames(pipe)
    offload.apply(pipe, "fp8", False, CPU, torch.float32)
    dtypes = {p.dtype for p in pipe.transformer.parameters()}
    assert torch.float8_e4m3fn in dtypes
    assert {p.dtype for p in pipe.vae.parameters()} == {torch.float32}
    changed = frames(pipe)
    assert 0 < np.abs(changed - plain).mean() < 0.05
    offload.apply(pipe, "fp8", True, CPU, torch.float32)  # again, for another take
    np.testing.assert_array_equal(frames(pipe), changed)


def test_eight_bits_do_not_come_back(pipe: Any) -> None:
    offload.apply(pipe, "fp8", False, CPU, torch.float32)
    assert not offload.remove(pipe)
    with pytest.raises(ValueError, match="anew"):
        offload.apply(pipe, "resident", False, CPU, torch.float32)


def test_a_cpu_has_nowhere_to_move_components_to(pipe: Any) -> None:
    with pytest.raises(InvalidRequest) as failure:
        offload.apply(pipe, "model_offload", False, CPU, torch.float32)
    assert failure.value.problems[0].nearest == "resident"
    frames(pipe)  # and nothing is broken by it


def test_tiles_are_on_for_one_take_only(pipe: Any) -> None:
    plain = frames(pipe, 96)
    # Smaller tiles than the clip, so that there are several.
    pipe.vae.tile_sample_min_height = pipe.vae.tile_sample_min_width = 64
    pipe.vae.tile_sample_stride_height = pipe.vae.tile_sample_stride_width = 32
    assert offload.apply(pipe, "resident", True, CPU, torch.float32) == ()
    tiled = frames(pipe, 96)
    assert tiled.shape == plain.shape
    assert np.abs(tiled - plain).max() > 0
    offload.apply(pipe, "resident", False, CPU, torch.float32)
    np.testing.assert_array_equal(frames(pipe, 96), plain)


def test_a_vae_without_tiles_is_said(pipe: Any) -> None:
    pipe.vae = AutoencoderKLTemporalDecoder(block_out_channels=(32,), layers_per_block=1)
    (note,) = offload.apply(pipe, "resident", True, CPU, torch.float32)
    assert "AutoencoderKLTemporalDecoder" in note
    assert offload.remove(pipe)
