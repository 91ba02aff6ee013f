"""Are the transformer's hidden states told the truth about the object?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.spark import vae as vae_module
from training.spark.bank import CELL, SMALL, WHOLE, Bank, Sample, batch_size, track_of
from training.spark.landmarks import LAYER, SHAPES, Landmarks, Truth, listening
from training.spark.transformer import build
from training.spark.world import WORLD, Scene, render

ROWS, COLUMNS, TIMES = 4, 5, 3


def sample(track: list[list[float]], shape: str = "star") -> Sample:
    """A sample with nothing in it but a track."""
    latents = torch.zeros(vae_module.LATENT_CHANNELS, TIMES, ROWS, COLUMNS)
    return Sample(
        Scene("red", shape, "small", "right", "grass"),
        latents,
        latents[:, -1:],
        torch.zeros(TIMES, ROWS, COLUMNS),
        torch.tensor(track),
    )


def test_a_track_is_where_the_renderer_put_the_object() -> None:
    scene = Scene("blue", "ball", "medium", "right", "snow", seed=5)
    _, masks = render(scene, 17)
    track = track_of(masks)
    assert track.shape == (TIMES, 6)
    assert torch.equal(track[0, :2], track[0, 2:4])  # one frame
    for latent, (first, last) in enumerate([(0, 0), (1, 8), (9, 16)]):
        for column, frame in ((0, first), (2, last)):
            y, x = np.argwhere(masks[frame] > 127).mean(0)
            assert track[latent, column : column + 2].tolist() == pytest.approx([x, y], abs=0.01)
    assert 20 < track[:, 4:].min() <= track[:, 4:].max() < 28  # pixels, of a medium ball


def test_what_cannot_be_seen_has_no_place() -> None:
    masks = np.zeros((9, 32, 32), np.uint8)
    masks[0, 8:24, 8:24] = 255
    track = track_of(masks)
    assert track[0].isfinite().all()
    assert track[1].isnan().all()
    assert Truth([sample(torch.cat([track, track[1:]]).tolist())], "cpu").weight.isfinite().all()


def test_each_token_is_told_how_far_the_object_is() -> None:
    still = [[40.0, 24.0, 40.0, 24.0, 16.0, 16.0]]
    truth = Truth([sample([*still, [40.0, 24.0, 72.0, 24.0, 16.0, 16.0], *still])], "cpu")
    marks = truth.marks.reshape(TIMES, ROWS, COLUMNS, 6) * 32  # pixels again
    own = marks[:, 1, 2]  # the cell from (32, 16) to (48, 32), whose middle is the object's
    assert own[0].tolist() == [0, 0, 0, 0, 16, 16]
    assert own[1].tolist() == [0, 0, 32, 0, 16, 16]
    assert marks[0, 0, 0].tolist() == [32, CELL, 32, CELL, 16, 16]
    weight = truth.weight.reshape(TIMES, ROWS, COLUMNS)
    assert weight[0, 1, 2] > 1.5 * weight[0, 3, 0]
    assert truth.shapes.eq(SHAPES.index("star")).all()


def test_the_loss_is_smallest_for_the_truth() -> None:
    truth = Truth([sample([[40.0, 24.0, 50.0, 24.0, 16.0, 14.0]] * TIMES)], "cpu")
    sure = 20.0 * torch.nn.functional.one_hot(truth.shapes, len(SHAPES))
    right = truth.loss(truth.marks, sure)
    assert right < 1e-6
    assert truth.loss(truth.marks + 0.5, sure) > right + 0.1
    assert truth.loss(truth.marks, sure.roll(1, -1)) > right + 1


def test_the_head_hears_the_hidden_states_and_teaches_them() -> None:
    torch.manual_seed(0)
    transformer, _ = build()
    head = Landmarks(transformer.proj_in.out_features)
    tokens = torch.randn(1, 6, vae_module.LATENT_CHANNELS)
    with listening(transformer) as heard:
        transformer(
            hidden_states=tokens,
            encoder_hidden_states=torch.randn(1, 3, 128),
            timestep=torch.full((1, 6), 500.0),
            encoder_attention_mask=torch.ones(1, 3),
            video_coords=torch.rand(1, 3, 6),
            return_dict=False,
        )
    (hidden,) = heard
    sum(said.sum() for said in head(hidden)).backward()
    taught = [b.ff.net[0].proj.weight.grad is not None for b in transformer.transformer_blocks]
    assert taught == [i <= LAYER for i in range(len(taught))]
    assert not transformer.transformer_blocks[LAYER]._forward_hooks


def test_a_bank_of_small_pictures_has_things_as_large_as_ever() -> None:
    torch.manual_seed(0)
    vae = vae_module.build().eval()
    bank = Bank(vae, 100, SMALL)
    bank.add(np.random.default_rng(1), 9, 2)
    (first, second) = bank.draw(np.random.default_rng(0), 9, 2)
    for made in (first, second):
        assert made.latents.shape[1:] == (2, SMALL[1] // CELL, SMALL[0] // CELL)
        assert made.cover.shape == made.latents.shape[1:]
    _, masks = render(Scene("red", "ball", "large", "still", "grass"), 1, *SMALL)
    low, high = WORLD["sizes"]["large"]["radius"]
    assert low - 1 < float(track_of(masks)[0, 4]) < high + 1


def test_a_batch_has_about_as_many_tokens_whatever_the_size() -> None:
    assert batch_size(25, WHOLE, 1) == 10
    assert batch_size(25, SMALL, 1) == 25
    assert batch_size(1, SMALL, 1) == 64
    assert batch_size(25, WHOLE, 16) == 160
