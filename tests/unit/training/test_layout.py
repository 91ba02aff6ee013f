"""Does training lay tokens out exactly as diffusers' condition pipeline does at inference?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline

from training.spark import tokenizer as words
from training.spark import vae as vae_module
from training.spark.bank import Sample
from training.spark.transformer import Batch, build, coordinates, pack
from training.spark.world import FPS, Scene

FRAMES, HEIGHT, WIDTH = 17, 160, 64  # the height of spark, narrow to be quick
ROWS, COLUMNS, TIMES = HEIGHT // 16, WIDTH // 16, (FRAMES - 1) // 8 + 1
CELLS = ROWS * COLUMNS


@pytest.fixture(scope="module")
def pipe() -> LTXConditionPipeline:
    """Spark's own architecture with random weights."""
    torch.manual_seed(0)
    transformer, text_encoder = build()
    return LTXConditionPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae_module.build().eval(),
        text_encoder=text_encoder,
        tokenizer=words.build(),
        transformer=transformer,
    )


def prepare(
    pipe: LTXConditionPipeline, pictures: dict[int, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pipeline's latents, conditioning mask and coordinates in seconds and pixels."""
    with torch.inference_mode():
        latents, mask, coords, _ = pipe.prepare_latents(
            list(pictures.values()),
            [1.0] * len(pictures),
            list(pictures),
            batch_size=1,
            num_channels_latents=vae_module.LATENT_CHANNELS,
            height=HEIGHT,
            width=WIDTH,
            num_frames=FRAMES,
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
    coords = coords.float()
    coords[:, 0] = coords[:, 0] * (1.0 / FPS)
    return latents, mask, coords


def picture(seed: int, frames: int = 1) -> torch.Tensor:
    """A picture or a video [1, 3, frames, H, W] in -1..1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, frames, HEIGHT, WIDTH, generator=generator) * 2 - 1


def batch(seed: int) -> Batch:
    """A batch of one sample whose last frame's latents are all 7, its clip's 1, 2, 3 by time."""
    clip = torch.arange(1.0, TIMES + 1)[None, :, None, None]
    shape = (vae_module.LATENT_CHANNELS, TIMES, ROWS, COLUMNS)
    sample = Sample(
        Scene("red", "ball", "small", "still", "grass"),
        clip.expand(shape).clone(),
        torch.full((vae_module.LATENT_CHANNELS, 1, ROWS, COLUMNS), 7.0),
        torch.zeros(TIMES, ROWS, COLUMNS),
        torch.tensor([[24.0, 40.0, 24.0, 40.0, 15.0, 15.0]]).expand(TIMES, -1),
    )
    return Batch([sample], np.random.default_rng(seed), torch.Generator().manual_seed(seed), "cpu")


def test_coordinates_of_a_first_and_last_frame_are_the_pipelines(
    pipe: LTXConditionPipeline,
) -> None:
    _, mask, coords = prepare(pipe, {0: picture(1), FRAMES - 1: picture(2)})
    torch.testing.assert_close(coordinates(TIMES, ROWS, COLUMNS, last=True), coords[0])
    # The last frame's tokens come first, then the clip's, of which the first frame is given.
    assert mask[0, : 2 * CELLS].eq(1).all()
    assert mask[0, 2 * CELLS :].eq(0).all()


def test_coordinates_of_a_beginning_are_the_pipelines(pipe: LTXConditionPipeline) -> None:
    _, mask, coords = prepare(pipe, {0: picture(1, frames=9)})
    torch.testing.assert_close(coordinates(TIMES, ROWS, COLUMNS, last=False), coords[0])
    assert mask[0].reshape(TIMES, CELLS).eq(torch.tensor([1.0, 1.0, 0.0])[:, None]).all()


def test_tokens_are_packed_in_the_pipelines_order(pipe: LTXConditionPipeline) -> None:
    latents = torch.randn(2, vae_module.LATENT_CHANNELS, TIMES, ROWS, COLUMNS)
    assert torch.equal(pack(latents), pipe._pack_latents(latents, 1, 1))


def test_a_small_picture_is_a_corner_of_a_whole_one() -> None:
    whole = coordinates(TIMES, ROWS, COLUMNS, last=True).reshape(3, TIMES + 1, ROWS, COLUMNS)
    small = coordinates(TIMES, ROWS - 3, COLUMNS - 1, last=True)
    assert torch.equal(small.reshape(3, TIMES + 1, ROWS - 3, COLUMNS - 1), whole[:, :, :-3, :-1])


def test_batches_have_that_layout_with_and_without_a_last_frame() -> None:
    kinds = set()
    for seed in range(40):
        made = batch(seed)
        last = made.noisy.shape[1] == (TIMES + 1) * CELLS
        kinds.add(last)
        assert torch.equal(made.coordinates[0], coordinates(TIMES, ROWS, COLUMNS, last))
        given = made.timestep[0] == 0
        if last:
            assert given[:CELLS].all()
            # A little noise is allowed on what is given.
            assert (made.noisy[0, :CELLS].mean() - 7).abs() < 1
        # Nothing is learnt from tokens that are given, and something from all others.
        assert made.weight[0][given].eq(0).all()
        assert made.weight[0][~given].gt(0).all()
    assert kinds == {True, False}


def test_noisy_tokens_and_target_belong_together() -> None:
    for seed in range(10):
        made = batch(seed)
        sigma = made.timestep[0, -1] / 1000
        last_tokens = slice(-CELLS, None)
        clean = made.noisy[0, last_tokens] - sigma * made.target[0, last_tokens]
        torch.testing.assert_close(clean, torch.full_like(clean, float(TIMES)), atol=1e-3, rtol=0)
