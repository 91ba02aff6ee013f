from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from kinoloom.backends.base import Inputs
from kinoloom.backends.local.families.skyreels import OVERLAP, windows_of
from kinoloom.errors import ModelBroken
from kinoloom.request import Task
from tiny_models import skyreels
from tiny_models.drive import CONTEXT, Bare, given

pytestmark = pytest.mark.usefixtures("one_thread")

Open = Callable[[str, Task], Bare]
TASKS: list[tuple[str, Task]] = [
    ("skyreels-v2-t2v", "t2v"),
    ("skyreels-v2-i2v", "i2v"),
    ("skyreels-v2-df", "t2v"),
    ("skyreels-v2-df", "i2v"),
    ("skyreels-v2-df", "extend"),
]
every_task = pytest.mark.parametrize(("model", "task"), TASKS)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """A tiny model's pipeline for a task, loaded once."""
    folder = tmp_path_factory.mktemp("skyreels")
    skyreels.cards(folder)
    return cache(lambda model, task: Bare(folder / f"tiny-{model}.yaml", task))


@every_task
def test_words_and_media_change_the_frames(bare: Open, model: str, task: Task) -> None:
    tiny = bare(model, task)
    frames, _ = tiny.first
    assert frames.shape == (tiny.take.frames, 32, 32, 3)
    assert frames.std() > 0.05
    other = tiny.frames(given(task, 1), tiny.words(prompt="blue squares at night"))
    assert np.abs(frames - other).mean() > 0.002
    if task != "t2v":
        assert np.abs(frames - tiny.frames(given(task, 2))).mean() > 0.005


@every_task
def test_embeddings_give_what_the_prompt_gives(bare: Open, model: str, task: Task) -> None:
    tiny = bare(model, task)
    inputs = given(task, 1)
    arguments = tiny.family.arguments(tiny.pipe, tiny.take, inputs)
    assert arguments.pop("prompt") is None  # the pipeline for words has no default for it
    torch.manual_seed(tiny.take.seed)
    output = tiny.pipe(
        **arguments | tiny.recipe.arguments,
        prompt=tiny.take.prompt,
        negative_prompt=tiny.take.negative,
        generator=torch.Generator("cpu").manual_seed(tiny.take.seed),
        output_type="np",
    )
    assert np.array_equal(tiny.first[0], tiny.family.frames(output))


@every_task
def test_latents_are_what_the_vae_decodes(bare: Open, model: str, task: Task) -> None:
    tiny = bare(model, task)
    frames, last = tiny.first
    raw = tiny.family.latents(tiny.pipe, tiny.take, last)
    with torch.no_grad():
        decoded = tiny.pipe.vae.decode(raw[None]).sample[0]
    pixels = (decoded.permute(1, 2, 3, 0).numpy() / 2 + 0.5).clip(0, 1)
    assert np.allclose(pixels, frames, atol=1e-4)


@pytest.mark.parametrize("task", ["t2v", "i2v", "extend"])
@pytest.mark.parametrize("frames", [97, 101])
def test_every_step_of_every_window_is_counted(bare: Open, task: Task, frames: int) -> None:
    tiny = bare("skyreels-v2-df", task)
    indices: list[int] = []

    def seen(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        indices.append(index)
        return tensors

    take = replace(tiny.take, frames=frames, steps=1)
    made = tiny.frames(given(task, 1), seen=seen, frames=frames, steps=1)
    assert made.shape == (frames, 32, 32, 3)
    windows = 1 if frames == 97 else 2
    assert indices == [0] * windows
    assert tiny.family.steps(tiny.pipe, take) == windows


@pytest.mark.parametrize(("size", "trained"), [((960, 544), 97), ((1280, 720), 121)])
def test_windows_are_of_one_size_and_few(bare: Open, size: tuple[int, int], trained: int) -> None:
    tiny = bare("skyreels-v2-df", "t2v")
    for frames in range(1, 1458, 4):
        take = replace(tiny.take, width=size[0], height=size[1], frames=frames)
        windows = windows_of(tiny.pipe, take)
        assert OVERLAP < windows.size <= trained
        assert frames <= windows.frames < frames + 4 * windows.count
        most = OVERLAP + (windows.count - 1) * (trained - OVERLAP)
        assert windows.count == 1 or most < frames  # one window fewer would not do
        if windows.count > 1:
            # Latent frames are four frames, and the first is one.
            assert (windows.frames - 17) == windows.count * (windows.size - 17)


def test_a_short_video_is_continued_after_a_long_one(bare: Open) -> None:
    tiny = bare("skyreels-v2-df", "extend")
    longer = Inputs(video=np.concatenate([given("extend", s).video for s in (1, 2)])[:9])  # type: ignore[list-item]
    first, _ = tiny.first
    assert tiny.frames(longer, frames=13).shape[0] == 13
    assert np.array_equal(first, tiny.frames(given("extend", 1)))


def test_more_context_than_a_window_takes_over_is_refused(bare: Open) -> None:
    tiny = bare("skyreels-v2-df", "extend")
    video = np.zeros((OVERLAP + CONTEXT, 32, 32, 3), np.uint8)
    with pytest.raises(ModelBroken, match="continues 17 frames of a video, not 22") as found:
        tiny.family.arguments(tiny.pipe, tiny.take, Inputs(video=video))
    assert "context_frames" in found.value.hints[0]


def test_other_pipelines_are_not_asked_for_windows(bare: Open) -> None:
    tiny = bare("skyreels-v2-t2v", "t2v")
    arguments = tiny.family.arguments(tiny.pipe, tiny.take, Inputs())
    assert not {"base_num_frames", "overlap_history"} & set(arguments)
    assert tiny.family.steps(tiny.pipe, replace(tiny.take, frames=401)) == tiny.take.steps


@pytest.mark.parametrize(
    ("model", "level", "frames", "windows"),
    [
        ("skyreels-v2-t2v", "balanced", 5, 1),
        ("skyreels-v2-t2v", "fast", 5, 1),
        ("skyreels-v2-df", "fast", 101, 2),
    ],
)
def test_the_step_caches_save_work(
    bare: Open, model: str, level: str, frames: int, windows: int
) -> None:
    tiny = bare(model, "t2v")
    found = tiny.passes(getattr(tiny.card.acceleration, level), Inputs(), steps=8, frames=frames)
    assert 0 < found < 2 * 8 * windows  # a step is two passes
    # Each window begins anew: what is cached belongs to the one before.
    assert found % windows == 0
